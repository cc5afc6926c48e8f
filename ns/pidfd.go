package ns

import (
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrExited is the answer of everything that is asked of a process that is no more, in Plan 9's words. It is an ESRCH.
var ErrExited = refusal(unix.ESRCH, "process exited")

// A Process is one process, not a number: what is asked of it after its end fails with ErrExited and
// is never answered by a process that got its number. Its methods may be called by several goroutines;
// Close takes effect when those that are under way have returned. See pidfd_open(2).
type Process struct {
	pid int
	id  uint64

	mu     sync.Mutex // guards what follows
	fd     int        // the pidfd; -1 once closed
	users  int        // calls that use fd
	closed bool
	start  uint64 // clock ticks since boot; 0 not yet read

	watch *watch // guarded by watching.mu, as is exit
	exit  *Exit
}

// Open finds the process with that number in the pid namespace of this process.
// The error is fs.ErrNotExist where there is none; the number of a thread is none.
func Open(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH || err == unix.EINVAL || err == unix.ENOENT {
		return nil, fs.ErrNotExist // EINVAL and, since 6.14, ENOENT: a thread that leads no group
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return newProcess(pid, fd)
}

// FromFD makes a Process of a pidfd that came from elsewhere (clone3, SO_PEERPIDFD, a message) and owns
// it from then on, also when it fails: with ErrExited if the process was already reaped.
func FromFD(fd int) (*Process, error) {
	pid, err := pidOf(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newProcess(pid, fd)
}

func newProcess(pid, fd int) (*Process, error) {
	p := &Process{pid: pid, fd: fd}
	if pidfs() {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("open process %d: %w", pid, err)
		}
		p.id = st.Ino
		return p, nil
	}
	start, err := p.Start()
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	// 22 bits hold every pid (PID_MAX_LIMIT), 42 the ticks of a thousand years.
	p.id = start<<22 | uint64(pid)
	return p, nil
}

// pidfs reports whether a pidfd has an inode of its own, whose number is never used again before the
// next boot (6.9). Before that all pidfds share one.
var pidfs = sync.OnceValue(func() bool {
	fd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && uint32(st.Type) == unix.PID_FS_MAGIC
})

// Pid is the process's number in the pid namespace of this process.
func (p *Process) Pid() int { return p.pid }

// ID is a number that no other process of this boot has had or will have.
func (p *Process) ID() uint64 { return p.id }

// Close lets the process go. It does not touch the process.
func (p *Process) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fs.ErrClosed
	}
	p.closed = true
	if p.users == 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
	return nil
}

// hold keeps the pidfd open until drop, so that no call meets a descriptor number that has become
// another file's.
func (p *Process) hold() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 { // while somebody waits for it, the wait itself must be able to look
		return -1, fs.ErrClosed
	}
	p.users++
	return p.fd, nil
}

func (p *Process) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users--
	if p.users == 0 && p.closed {
		unix.Close(p.fd)
		p.fd = -1
	}
}

// use calls f with the pidfd.
func (p *Process) use(f func(fd int) error) error {
	fd, err := p.hold()
	if err != nil {
		return err
	}
	defer p.drop()
	return f(fd)
}

// Dup gives a pidfd of the process to keep, to send or to pass on; the caller closes it.
func (p *Process) Dup() (fd int, err error) {
	err = p.use(func(own int) error {
		fd, err = unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// Check returns ErrExited once the process's number is free for others: when it was reaped. A zombie
// still has its number.
func (p *Process) Check() error {
	return p.use(func(fd int) error {
		err := unix.PidfdSendSignal(fd, 0, nil, 0)
		if err == unix.ESRCH {
			return ErrExited
		}
		if err == unix.EPERM { // it is there, and not ours to signal
			return nil
		}
		return err
	})
}

// Alive reports whether the process has not ended: a zombie has.
func (p *Process) Alive() bool {
	alive := false
	p.use(func(fd int) error {
		alive = !ended(fd)
		return nil
	})
	return alive
}

func ended(pidfd int) bool {
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0
}

// Signal sends sig, with this process's rights. See pidfd_send_signal(2).
func (p *Process) Signal(sig syscall.Signal) error {
	return p.use(func(fd int) error { return sendSignal(fd, sig) })
}

func sendSignal(fd int, sig syscall.Signal) error {
	return signalError(unix.PidfdSendSignal(fd, sig, nil, 0))
}

func signalError(err error) error {
	switch err {
	case unix.ESRCH:
		return ErrExited
	case unix.EPERM:
		return fs.ErrPermission
	default:
		return err
	}
}

// Info is what PIDFD_GET_INFO tells (6.13), as the kernel lays it out: struct pidfd_info, version 0.
type Info struct {
	Mask                   uint64 // in: the InfoX wanted; out: those given
	CgroupID               uint64
	Pid, Tgid, Ppid        uint32
	Ruid, Rgid, Euid, Egid uint32
	Suid, Sgid             uint32
	Fsuid, Fsgid           uint32
	ExitCode               int32 // a wait status, see wait(2)
}

// Parts of Info. The kernel gives InfoPid and InfoCreds while the process exists, InfoExit after it was reaped (6.15).
const (
	InfoPid    = unix.PIDFD_INFO_PID
	InfoCreds  = unix.PIDFD_INFO_CREDS
	InfoCgroup = unix.PIDFD_INFO_CGROUPID
	InfoExit   = unix.PIDFD_INFO_EXIT
)

// pidfdGetInfo is _IOWR(0xff, 11, struct pidfd_info) with the 64 bytes of version 0, which every kernel
// that has the call takes; x/sys has the number of a later version.
const pidfdGetInfo = 0xc040ff0b

// Info asks the kernel for the parts in mask; the answer's Mask says which it gave. The error is ENOTTY
// before Linux 6.13 and ErrExited when the process was reaped and no part survives that.
func (p *Process) Info(mask uint64) (info Info, err error) {
	err = p.use(func(fd int) error {
		info, err = fdInfo(fd, mask)
		return err
	})
	return info, err
}

func fdInfo(fd int, mask uint64) (Info, error) {
	info := Info{Mask: mask}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	switch errno {
	case 0:
		return info, nil
	case unix.ESRCH:
		return Info{}, ErrExited
	default:
		return Info{}, errno
	}
}

// pidOf reads a pidfd's number from its fdinfo, which every kernel has.
func pidOf(fd int) (int, error) {
	text, err := readFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd), 4096)
	if err != nil {
		return 0, err
	}
	pid, err := decimal(field(text, "Pid:"))
	if err != nil {
		return 0, fmt.Errorf("descriptor %d is no pidfd", fd)
	}
	if pid <= 0 { // -1: reaped; 0: in a pid namespace that is not below ours
		return 0, ErrExited
	}
	return pid, nil
}

// Start is the time when the process began, in clock ticks (1/100 s) since boot. A pid together with it
// names a process across restarts of this program, but not across boots.
func (p *Process) Start() (uint64, error) {
	p.mu.Lock()
	start := p.start
	p.mu.Unlock()
	if start != 0 {
		return start, nil
	}
	st, err := p.Stat()
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	p.start = st.Start
	p.mu.Unlock()
	return st.Start, nil
}
