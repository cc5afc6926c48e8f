package ns

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
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

// jump makes them the registers of a thread that goes on at at.
func (r *regs) jump(at uint64) {
	r.Pc = at
	r.Pstate &^= stepFlag
}

// call makes them the registers of a thread that is about to execute the instruction at at.
func (r *regs) call(at, nr uint64, a [6]uint64) {
	r.jump(at)
	r.Regs[8] = nr
	copy(r.Regs[:6], a[:])
}

func (r *regs) result() int64 { return int64(r.Regs[0]) }

// look keeps the first argument of the call that the thread is in: when it is stopped the call's result is there instead.
func (t *tracee) look() {
	t.seen = seenCall{switches: t.switches()}
	line, err := readFile(fmt.Sprintf("/proc/%d/syscall", t.tid), maxText)
	n, _ := fmt.Sscanf(string(line), "%d 0x%x", &t.seen.nr, &t.seen.arg)
	if err != nil || n != 2 || t.switches() != t.seen.switches {
		t.seen.switches = ""
	}
}

// switches says how often the thread has waited.
func (t *tracee) switches() string {
	text, _ := readFile(fmt.Sprintf("/proc/%d/status", t.tid), 1<<20)
	_, n, _ := strings.Cut(string(text), "\nvoluntary_ctxt_switches:\t")
	n, _, _ = strings.Cut(n, "\n")
	return n
}

// uninterrupt hides the stop from a call that says EINTR after one: it is made again, its time-out begins anew. That it is
// the call that was looked at is known from the thread's having waited no more than once since then, in its stop. A call
// that has had its effect must not be made again.
func (t *tracee) uninterrupt() bool {
	r := &t.regs
	before, err := strconv.ParseUint(t.seen.switches, 10, 64)
	if err != nil || r.result() != -int64(unix.EINTR) || r.Regs[8] != t.seen.nr || !slices.Contains(eintrCalls, t.seen.nr) ||
		t.switches() != strconv.FormatUint(before+1, 10) {
		return false
	}
	r.Regs[0], r.Pc = t.seen.arg, r.Pc-uint64(len(callInsn))
	return true
}

// goHome is the code for home, which stands at at. It makes a call, and then returns from a signal: there is no way here to
// load all registers, and the one that says where to go on. The kernel asks for the floating point registers too; what
// SVE has beyond them is lost to a thread that was computing with it, as it is in every call.
func (t *tracee) goHome(at uint64) ([]byte, error) {
	const (
		frame    = 32               // struct rt_sigframe, behind the code
		stack    = frame + 128 + 16 // its uc_stack
		mask     = stack + 24
		context  = mask + 128 + 8 // struct sigcontext
		reserved = context + 8 + 34*8 + 8
		fpMagic  = 0x46508001
		fpSize   = 528 // struct fpsimd_context
	)
	code := make([]byte, homeSize)
	for i, insn := range []uint32{
		le.Uint32(callInsn),
		0x580000a9, // ldr x9, 24
		0x9100013f, // mov sp, x9
		0xd2801168, // mov x8, #139: rt_sigreturn
		le.Uint32(callInsn),
	} {
		le.PutUint32(code[4*i:], insn)
	}
	le.PutUint64(code[24:], at+frame)
	le.PutUint32(code[stack+8:], ^uint32(0)) // flags that there are not: the alternate stack stays what it is
	le.PutUint64(code[mask:], t.mask)
	r := code[context+8:]
	for _, v := range append(t.regs.Regs[:], t.regs.Sp, t.regs.Pc, t.regs.Pstate) {
		le.PutUint64(r, v)
		r = r[8:]
	}
	var fp [fpSize]byte // struct user_fpsimd_state
	v := unix.Iovec{Base: &fp[0], Len: fpSize}
	if err := t.ptrace(unix.PTRACE_GETREGSET, prFPReg, uintptr(unsafe.Pointer(&v))); err != nil {
		return nil, err
	}
	le.PutUint32(code[reserved:], fpMagic)
	le.PutUint32(code[reserved+4:], fpSize)
	copy(code[reserved+8:], fp[512:520]) // fpsr, fpcr
	copy(code[reserved+16:reserved+fpSize], fp[:512])
	return code, nil
}

const (
	prFPReg  = 2 // NT_PRFPREG
	homeSize = 32 + 128 + 464 + 16 + 528
)
