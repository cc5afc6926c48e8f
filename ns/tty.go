package ns

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Winsize is the size of a terminal in characters.
type Winsize struct{ Cols, Rows uint16 }

// OpenTerminal makes a terminal of the devpts that is mounted below root, whoever has put what there: its master, which
// Go's poller waits for, and its slave, which belongs to uid. See pts(4).
func OpenTerminal(root *os.File, uid uint32) (master, slave *os.File, err error) {
	const name = "dev/ptmx"
	node, err := unix.Openat2(int(root.Fd()), name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("open %q: %w", name, err)
	}
	defer unix.Close(node)
	// Nothing else is opened: a FIFO or a device of a hostile root could do anything.
	var st unix.Stat_t
	if err := unix.Fstat(node, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(5, 2) {
		return nil, nil, errors.Join(err, fmt.Errorf("%q does not make terminals", name))
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", node), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open %q: %w", name, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, fmt.Errorf("unlock a terminal: %w", err)
	}
	// By the master, since the name could lead to another's by now.
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, flags)
	if errno != 0 {
		return nil, nil, fmt.Errorf("open a terminal: %w", errno)
	}
	slave = os.NewFile(peer, "tty")
	if err = slave.Chown(int(uid), -1); err == nil {
		err = slave.Chmod(0620)
	}
	if err != nil {
		slave.Close()
		return nil, nil, err
	}
	return os.NewFile(uintptr(fd), "terminal"), slave, nil
}

// GetWinsize and SetWinsize read and set the size of a terminal, whose programs hear of a change by WINCH.
func GetWinsize(terminal *os.File) (Winsize, error) {
	var size Winsize
	err := control(terminal, func(fd int) error {
		w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err == nil {
			size = Winsize{w.Col, w.Row}
		}
		return err
	})
	return size, err
}

func SetWinsize(terminal *os.File, size Winsize) error {
	return control(terminal, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: size.Cols, Row: size.Rows})
	})
}

// control calls f with a file's descriptor, which stays in the poller's hands.
func control(file *os.File, f func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	if e := conn.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}
