package ns

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A memory is that of a process whose threads are traced.
//
// Its home is a place for code in it, from where a thread makes its calls: behind the call stands what gives the thread
// back its registers and signal mask, in the way of its architecture (see tracee.goHome). A tracer that ends in the
// middle leaves a thread that goes on by itself, with what was its own. The place is one that every process has, that can be
// executed, and that nobody uses: the zeros behind the code that the kernel lends it (the vDSO); as ptrace(2) is free to,
// we write there. One thread at a time is at home.
type memory struct {
	fd    int    // /proc/PID/mem
	home  uint64 // 0: there is none
	free  int    // bytes from there on
	dirty int    // of them, those that were written
}

var zeros [1 << 13]byte

const sysinfoEhdr = 33 // AT_SYSINFO_EHDR

// vdso gives the address of the code that the kernel lends each process, from its auxiliary vector.
func vdso(tid int) uint64 {
	aux, _ := readFile(fmt.Sprintf("/proc/%d/auxv", tid), maxText)
	for ; len(aux) >= 16; aux = aux[16:] {
		if le.Uint64(aux) == sysinfoEhdr {
			return le.Uint64(aux[8:])
		}
	}
	return 0
}

// ownVDSO is what this program's is like, which is every other one's too: its size with the zeros behind it, and its
// first bytes.
var ownVDSO = sync.OnceValues(func() (image []byte, err error) {
	maps, err := readFile("/proc/self/maps", maxMounts)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		if n, _ := fmt.Sscanf(line, "%x-%x r-xp", &from, &to); n != 2 || !strings.Contains(line, "[vdso]") {
			continue
		}
		fd, err := openFile("/proc/self/mem", unix.O_RDONLY)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		image = make([]byte, to-from)
		n, err := unix.Pread(fd, image, int64(from))
		return image[:max(n, 0)], err
	}
	return nil, nil
})

// openMemory opens the memory of the stopped thread tid and looks for a home in it.
func openMemory(tid int) (*memory, error) {
	fd, err := openFile(fmt.Sprintf("/proc/%d/mem", tid), unix.O_RDWR)
	if err != nil {
		return nil, fmt.Errorf("mem: %w", err)
	}
	m := &memory{fd: fd}
	own, _ := ownVDSO()
	used := len(bytes.TrimRight(own, "\x00"))
	base := vdso(tid)
	head, tail := make([]byte, min(64, used)), make([]byte, len(own)-used)
	if base == 0 || used == 0 || m.read(base, head) != nil || !bytes.Equal(head, own[:len(head)]) || m.read(base+uint64(used), tail) != nil {
		return m, nil
	}
	// A tracer that ended may have left something at the beginning.
	at := (used + len(bytes.TrimRight(tail, "\x00")) + 15) &^ 15
	if free := min(len(own)-at, len(zeros)); free >= homeSize {
		m.home, m.free = base+uint64(at), free
	}
	return m, nil
}

func (m *memory) read(at uint64, b []byte) error {
	n, err := unix.Pread(m.fd, b, int64(at))
	if err == nil && n != len(b) {
		err = unix.EFAULT
	}
	return err
}

func (m *memory) write(at uint64, b []byte) error {
	n, err := unix.Pwrite(m.fd, b, int64(at))
	if err == nil && n != len(b) {
		err = unix.EFAULT
	}
	if m.home != 0 && at >= m.home && at < m.home+uint64(m.free) {
		m.dirty = max(m.dirty, int(at-m.home)+len(b))
	}
	return err
}

// clear makes the first n bytes of the home what they were. Done before, it gives the process the copy of that page that it
// is going to have, which takes as long as ten system calls.
func (m *memory) clear(n int) error {
	if m.home == 0 {
		return nil
	}
	return m.write(m.home, zeros[:n])
}

// enter makes th the thread that is at home: only the tracer moves it then, no signal does.
func (t *tracer) enter(th *tracee) error {
	if t.inside == th {
		return nil
	}
	if err := t.leave(); err != nil {
		return err
	}
	if th.mem.home != 0 {
		code, err := th.goHome(th.mem.home)
		if err == nil {
			err = th.mem.write(th.mem.home, code)
		}
		if err != nil { // this kernel does not let it: /proc/PID/mem does not write what the process itself could not
			if err := th.getRegs(new(regs)); err != nil {
				return gone(err)
			}
			th.mem.home = 0
		}
	}
	if th.at = th.mem.home; th.at == 0 {
		if err := th.findCall(); err != nil {
			return err
		}
	} else {
		r := th.regs
		r.jump(th.at + uint64(len(callInsn)))
		if err := th.setRegs(&r); err != nil {
			return gone(err)
		}
	}
	t.inside = th
	if th.sud.mode != 0 { // its system calls are another system's: ours would be too
		if err := th.dispatch(userDispatch{}); err != nil {
			return fmt.Errorf("system call user dispatch: %w", gone(err))
		}
	}
	return th.setMask(^uint64(0))
}

// leave gives who is at home what it had. In this order: until it has its registers it would go home by itself.
func (t *tracer) leave() error {
	th := t.inside
	if th == nil {
		return nil
	}
	t.inside = nil
	if err := th.setMask(th.mask); err != nil {
		return err
	}
	if th.sud.mode != 0 {
		if err := th.dispatch(th.sud); err != nil {
			return gone(err)
		}
	}
	return gone(th.setRegs(&th.regs))
}
