package srv

import (
	"strconv"
	"syscall"

	"ctrfs/fs"
	"ctrfs/fs/styx"
)

// A Peer is what the connection itself proves about its other end.
type Peer struct {
	Proven   bool // Uid, Gid and Groups are proven; else whoever attaches is nobody
	Uid, Gid uint32
	Groups   []uint32
	Pid      int // the process that connected; 0: not known

	// MayClaim says that the peer may attach as somebody else: it is root in the server's own user, pid and mount
	// name spaces with CAP_SETUID, and so could become him anyway. A mount by root is such a peer.
	MayClaim bool
}

// Users is the machine's user database.
type Users interface {
	ByName(name string) (uid uint32, ok bool)
	ByUid(uid uint32) (name string, gid uint32, groups []uint32, ok bool)
	Group(gid uint32) (name string, ok bool)
}

const nobody = ^uint32(0)

var errClaim = fs.Err(syscall.EPERM, "Operation not permitted")

// client says who attaches. Uname counts only from a peer that may claim to be others, and only where there is no
// uid: Linux's mount attaches first as `nobody` without one, then once for each user with his uid.
func (c *conn) client(uname string, uid uint32) (*fs.Client, error) {
	p := &c.peer
	cl := &fs.Client{Gathers: c.dialect == styx.Linux, Bare: c.dialect == styx.Plain}
	switch {
	case !p.Proven:
		return c.nobody(cl), nil
	case !p.MayClaim:
		if uid != styx.NoUid && uid != p.Uid {
			return nil, errClaim
		}
		cl.Uid, cl.Gid, cl.Groups, cl.Pid = p.Uid, p.Gid, p.Groups, p.Pid
	default:
		if uid == styx.NoUid {
			ok := false
			if c.s.Users != nil && uname != "" && uname != "nobody" {
				uid, ok = c.s.Users.ByName(uname)
			}
			if !ok || uid == styx.NoUid {
				return c.nobody(cl), nil
			}
		}
		cl.Uid, cl.Gid = uid, nobody
		if c.s.Users != nil {
			if _, gid, groups, ok := c.s.Users.ByUid(uid); ok {
				cl.Gid, cl.Groups = gid, groups
			}
		}
		if uid == p.Uid && cl.Gid == nobody {
			cl.Gid, cl.Groups = p.Gid, p.Groups
		}
	}
	cl.Errors, cl.Account = fs.ErrorsOf(cl.Uid), c.s.Accounts.Of(cl.Uid)
	return cl, nil
}

func (c *conn) nobody(cl *fs.Client) *fs.Client {
	cl.Uid, cl.Gid, cl.None, cl.Errors = nobody, nobody, true, &c.errors
	cl.Account = c.s.Accounts.Of(nobody)
	return cl
}

// user and group give the names that 9P2000 shows, the number where there is none.
func (s *Server) user(uid uint32) string {
	if s.Users != nil {
		if name, _, _, ok := s.Users.ByUid(uid); ok {
			return name
		}
	}
	return strconv.FormatUint(uint64(uid), 10)
}

func (s *Server) group(gid uint32) string {
	if s.Users != nil {
		if name, ok := s.Users.Group(gid); ok {
			return name
		}
	}
	return strconv.FormatUint(uint64(gid), 10)
}
