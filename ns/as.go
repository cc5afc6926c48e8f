package ns

import (
	"bytes"
	"fmt"
	"io/fs"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The first thread is the one that /proc/self shows to everybody: it stays what it is, and does none of the work that takes a
// thread to other ids or namespaces, or ends it.
func init() { runtime.LockOSThread() }

// As calls f on a thread that has c's identity and no capability, so that the kernel's own rules
// decide what f may do: also those that a comparison of ids would miss (a process that is not dumpable,
// Yama, a user namespace, an ACL, hidepid). f must use the thread's credentials before it returns: it opens
// or sends, and does not start goroutines for it.
//
// A root c is this process itself: f runs with all that it has; who root is has been decided at the
// connection (see Peer). If this process is not root, As is the identity for its own uid and
// fs.ErrPermission for every other.
//
// What counts as c's is the effective and the file system id, on which opening, /proc's files and kill(2)
// decide. The real id is one that nobody uses and the saved one stays root's, because a user may
// signal each thread that has his id in one of them, and a SIGKILL to a thread ends the whole process.
// Therefore what asks for the real id (access, kcmp, prlimit, ptrace attach) fails for everybody in f.
func As(c Cred, f func() error) error {
	euid := uint32(unix.Geteuid())
	if c.Uid == euid {
		return f()
	}
	if euid != 0 {
		return fs.ErrPermission
	}
	spare, err := spareUID()
	if err != nil {
		return err
	}
	back := mine()
	done := make(chan error, 1)
	// On a goroutine of its own, which can end with its thread.
	go func() {
		runtime.LockOSThread()
		err := become(c, spare)
		if err == nil {
			err = f()
		}
		// A thread that could not be given back is thrown away: a locked goroutine that ends takes it along.
		if back.restore() == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// become changes the calling thread only: the wrappers of package syscall would change all.
func become(c Cred, spare uint32) error {
	if c.Uid == nobodyAtAll || c.Gid == nobodyAtAll { // to setresuid it means "as before": root
		return fs.ErrPermission
	}
	if len(c.Groups) > maxGroups {
		return fmt.Errorf("user %d: %d groups", c.Uid, len(c.Groups))
	}
	if err := setgroups(c.Groups); err != nil {
		return fmt.Errorf("setgroups of user %d: %w", c.Uid, err)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(c.Gid), uintptr(c.Gid), uintptr(c.Gid)); errno != 0 {
		return fmt.Errorf("setresgid %d: %w", c.Gid, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(spare), uintptr(c.Uid), 0); errno != 0 {
		return fmt.Errorf("setresuid %d: %w", c.Uid, errno)
	}
	// The kernel has emptied the effective set, unless securebits say otherwise; the permitted one, which
	// only restore uses, decides nothing.
	var hdr = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := capget(&hdr, &caps); err != nil {
		return err
	}
	caps[0].Effective, caps[1].Effective = 0, 0
	if err := capset(&hdr, &caps); err != nil {
		return err
	}
	// The change of uid has set the whole process's dumpable to fs.suid_dumpable, which may be 1.
	if _, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

const (
	maxGroups   = 65536     // NGROUPS_MAX
	nobodyAtAll = 1<<32 - 1 // -1 is no uid and no gid
)

// own is what this process's threads have, and must have again before they run anything else.
type own struct {
	gid    [3]int
	groups []uint32
	caps   [2]unix.CapUserData
}

// mine reads the credentials of the threads once: they do not change while the server runs.
var mine = sync.OnceValue(func() *own {
	o := new(own)
	o.gid[0], o.gid[1], o.gid[2] = unix.Getresgid()
	groups, _ := unix.Getgroups()
	for _, g := range groups {
		o.groups = append(o.groups, uint32(g))
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	capget(&hdr, &o.caps)
	return o
})

func (o *own) restore() error {
	// Back to uid 0 by the saved one; then the effective set again, which the rest needs.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno != 0 {
		return errno
	}
	hdr, caps := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, o.caps
	if err := capset(&hdr, &caps); err != nil {
		return err
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(o.gid[0]), uintptr(o.gid[1]), uintptr(o.gid[2])); errno != 0 {
		return errno
	}
	return setgroups(o.groups)
}

func setgroups(g []uint32) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(g)), uintptr(unsafe.Pointer(unsafe.SliceData(g))), 0); errno != 0 {
		return errno
	}
	return nil
}

func capget(hdr *unix.CapUserHeader, data *[2]unix.CapUserData) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_CAPGET, uintptr(unsafe.Pointer(hdr)), uintptr(unsafe.Pointer(data)), 0); errno != 0 {
		return errno
	}
	return nil
}

func capset(hdr *unix.CapUserHeader, data *[2]unix.CapUserData) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(hdr)), uintptr(unsafe.Pointer(data)), 0); errno != 0 {
		return errno
	}
	return nil
}

// uidMap is this process's uid_map: the last uid that exists here, and how many do.
var uidMap = once(func() (m struct{ last, n uint64 }, err error) {
	text, err := readFile("/proc/self/uid_map", maxText)
	if err != nil {
		return m, err
	}
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		if len(f) != 3 {
			return m, fmt.Errorf("uid_map: %.64q", line)
		}
		first, e1 := strconv.ParseUint(string(f[0]), 10, 32)
		n, e2 := strconv.ParseUint(string(f[2]), 10, 32)
		if e1 != nil || e2 != nil || n == 0 {
			return m, fmt.Errorf("uid_map: %.64q", line)
		}
		m.last, m.n = max(m.last, first+n-1), m.n+n
	}
	return m, nil
})

// once is sync.OnceValues for what can fail for a while, as when no descriptor is left: an error is not kept.
func once[T any](f func() (T, error)) func() (T, error) {
	var kept atomic.Pointer[T]
	return func() (T, error) {
		if v := kept.Load(); v != nil {
			return *v, nil
		}
		v, err := f()
		if err == nil {
			kept.Store(&v)
		}
		return v, err
	}
}

// spareUID is the last uid that exists in this user namespace: 4294967294 on the host, which no program
// gives to anybody, as it is -2.
func spareUID() (uint32, error) {
	m, err := uidMap()
	if err != nil {
		return 0, err
	}
	if m.n < 3 { // root, c and the spare one
		return 0, fs.ErrPermission
	}
	return uint32(m.last), nil
}

// OpenAs opens path as c, without waiting for the other end of a FIFO; the caller closes the descriptor. See open(2).
func OpenAs(c Cred, path string, flags int) (fd int, err error) {
	err = As(c, func() error {
		fd, err = openFile(path, flags|unix.O_NONBLOCK)
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// SignalAs sends sig to p as c: fs.ErrPermission if c may not. The kernel lets everybody continue (SIGCONT) the
// processes of his own session, here this process's: who is started for others belongs into another.
func SignalAs(c Cred, p *Process, sig syscall.Signal) error {
	return p.use(func(fd int) error {
		return As(c, func() error { return sendSignal(fd, sig) })
	})
}
