package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listen listens at an address. A socket file that it makes is removed when the listener is closed.
func (a addr) listen() (net.Listener, error) {
	switch a.network {
	case "unix":
		return listenUnix(a.address)
	case "fd":
		f, err := a.file()
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return inherited(f)
	}
	l, err := net.Listen(a.network, a.address)
	if err != nil {
		return nil, fmt.Errorf("listen %q: %w", a, cause(err))
	}
	return l, nil
}

// inherited makes a listener of a socket: of one that does not listen, one that gives this connection and no other.
func inherited(f *os.File) (net.Listener, error) {
	listens, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return nil, fmt.Errorf("listen %q: %w", f.Name(), err)
	}
	if listens != 0 {
		l, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("listen %q: %w", f.Name(), cause(err))
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // it belongs to who made it
		}
		return l, nil
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("listen %q: %w", f.Name(), cause(err))
	}
	return &single{conn: c}, nil
}

// A single is a listener whose one client is there already.
type single struct {
	mu   sync.Mutex // guards conn
	conn net.Conn
	addr net.Addr
}

func (s *single) take() net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.conn
	s.conn = nil
	return c
}

// Accept gives io.EOF when there is no other client to come.
func (s *single) Accept() (net.Conn, error) {
	c := s.take()
	if c == nil {
		return nil, io.EOF
	}
	s.addr = c.LocalAddr()
	return c, nil
}

func (s *single) Close() error {
	if c := s.take(); c != nil {
		return c.Close()
	}
	return nil
}

func (s *single) Addr() net.Addr { return s.addr }

// passed gives the sockets that systemd passed; see sd_listen_fds(3).
func passed() (l []addr) {
	pid, _ := strconv.Atoi(os.Getenv("LISTEN_PID"))
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(v) // they are not for our children
	}
	if pid == os.Getppid() { // the keeper
		for i := range n {
			l = append(l, addr{"fd", strconv.Itoa(3 + i)})
		}
	}
	return l
}

// A sockFile is a listener with a name in the file system.
type sockFile struct {
	*net.UnixListener
	path string
	made fs.FileInfo // nil: another's file is there
}

// Close removes the file if it is still ours.
func (l *sockFile) Close() error {
	if fi, err := os.Lstat(l.path); err == nil && l.made != nil && os.SameFile(fi, l.made) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// listenUnix makes a socket; one of a dead server, which refuses connections, is replaced.
func listenUnix(path string) (_ net.Listener, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("listen \"unix!%s\": %w", path, cause(err))
		}
	}()
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	name := &net.UnixAddr{Name: path, Net: "unix"}
	u, err := net.ListenUnix("unix", name)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err = dead(path); err != nil {
			return nil, err
		}
		if err = os.Remove(path); err != nil {
			return nil, err
		}
		u, err = net.ListenUnix("unix", name)
	}
	if err != nil {
		return nil, err
	}
	u.SetUnlinkOnClose(false)
	l := &sockFile{UnixListener: u, path: path}
	mode := fs.FileMode(0600)
	if os.Geteuid() == 0 {
		mode = 0666 // who may do what is said in the tree
	}
	if err = os.Chmod(path, mode); err == nil {
		l.made, err = os.Lstat(path)
	}
	if err != nil {
		u.Close()
		return nil, err
	}
	return l, nil
}

// lockFile has the lock that a file of that name stands for, and the file is there only while somebody has it: of several
// servers that begin at the same time one after the other looks whether a socket is dead.
func lockFile(name string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			f.Close()
			return nil, err
		}
		mine, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if there, err := os.Lstat(name); err == nil && os.SameFile(mine, there) {
			return func() { os.Remove(name); f.Close() }, nil
		}
		f.Close() // it was removed while we waited
	}
}

// dead says whether path is a socket that nobody listens to.
func dead(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return syscall.ENOTSOCK
	}
	for range 10 {
		c, err := net.Dial("unix", path)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			return nil
		case err != nil:
			return err
		}
		// One that was killed, or whose keeper was, may not have ended yet. Then it hangs up; else it waits for what we say.
		c.SetReadDeadline(time.Now().Add(dying))
		_, err = c.Read(make([]byte, 1))
		c.Close()
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	return errors.New("another server listens there")
}

// dying is how long a server that was killed may take to be gone.
const dying = 100 * time.Millisecond

// accept gives each connection to serve until the listener is closed. When there are no descriptors left those who wait are
// turned away, which needs the one kept for that, rather than left without an answer; and that not as fast as they can come
// back.
func accept(ctx context.Context, l net.Listener, serve func(net.Conn)) {
	spare, _ := os.Open(os.DevNull)
	const first, last = 5 * time.Millisecond, 500 * time.Millisecond
	for delay := first; ; {
		c, err := l.Accept()
		switch {
		case err == nil:
			delay = first
			serve(c)
			continue
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed) || err == io.EOF:
			spare.Close()
			return
		}
		if delay == first {
			slog.Warn("accept", "error", cause(err))
		}
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			spare.Close()
			turnAway(l)
			spare, _ = os.Open(os.DevNull)
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		delay = min(2*delay, last)
	}
}

// turnAway accepts those who wait and closes.
func turnAway(l net.Listener) {
	d, ok := l.(interface{ SetDeadline(time.Time) error })
	if !ok {
		return
	}
	defer d.SetDeadline(time.Time{})
	for range 128 { // and no more, as they may come again at once
		d.SetDeadline(time.Now().Add(time.Millisecond))
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}
