package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ctrfs/fs"
	"ctrfs/fs/styx"
	"ctrfs/ns"
)

// A caller is the client's end of a conversation, which sends what it is told to and one request at a time.
type caller struct {
	t    testing.TB
	conn net.Conn
	in   *styx.Reader
	d    styx.Dialect
	last styx.Fid
	step func(answered bool) // called when messages were sent, and when one is answered; nil: nobody wants to know
}

// A refusal is an error that a server has answered: by number, or in words.
type refusal struct {
	errno syscall.Errno
	words string
}

func (r *refusal) Error() string {
	if r.words != "" {
		return r.words
	}
	return r.errno.Error()
}

// denies says whether an error is one of rights.
func denies(err error) bool {
	var r *refusal
	if !errors.As(err, &r) {
		return false
	}
	return r.errno == syscall.EACCES || r.errno == syscall.EPERM || r.words == fs.ErrPerm.Error() ||
		r.words == "Operation not permitted" || r.words == "wstat prohibited"
}

// converse begins a conversation over c and closes it at the test's end.
func converse(t testing.TB, conn net.Conn, d styx.Dialect) *caller {
	t.Helper()
	c := &caller{t: t, conn: conn, in: styx.NewReader(conn)}
	c.in.SetMsize(1 << 20)
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	t.Cleanup(func() { conn.Close() })
	if _, err := c.ask(&styx.Msg{Type: styx.Tversion, Tag: styx.NoTag, Msize: 1 << 20, Version: d.String()}); err != nil {
		t.Fatal(err)
	}
	c.d = d
	return c
}

// ask sends a message and gives the reply, or the error that it is; one that is no refusal says that the connection is lost.
func (c *caller) ask(m *styx.Msg) (*styx.Msg, error) {
	replies, errs := c.all([]*styx.Msg{m})
	return replies[0], errs[0]
}

// all sends messages that do not need each other at once.
func (c *caller) all(msgs []*styx.Msg) ([]*styx.Msg, []error) {
	replies, errs := make([]*styx.Msg, len(msgs)), make([]error, len(msgs))
	var b []byte
	var err error
	for i, m := range msgs {
		if m.Type != styx.Tversion {
			m.Tag = styx.Tag(i)
		}
		if b, err = m.Append(b, c.d); err != nil {
			c.t.Fatalf("%s: %v", m, err)
		}
	}
	_, err = c.conn.Write(b)
	if c.step != nil && err == nil {
		c.step(false)
	}
	for range msgs {
		r := new(styx.Msg)
		if err == nil {
			b, err = c.in.Next()
		}
		if err == nil {
			err = styx.Parse(b, c.d, r)
		}
		if c.step != nil && err == nil {
			c.step(true)
		}
		if err != nil {
			for i := range errs {
				errs[i] = err
			}
			break
		}
		r.Data = slices.Clone(r.Data) // it is in the reader's buffer
		i := r.Tag % styx.NoTag
		switch {
		case r.Type == styx.Rlerror:
			errs[i] = &refusal{errno: syscall.Errno(r.Ecode)}
		case r.Type == styx.Rerror:
			errs[i] = &refusal{words: r.Ename}
		case r.Type != msgs[i].Type+1:
			c.t.Fatalf("%s answered by %s", msgs[i], r)
		default:
			replies[i] = r
		}
	}
	return replies, errs
}

// attach makes fid 0 the root for a user.
func (c *caller) attach(uname string, uid uint32) error {
	_, err := c.ask(&styx.Msg{Type: styx.Tattach, Afid: styx.NoFid, Uname: uname, NUname: uid})
	return err
}

// walk gives a new fid for a path from fid 0.
func (c *caller) walk(name string) (styx.Fid, styx.Qid, error) {
	c.last++
	var names []string
	if name = strings.Trim(path.Clean("/"+name), "/"); name != "" {
		names = strings.Split(name, "/")
	}
	r, err := c.ask(&styx.Msg{Type: styx.Twalk, Newfid: c.last, Names: names})
	switch {
	case err != nil:
		return 0, styx.Qid{}, err
	case len(r.Qids) < len(names):
		return 0, styx.Qid{}, fs.ErrNotExist
	case len(names) == 0:
		return c.last, styx.Qid{Type: styx.QTDir}, nil
	}
	return c.last, r.Qids[len(names)-1], nil
}

// on walks, does something there, and clunks; the clunk's error counts too.
func (c *caller) on(name string, do func(styx.Fid) error) error {
	f, _, err := c.walk(name)
	if err != nil {
		return err
	}
	err = do(f)
	if e := c.clunk(f); err == nil {
		err = e
	}
	return err
}

func (c *caller) clunk(f styx.Fid) error {
	_, err := c.ask(&styx.Msg{Type: styx.Tclunk, Fid: f})
	return err
}

func (c *caller) open(f styx.Fid, mode uint8) error {
	_, err := c.ask(c.opening(f, mode))
	return err
}

func (c *caller) opening(f styx.Fid, mode uint8) *styx.Msg {
	if c.d == styx.Plain {
		return &styx.Msg{Type: styx.Topen, Fid: f, Mode: mode}
	}
	return &styx.Msg{Type: styx.Tlopen, Fid: f, Flags: uint32(mode)} // O_RDONLY and the like are the same
}

func (c *caller) readAt(f styx.Fid, off int) ([]byte, error) {
	r, err := c.ask(&styx.Msg{Type: styx.Tread, Fid: f, Offset: uint64(off), Count: 1 << 19})
	if err != nil {
		return nil, err
	}
	return r.Data, nil
}

