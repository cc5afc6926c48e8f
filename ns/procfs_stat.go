package ns

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Stat is a process as /proc/PID/stat has it. See proc_pid_stat(5).
type Stat struct {
	Pid       int
	Name      string // of the command, at most 15 bytes; the process may choose any
	State     byte   // R S D T t Z X I
	Ppid      int
	Pgrp      int
	Session   int
	TTY       int    // device number of the terminal, 0 none
	Flags     uint64 // the kernel's PF_ flags of the first thread
	Utime     uint64 // clock ticks (1/100 s), of all threads
	Stime     uint64
	Cutime    uint64 // of the children that it waited for
	Cstime    uint64
	Nice      int
	Threads   int
	Start     uint64 // clock ticks since boot
	RSS       int64  // pages
	ExitCode  int    // a wait status; 0 also where the reader may not know it
	Processor int
}

// Stat reads the process's state.
func (p *Process) Stat() (Stat, error) {
	text, err := p.read("stat", maxText)
	if err != nil {
		return Stat{}, err
	}
	st, err := parseStat(text)
	if err != nil {
		return Stat{}, fmt.Errorf("process %d: stat: %w", p.pid, err)
	}
	return st, nil
}

// Ending reports whether the process makes no child any more: it has ended, or every thread of it is on its way out,
// which the kernel's tracepoint of exits tells of long before the state is Z.
func (p *Process) Ending() bool {
	tids, err := numbers(p.path("task"))
	if err != nil {
		return true
	}
	for _, tid := range tids {
		text, err := readFile(p.path("task/"+strconv.Itoa(tid)+"/stat"), maxText)
		if err != nil {
			continue
		}
		const exiting = 0x4 // PF_EXITING
		if st, err := parseStat(text); err == nil && st.Flags&exiting == 0 {
			return !p.Alive() // or it is another's number
		}
	}
	return true
}

func parseStat(text []byte) (st Stat, err error) {
	// The name may hold blanks, parentheses and newlines: the last parenthesis ends it.
	open, shut := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 1 || shut < open {
		return st, fmt.Errorf("no name in %.64q", text)
	}
	st.Name = string(text[open+1 : shut])
	f := bytes.Fields(text[shut+1:]) // f[0] is field 3 of the manual page
	if len(f) < 50 || len(f[0]) != 1 {
		return st, fmt.Errorf("%d fields", len(f)+2)
	}
	st.State = f[0][0]
	num := func(i int) int64 {
		n, e := strconv.ParseInt(string(f[i-3]), 10, 64)
		if e != nil && err == nil {
			err = fmt.Errorf("field %d: %w", i, e)
		}
		return n
	}
	pid, err := decimal(bytes.TrimSpace(text[:open]))
	st.Pid = pid
	st.Ppid, st.Pgrp, st.Session, st.TTY = int(num(4)), int(num(5)), int(num(6)), int(num(7))
	st.Flags = uint64(num(9))
	st.Utime, st.Stime = uint64(num(14)), uint64(num(15))
	st.Cutime, st.Cstime = uint64(num(16)), uint64(num(17))
	st.Nice, st.Threads = int(num(19)), int(num(20))
	st.Start, st.RSS = uint64(num(22)), num(24)
	st.Processor, st.ExitCode = int(num(39)), int(num(52))
	return st, err
}

// Status is what /proc/PID/status has beyond Stat. See proc_pid_status(5).
type Status struct {
	Umask          int       // -1 where the kernel does not say
	Uid, Gid       [4]uint32 // real, effective, saved, file system
	Groups         []uint32
	NSPid          []int // the process's number in each pid namespace, the reader's first
	TracerPid      int
	RSS            int64 // bytes; -1 without memory (zombies, kernel threads)
	SigBlk, SigIgn uint64
	SigCgt         uint64
	CapInh, CapPrm uint64
	CapEff, CapBnd uint64
	CapAmb         uint64
	NoNewPrivs     bool
	Seccomp        int // 0 none, 1 strict, 2 filter
}

// Status reads the process's credentials and masks.
func (p *Process) Status() (Status, error) {
	// Groups alone may be 65,536 numbers.
	text, err := p.read("status", 1<<20)
	if err != nil {
		return Status{}, err
	}
	s, err := parseStatus(text)
	if err != nil {
		return Status{}, fmt.Errorf("process %d: status: %w", p.pid, err)
	}
	return s, nil
}

// parseStatus takes the lines that it knows: kernels differ in the others. The name is escaped by the kernel
// and cannot break its line. Credentials must be there.
func parseStatus(text []byte) (Status, error) {
	s := Status{Umask: -1, RSS: -1}
	seen := 0
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			return s, fmt.Errorf("line %.64q", line)
		}
		value = strings.TrimSpace(value)
		var err error
		hex := func(m *uint64) { *m, err = strconv.ParseUint(value, 16, 64) }
		switch key {
		case "Umask":
			var n uint64
			n, err = strconv.ParseUint(value, 8, 16)
			s.Umask = int(n)
		case "Uid":
			seen |= 1
			err = ids(s.Uid[:], value)
		case "Gid":
			seen |= 2
			err = ids(s.Gid[:], value)
		case "Groups":
			s.Groups = make([]uint32, len(strings.Fields(value)))
			err = ids(s.Groups, value)
		case "NSpid":
			for _, w := range strings.Fields(value) {
				var n int
				if n, err = strconv.Atoi(w); err != nil {
					break
				}
				s.NSPid = append(s.NSPid, n)
			}
		case "TracerPid":
			s.TracerPid, err = strconv.Atoi(value)
		case "VmRSS":
			s.RSS, err = strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 53)
			s.RSS <<= 10
		case "SigBlk":
			hex(&s.SigBlk)
		case "SigIgn":
			hex(&s.SigIgn)
		case "SigCgt":
			hex(&s.SigCgt)
		case "CapInh":
			hex(&s.CapInh)
		case "CapPrm":
			hex(&s.CapPrm)
		case "CapEff":
			hex(&s.CapEff)
		case "CapBnd":
			hex(&s.CapBnd)
		case "CapAmb":
			hex(&s.CapAmb)
		case "NoNewPrivs":
			s.NoNewPrivs = value == "1"
		case "Seccomp":
			s.Seccomp, err = strconv.Atoi(value)
		}
		if err != nil {
			return s, fmt.Errorf("%s: %w", key, err)
		}
	}
	if seen != 3 {
		return s, fmt.Errorf("no credentials")
	}
	return s, nil
}

func ids(dst []uint32, value string) error {
	w := strings.Fields(value)
	if len(w) != len(dst) {
		return fmt.Errorf("%d numbers, not %d", len(w), len(dst))
	}
	for i := range w {
		n, err := strconv.ParseUint(w[i], 10, 32)
		if err != nil {
			return err
		}
		dst[i] = uint32(n)
	}
	return nil
}
