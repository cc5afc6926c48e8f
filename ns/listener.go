package ns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Listener hears the calls that a filter with Asking does not decide itself: see seccomp(2), SECCOMP_RET_USER_NOTIF. Who
// made a call waits for the answer. When nobody has the listener open any more the calls fail with ENOSYS.
//
// The kernel tells of a call once. So that the program that is told may die, it is told into memory that others can have
// too: what the next one finds there is still to be answered.
type Listener struct {
	file *os.File
	memo *os.File
	mem  []byte
}

// notification is the kernel's struct seccomp_notif.
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

// NewListener listens at file. With memo, which is that of a listener that was there before, it goes on from there.
func NewListener(file, memo *os.File) (l *Listener, err error) {
	defer file.Close()
	l = &Listener{memo: memo}
	defer func() {
		if err != nil {
			l.Close()
			l = nil
		}
	}()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return l, err
	}
	if err = unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return l, err
	}
	// Who calls and who answers take turns on one processor, where the kernel can (6.6).
	unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	l.file = os.NewFile(uintptr(fd), "listener")
	if memo == nil {
		if l.memo, err = Memfd("listener"); err != nil {
			return l, err
		}
		if err = l.memo.Truncate(int64(unsafe.Sizeof(notification{}))); err != nil {
			return l, err
		}
	}
	l.mem, err = unix.Mmap(int(l.memo.Fd()), 0, int(unsafe.Sizeof(notification{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return l, err
}

// Files are what the listener lives in as long as somebody has them open.
func (l *Listener) Files() (file, memo *os.File) { return l.file, l.memo }

// Close lets it go.
func (l *Listener) Close() {
	for _, f := range []*os.File{l.file, l.memo} {
		if f != nil {
			f.Close()
		}
	}
	if l.mem != nil {
		unix.Munmap(l.mem)
		l.mem = nil
	}
}

// Serve calls answer for one call after the other, and returns when there is nobody any more who could make one. A call that answer leaves without an answer fails with ENOSYS.
func (l *Listener) Serve(answer func(*Call)) error {
	conn, err := l.file.SyscallConn()
	if err != nil {
		return err
	}
	n := (*notification)(unsafe.Pointer(&l.mem[0]))
	if n.id != 0 { // of who died before he had answered
		l.answer(n, answer)
	}
	for {
		over := false
		e := conn.Read(func(fd uintptr) bool {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if ready, e := unix.Poll(poll, 0); e != nil || ready == 0 {
				return false
			}
			if over = poll[0].Revents&unix.POLLIN == 0; over {
				return true
			}
			*n = notification{}
			err = ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n))
			return true
		})
		switch {
		case e != nil:
			return e
		case over:
			return nil
		case err == unix.ENOENT, err == unix.EINTR: // it was killed meanwhile
			n.id = 0
		case err != nil:
			return fmt.Errorf("listen: %w", err)
		default:
			l.answer(n, answer)
		}
	}
}

func (l *Listener) answer(n *notification, answer func(*Call)) {
	c := &Call{l: l, n: *n, mem: -1}
	c.What = askedNow()[abiCall{n.arch, uint32(n.nr)}]
	answer(c)
	if !c.answered {
		c.Fail(unix.ENOSYS)
	}
	if c.mem >= 0 {
		unix.Close(c.mem)
	}
	n.id = 0
}

func ioctl(fd, cmd uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, fd, cmd, uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

// A Call is a system call that waits for its answer.
type Call struct {
	What string // its name

	l        *Listener
	n        notification
	mem      int // its memory, once it was looked at
	answered bool
}

// Arg gives an argument, from 0; of a 32-bit program its 32 bits.
func (c *Call) Arg(i int) uint64 { return c.n.args[i] }

// Pid is the thread that makes the call.
func (c *Call) Pid() int { return int(c.n.pid) }

// Narrow says that it is a 32-bit program's.
func (c *Call) Narrow() bool {
	return c.n.arch == unix.AUDIT_ARCH_I386 || c.n.arch == unix.AUDIT_ARCH_ARM
}

// response is the kernel's struct seccomp_notif_resp.
type response struct {
	id           uint64
	value        int64
	error, flags int32
}

func (c *Call) respond(r response) {
	c.answered = true
	r.id = c.n.id
	control(c.l.file, func(fd int) error { // fails only where it was killed meanwhile
		return ioctl(uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
	})
}

// Return makes the call return value.
func (c *Call) Return(value int64) { c.respond(response{value: value}) }

// Fail makes it fail.
func (c *Call) Fail(err unix.Errno) { c.respond(response{error: -int32(err)}) }

// End makes it return 0, or fail with an error's number.
func (c *Call) End(err error) {
	errno := unix.EPERM
	switch {
	case err == nil:
		c.Return(0)
		return
	case errors.As(err, &errno):
	}
	c.Fail(errno)
}

// Continue lets the kernel carry it out, which must have the last word: what its pointers point to may change meanwhile.
func (c *Call) Continue() { c.respond(response{flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}) }

// Valid says that the call waits still: what was found by its number before is not another's.
func (c *Call) Valid() bool {
	return control(c.l.file, func(fd int) error {
		return ioctl(uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&c.n.id))
	}) == nil
}

// Open opens a file of the caller's directory in /proc.
func (c *Call) Open(name string, flags int) (int, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/%s", c.n.pid, name), flags|unix.O_CLOEXEC, 0)
	if err == nil && !c.Valid() {
		unix.Close(fd)
		err = unix.ESRCH
	}
	return fd, err
}

// memory opens the caller's memory.
func (c *Call) memory() (err error) {
	if c.mem < 0 {
		c.mem, err = c.Open("mem", unix.O_RDWR)
	}
	return err
}

// Read reads n bytes of its memory.
func (c *Call) Read(at uint64, n int) ([]byte, error) {
	if err := c.memory(); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	if got, err := unix.Pread(c.mem, b, int64(at)); err != nil || got < n {
		return nil, unix.EFAULT
	}
	return b, nil
}

// Text reads a string that ends in a zero byte within most bytes; that at address 0 is "".
func (c *Call) Text(at uint64, most int) (string, error) {
	if at == 0 {
		return "", nil
	}
	if err := c.memory(); err != nil {
		return "", err
	}
	b := make([]byte, most)
	n := 0
	for n < most { // a page at a time: behind it there may be none
		part := b[n:min(most, n+4096-int((at+uint64(n))%4096))]
		got, err := unix.Pread(c.mem, part, int64(at)+int64(n))
		if err != nil || got <= 0 {
			return "", unix.EFAULT
		}
		for i, x := range part[:got] {
			if x == 0 {
				return string(b[:n+i]), nil
			}
		}
		n += got
	}
	return "", unix.ENAMETOOLONG
}

// Write writes to its memory.
func (c *Call) Write(at uint64, b []byte) error {
	if err := c.memory(); err != nil {
		return err
	}
	if n, err := unix.Pwrite(c.mem, b, int64(at)); err != nil || n < len(b) {
		return unix.EFAULT
	}
	return nil
}

// Process gives the process that makes the call.
func (c *Call) Process() (*Process, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.n.pid))
	if err != nil {
		return nil, unix.ESRCH
	}
	pid, err := decimal(field(text, "Tgid:"))
	if err != nil {
		return nil, err
	}
	p, err := Open(pid)
	if err == nil && !c.Valid() {
		p.Close()
		err = unix.ESRCH
	}
	return p, err
}

// Give gives the caller a descriptor, whose number the call returns, close-on-exec if so said.
func (c *Call) Give(fd int, cloexec bool) {
	add := struct {
		id                         uint64
		flags, src, newfd, newflag uint32
	}{id: c.n.id, flags: unix.SECCOMP_ADDFD_FLAG_SEND, src: uint32(fd)}
	if cloexec {
		add.newflag = unix.O_CLOEXEC
	}
	if err := control(c.l.file, func(own int) error {
		return ioctl(uintptr(own), unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add))
	}); err != nil {
		c.End(err)
		return
	}
	c.answered = true
}

// listen is how a process that is parked gets its program's listener, before the program runs.
func (p *Parked) listen(ctx context.Context) error {
	if p.heard == nil {
		return nil
	}
	plan := p.last
	if err := p.Run(ctx, plan); err != nil {
		return err
	}
	p.last = nil
	if plan.given == nil {
		return errors.New("no listener was given")
	}
	heard := p.heard
	p.heard = nil
	return heard(plan.given)
}
