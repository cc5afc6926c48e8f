package ns

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What bpf(2) takes, as the kernel lays it out; the rest of each is zero.
type (
	bpfMapCreate struct {
		kind, key, value, max uint32
	}
	bpfElem struct {
		fd, _      uint32
		key, value *uint64
		flags      uint64
	}
	bpfProgLoad struct {
		kind, n uint32
		code    *bpfInsn
		license *byte
	}
	bpfTracepoint struct {
		name *byte
		prog uint32
		_    uint32
	}
	bpfInsn struct {
		op, regs byte
		off      int16
		imm      int32
	}
)

// The kernel's helpers, which x/sys has no names for.
const (
	bpfMapLookupElem           = 1
	bpfMapDeleteElem           = 3
	bpfProbeReadKernel         = 113
	bpfGetCurrentAncestorGroup = 123
	bpfRingbufOutput           = 130
	bpfRingbufQuery            = 134
)

func bpf[T any](cmd uintptr, attr *T) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN, unix.EINTR: // the verifier was interrupted by a signal
		default:
			return -1, errno
		}
	}
}

func bpfMap(kind, key, value, max uint32) (int, error) {
	fd, err := bpf(unix.BPF_MAP_CREATE, &bpfMapCreate{kind, key, value, max})
	if err != nil {
		return -1, fmt.Errorf("bpf map: %w", err)
	}
	return fd, nil // the kernel makes it close-on-exec
}

// bpfTrace has the kernel run a program at a tracepoint until the descriptor is closed: sched_process_exit, the end of
// every thread, or sched_process_fork.
func bpfTrace(tracepoint string, code []bpfInsn) (int, error) {
	license := []byte("Dual MIT/GPL\x00") // the kernel lends its reading of memory to what may be had under the GPL only
	prog, err := bpf(unix.BPF_PROG_LOAD, &bpfProgLoad{unix.BPF_PROG_TYPE_RAW_TRACEPOINT, uint32(len(code)), &code[0], &license[0]})
	if err != nil {
		return -1, fmt.Errorf("bpf program: %w", err)
	}
	defer unix.Close(prog)
	name := []byte(tracepoint + "\x00")
	fd, err := bpf(unix.BPF_RAW_TRACEPOINT_OPEN, &bpfTracepoint{name: &name[0], prog: uint32(prog)})
	if err != nil {
		return -1, fmt.Errorf("bpf tracepoint: %w", err)
	}
	return fd, nil
}

// A bpfProgram is written down instruction by instruction, jumps by label. r10 is the end of the stack.
type bpfProgram struct {
	code   []bpfInsn
	jumps  map[int]string
	labels map[string]int
}

func (p *bpfProgram) emit(op, dst, src byte, off, imm int) {
	p.code = append(p.code, bpfInsn{op, src<<4 | dst, int16(off), int32(imm)})
}

func (p *bpfProgram) load64(dst, src byte, off int) {
	p.emit(unix.BPF_LDX|unix.BPF_MEM|unix.BPF_DW, dst, src, off, 0)
}

func (p *bpfProgram) load32(dst, src byte, off int) {
	p.emit(unix.BPF_LDX|unix.BPF_MEM|unix.BPF_W, dst, src, off, 0)
}

func (p *bpfProgram) store64(off int, src byte) {
	p.emit(unix.BPF_STX|unix.BPF_MEM|unix.BPF_DW, 10, src, off, 0)
}

// add1 adds 1 to what reg points to, whoever else does.
func (p *bpfProgram) add1(reg, one byte) {
	p.set(one, 1)
	p.emit(unix.BPF_STX|unix.BPF_XADD|unix.BPF_DW, reg, one, 0, 0) // BPF_ATOMIC, of which BPF_ADD is 0
}

func (p *bpfProgram) set(dst byte, n int) {
	p.emit(unix.BPF_ALU64|unix.BPF_MOV|unix.BPF_K, dst, 0, 0, n)
}

func (p *bpfProgram) and(dst byte, n int) {
	p.emit(unix.BPF_ALU64|unix.BPF_AND|unix.BPF_K, dst, 0, 0, n)
}

// sum is dst = src + n, address dst = the stack's end + n.
func (p *bpfProgram) sum(dst, src byte, n int) {
	p.emit(unix.BPF_ALU64|unix.BPF_MOV|unix.BPF_X, dst, src, 0, 0)
	p.emit(unix.BPF_ALU64|unix.BPF_ADD|unix.BPF_K, dst, 0, 0, n)
}

func (p *bpfProgram) address(dst byte, n int) { p.sum(dst, 10, n) }

func (p *bpfProgram) call(helper int) { p.emit(unix.BPF_JMP|unix.BPF_CALL, 0, 0, 0, helper) }

// peek reads n bytes of the kernel's memory at src + off to the stack; zeros if there is none.
func (p *bpfProgram) peek(to, n int, src byte, off int) {
	p.address(1, to)
	p.set(2, n)
	p.sum(3, src, off)
	p.call(bpfProbeReadKernel)
}

// mapFD loads a map: one instruction in the place of two.
func (p *bpfProgram) mapFD(dst byte, fd int) {
	p.emit(unix.BPF_LD|unix.BPF_IMM|unix.BPF_DW, dst, unix.BPF_PSEUDO_MAP_FD, 0, fd)
	p.emit(0, 0, 0, 0, 0)
}

func (p *bpfProgram) jump(op, reg byte, n int, label string) {
	if p.jumps == nil {
		p.jumps, p.labels = make(map[int]string), make(map[string]int)
	}
	p.jumps[len(p.code)] = label
	p.emit(unix.BPF_JMP|op|unix.BPF_K, reg, 0, 0, n)
}

func (p *bpfProgram) when(reg byte, n int, label string)   { p.jump(unix.BPF_JEQ, reg, n, label) }
func (p *bpfProgram) unless(reg byte, n int, label string) { p.jump(unix.BPF_JNE, reg, n, label) }
func (p *bpfProgram) above(reg byte, n int, label string)  { p.jump(unix.BPF_JGT, reg, n, label) }

func (p *bpfProgram) label(name string) { p.labels[name] = len(p.code) }

// done is the whole, which ends by returning r0.
func (p *bpfProgram) done() []bpfInsn {
	p.emit(unix.BPF_JMP|unix.BPF_EXIT, 0, 0, 0, 0)
	for i, label := range p.jumps {
		p.code[i].off = int16(p.labels[label] - i - 1)
	}
	return p.code
}
