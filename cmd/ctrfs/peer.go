package main

import (
	"net"

	"ctrfs/fs/srv"
	"ctrfs/ns"
)

// peerOf says what a connection proves of its other end: of a local one who connected, of any other nothing. An error
// means that it cannot be told; the connection is to be refused.
func peerOf(c net.Conn) (srv.Peer, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return srv.Peer{}, nil
	}
	p, err := ns.Peer(u)
	if err != nil {
		return srv.Peer{}, err
	}
	if p.Proc != nil {
		p.Proc.Close()
	}
	if p.Uid == 0 && !p.Root() {
		return srv.Peer{Pid: p.Pid}, nil // a container's root, whose rights are not those of ours
	}
	return srv.Peer{Proven: true, Uid: p.Uid, Gid: p.Gid, Groups: p.Groups, Pid: p.Pid, MayClaim: p.Root()}, nil
}

// users is the machine's user database as srv asks for it.
type users struct{}

func (users) ByName(name string) (uid uint32, ok bool) {
	c, ok := ns.UserCred(name)
	return c.Uid, ok
}

func (users) ByUid(uid uint32) (name string, gid uint32, groups []uint32, ok bool) {
	c := ns.UserIDCred(uid)
	return ns.UserName(uid), c.Gid, c.Groups, true
}

func (users) Group(gid uint32) (name string, ok bool) { return ns.GroupName(gid), true }
