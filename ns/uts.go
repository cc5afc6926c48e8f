package ns

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// maxUTS is the longest host or domain name, in bytes (__NEW_UTS_LEN).
const maxUTS = 64

// Hostname is the host name in p's UTS namespace, now. See gethostname(2).
func Hostname(p *Process) (string, error) {
	u, err := utsname(p)
	return unix.ByteSliceToString(u.Nodename[:]), err
}

// Domainname is the NIS domain name there.
func Domainname(p *Process) (string, error) {
	u, err := utsname(p)
	return unix.ByteSliceToString(u.Domainname[:]), err
}

// Uname is what uname(2) tells in p's UTS namespace. Unlike Hostname it takes no other thread: should the caller's not come back
// from there it is its own as long as the caller's goroutine lasts.
func Uname(p *Process) (u unix.Utsname, err error) {
	home, err := ownUTS()
	if err != nil {
		return u, err
	}
	err = p.use(func(fd int) error {
		runtime.LockOSThread()
		if err := unix.Setns(fd, unix.CLONE_NEWUTS); err != nil {
			runtime.UnlockOSThread()
			return err
		}
		err := unix.Uname(&u)
		if unix.Setns(home, unix.CLONE_NEWUTS) == nil {
			runtime.UnlockOSThread()
		}
		return err
	})
	return u, err
}

// ownUTS is this program's UTS namespace.
var ownUTS = sync.OnceValues(func() (int, error) {
	return unix.Open("/proc/self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
})

func utsname(p *Process) (u unix.Utsname, err error) {
	err = inUTS(p, func() error { return unix.Uname(&u) })
	return u, err
}

// SetHostname sets the host name in p's UTS namespace; the right to do so was the caller's to check.
func SetHostname(p *Process, name string) error {
	return setUTS(p, "hostname", name, unix.Sethostname)
}

// SetDomainname sets the NIS domain name there.
func SetDomainname(p *Process, name string) error {
	return setUTS(p, "domainname", name, unix.Setdomainname)
}

func setUTS(p *Process, what, name string, set func([]byte) error) error {
	if len(name) > maxUTS {
		return fmt.Errorf("%s %q: longer than %d bytes", what, name, maxUTS)
	}
	return inUTS(p, func() error {
		if err := set([]byte(name)); err != nil {
			return fmt.Errorf("%s %q: %w", what, name, err)
		}
		return nil
	})
}

func inUTS(p *Process, f func() error) error { return p.inSpace("uts", f) }

// inSpace calls f on a thread in p's namespace of a kind, entered by the pidfd (5.8): neither a number that is used again nor
// a link of /proc can lead elsewhere. A thread that does not come back is thrown away.
func (p *Process) inSpace(kind string, f func() error) error {
	return p.use(func(fd int) error {
		done := make(chan error, 1)
		go func() {
			runtime.LockOSThread()
			home, err := unix.Open("/proc/thread-self/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				done <- fmt.Errorf("own %s namespace: %w", kind, err)
				runtime.UnlockOSThread()
				return
			}
			defer unix.Close(home)
			switch err = unix.Setns(fd, int(kindFlag(kind))); err {
			case nil:
				err = f()
				if unix.Setns(home, int(kindFlag(kind))) != nil {
					done <- err
					return // locked: the thread ends too
				}
			case unix.ESRCH:
				err = ErrExited
			case unix.EPERM:
				err = fs.ErrPermission
			default:
				err = fmt.Errorf("%s namespace of process %d: %w", kind, p.pid, err)
			}
			runtime.UnlockOSThread()
			done <- err
		}()
		return <-done
	})
}

// SetSysctl sets what is below /proc/sys/net in p's network namespace; the right to do so was the caller's to check.
func SetSysctl(p *Process, name, value string) error {
	return p.inSpace("net", func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) })
}
