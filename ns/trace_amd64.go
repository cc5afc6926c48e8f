package ns

import (
	"bytes"
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

// jump makes them the registers of a thread that goes on at at, and is in no call that the kernel could want to restart.
func (r *regs) jump(at uint64) {
	r.Rip, r.Orig_rax = at, ^uint64(0)
	r.Eflags &^= trapFlag
}

// call makes them the registers of a thread that is about to execute the instruction at at.
func (r *regs) call(at, nr uint64, a [6]uint64) {
	r.jump(at)
	r.Rax = nr
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = a[0], a[1], a[2], a[3], a[4], a[5]
}

func (r *regs) result() int64 { return int64(r.Rax) }

// look has nothing to see here: the kernel tells all when the thread is stopped.
func (t *tracee) look() {}

// uninterrupt hides the stop from a call that says EINTR after one, without a signal: as an errno that the kernel keeps
// for itself it is made again, or is EINTR if a signal has come meanwhile and is handled. Its time-out begins anew.
// A call that has had its effect must not be made again: close(2) says EINTR too. It reports whether there was one.
func (t *tracee) uninterrupt() bool {
	r := &t.regs
	if !r.inCall() || r.result() != -int64(unix.EINTR) || r.Orig_rax != unix.SYS_EPOLL_WAIT && !slices.Contains(eintrCalls, r.Orig_rax) {
		return false
	}
	r.Rax = -errRestartNoHand & (1<<64 - 1)
	return true
}

// goHome is the code for home, which stands at at. It makes a call; what follows changes neither flags nor stack, so
// that it need not restore them. A call that the thread was in is made again as the kernel would.
func (t *tracee) goHome(uint64) ([]byte, error) {
	r := t.regs
	switch n := -r.result(); {
	case !r.inCall():
	case n >= errRestartSys && n <= errRestartNoHand:
		r.Rax, r.Rip = r.Orig_rax, r.Rip-uint64(len(callInsn))
	case n == errRestartByBlock:
		r.Rax, r.Rip = unix.SYS_RESTART_SYSCALL, r.Rip-uint64(len(callInsn))
	}
	code := bytes.Clone(callInsn)
	load := func(register int, v uint64) {
		code = append(code, 0x48|byte(register>>3), 0xb8|byte(register&7)) // mov
		code = le.AppendUint64(code, v)
	}
	call := func(nr uint64, args ...uint64) {
		load(0, nr)
		for i, a := range args {
			load([]int{7, 6, 2, 10, 8}[i], a)
		}
		code = append(code, callInsn...)
	}
	const mask = homeSize - 16 // and behind it where to go
	// The address of the mask is relative to the code: lea rsi, [rip+x].
	load(0, unix.SYS_RT_SIGPROCMASK)
	load(7, unix.SIG_SETMASK)
	code = append(code, 0x48, 0x8d, 0x35)
	code = le.AppendUint32(code, uint32(mask-len(code)-4))
	load(2, 0)
	load(10, 8)
	code = append(code, callInsn...)
	if d := t.sud; d.mode != 0 {
		call(unix.SYS_PRCTL, unix.PR_SET_SYSCALL_USER_DISPATCH, d.mode, d.offset, d.len, d.selector)
	}
	for i, v := range []uint64{r.Rax, r.Rcx, r.Rdx, r.Rbx, r.Rsp, r.Rbp, r.Rsi, r.Rdi, r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15} {
		load(i, v)
	}
	code = append(code, 0xff, 0x25) // jmp [rip+x]
	code = le.AppendUint32(code, uint32(mask+8-len(code)-4))
	code = append(code, make([]byte, mask-len(code))...)
	return le.AppendUint64(le.AppendUint64(code, t.mask), r.Rip), nil
}

// homeSize is the size of goHome's code.
const homeSize = 304
