package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os/user"
	"path"
	"strconv"
	"strings"
	"syscall"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/fs/styx"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

// A remoteL speaks 9P2000.L.
type remoteL struct{ root p9.File }

// attachL attaches as the user with a number, or as whoever the connection is if that is styx.NoUid or not the number
// that he has where the server is.
func attachL(conn net.Conn, uid uint32) (*remoteL, error) {
	w := &wireL{Conn: conn, uid: uid}
	c, err := p9.NewClient(w)
	if err != nil {
		return nil, words(err)
	}
	root, err := c.Attach("")
	if errors.Is(err, linux.EPERM) {
		w.uid = styx.NoUid
		root, err = c.Attach("")
	}
	if err != nil {
		return nil, words(err)
	}
	return &remoteL{root}, nil
}

// A wireL stands between the client and its connection, because the client attaches without a name: root, who may be
// anybody, must say that he is root.
type wireL struct {
	net.Conn
	uid uint32
	buf []byte // a message that is not yet whole
}

func (w *wireL) Write(p []byte) (int, error) {
	w.buf = append(w.buf, p...)
	for len(w.buf) >= 7 {
		n := int(binary.LittleEndian.Uint32(w.buf))
		if len(w.buf) < n {
			break
		}
		if styx.Type(w.buf[4]) == styx.Tattach {
			binary.LittleEndian.PutUint32(w.buf[n-4:n], w.uid)
		}
		if _, err := w.Conn.Write(w.buf[:n]); err != nil {
			return 0, err
		}
		w.buf = w.buf[n:]
	}
	return len(p), nil
}

// words gives Plan 9's words for the errors that it has words for, the system's for the others.
func words(err error) error {
	var n linux.Errno
	if !errors.As(err, &n) {
		return err
	}
	errno := syscall.Errno(n)
	for _, plain := range []error{fs.ErrNotExist, fs.ErrPerm, fs.ErrExist} {
		if errors.Is(errno, plain) {
			return plain
		}
	}
	return errno
}

// refused gives the server's words for an error, of which the client has a number only: the last that /error has of
// that file. It is this error's, unless the same user was refused something else there in this very moment.
func (r *remoteL) refused(name string, err error) error {
	err = words(err)
	f, e := r.walk("/error")
	if e != nil {
		return err
	}
	defer f.Close()
	if _, _, e := f.Open(p9.ReadOnly); e != nil {
		return err
	}
	text, _ := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	lines, _ := ctl.Split(string(text))
	for _, l := range lines {
		if len(l.Words) == 3 && l.Words[1] == name {
			err = errors.New(l.Words[2])
		}
	}
	return err
}

// walk gives a fid of its own for a file. A look-up that fails is not kept in /error: the number says all.
func (r *remoteL) walk(name string) (p9.File, error) {
	var names []string
	if name != "/" {
		names = strings.Split(name[1:], "/")
	}
	qids, f, err := r.root.Walk(names)
	if err != nil {
		return nil, words(err)
	}
	if len(qids) < len(names) { // the client does not look
		f.Close()
		return nil, fs.ErrNotExist
	}
	return f, nil
}

func (r *remoteL) open(name string, how fs.How) (remoteFile, error) {
	f, err := r.walk(name)
	if err != nil {
		return nil, err
	}
	mode := p9.ReadWrite
	switch how &^ fs.Trunc {
	case fs.Read:
		mode = p9.ReadOnly
	case fs.Write:
		mode = p9.WriteOnly
	}
	_, _, err = f.Open(mode)
	if err == nil && how&fs.Trunc != 0 {
		err = f.SetAttr(p9.SetAttrMask{Size: true}, p9.SetAttr{}) // as Linux does: it has no flag for that
	}
	if err != nil {
		f.Close()
		return nil, r.refused(name, err)
	}
	return &fileL{f, r, name}, nil
}

// A fileL is an open file.
type fileL struct {
	p9.File
	r    *remoteL
	name string
}

func (f *fileL) told(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return f.r.refused(f.name, err)
}

func (f *fileL) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	return n, f.told(err)
}

func (f *fileL) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, f.told(err)
}

func (f *fileL) Close() error { return f.told(f.File.Close()) }

func (r *remoteL) stat(name string) (dir, error) {
	f, err := r.walk(name)
	if err != nil {
		return dir{}, err
	}
	defer f.Close()
	qid, _, a, err := f.GetAttr(p9.AttrMaskAll)
	if err != nil {
		return dir{}, words(err)
	}
	u, g := userName(a.UID), groupName(a.GID)
	return dir{
		name: path.Base(name), uid: u, gid: g, muid: u, path: qid.Path, version: qid.Version,
		mode: a.Mode.OSMode(), atime: int64(a.ATimeSeconds), mtime: int64(a.MTimeSeconds), length: a.Size,
	}, nil
}

func userName(id p9.UID) string {
	n := strconv.FormatUint(uint64(id), 10)
	if u, err := user.LookupId(n); err == nil {
		return u.Username
	}
	return n
}

func groupName(id p9.GID) string {
	n := strconv.FormatUint(uint64(id), 10)
	if g, err := user.LookupGroupId(n); err == nil {
		return g.Name
	}
	return n
}

func (r *remoteL) list(name string) ([]dir, error) {
	f, err := r.walk(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, _, err := f.Open(p9.ReadOnly); err != nil {
		return nil, r.refused(name, err)
	}
	var list []dir
	for off := uint64(0); ; {
		entries, err := f.Readdir(off, most)
		if err != nil {
			return nil, r.refused(name, err)
		}
		if len(entries) == 0 {
			return list, nil
		}
		for _, e := range entries {
			off = e.Offset
			if e.Name == "." || e.Name == ".." {
				continue
			}
			d, err := r.stat(path.Join(name, e.Name))
			if errors.Is(err, fs.ErrNotExist) {
				continue // gone since
			} else if err != nil {
				return nil, err
			}
			list = append(list, d)
		}
	}
}
