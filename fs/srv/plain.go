package srv

import (
	"cmp"
	iofs "io/fs"
	"syscall"
	"time"

	"ctrfs/fs"
	"ctrfs/fs/styx"
)

// The requests of 9P2000.

func (r *req) open(m *styx.Msg) error {
	how, err := r.how(m.Mode)
	if err != nil {
		return err
	}
	return r.enter(m, how)
}

// how says what Topen's mode asks for. To execute is to read, for those for whom the file is executable.
func (r *req) how(mode uint8) (fs.How, error) {
	if mode&styx.ORclose != 0 {
		return 0, errPerm
	}
	if mode&^(3|styx.OTrunc|styx.OCexec) != 0 {
		return 0, errMode
	}
	var how fs.How
	switch mode & 3 {
	case styx.ORead:
		how = fs.Read
	case styx.OWrite:
		how = fs.Write
	case styx.ORdwr:
		how = fs.Read | fs.Write
	case styx.OExec:
		st, err := r.fid.at.Load().node.Stat(r)
		if err != nil {
			return 0, err
		}
		st.Mode = st.Mode & 0111 << 2
		if st.Mode == 0 {
			return 0, fs.ErrPerm // for root too
		}
		if err := fs.Access(r, st, fs.Read); err != nil {
			return 0, err
		}
		how = fs.Read
	}
	if mode&styx.OTrunc != 0 {
		how |= fs.Trunc
	}
	return how, nil
}

// create is mkdir too: the fid is the new directory, open.
func (r *req) create(m *styx.Msg) error {
	if m.Perm&styx.DMDir == 0 {
		how, err := r.how(m.Mode)
		if err != nil {
			return err
		}
		return r.createFile(m, how)
	}
	switch {
	case r.fid.open.Load() != nil:
		return errBadUse
	case m.Mode != styx.ORead:
		return fs.ErrIsDir
	}
	at := r.fid.at.Load()
	p, err := r.make(m.Name, fs.FileMode(m.Perm&0777))
	if err != nil {
		return err
	}
	d := new(dir)
	if d.pages, err = fs.Pages(r, p.node); err != nil {
		return err
	}
	return r.became(m, at, p, &open{how: fs.Read, dir: d})
}

func (r *req) stat(m *styx.Msg) error {
	at := r.fid.at.Load()
	st, err := at.node.Stat(r)
	if err != nil {
		return err
	}
	m.Stat = r.record(st, at.name)
	return nil
}

// record describes a file as 9P2000 does.
func (r *req) record(st fs.Stat, name string) *styx.Dir {
	s := r.c.s
	d := &styx.Dir{
		Qid:  r.c.qid(st.Qid, st.Mode),
		Mode: uint32(st.Mode.Perm()),
		Name: name, Uid: s.user(st.Uid), Gid: s.group(st.Gid), Muid: s.user(st.Uid),
	}
	d.Mode |= uint32(d.Qid.Type) << 24
	if !st.Mode.IsDir() {
		d.Length = st.Length
	}
	if !st.Time.IsZero() {
		d.Mtime = uint32(st.Time.Unix())
		d.Atime = uint32(cmp.Or(st.Atime, st.Time).Unix())
	}
	return d
}

// wstat gives another name or changes attributes. Nothing to change is a request to write the file to disk, which succeeds.
func (r *req) wstat(m *styx.Msg) error {
	const can = styx.TouchName | styx.TouchLength | styx.TouchMode | styx.TouchAtime | styx.TouchMtime
	t := m.Stat.Touched()
	at := r.fid.at.Load()
	if t&^can != 0 {
		return fs.Err(syscall.EPERM, "wstat prohibited")
	}
	var c fs.Change
	if t&styx.TouchLength != 0 {
		c.Size = &m.Stat.Length
	}
	if t&styx.TouchMode != 0 {
		st, err := at.node.Stat(r)
		if err != nil {
			return err
		}
		mode := st.Mode&^(iofs.ModeType|0777) | fs.FileMode(m.Stat.Mode&0777) // 9P2000 has no others to change
		c.Mode = &mode
	}
	when := func(asked styx.Touch, sec uint32) *time.Time {
		if t&asked == 0 {
			return nil
		}
		at := time.Unix(int64(sec), 0)
		return &at
	}
	c.Atime, c.Mtime = when(styx.TouchAtime, m.Stat.Atime), when(styx.TouchMtime, m.Stat.Mtime)
	if t&^styx.TouchName != 0 {
		if err := r.set(c); err != nil {
			return err
		}
	}
	if t&styx.TouchName != 0 && m.Stat.Name != at.name {
		return r.move(at, nil, m.Stat.Name)
	}
	return nil
}
