package srv

import (
	"cmp"
	"syscall"
	"time"

	"ctrfs/fs"
	"ctrfs/fs/styx"
)

// The requests of 9P2000.L.

const (
	magic     = 0x01021997 // V9FS_MAGIC; see statfs(2)
	blockSize = 4096
)

func (r *req) statfs(m *styx.Msg) error {
	m.Statfs = &styx.Statfs{Type: magic, Bsize: blockSize, Namelen: 255}
	return nil
}

// access says what the flags of open(2) ask for. Linux sends O_CREAT, O_APPEND and others for files that exist; what
// is not known does not matter.
func access(flags uint32) (fs.How, error) {
	var how fs.How
	switch flags & syscall.O_ACCMODE {
	case syscall.O_RDONLY:
		how = fs.Read
	case syscall.O_WRONLY:
		how = fs.Write
	case syscall.O_RDWR:
		how = fs.Read | fs.Write
	default:
		return 0, errMode
	}
	if flags&syscall.O_TRUNC != 0 {
		how |= fs.Trunc
	}
	return how, nil
}

func (r *req) lopen(m *styx.Msg) error {
	how, err := access(m.Flags)
	if err != nil {
		return err
	}
	if _, ok := r.fid.at.Load().node.(fs.Dir); m.Flags&syscall.O_DIRECTORY != 0 && !ok {
		return fs.ErrNotDir
	}
	return r.enter(m, how)
}

func (r *req) lcreate(m *styx.Msg) error {
	how, err := access(m.Flags)
	if err != nil {
		return err
	}
	return r.createFile(m, how)
}

func (r *req) forbid(*styx.Msg) error { return errPerm }
func (r *req) xattr(*styx.Msg) error  { return errXattr }
func (r *req) lock(*styx.Msg) error   { return errLocks }
func (r *req) fsync(*styx.Msg) error  { return nil }

func (r *req) readlink(m *styx.Msg) error {
	l, ok := r.fid.at.Load().node.(fs.Link)
	if !ok {
		return syscall.EINVAL
	}
	target, err := l.Readlink(r)
	m.Target = target
	return err
}

func (r *req) symlink(m *styx.Msg) error {
	if err := legal(m.Name); err != nil {
		return err
	}
	at := r.fid.at.Load()
	n, err := fs.Symlink(r, at.node, m.Name, m.Target)
	if err != nil {
		return err
	}
	p, err := r.arrive(at, m.Name, n)
	if err != nil {
		return err
	}
	m.Qid = p.qid
	return nil
}

func (r *req) rename(m *styx.Msg) error {
	at := r.fid.at.Load()
	dir, err := r.dir(m.Newdirfid, at.up)
	if err != nil {
		return err
	}
	return r.move(at, dir, m.Name)
}

func (r *req) renameat(m *styx.Msg) error {
	at := r.fid.at.Load()
	dir, err := r.dir(m.Newdirfid, at)
	if err != nil {
		return err
	}
	for _, name := range []string{m.Name, m.Newname} {
		if err := legal(name); err != nil {
			return err
		}
	}
	var to fs.Node
	if dir != nil {
		to = dir.node
	}
	return fs.Move(r, at.node, m.Name, to, m.Newname)
}

func (r *req) getattr(m *styx.Msg) error {
	st, err := r.fid.at.Load().node.Stat(r)
	if err != nil {
		return err
	}
	nlink := uint64(1)
	if st.Mode.IsDir() {
		nlink = 2
	}
	m.Qid = r.c.qid(st.Qid, st.Mode)
	m.Attr = &styx.Attr{
		Valid: styx.GetattrBasic,
		Mode:  fs.Unix(st.Mode), Uid: st.Uid, Gid: st.Gid,
		Nlink: nlink, Size: st.Length, Blksize: blockSize, Blocks: (st.Length + 511) / 512,
		Atime: moment(cmp.Or(st.Atime, st.Time)), Mtime: moment(st.Time), Ctime: moment(cmp.Or(st.Ctime, st.Time)),
	}
	return nil
}

func moment(t time.Time) styx.Time {
	if t.IsZero() {
		return styx.Time{}
	}
	return styx.Time{Sec: uint64(t.Unix()), Nsec: uint64(t.Nanosecond())}
}

func (r *req) setattr(m *styx.Msg) error {
	a := m.SetAttr
	has := func(bit uint32) bool { return a.Valid&bit != 0 }
	var c fs.Change
	if has(styx.SetattrMode) {
		mode := fs.FromUnix(a.Mode & 07777)
		c.Mode = &mode
	}
	if has(styx.SetattrUid) {
		c.Uid = &a.Uid
	}
	if has(styx.SetattrGid) {
		c.Gid = &a.Gid
	}
	if has(styx.SetattrSize) {
		c.Size = &a.Size
	}
	when := func(asked, said uint32, t styx.Time) *time.Time {
		switch {
		case has(said):
			at := time.Unix(int64(t.Sec), int64(t.Nsec))
			return &at
		case has(asked):
			return new(time.Time)
		}
		return nil
	}
	c.Atime = when(styx.SetattrAtime, styx.SetattrAtimeSet, a.Atime)
	c.Mtime = when(styx.SetattrMtime, styx.SetattrMtimeSet, a.Mtime)
	return r.set(c)
}

func (r *req) mkdir(m *styx.Msg) error {
	p, err := r.make(m.Name, fs.FileMode(m.Perm&0777))
	if err != nil {
		return err
	}
	m.Qid = p.qid
	return nil
}

func (r *req) unlinkat(m *styx.Msg) error {
	if err := legal(m.Name); err != nil {
		return err
	}
	return fs.Delete(r, r.fid.at.Load().node, m.Name)
}
