package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A PeerCred is who made a connection over a unix socket, as the kernel recorded it then. A descriptor that was
// inherited or passed on keeps the identity of the process that connected.
type PeerCred struct {
	Cred
	Pid    int      // 0 if the peer is in a pid namespace that is not below ours
	Proc   *Process // the process that connected; nil without a Pid. The caller closes it
	Ours   bool     // it is in our user, pid and mount namespaces
	Setuid bool     // it has CAP_SETUID there
}

// Root reports whether the peer may speak for every user of this machine. uid 0 alone does not say so:
// the root of a container without a user namespace has it, and so has a process that gave up its capabilities.
func (p *PeerCred) Root() bool { return p.Uid == 0 && p.Ours && p.Setuid }

// Peer finds out who connected. What is not sure is an error: the connection must be refused then.
// Before Linux 6.5 the process is found by its number, which another may have got if the one that
// connected has ended.
func Peer(conn *net.UnixConn) (*PeerCred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *PeerCred
	var e error
	if err := raw.Control(func(fd uintptr) { peer, e = peerOf(int(fd)) }); err != nil {
		return nil, err
	}
	if e != nil {
		return nil, fmt.Errorf("peer: %w", e)
	}
	return peer, nil
}

func peerOf(fd int) (*PeerCred, error) {
	u, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, err
	}
	c := &PeerCred{Cred: Cred{Uid: u.Uid, Gid: u.Gid}, Pid: int(u.Pid)}
	if err := mappedHere(c.Uid); err != nil {
		return nil, err
	}
	if c.Groups, err = peerGroups(fd); err != nil {
		return nil, err
	}
	if c.Pid <= 0 {
		return c, nil // somebody from outside: never Ours
	}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	switch err {
	case nil:
		c.Proc, err = FromFD(pidfd)
	case unix.ENOPROTOOPT: // before 6.5
		c.Proc, err = Open(c.Pid)
	}
	if err != nil {
		return nil, err
	}
	if err := c.look(); err != nil {
		c.Proc.Close()
		return nil, err
	}
	return c, nil
}

// mappedHere refuses the uid that stands for all that our user namespace does not have.
func mappedHere(uid uint32) error {
	if uid == nobodyAtAll {
		return fs.ErrPermission
	}
	m, err := uidMap()
	if err != nil {
		return err
	}
	if m.n == 1<<32-1 { // it has all
		return nil
	}
	text, err := readFile("/proc/sys/kernel/overflowuid", maxText)
	if err != nil {
		return err
	}
	if over, err := decimal([]byte(strings.TrimSpace(string(text)))); err != nil || uid == uint32(over) {
		return errors.Join(fs.ErrPermission, err)
	}
	return nil
}

func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(4 * len(groups))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ENODATA: // no groups were recorded
			return nil, nil
		case errno != unix.ERANGE || size > 4*maxGroups || int(size) <= 4*len(groups):
			return nil, errno
		}
		groups = make([]uint32, size/4)
	}
}

// look finds the facts by which a root peer is believed. What we may not see makes it nobody of ours.
func (c *PeerCred) look() error {
	st, err := c.Proc.Status()
	if err != nil {
		return err
	}
	c.Setuid = st.CapEff&(1<<unix.CAP_SETUID) != 0
	c.Ours = true
	for _, kind := range []string{"user", "pid", "mnt"} {
		own, err := readlink("/proc/self/ns/" + kind)
		if err != nil {
			return err
		}
		its, err := readlink(c.Proc.path("ns/" + kind))
		if err != nil || its != own {
			c.Ours = false
		}
	}
	return c.Proc.Check()
}
