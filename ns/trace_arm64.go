package ns

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// regs are the registers of a thread that another one traces. See ptrace(2), NT_PRSTATUS.
type regs struct{ unix.PtraceRegs }

const (
	regsSize = int(unsafe.Sizeof(regs{}))
	mode32   = 0x10 // of PSTATE
	stepFlag = 1 << 21
)

var callInsn = []byte{0x01, 0x00, 0x00, 0xd4} // svc #0

// native reports whether the thread runs code of 64 bits.
func (r *regs) native() bool { return r.Pstate&mode32 == 0 }

func (r *regs) pc() uint64 { return r.Pc }

// inCall is not known: this kernel has undone the call when it lets a tracer see the thread, which will just make it
// again. Therefore a relative time-out begins anew, and pause(2) sleeps on if its signal comes during the stop.
func (r *regs) inCall() bool { return false }

// lastCall says no: at the instruction that it has gone back to, the kernel believes that the thread goes on with its
// own call (restart_syscall) and changes x8.
func (r *regs) lastCall() (at uint64, ok bool) { return 0, false }

// call makes them the registers of a thread that is about to execute the instruction at at.
func (r *regs) call(at, nr uint64, a [6]uint64) {
	r.Pc, r.Regs[8] = at, nr
	copy(r.Regs[:6], a[:])
	r.Pstate &^= stepFlag
}

func (r *regs) result() int64 { return int64(r.Regs[0]) }

// uninterrupt can do nothing: the first argument of a call that says EINTR is lost. The program sees that error, as it
// would after a stop and a continuation by signals.
func (r *regs) uninterrupt() {}
