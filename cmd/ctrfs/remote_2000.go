package main

import (
	"errors"
	"io"
	iofs "io/fs"
	"net"
	"sync"

	"ctrfs/fs"
	"ctrfs/fs/styx"

	"github.com/knusbaum/go9p/client"
	"github.com/knusbaum/go9p/proto"
)

// A remote2000 speaks 9P2000, one request at a time.
type remote2000 struct {
	client *client.Client
	wire   *wire
}

func attach2000(conn net.Conn, user string) (*remote2000, error) {
	w := newWire(conn)
	c, err := client.NewClient(w, user, "")
	if err != nil {
		return nil, err
	}
	return &remote2000{c, w}, nil
}

func (r *remote2000) open(name string, how fs.How) (remoteFile, error) {
	mode := proto.Ordwr
	switch how &^ fs.Trunc {
	case fs.Read:
		mode = proto.Oread
	case fs.Write:
		mode = proto.Owrite
	}
	if how&fs.Trunc != 0 {
		mode |= proto.Otrunc
	}
	f, err := r.client.Open(name, mode)
	if err != nil {
		return nil, err
	}
	return &file2000{f, r.wire}, nil
}

// A file2000 is an open file whose Close has an error.
type file2000 struct {
	*client.File
	wire *wire
}

func (f *file2000) Close() error {
	f.File.Close()
	return <-f.wire.clunked
}

func (r *remote2000) stat(name string) (dir, error) {
	st, err := r.client.Stat(name)
	if err != nil {
		return dir{}, err
	}
	return dirOf(*st), nil
}

func dirOf(st proto.Stat) dir {
	mode := iofs.FileMode(st.Mode & 0777)
	if st.Mode&styx.DMDir != 0 {
		mode |= iofs.ModeDir
	}
	return dir{
		name: st.Name, uid: st.Uid, gid: st.Gid, muid: st.Muid, path: st.Qid.Uid, version: st.Qid.Vers,
		mode: mode, atime: int64(st.Atime), mtime: int64(st.Mtime), length: st.Length,
	}
}

func (r *remote2000) list(name string) ([]dir, error) {
	f, err := r.open(name, fs.Read)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []dir
	b := make([]byte, most)
	for off := int64(0); ; {
		n, err := f.ReadAt(b, off)
		if err == io.EOF {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		off += int64(n)
		entries, err := proto.ParseStats(b[:n])
		if err != nil {
			return nil, err
		}
		for _, st := range entries {
			list = append(list, dirOf(st))
		}
	}
}

// A wire stands between go9p's client and its connection, for what that client does not do: it takes a walk that came
// half the way for one that arrived, it does not tell what a clunk was answered, and when the connection is lost those
// who wait for an answer wait for ever.
type wire struct {
	net.Conn
	in   *styx.Reader
	rest []byte // of the message that Read is giving
	msg  styx.Msg

	mu      sync.Mutex // guards what follows
	lost    error
	sent    map[styx.Tag]styx.Msg
	opened  map[styx.Fid]bool
	clunked chan error // answers to the clunks of open files
}

func newWire(conn net.Conn) *wire {
	w := &wire{Conn: conn, in: styx.NewReader(conn), sent: map[styx.Tag]styx.Msg{}, opened: map[styx.Fid]bool{},
		clunked: make(chan error, 1)}
	w.in.SetMsize(1 << 20)
	return w
}

// Write sends one message.
func (w *wire) Write(p []byte) (int, error) {
	var m styx.Msg
	if err := styx.Parse(p, styx.Plain, &m); err != nil {
		return 0, err
	}
	m.Data = nil
	w.mu.Lock()
	err := w.lost
	w.sent[m.Tag] = m
	w.mu.Unlock()
	n := 0
	if err == nil {
		n, err = w.Conn.Write(p)
	}
	if err != nil {
		w.mu.Lock()
		_, ours := w.sent[m.Tag]
		delete(w.sent, m.Tag) // who waits hears of it from us
		clunk := m.Type == styx.Tclunk && w.opened[m.Fid]
		w.mu.Unlock()
		if !ours { // next was faster, and who waits must hear of it once only
			return len(p), nil
		}
		if clunk {
			w.clunked <- err
		}
	}
	return n, err
}

func (w *wire) Read(p []byte) (int, error) {
	if len(w.rest) == 0 {
		b, err := w.next()
		if err != nil {
			return 0, err
		}
		w.rest = b
	}
	n := copy(p, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

// next gives the next answer; when the connection is lost an error to each request that had none.
func (w *wire) next() ([]byte, error) {
	b, err := w.in.Next()
	if err == nil {
		err = styx.Parse(b, styx.Plain, &w.msg)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	m := &w.msg
	if err != nil {
		w.lost = fs.ErrHungUp
		for tag := range w.sent {
			*m = styx.Msg{Type: styx.Rerror, Tag: tag, Ename: fs.ErrHungUp.Error()}
			return w.answer(nil)
		}
		return nil, err
	}
	return w.answer(b)
}

func (w *wire) answer(b []byte) ([]byte, error) {
	m := &w.msg
	t := w.sent[m.Tag]
	delete(w.sent, m.Tag)
	switch {
	case t.Type == styx.Tclunk && w.opened[t.Fid]:
		delete(w.opened, t.Fid)
		var err error
		if m.Type == styx.Rerror {
			err = errors.New(m.Ename)
		}
		w.clunked <- err
	case m.Type == styx.Ropen:
		w.opened[t.Fid] = true
	case m.Type == styx.Rwalk && len(m.Qids) < len(t.Names):
		*m = styx.Msg{Type: styx.Rerror, Tag: m.Tag, Ename: fs.ErrNotExist.Error()}
		b = nil
	}
	if b == nil {
		return m.Append(nil, styx.Plain)
	}
	return b, nil
}
