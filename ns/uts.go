package ns

import (
	"fmt"
	"io/fs"
	"runtime"

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

// inUTS calls f on a thread in p's UTS namespace, entered by the pidfd (5.8): neither a number that is used again nor
// a link of /proc can lead elsewhere. A thread that does not come back is thrown away.
func inUTS(p *Process, f func() error) error {
	return p.use(func(fd int) error {
		done := make(chan error, 1)
		go func() {
			runtime.LockOSThread()
			home, err := unix.Open("/proc/thread-self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				done <- fmt.Errorf("own uts namespace: %w", err)
				runtime.UnlockOSThread()
				return
			}
			defer unix.Close(home)
			switch err = unix.Setns(fd, unix.CLONE_NEWUTS); err {
			case nil:
				err = f()
				if unix.Setns(home, unix.CLONE_NEWUTS) != nil {
					done <- err
					return // locked: the thread ends too
				}
			case unix.ESRCH:
				err = ErrExited
			case unix.EPERM:
				err = fs.ErrPermission
			default:
				err = fmt.Errorf("uts namespace of process %d: %w", p.pid, err)
			}
			runtime.UnlockOSThread()
			done <- err
		}()
		return <-done
	})
}
