package fuse

import (
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxStatus bounds what is read of a thread's status: the kernel allows 65536 groups. Those beyond are not counted.
const maxStatus = 64 << 10

// A thread is what the kernel does not tell of who asks.
type thread struct {
	pid     int // its process
	groups  []uint32
	pending uint64 // signals that wait for it and are not blocked, bit 0 is signal 1
}

// threadStatus reads proc_pid_status(5). The number is that of the thread, which cannot end before its request is
// answered; 0 if it is in a pid namespace that is not below the server's.
func threadStatus(tid uint32) (thread, error) {
	var t thread
	if tid == 0 {
		return t, os.ErrNotExist
	}
	f, err := os.Open("/proc/" + strconv.Itoa(int(tid)) + "/status")
	if err != nil {
		return t, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStatus))
	if err != nil {
		return t, err
	}
	var blocked uint64
	for line := range strings.SplitAfterSeq(string(b), "\n") {
		key, value, _ := strings.Cut(line, ":")
		if i := strings.LastIndexAny(value, " \n\t"); i >= 0 {
			value = value[:i] // a word that was cut is none
		}
		value = strings.TrimSpace(value)
		switch key {
		case "Tgid":
			t.pid, _ = strconv.Atoi(value)
		case "Groups":
			for w := range strings.FieldsSeq(value) {
				if g, err := strconv.ParseUint(w, 10, 32); err == nil {
					t.groups = append(t.groups, uint32(g))
				}
			}
		case "SigPnd", "ShdPnd":
			s, _ := strconv.ParseUint(value, 16, 64)
			t.pending |= s
		case "SigBlk":
			blocked, _ = strconv.ParseUint(value, 16, 64)
		}
	}
	t.pending &^= blocked
	return t, nil
}

// harmless are the signals that a process gets without anybody wanting to disturb it: an ended child of a shell, the
// goroutine switches of a Go program, a window that has changed.
const harmless = 1<<(syscall.SIGCHLD-1) | 1<<(syscall.SIGURG-1) | 1<<(syscall.SIGWINCH-1) | 1<<(syscall.SIGCONT-1)

// interrupt is called when who waits for the answer has got a signal. A read ends at once: nothing is lost by it, and
// programs know that. Anything else would be a verb that fails because a child of the shell has ended meanwhile: it
// goes on until there is a signal that means it. The kernel tells the first signal only, so later ones are looked for.
func (r *request) interrupt() {
	if r.Opcode == opRead {
		r.cancel()
		return
	}
	go func() {
		const again = 50 * time.Millisecond
		for {
			if t, err := threadStatus(r.Pid); err != nil || t.pending&^harmless != 0 {
				r.cancel()
			}
			select {
			case <-r.ctx.Done():
				return
			case <-time.After(again):
			}
		}
	}()
}
