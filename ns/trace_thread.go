package ns

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A tracee is a thread that this one, the tracer's only one, has stopped and makes system calls in.
type tracee struct {
	tid     int
	stopped bool
	regs    regs    // as they were, and will be
	mask    uint64  // blocked signals, likewise
	mem     *memory // its process's
	at      uint64  // where a system call instruction is
	sud     userDispatch
	seen    seenCall
}

// A seenCall is what was seen of the call that a thread was in before it was stopped.
type seenCall struct {
	nr, arg  uint64 // and its first argument
	switches string // how often it had waited until then
}

// userDispatch is struct ptrace_sud_config.
type userDispatch struct{ mode, selector, offset, len uint64 }

const (
	// Of kernels that have no sets of registers, as User-Mode Linux; arm64 has only those, and answers EIO again.
	ptraceGetRegs = 12
	ptraceSetRegs = 13

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
	err := t.ptrace(unix.PTRACE_GETREGSET, prStatus, uintptr(unsafe.Pointer(&v)))
	if err == unix.EIO {
		err = t.ptrace(ptraceGetRegs, 0, uintptr(unsafe.Pointer(r)))
	}
	if err != nil {
		return err
	}
	if v.Len != uint64(regsSize) || !r.native() {
		return err32
	}
	return nil
}

func (t *tracee) setRegs(r *regs) error {
	v := unix.Iovec{Base: (*byte)(unsafe.Pointer(r)), Len: uint64(regsSize)}
	err := t.ptrace(unix.PTRACE_SETREGSET, prStatus, uintptr(unsafe.Pointer(&v)))
	if err == unix.EIO {
		err = t.ptrace(ptraceSetRegs, 0, uintptr(unsafe.Pointer(r)))
	}
	return err
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

// settle waits for the stop that PTRACE_INTERRUPT asked for, and hides it from the call that the thread is in; signals that
// come before it are delivered.
func (t *tracee) settle() error {
	for {
		ws, err := t.wait()
		if err != nil {
			return err
		}
		if event(ws) == unix.PTRACE_EVENT_STOP {
			t.stopped = true
			if err := t.getRegs(&t.regs); err != nil {
				return gone(err)
			}
			if t.uninterrupt() {
				return gone(t.setRegs(&t.regs))
			}
			return nil
		}
		if event(ws) == unix.PTRACE_EVENT_EXEC {
			t.mem = nil // it has another one
		}
		// Each stop takes back what was asked for before it.
		if err := t.ptrace(unix.PTRACE_INTERRUPT, 0, 0); err != nil {
			return gone(err)
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

// take keeps what the thread must have again beside its registers.
func (t *tracee) take() error {
	if err := t.ptrace(ptraceGetSigmask, 8, uintptr(unsafe.Pointer(&t.mask))); err != nil {
		return gone(err)
	}
	// A restartable sequence that the thread is in is aborted when it goes on; the kernel would find it left already.
	var rs struct {
		addr       uint64
		size, sig  uint32
		flags, pad uint32
	}
	if !t.regs.inCall() && t.ptrace(unix.PTRACE_GET_RSEQ_CONFIGURATION, unsafe.Sizeof(rs), uintptr(unsafe.Pointer(&rs))) == nil && rs.addr != 0 {
		var area [16]byte // struct rseq: the second half is the address of a struct rseq_cs
		var cs [32]byte
		if t.mem.read(rs.addr, area[:]) == nil && t.mem.read(le.Uint64(area[8:]), cs[:]) == nil && t.regs.pc()-le.Uint64(cs[8:]) < le.Uint64(cs[16:]) {
			t.regs.jump(le.Uint64(cs[24:]))
		}
	}
	// It fails before 6.4, which leaves it at none.
	t.ptrace(unix.PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, unsafe.Sizeof(t.sud), uintptr(unsafe.Pointer(&t.sud)))
	return nil
}

// setMask sets the signals that the thread blocks.
func (t *tracee) setMask(mask uint64) error {
	return gone(t.ptrace(ptraceSetSigmask, 8, uintptr(unsafe.Pointer(&mask))))
}

func (t *tracee) dispatch(d userDispatch) error {
	return t.ptrace(unix.PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG, unsafe.Sizeof(d), uintptr(unsafe.Pointer(&d)))
}

// findCall looks for an instruction that makes a system call: the one that the thread has just made its own with, one of
// the vDSO, or any.
func (t *tracee) findCall() error {
	is := func(at uint64) bool {
		b := make([]byte, len(callInsn))
		return t.mem.read(at, b) == nil && bytes.Equal(b, callInsn)
	}
	if at, ok := t.regs.lastCall(); ok && is(at) {
		t.at = at
		return nil
	}
	if base := vdso(t.tid); base != 0 {
		b := make([]byte, 8192)
		for n := len(b); n >= 4096; n -= 4096 {
			if t.mem.read(base, b[:n]) != nil {
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
			if t.mem.read(lo, b[:n]) != nil {
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

// What a call says that the kernel makes again, but to the thread's tracer.
const (
	errRestartSys     = 512 // ERESTARTSYS, and the next two
	errRestartNoHand  = 514 // ERESTARTNOHAND
	errRestartByBlock = 516 // ERESTART_RESTARTBLOCK
)

// call makes one system call in the thread. The error is about the tracing; a failed call has a negative result.
func (t *tracer) call(th *tracee, nr uint64, args ...uint64) (int64, error) {
	if err := t.enter(th); err != nil {
		return 0, err
	}
	for {
		r := th.regs
		r.call(th.at, nr, [6]uint64(append(args, make([]uint64, 6)...)))
		if err := th.setRegs(&r); err != nil {
			return 0, gone(err)
		}
		for range 2 { // its entry and its exit
			if err := th.step(); err != nil {
				return 0, err
			}
		}
		if err := th.getRegs(&r); err != nil {
			return 0, gone(err)
		}
		if n := r.result(); n > -errRestartSys || n < -errRestartByBlock { // else it is to be made again
			return n, nil
		}
	}
}

// eintrCalls are the calls that say EINTR after a stop: see signal(7). Some architectures have more.
var eintrCalls = []uint64{
	unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_RT_SIGTIMEDWAIT,
	unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_IO_GETEVENTS, unix.SYS_IO_PGETEVENTS,
	// Of sockets with SO_RCVTIMEO or SO_SNDTIMEO.
	unix.SYS_READ, unix.SYS_READV, unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_RECVMMSG, unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
	unix.SYS_WRITE, unix.SYS_WRITEV, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG,
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

// release lets the thread go, which has its own registers.
func (t *tracee) release() error {
	if !t.stopped {
		return nil
	}
	return gone(t.ptrace(unix.PTRACE_DETACH, 0, 0))
}
