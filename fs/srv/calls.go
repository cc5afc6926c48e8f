package srv

import (
	"path"
	"strings"
	"syscall"

	"ctrfs/fs"
	"ctrfs/fs/styx"
)

var (
	errPerm   = fs.Err(syscall.EPERM, "Operation not permitted")
	errAuth   = fs.Err(syscall.ENOENT, "authentication not required") // diod's clients go on after ENOENT only
	errOffset = fs.Err(syscall.EINVAL, "illegal offset")
	errMode   = fs.Err(syscall.EINVAL, "illegal mode")
	errShort  = fs.Err(syscall.EIO, "short write")
	errXattr  = fs.Err(syscall.EOPNOTSUPP, "extended attributes are not supported")
	errLocks  = fs.Err(syscall.EOPNOTSUPP, "locks are not supported")
)

// maxOffset is the largest offset that a file may be asked for, so that sums of it and a count do not overflow.
const maxOffset = 1 << 62

// calls carries the requests out: each takes its message and makes the reply of it. Tread, Tflush and Tversion are
// the conversation's own.
var calls [128]func(*req, *styx.Msg) error

// apart are the requests that change something. That may take its time, as starting a container does, and the clients of
// a mount are many: the reader does not carry them out itself.
var apart = [128]bool{
	styx.Twrite: true, styx.Tremove: true, styx.Tcreate: true, styx.Twstat: true,
	styx.Tlcreate: true, styx.Tsetattr: true, styx.Tsymlink: true, styx.Tmkdir: true, styx.Tunlinkat: true, styx.Trename: true, styx.Trenameat: true,
}

func init() {
	calls = [128]func(*req, *styx.Msg) error{
		styx.Tauth:   (*req).auth,
		styx.Tattach: (*req).attach,
		styx.Twalk:   (*req).walk,
		styx.Twrite:  (*req).write,
		styx.Tclunk:  (*req).clunk,
		styx.Tremove: (*req).delete,

		styx.Topen:   (*req).open,
		styx.Tcreate: (*req).create,
		styx.Tstat:   (*req).stat,
		styx.Twstat:  (*req).wstat,

		styx.Tstatfs:      (*req).statfs,
		styx.Tlopen:       (*req).lopen,
		styx.Tlcreate:     (*req).lcreate,
		styx.Tsymlink:     (*req).symlink,
		styx.Tmknod:       (*req).forbid,
		styx.Tlink:        (*req).forbid,
		styx.Trename:      (*req).rename,
		styx.Trenameat:    (*req).renameat,
		styx.Treadlink:    (*req).readlink,
		styx.Tgetattr:     (*req).getattr,
		styx.Tsetattr:     (*req).setattr,
		styx.Txattrwalk:   (*req).xattr,
		styx.Txattrcreate: (*req).xattr,
		styx.Treaddir:     (*req).readdir,
		styx.Tfsync:       (*req).fsync,
		styx.Tlock:        (*req).lock,
		styx.Tgetlock:     (*req).lock,
		styx.Tmkdir:       (*req).mkdir,
		styx.Tunlinkat:    (*req).unlinkat,
	}
}

func (r *req) auth(*styx.Msg) error { return errAuth }

func (r *req) attach(m *styx.Msg) error {
	c := r.c
	if m.Afid != styx.NoFid {
		return errNoFid
	}
	client, err := c.client(m.Uname, m.NUname)
	if err != nil {
		c.s.log("refused to attach as somebody else", c.peer, err)
		return err
	}
	asker := fs.WithClient(c.ctx, client)
	r.asker = asker
	if len(m.Aname) > 4096 {
		return syscall.ENAMETOOLONG
	}
	root, err := r.arrive(nil, "/", c.s.Root)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(path.Clean("/" + m.Aname)[1:], "/") {
		if name == "" {
			continue
		}
		if root, err = r.step(root, name); err != nil {
			return err
		}
	}
	if _, ok := root.node.(fs.Dir); !ok {
		return fs.ErrNotDir
	}
	m.Qid = root.qid
	return c.insert(m.Fid, newFid(asker, &place{root.node, nil, "/", root.qid}))
}

func (r *req) walk(m *styx.Msg) error {
	c, f := r.c, r.fid
	if m.Newfid == m.Fid {
		if f.open.Load() != nil {
			return errBadUse
		}
	} else {
		c.mu.Lock()
		err := c.vacant(m.Newfid)
		c.mu.Unlock()
		if err != nil {
			return err
		}
	}
	at := f.at.Load()
	for i, name := range m.Names {
		to, err := r.step(at, name)
		if err != nil {
			if i == 0 || r.Err() != nil {
				m.Names = m.Names[:i+1]
				return err
			}
			return nil // as far as it went: no fid comes of it
		}
		at = to
		m.Qids = append(m.Qids, at.qid)
	}
	if m.Newfid == m.Fid {
		f.at.Store(at)
		return nil
	}
	return c.insert(m.Newfid, newFid(f.asker, at))
}

// opened notes what was opened on the request's fid.
func (r *req) opened(m *styx.Msg, at *place, o *open) error {
	if !r.fid.open.CompareAndSwap(nil, o) {
		o.close(r.fid)
		return errBadUse
	}
	m.Qid, m.Iounit = at.qid, r.c.msize-ioHeader
	return nil
}

