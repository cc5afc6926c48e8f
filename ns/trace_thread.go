package ns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A tracee is a thread that this one, the tracer's only one, has stopped and makes system calls in.
type tracee struct {
	tid   int
	regs  regs   // as they were, and will be
	mask  uint64 // blocked signals, likewise
	at    uint64 // where a system call instruction is
	rseq  uint64 // address of rseq_cs, 0: none
	cs    uint64 // what stood there
	sud   userDispatch
	alien bool // it has not its own registers and mask
}

// userDispatch is struct ptrace_sud_config.
type userDispatch struct{ mode, selector, offset, len uint64 }

const (
	ptraceGetSigmask = 0x420a
	ptraceSetSigmask = 0x420b
	syscallStop      = unix.SIGTRAP | 0x80
	prStatus         = 1 // NT_PRSTATUS
)

func ptrace(request, tid int, addr, data uintptr) error {
	if _, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func (t *tracee) ptrace(request int, addr, data uintptr) error {
	return ptrace(request, t.tid, addr, data)
}

func (t *tracee) getRegs(r *regs) error {
	v := unix.Iovec{Base: (*byte)(unsafe.Pointer(r)), Len: uint64(regsSize)}
	if err := t.ptrace(unix.PTRACE_GETREGSET, prStatus, uintptr(unsafe.Pointer(&v))); err != nil {
		return err
	}
	if v.Len != uint64(regsSize) || !r.native() {
		return err32
	}
	return nil
}

func (t *tracee) setRegs(r *regs) error {
	v := unix.Iovec{Base: (*byte)(unsafe.Pointer(r)), Len: uint64(regsSize)}
	return t.ptrace(unix.PTRACE_SETREGSET, prStatus, uintptr(unsafe.Pointer(&v)))
}

// wait waits for the next stop of the thread: its wait status. That may take long, when the process has been frozen: then
// all goes on when it goes on, and nobody else could put it right.
func (t *tracee) wait() (unix.WaitStatus, error) {
	for {
		// Without telling Go's scheduler, which would come between: there is nothing else to run but the timer.
		var ws unix.WaitStatus
		switch _, _, errno := unix.RawSyscall6(unix.SYS_WAIT4, uintptr(t.tid), uintptr(unsafe.Pointer(&ws)), unix.WALL, 0, 0, 0); {
		case errno == unix.EINTR:
		case errno == unix.ECHILD:
			return 0, ErrExited
		case errno != 0:
			return 0, fmt.Errorf("wait4 %d: %w", t.tid, errno)
		case ws.Exited() || ws.Signaled():
			return 0, ErrExited
		default:
			return ws, nil
		}
	}
}

// settle waits for the stop that PTRACE_INTERRUPT asked for; signals that come before it are delivered.
func (t *tracee) settle() error {
	for {
		ws, err := t.wait()
		if err != nil {
			return err
		}
		if event(ws) == unix.PTRACE_EVENT_STOP {
			return nil
		}
		if err := t.ptrace(unix.PTRACE_CONT, 0, delivered(ws)); err != nil {
			return gone(err)
		}
	}
}

func event(ws unix.WaitStatus) int { return int(uint32(ws)>>16) & 0xff }

// delivered is the signal that a stop is about.
func delivered(ws unix.WaitStatus) uintptr {
	if sig := ws.StopSignal(); event(ws) == 0 && sig != syscallStop {
		return uintptr(sig)
	}
	return 0
}

// gone says that a tracee that cannot be traced any more was killed: nothing else takes it away.
func gone(err error) error {
	if err == unix.ESRCH {
		return ErrExited
	}
	return err
}

// take keeps what the thread must have again and looks for a place to make calls from.
func (t *tracee) take() error {
	if err := t.getRegs(&t.regs); err != nil {
		return gone(err)
	}
	if err := t.ptrace(ptraceGetSigmask, 8, uintptr(unsafe.Pointer(&t.mask))); err != nil {
		return gone(err)
	}
	if err := t.findCall(); err != nil {
		return err
	}
	// A critical section that the thread is in must be aborted when it goes on. The kernel does that, but finds it left
	// already when a call is made from elsewhere, and forgets it: it is reminded.
	var rs struct {
		addr       uint64
		size, sig  uint32
		flags, pad uint32
	}
	if !t.regs.inCall() && t.ptrace(unix.PTRACE_GET_RSEQ_CONFIGURATION, unsafe.Sizeof(rs), uintptr(unsafe.Pointer(&rs))) == nil && rs.addr != 0 {
		b := make([]byte, 8)
		if t.read(rs.addr+8, b) == nil {
			t.rseq, t.cs = rs.addr+8, le.Uint64(b)
		}
	}
	// It fails before 6.4, which leaves it at none.
	t.ptrace(unix.PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, unsafe.Sizeof(t.sud), uintptr(unsafe.Pointer(&t.sud)))
	return nil
}

// begin makes the thread, of which take was called, one that only the tracer moves: no signal does.
func (t *tracee) begin() error {
	t.alien = true
	if t.sud.mode != 0 { // its system calls are another system's: ours would be too
		if err := t.dispatch(userDispatch{}); err != nil {
			return fmt.Errorf("system call user dispatch: %w", gone(err))
		}
	}
	all := ^uint64(0)
	return gone(t.ptrace(ptraceSetSigmask, 8, uintptr(unsafe.Pointer(&all))))
}

func (t *tracee) dispatch(d userDispatch) error {
	return t.ptrace(unix.PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG, unsafe.Sizeof(d), uintptr(unsafe.Pointer(&d)))
}

// findCall looks for an instruction that makes a system call: the one that the thread has just made its own with, one of
// the vDSO, or any.
func (t *tracee) findCall() error {
	is := func(at uint64) bool {
		b := make([]byte, len(callInsn))
		return t.read(at, b) == nil && bytes.Equal(b, callInsn)
	}
	if at, ok := t.regs.lastCall(); ok && is(at) {
		t.at = at
		return nil
	}
	if base := t.vdso(); base != 0 {
		b := make([]byte, 8192)
		for n := len(b); n >= 4096; n -= 4096 {
			if t.read(base, b[:n]) != nil {
				continue
			}
			if i := t.in(b[:n], base); i >= 0 {
				t.at = base + uint64(i)
				return nil
			}
		}
	}
	maps, err := readFile(fmt.Sprintf("/proc/%d/maps", t.tid), maxMounts)
	if err != nil {
		return fmt.Errorf("maps: %w", err)
	}
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if len(f) < 2 || !strings.HasPrefix(f[1], "r-x") || strings.Contains(line, "[vsyscall]") {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		lo, _ := strconv.ParseUint(from, 16, 64)
		hi, _ := strconv.ParseUint(to, 16, 64)
		b := make([]byte, 65536)
		for left := 256; lo < hi && left > 0; left-- {
			n := min(uint64(len(b)), hi-lo)
			if t.read(lo, b[:n]) != nil {
				break
			}
			if i := t.in(b[:n], lo); i >= 0 {
				t.at = lo + uint64(i)
				return nil
			}
			lo += n
		}
	}
	return errors.New("process has no system call instruction")
}

// in gives the index of a system call instruction in the code b, which stands at at. Where it is the one that the
// thread stands at, the kernel of arm64 would take our call for the thread's own.
func (t *tracee) in(b []byte, at uint64) int {
	for i := 0; ; i++ {
		j := bytes.Index(b[i:], callInsn)
		if j < 0 {
			return -1
		}
		if i += j; at+uint64(i) != t.regs.pc() {
			return i
		}
	}
}

const sysinfoEhdr = 33 // AT_SYSINFO_EHDR

// vdso gives the address of the code that the kernel lends each process, from its auxiliary vector.
func (t *tracee) vdso() uint64 {
	aux, _ := readFile(fmt.Sprintf("/proc/%d/auxv", t.tid), maxText)
	for ; len(aux) >= 16; aux = aux[16:] {
		if binary.NativeEndian.Uint64(aux) == sysinfoEhdr {
			return binary.NativeEndian.Uint64(aux[8:])
		}
	}
	return 0
}

func (t *tracee) read(at uint64, b []byte) error {
	n, err := unix.ProcessVMReadv(t.tid, []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
	if err == nil && n != len(b) {
		err = unix.EFAULT
	}
	return err
}

func (t *tracee) write(at uint64, b []byte) error {
	n, err := unix.ProcessVMWritev(t.tid, []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
	if err == nil && n != len(b) {
		err = unix.EFAULT
	}
	return err
}

// call makes one system call in the thread. The error is about the tracing; a failed call has a negative result.
func (t *tracee) call(nr uint64, args [6]uint64) (int64, error) {
	for {
		r := t.regs
		r.call(t.at, nr, args)
		if err := t.setRegs(&r); err != nil {
			return 0, gone(err)
		}
		for range 2 { // its entry and its exit
			if err := t.step(); err != nil {
				return 0, err
			}
		}
		if err := t.getRegs(&r); err != nil {
			return 0, gone(err)
		}
		if n := r.result(); n > -512 || n < -516 { // ERESTARTSYS and its like: it is to be made again
			return n, nil
		}
	}
}

// step lets the thread go on to its next stop of a system call.
func (t *tracee) step() error {
	var sig uintptr
	for {
		if err := t.ptrace(unix.PTRACE_SYSCALL, 0, sig); err != nil {
			return gone(err)
		}
		ws, err := t.wait()
		if err != nil {
			return err
		}
		if ws.StopSignal() == syscallStop {
			return nil
		}
		sig = delivered(ws) // SIGSTOP, which cannot be blocked: it stops when we let go
	}
}

// release gives the thread back what it had and lets it go.
func (t *tracee) release() error {
	if t.alien {
		if t.sud.mode != 0 {
			t.dispatch(t.sud)
		}
		if t.cs != 0 {
			t.write(t.rseq, le.AppendUint64(nil, t.cs))
		}
		t.regs.uninterrupt()
		if err := t.setRegs(&t.regs); err != nil {
			return gone(err)
		}
		if err := t.ptrace(ptraceSetSigmask, 8, uintptr(unsafe.Pointer(&t.mask))); err != nil {
			return gone(err)
		}
	}
	return gone(t.ptrace(unix.PTRACE_DETACH, 0, 0))
}
