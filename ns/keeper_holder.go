package ns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// upgraded is the variable by which a keeper tells the program that it becomes what else it has to know: the descriptor of
// the holder's socket, and the oom_score_adj of all but the keeper.
const upgraded = "CTRFS_UPGRADED"

// findHolder finds the holder of the keeper before this one, which this process may have been itself, and takes over
// what it holds; or else starts one. Without state there is none.
func (k *keeper) findHolder(state string) error {
	k.state, k.holder = state, -1
	if text, ok := os.LookupEnv(upgraded); ok {
		os.Unsetenv(upgraded)
		fd := 0
		n, err := fmt.Sscan(text, &fd, &k.adj)
		if n == 0 {
			return fmt.Errorf("%s=%q: %w", upgraded, text, err)
		}
		unix.CloseOnExec(fd)
		if err := say(fd, message{Verb: "give"}); err != nil {
			return fmt.Errorf("holder: %w", err)
		}
		k.up = true
		return k.takeOver(fd)
	}
	if state == "" {
		return nil
	}
	// Of several keepers that begin one after the other looks whether there is a holder.
	dir, err := os.Open(filepath.Dir(state))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %q: %w", dir.Name(), err)
	}
	for range 10 { // one that is about to end hangs up
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: state}); err {
		case nil:
			if cred, e := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); e != nil || int(cred.Uid) != os.Geteuid() {
				unix.Close(fd)
				return fmt.Errorf("%q: %w", state, unix.EPERM)
			}
			if err := k.takeOver(fd); err != errHungUp {
				return err
			}
		case unix.ENOENT, unix.ECONNREFUSED:
			unix.Close(fd)
			return k.startHolder()
		default:
			unix.Close(fd)
			return fmt.Errorf("connect %q: %w", state, err)
		}
	}
	return errHungUp
}

var errHungUp = errors.New("the holder hangs up")

// takeOver takes over what the holder holds. The socket is the keeper's.
func (k *keeper) takeOver(fd int) error {
	buf, oob := make([]byte, messageMost), make([]byte, unix.CmsgSpace(rightsMost*4))
	for {
		m, fds, ok := hear(fd, buf, oob)
		switch {
		case !ok:
			unix.Close(fd)
			return errHungUp
		case m.Verb == "busy":
			unix.Close(fd)
			return errors.New("another server is at work there")
		case m.Verb == "all":
			k.useHolder(fd)
			return nil
		}
		if h := k.do(m, fds); h != nil && h.Pid != 0 && !h.Adopted {
			k.byPid[h.Pid] = h
		}
	}
}

// useHolder makes a socket the holder's, and starts another holder when that has died.
func (k *keeper) useHolder(fd int) {
	k.holder = fd
	go func() {
		buf := make([]byte, 1)
		for {
			if n, err := unix.Read(fd, buf); err == unix.EINTR || n > 0 {
				continue
			}
			break
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		unix.Close(k.holder)
		k.holder = -1
		if k.ending {
			close(k.over)
			return
		}
		if err := k.startHolder(); err != nil {
			fmt.Fprintln(os.Stderr, "ctrfs: start the holder:", err)
			return
		}
		k.give(k.holder)
		k.holdServer()
	}()
}

// startHolder starts a holder, and lets the next keeper find it.
func (k *keeper) startHolder() error {
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(l)
	os.Remove(k.state) // of one that is dead
	err = unix.Bind(l, &unix.SockaddrUnix{Name: k.state})
	if err == nil {
		err = unix.Listen(l, 1)
	}
	if err != nil {
		return fmt.Errorf("listen %q: %w", k.state, err)
	}
	sp, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sp[1])
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		defer null.Close()
		_, err = syscall.ForkExec("/proc/self/exe", []string{holderName}, &syscall.ProcAttr{
			Dir: "/", Env: os.Environ(),
			Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), uintptr(sp[1]), uintptr(l)},
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
	}
	if err != nil {
		unix.Close(sp[0])
		return err
	}
	k.useHolder(sp[0])
	return nil
}

// holdServer makes the holder end the server when the keeper has died, as that would move the same data as the next, and hear
// what the keeper has not. Called with the lock.
func (k *keeper) holdServer() {
	if fd := int(k.server.Load()); k.holder >= 0 && fd >= 0 {
		say(k.holder, message{Verb: "hold", Name: serverName, Pid: k.pid, Kill: true, With: withKeeper}, fd, k.sock)
	}
}

// tell tells the server and the holder how what is held has ended. Called with the lock.
func (k *keeper) tell(h *holding) {
	m := message{Verb: "ended", Name: h.Name, End: h.End}
	if k.holder >= 0 {
		say(k.holder, m) // first: what the server tells others is not to be lost
	}
	say(k.sock, m)
}

// dismiss ends the holder, and waits until it has ended.
func (k *keeper) dismiss() {
	k.mu.Lock()
	k.ending = true
	there := k.holder >= 0 && say(k.holder, message{Verb: "end"}) == nil
	k.mu.Unlock()
	if there {
		<-k.over
	}
}

// become makes this process the keeper of the program that now has this one's name. What it holds the holder gives back to
// that. It returns on error.
func (k *keeper) become() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.holder < 0 {
		return errors.New("no holder")
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	unix.FcntlInt(uintptr(k.holder), unix.F_SETFD, 0)
	defer unix.CloseOnExec(k.holder)
	env := append(os.Environ(), upgraded+"="+strconv.Itoa(k.holder)+" "+k.adj)
	return fmt.Errorf("exec %q: %w", exe, unix.Exec(exe, os.Args, env))
}