// enter opens what is at the request's fid.
func (r *req) enter(m *styx.Msg, how fs.How) error {
	if r.fid.open.Load() != nil {
		return errBadUse
	}
	at := r.fid.at.Load()
	if _, ok := at.node.(fs.Dir); !ok {
		h, err := fs.Enter(r, at.node, how)
		if err != nil {
			return err
		}
		return r.opened(m, at, &open{how: how, h: h})
	}
	if how != fs.Read {
		return fs.ErrIsDir
	}
	st, err := at.node.Stat(r)
	if err != nil {
		return err
	}
	if err := fs.Access(r, st, fs.Read); err != nil {
		return err
	}
	d := new(dir)
	if d.pages, err = fs.Pages(r, at.node); err != nil {
		return err
	}
	return r.opened(m, at, &open{how: how, dir: d})
}

func (r *req) read() ([]byte, error) {
	c := r.c
	o := r.fid.open.Load()
	n := min(r.count, c.msize-headerSize-4)
	switch {
	case o == nil || o.how&fs.Read == 0:
		return nil, errBadUse
	case o.h == nil:
		return r.dirread(o.dir, int(n))
	case n == 0:
		return nil, nil
	}
	c.mu.Lock()
	n = min(n, uint32(max(512, maxRead/c.running)))
	c.mu.Unlock()
	b, err := o.h.Read(r, r.off, int(n))
	return b[:min(len(b), int(n))], err
}

func (r *req) write(m *styx.Msg) error {
	o := r.fid.open.Load()
	switch {
	case o == nil || o.h == nil || o.how&fs.Write == 0:
		return errBadUse
	case m.Offset > maxOffset:
		return errOffset
	case len(m.Data) > 0:
		n, err := o.h.Write(r, int64(m.Offset), m.Data)
		if err != nil {
			return err
		}
		if n != len(m.Data) {
			return errShort
		}
	}
	m.Count = uint32(len(m.Data))
	return nil
}

func (r *req) clunk(*styx.Msg) error {
	r.c.end(r)
	return r.fid.close()
}

func (r *req) delete(*styx.Msg) error {
	r.c.end(r)
	err := errPerm
	if at := r.fid.at.Load(); at.up != nil {
		err = fs.Delete(r, at.up.node, at.name)
	}
	if e := r.fid.close(); err == nil {
		err = e
	}
	return err
}

// make makes a directory in the one at the fid.
func (r *req) make(name string, perm fs.FileMode) (*place, error) {
	if err := legal(name); err != nil {
		return nil, err
	}
	at := r.fid.at.Load()
	n, err := fs.Make(r, at.node, name, perm.Perm())
	if err != nil {
		return nil, err
	}
	return r.arrive(at, name, n)
}

// createFile makes a file in the directory at the fid, which then is the new file, open.
func (r *req) createFile(m *styx.Msg, how fs.How) error {
	if err := legal(m.Name); err != nil {
		return err
	}
	if r.fid.open.Load() != nil {
		return errBadUse
	}
	at := r.fid.at.Load()
	n, h, err := fs.Create(r, at.node, m.Name, fs.FileMode(m.Perm&0777), how)
	if err != nil {
		return err
	}
	p, err := r.arrive(at, m.Name, n)
	if err != nil {
		h.Close(r.asker)
		return err
	}
	return r.became(m, at, p, &open{how: how, h: h})
}

// became makes the fid the new file, open.
func (r *req) became(m *styx.Msg, at, p *place, o *open) error {
	if err := r.opened(m, p, o); err != nil {
		return err
	}
	r.fid.at.CompareAndSwap(at, p)
	return nil
}

// set changes attributes, through what is open if that is for writing.
func (r *req) set(c fs.Change) error {
	var h fs.Handle
	if o := r.fid.open.Load(); o != nil && o.how&fs.Write != 0 {
		h = o.h
	}
	return fs.Set(r, r.fid.at.Load().node, h, c)
}

// move gives the file at a place another name, in its directory or, if that is not nil, in another, and tells the fid of it.
func (r *req) move(at, dir *place, name string) error {
	if err := legal(name); err != nil {
		return err
	}
	if at.up == nil {
		return errPerm
	}
	to := at.up
	var node fs.Node
	if dir != nil {
		to, node = dir, dir.node
	}
	if err := fs.Move(r, at.up.node, at.name, node, name); err != nil {
		return err
	}
	to, err := r.step(to, name)
	if err != nil {
		return nil // it was moved; somebody has moved or removed it since
	}
	r.fid.at.CompareAndSwap(at, to)
	return nil
}

// dir gives the directory that a fid stands for; nil if that is d.
func (r *req) dir(n styx.Fid, d *place) (*place, error) {
	r.c.mu.Lock()
	f := r.c.fids[n]
	r.c.mu.Unlock()
	if f == nil {
		return nil, errNoFid
	}
	if at := f.at.Load(); d == nil || at.qid.Path != d.qid.Path {
		return at, nil
	}
	return nil, nil
}
