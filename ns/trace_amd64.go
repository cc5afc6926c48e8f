package ns

import (
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// regs are the registers of a thread that another one traces. See ptrace(2), NT_PRSTATUS.
type regs struct{ unix.PtraceRegs }

const (
	regsSize = int(unsafe.Sizeof(regs{}))
	userCS   = 0x33 // of 64-bit programs
	trapFlag = 0x100
)

var callInsn = []byte{0x0f, 0x05} // syscall

// native reports whether the thread runs code of 64 bits now.
func (r *regs) native() bool { return r.Cs == userCS }

func (r *regs) pc() uint64 { return r.Rip }

// inCall reports whether the thread was stopped on its way out of a system call.
func (r *regs) inCall() bool { return int64(r.Orig_rax) >= 0 }

// lastCall is where the instruction may be that made the call that the thread is in.
func (r *regs) lastCall() (at uint64, ok bool) { return r.Rip - uint64(len(callInsn)), r.inCall() }

// call makes them the registers of a thread that is about to execute the instruction at at.
func (r *regs) call(at, nr uint64, a [6]uint64) {
	r.Rip, r.Rax = at, nr
	r.Orig_rax = ^uint64(0) // it is in no call that the kernel could want to restart
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = a[0], a[1], a[2], a[3], a[4], a[5]
	r.Eflags &^= trapFlag
}

func (r *regs) result() int64 { return int64(r.Rax) }

// uninterrupt hides the stop from a call that says EINTR after one, without a signal: as an errno that the kernel keeps
// for itself it is made again, or is EINTR if a signal has come meanwhile and is handled. Its time-out begins anew.
// A call that has had its effect must not be made again: close(2) says EINTR too.
func (r *regs) uninterrupt() {
	if r.inCall() && r.result() == -int64(unix.EINTR) && slices.Contains(eintrCalls, r.Orig_rax) {
		r.Rax = -errRestartNoHand & (1<<64 - 1)
	}
}

const errRestartNoHand = 514 // ERESTARTNOHAND

var eintrCalls = []uint64{
	unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_RT_SIGTIMEDWAIT,
	unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_IO_GETEVENTS, unix.SYS_IO_PGETEVENTS,
	// Of sockets with SO_RCVTIMEO or SO_SNDTIMEO.
	unix.SYS_READ, unix.SYS_READV, unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_RECVMMSG, unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
	unix.SYS_WRITE, unix.SYS_WRITEV, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG,
}