func (c *caller) write(f styx.Fid, text string) error {
	_, err := c.ask(&styx.Msg{Type: styx.Twrite, Fid: f, Data: []byte(text)})
	return err
}

// cat reads a file that does not block.
func (c *caller) cat(name string) (string, error) {
	var text []byte
	err := c.on(name, func(f styx.Fid) error {
		err := c.open(f, styx.ORead)
		for err == nil {
			var b []byte
			if b, err = c.readAt(f, len(text)); len(b) == 0 {
				break
			}
			text = append(text, b...)
		}
		return err
	})
	return string(text), err
}

func (c *caller) echo(name, text string) error {
	return c.on(name, func(f styx.Fid) error {
		err := c.open(f, styx.OWrite)
		if err == nil {
			err = c.write(f, text)
		}
		return err
	})
}

// list gives the names in a directory.
func (c *caller) list(name string) (names []string, err error) {
	err = c.on(name, func(f styx.Fid) error {
		if err := c.open(f, styx.ORead); err != nil {
			return err
		}
		for off := uint64(0); ; {
			m := &styx.Msg{Type: styx.Treaddir, Fid: f, Offset: off, Count: 1 << 19}
			if c.d == styx.Plain {
				m.Type = styx.Tread
			}
			r, err := c.ask(m)
			if err != nil || len(r.Data) == 0 {
				return err
			}
			b := r.Data
			for len(b) > 0 {
				var d styx.Dir
				var e styx.Dirent
				if c.d == styx.Plain {
					d, b, err = styx.ParseDir(b)
				} else {
					e, b, err = styx.ParseDirent(b)
					d.Name, off = e.Name, e.Offset
				}
				if err != nil {
					return err
				}
				if d.Name != "." && d.Name != ".." {
					names = append(names, d.Name)
				}
			}
			if c.d == styx.Plain {
				off += uint64(len(r.Data))
			}
		}
	})
	return names, err
}

// is compares what stat says of a file.
func (c *caller) is(f styx.Fid, mode string, uid, gid uint32) error {
	var got string
	if c.d == styx.Plain {
		r, err := c.ask(&styx.Msg{Type: styx.Tstat, Fid: f})
		if err != nil {
			return err
		}
		got = fmt.Sprintf("%04o %s %s", r.Stat.Mode&0777, r.Stat.Uid, r.Stat.Gid)
	} else {
		r, err := c.ask(&styx.Msg{Type: styx.Tgetattr, Fid: f, Mask: styx.GetattrBasic})
		if err != nil {
			return err
		}
		got = fmt.Sprintf("%04o %s %s", r.Attr.Mode&0777, ns.UserName(r.Attr.Uid), ns.GroupName(r.Attr.Gid))
	}
	if want := fmt.Sprintf("%s %s %s", mode, ns.UserName(uid), ns.GroupName(gid)); got != want {
		return fmt.Errorf("%s, want %s", got, want)
	}
	return nil
}

// change asks for one change of a file, or for something new in it.
func (c *caller) change(f styx.Fid, what string) error {
	stat := styx.DontTouch()
	plain := &styx.Msg{Type: styx.Twstat, Fid: f, Stat: &stat}
	linux := &styx.Msg{Type: styx.Tsetattr, Fid: f, SetAttr: new(styx.SetAttr)}
	switch what {
	case "mode":
		stat.Mode, linux.SetAttr.Valid, linux.SetAttr.Mode = 0777, styx.SetattrMode, 0777
	case "uid":
		stat.Uid, linux.SetAttr.Valid, linux.SetAttr.Uid = "root", styx.SetattrUid, uidB
	case "mtime":
		stat.Mtime, linux.SetAttr.Valid = 1, styx.SetattrMtime
	case "length":
		stat.Length, linux.SetAttr.Valid = 0, styx.SetattrSize
	case "name":
		return c.rename(f, "new")
	case "remove":
		plain.Type, linux.Type = styx.Tremove, styx.Tremove
	case "create", "mkdir":
		perm := uint32(0755)
		linux = &styx.Msg{Type: styx.Tlcreate, Fid: f, Name: "new", Perm: perm}
		if what == "mkdir" {
			linux.Type, perm = styx.Tmkdir, perm|styx.DMDir
		}
		plain = &styx.Msg{Type: styx.Tcreate, Fid: f, Name: "new", Perm: perm}
	}
	if c.d == styx.Plain {
		linux = plain
	}
	_, err := c.ask(linux)
	return err
}

// rename gives a file another name in its directory.
func (c *caller) rename(f styx.Fid, to string) error {
	if c.d == styx.Plain {
		stat := styx.DontTouch()
		stat.Name = to
		_, err := c.ask(&styx.Msg{Type: styx.Twstat, Fid: f, Stat: &stat})
		return err
	}
	c.last++
	r, err := c.ask(&styx.Msg{Type: styx.Twalk, Fid: f, Newfid: c.last, Names: []string{".."}})
	if err != nil || len(r.Qids) == 0 {
		return errors.Join(err, io.ErrUnexpectedEOF)
	}
	dir := c.last
	_, err = c.ask(&styx.Msg{Type: styx.Trename, Fid: f, Newdirfid: dir, Name: to})
	return errors.Join(err, c.clunk(dir))
}

// to asks for a change of the file of that name.
func (c *caller) to(name, what string) error {
	f, _, err := c.walk(name)
	if err != nil {
		return err
	}
	err = c.change(f, what)
	if what == "remove" { // which takes the fid away
		return err
	}
	return errors.Join(err, c.clunk(f))
}
