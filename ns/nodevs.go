package ns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NoDevs lets the process, and those that it makes from now on, open no devices but null, zero, full, random, urandom,
// tty, ptmx and pts, whatever they mount or make. What is open stays open. Its threads may be many and its rights few: it
// gets a control group of its own, below the one that it is in, with a BPF program of the kind that decides about
// devices. One who may write cgroup.procs of another group can leave it: that is root where the cgroups are
// writable. The error is errors.ErrUnsupported where there is no cgroup version 2 or no such program.
//
// undo puts the process back; it must be called before the next NoDevs of it, or not at all.
func NoDevs(p *Process) (undo func(), err error) {
	c, err := FindCgroups("")
	if err != nil {
		return nil, err
	}
	in, err := p.Cgroups()
	if err != nil {
		return nil, err
	}
	here, ok := "", false
	for _, m := range in {
		if c.v2 != nil && m.Hierarchy == Unified {
			here, ok = c.v2.dir(m.Path)
		}
	}
	if !ok {
		return nil, fmt.Errorf("nodevs: no cgroup version 2: %w", errors.ErrUnsupported)
	}
	if strings.HasPrefix(filepath.Base(here), noDevs) { // it has been done to it, or to its parent
		return func() {}, nil
	}
	// Groups that are empty are removed by who made them, but that server may be gone.
	if old, err := filepath.Glob(filepath.Join(here, noDevs+"*")); err == nil {
		for _, dir := range old {
			unix.Rmdir(dir)
		}
	}
	dir := filepath.Join(here, noDevs+strconv.FormatUint(p.ID(), 10))
	if err := os.Mkdir(dir, 0755); err != nil {
		return nil, fmt.Errorf("nodevs: %w", err)
	}
	f, err := os.Open(dir)
	if err == nil {
		if err = attachNoDevs(f); err == nil {
			if err = write(f, "cgroup.procs", strconv.Itoa(p.pid)); err == nil {
				err = p.Check()
			}
		}
		if err != nil {
			f.Close()
		}
	}
	if err != nil {
		unix.Rmdir(dir)
		if errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
		return nil, fmt.Errorf("nodevs: %w", err)
	}
	back := func() {
		if d, err := os.Open(here); err == nil {
			write(d, "cgroup.procs", strconv.Itoa(p.pid))
			d.Close()
		}
	}
	go func() { // the group goes with the last process in it
		defer f.Close()
		if waitProcs(context.Background(), f) == nil {
			unix.Rmdir(dir)
		}
	}()
	return back, nil
}

// noDevs is how the names of the groups begin.
const noDevs = "nodevs-"

// insn is struct bpf_insn.
type insn struct {
	op, regs uint8 // registers: destination, source << 4
	off      int16
	imm      int32
}

// deviceProgram answers 1 for a device that may be opened, or made without being opened. It gets struct
// bpf_cgroup_dev_ctx: access << 16 | type, major, minor.
func deviceProgram() []insn {
	const (
		load  = unix.BPF_LDX | unix.BPF_MEM // of 32 bits
		mov   = unix.BPF_ALU64 | unix.BPF_MOV
		and   = unix.BPF_ALU64 | unix.BPF_AND
		or    = unix.BPF_ALU64 | unix.BPF_OR
		shl   = unix.BPF_ALU64 | unix.BPF_LSH
		shr   = unix.BPF_ALU64 | unix.BPF_RSH
		jeq   = unix.BPF_JMP | unix.BPF_JEQ
		jne   = unix.BPF_JMP | unix.BPF_JNE
		chars = 2     // BPF_DEVCG_DEV_CHAR
		open  = 2 | 4 // BPF_DEVCG_ACC_READ, _WRITE
		toNo  = 1     // jumps are filled in below: to the refusal, to the exit
		toYes = 2
	)
	p := []insn{
		{load, 2 | 1<<4, 0, 0},
		{load, 3 | 1<<4, 4, 0},
		{load, 4 | 1<<4, 8, 0},
		{mov, 0, 0, 1}, // the answer
		{mov | unix.BPF_X, 5 | 2<<4, 0, 0},
		{shr, 5, 0, 16},
		{and, 5, 0, open},
		{jeq, 5, toYes, 0},
		{and, 2, 0, 0xffff},
		{jne, 2, toNo, chars},
		{mov | unix.BPF_X, 5 | 3<<4, 0, 0},
		{shr, 5, 0, 3},
		{jeq, 5, toYes, 136 >> 3}, // pts: majors 136 to 143
		{shl, 3, 0, 20},
		{or | unix.BPF_X, 3 | 4<<4, 0, 0},
	}
	for _, d := range devices {
		p = append(p, insn{jeq, 3, toYes, int32(d.major)<<20 | int32(d.minor)})
	}
	p = append(p, insn{jeq, 3, toYes, 5<<20 | 2}) // ptmx
	no := len(p)
	for i := range p {
		switch p[i].op {
		case jeq, jne:
			p[i].off += int16(no - i - 2)
		}
	}
	return append(p, insn{mov, 0, 0, 0}, insn{unix.BPF_JMP | unix.BPF_EXIT, 0, 0, 0})
}

// attachNoDevs loads the program and lets it decide, beside those of the groups above, for the group dir. It stays as long
// as the group. See bpf(2); x/sys has no structure for it.
func attachNoDevs(dir *os.File) error {
	p, license := deviceProgram(), [1]byte{}
	load := struct {
		kind, n        uint32
		insns, license *byte
		log            [2]uint32
		logBuf         uint64
		version, flags uint32
		name           [16]byte
		ifindex, at    uint32
	}{kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, n: uint32(len(p)), insns: (*byte)(unsafe.Pointer(&p[0])), license: &license[0], at: unix.BPF_CGROUP_DEVICE}
	copy(load.name[:], "nodevs")
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	if errno != 0 {
		return fmt.Errorf("bpf program: %w", errno)
	}
	defer unix.Close(int(fd))
	attach := struct{ target, prog, at, flags uint32 }{uint32(dir.Fd()), uint32(fd), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI}
	_, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attach)), unsafe.Sizeof(attach))
	runtime.KeepAlive(dir)
	if errno != 0 {
		return fmt.Errorf("bpf attach: %w", errno)
	}
	return nil
}
