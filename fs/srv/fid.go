package srv

import (
	"context"
	iofs "io/fs"
	"strings"
	"sync/atomic"
	"syscall"

	"ctrfs/fs"
	"ctrfs/fs/styx"
)

var (
	errNoFid  = fs.Err(syscall.EBADF, "fid unknown or out of range")
	errInUse  = fs.Err(syscall.EBADF, "fid already in use")
	errBadUse = fs.Err(syscall.EBADF, "bad use of fid")
	errFids   = fs.Err(syscall.EMFILE, "too many fids")
)

// A fid is a client's place in the tree, and the open file there.
type fid struct {
	asker context.Context // carries the client that attached
	at    atomic.Pointer[place]
	open  atomic.Pointer[open]

	// guarded by conn.mu
	reqs *req          // those under way
	gone chan struct{} // closed when only the request that ends the fid is left
}

// A place is a node and how it was reached. It does not change.
type place struct {
	node fs.Node
	up   *place // nil at the root
	name string
	qid  styx.Qid
}

// An open is an open file or directory.
type open struct {
	how fs.How
	h   fs.Handle // nil: a directory
	dir *dir
}

func newFid(asker context.Context, p *place) *fid {
	f := &fid{asker: asker}
	f.at.Store(p)
	return f
}

// account is that of the client who attached.
func (f *fid) account() *fs.Account { return fs.ClientOf(f.asker).Account }

func (p *place) path() string {
	if p.up == nil {
		return "/"
	}
	var names []string
	for ; p.up != nil; p = p.up {
		names = append(names, p.name)
	}
	var b strings.Builder
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(names[i])
	}
	return b.String()
}

// arrive gives the place of a node.
func (r *req) arrive(up *place, name string, n fs.Node) (*place, error) {
	st, err := n.Stat(r)
	if err != nil {
		return nil, err
	}
	return &place{n, up, name, r.c.qid(st.Qid, st.Mode)}, nil
}

// step walks one name further.
func (r *req) step(p *place, name string) (*place, error) {
	if name == ".." {
		if p.up != nil {
			return p.up, nil
		}
		return p, nil
	}
	if name == "." && r.c.dialect == styx.Linux {
		return p, nil // Treaddir lists it, and diodls walks to all that it finds there
	}
	if err := legal(name); err != nil {
		return nil, err
	}
	n, err := fs.Look(r, p.node, name)
	if err != nil {
		return nil, err
	}
	return r.arrive(p, name, n)
}

// qid gives the qid of a file. 9P2000 has no symbolic links: there they are files that hold their target.
func (c *conn) qid(path uint64, mode fs.FileMode) styx.Qid {
	q := styx.Qid{Type: styx.QTFile, Path: path}
	switch {
	case mode.IsDir():
		q.Type = styx.QTDir
	case mode&iofs.ModeSymlink != 0 && c.dialect == styx.Linux:
		q.Type = styx.QTSymlink
	}
	return q
}

// legal says whether something can be called so.
func legal(name string) error {
	switch {
	case len(name) > 255:
		return syscall.ENAMETOOLONG
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return fs.Err(syscall.EINVAL, "illegal name")
	}
	return nil
}

// add and remove keep the list of a fid's requests. c.mu is held.
func (f *fid) add(r *req) {
	r.fid, r.next = f, f.reqs
	if f.reqs != nil {
		f.reqs.prev = r
	}
	f.reqs = r
}

func (f *fid) remove(r *req) {
	if r.next != nil {
		r.next.prev = r.prev
	}
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		f.reqs = r.next
	}
	r.next, r.prev = nil, nil
	if f.gone != nil && f.reqs != nil && f.reqs.next == nil {
		close(f.gone)
		f.gone = nil
	}
}

// close closes what is open.
func (f *fid) close() error {
	if o := f.open.Swap(nil); o != nil {
		return o.close(f)
	}
	return nil
}

// close closes what was opened on f.
func (o *open) close(f *fid) error {
	if o.h != nil {
		return o.h.Close(f.asker)
	}
	o.dir.forget(f.account())
	if o.dir.pages != nil {
		o.dir.pages.Close()
	}
	return nil
}

// insert makes a fid known.
func (c *conn) insert(n styx.Fid, f *fid) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.vacant(n); err != nil {
		return err
	}
	if err := f.account().Take(fs.Fids, 1); err != nil {
		return err
	}
	c.fids[n] = f
	c.s.count.fids.Add(1)
	return nil
}

// vacant says whether a fid of that number may be made. c.mu is held.
func (c *conn) vacant(n styx.Fid) error {
	switch {
	case n == styx.NoFid:
		return errNoFid
	case c.fids[n] != nil:
		return errInUse
	case len(c.fids) >= c.limits.Fids && !(c.peer.MayClaim && len(c.fids) < 64*c.limits.Fids):
		return errFids
	}
	return nil
}

// end makes the requests of a fid that is known no more end, but for r, and waits until they have.
func (c *conn) end(r *req) {
	f := r.fid
	c.mu.Lock()
	for o := f.reqs; o != nil; o = o.next {
		if o != r {
			o.cancel(errNoFid)
		}
	}
	if f.reqs.next == nil {
		c.mu.Unlock()
		return
	}
	gone := make(chan struct{})
	f.gone = gone
	c.handOn(r)
	c.mu.Unlock()
	<-gone
}
