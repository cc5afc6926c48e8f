package srv

import (
	iofs "io/fs"
	"syscall"

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

func (r *req) rename(m *styx.Msg) error {
	at := r.fid.at.Load()
	if err := r.sameDir(m.Newdirfid, at.up); err != nil {
		return err
	}
	return r.move(at, m.Name)
}

func (r *req) renameat(m *styx.Msg) error {
	at := r.fid.at.Load()
	if err := r.sameDir(m.Newdirfid, at); err != nil {
		return err
	}
	for _, name := range []string{m.Name, m.Newname} {
		if err := legal(name); err != nil {
			return err
		}
	}
	return fs.Move(r, at.node, m.Name, m.Newname)
}

func (r *req) getattr(m *styx.Msg) error {
	st, err := r.fid.at.Load().node.Stat(r)
	if err != nil {
		return err
	}
	sec, nsec := uint64(0), uint64(0)
	if !st.Time.IsZero() {
		sec, nsec = uint64(st.Time.Unix()), uint64(st.Time.Nanosecond())
	}
	t := styx.Time{Sec: sec, Nsec: nsec}
	nlink := uint64(1)
	if st.Mode.IsDir() {
		nlink = 2
	}
	m.Qid = r.c.qid(st.Qid, st.Mode)
	m.Attr = &styx.Attr{
		Valid: styx.GetattrBasic,
		Mode:  unixMode(st.Mode), Uid: st.Uid, Gid: st.Gid,
		Nlink: nlink, Size: st.Length, Blksize: blockSize, Blocks: (st.Length + 511) / 512,
		Atime: t, Mtime: t, Ctime: t,
	}
	return nil
}

func (r *req) setattr(m *styx.Msg) error {
	v := m.SetAttr.Valid
	switch {
	case v&(styx.SetattrMode|styx.SetattrUid|styx.SetattrGid) != 0:
		return errPerm
	case v&styx.SetattrSize != 0 && m.SetAttr.Size != 0:
		return errLength
	case v&styx.SetattrSize != 0:
		return r.truncate()
	}
	return r.touch()
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

// types are the file types as stat(2) has them.
var types = []struct {
	mode fs.FileMode
	unix uint32
}{
	{iofs.ModeDir, syscall.S_IFDIR},
	{iofs.ModeSymlink, syscall.S_IFLNK},
	{iofs.ModeDevice | iofs.ModeCharDevice, syscall.S_IFCHR},
	{iofs.ModeDevice, syscall.S_IFBLK},
	{iofs.ModeNamedPipe, syscall.S_IFIFO},
	{iofs.ModeSocket, syscall.S_IFSOCK},
}

func unixType(m fs.FileMode) uint32 {
	for _, t := range types {
		if m.Type() == t.mode {
			return t.unix
		}
	}
	return syscall.S_IFREG
}

func unixMode(m fs.FileMode) uint32 {
	u := unixType(m) | uint32(m.Perm())
	for _, b := range []struct {
		mode fs.FileMode
		unix uint32
	}{{iofs.ModeSetuid, syscall.S_ISUID}, {iofs.ModeSetgid, syscall.S_ISGID}, {iofs.ModeSticky, syscall.S_ISVTX}} {
		if m&b.mode != 0 {
			u |= b.unix
		}
	}
	return u
}
