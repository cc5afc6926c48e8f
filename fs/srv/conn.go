package srv

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"ctrfs/fs"
	"ctrfs/fs/styx"
)

const (
	headerSize = 4 + 1 + 2
	// ioHeader is what of a message is not data, at most; Linux and Plan 9 count so.
	ioHeader = 24

	// patience is how long the reader carries a request out itself before somebody else reads.
	patience = 10 * time.Millisecond
	// maxHeld bounds the bytes of the writes under way on a connection, maxRead those of its reads.
	maxHeld = 8 << 20
	maxRead = 8 << 20
)

var (
	errTag      = fs.Err(syscall.EINVAL, "tag already in use")
	errVersion  = fs.Err(syscall.EPROTO, "version not negotiated")
	errMemory   = fs.Err(syscall.ENOBUFS, "too much written at once")
	errReset    = errors.New("session was reset")
	errLost     = errors.New("connection lost")
	errHello    = errors.New("no Tversion came")
	errSlow     = errors.New("message did not come to its end")
	errStalled  = errors.New("replies are not read")
	errTooLarge = fs.Err(syscall.EIO, "reply does not fit in a message")
)

// A conn is one conversation. One goroutine holds the reader's office: it takes the next message and carries the
// request out, and as soon as that waits, or takes longer than it should, another goroutine gets the office. So
// requests that do not wait cost no goroutine, and none waits for another.
type conn struct {
	s      *Server
	number int64 // among all connections
	rwc    io.ReadWriteCloser
	peer   Peer
	ctx    context.Context // does not end
	limits Limits
	errors fs.Errors // of those who are nobody
	gone   chan struct{}
	err    error // why the conversation ended; read when gone is closed

	// the reader's
	in        *styx.Reader
	m         *styx.Msg // to parse into
	got, used int64     // bytes read, bytes of whole messages
	timed     int64     // used when the deadline was set; -1: there is none

	mu      sync.Mutex // guards what follows; never held across a wait
	dialect styx.Dialect
	msize   uint32 // 0: no Tversion yet
	fids    map[styx.Fid]*fid
	reqs    map[styx.Tag]*req // what waits for a reply; a Tflush that waits is here with what it waits for
	running int               // requests being carried out
	idle    chan struct{}     // closed when none is; made by who waits
	held    int               // bytes of writes under way
	inline  *req              // what the reader carries out itself
	watched *req              // what that was at the watch's last look
	watch   *time.Timer
	armed   bool // the watch will look
	closed  bool

	output
}

func newConn(ctx context.Context, s *Server, rwc io.ReadWriteCloser, peer Peer, l Limits) *conn {
	c := &conn{
		s: s, number: s.count.connections.Add(1), rwc: rwc, peer: peer, ctx: ctx, limits: l,
		gone: make(chan struct{}), timed: -1,
		fids: map[styx.Fid]*fid{}, reqs: map[styx.Tag]*req{},
	}
	c.in = styx.NewReader(c)
	c.room.L = &c.mu
	return c
}

// serve holds the reader's office until it is handed on or the conversation ends.
func (c *conn) serve() {
	for {
		b, err := c.in.Next()
		if err != nil {
			c.finish(err)
			return
		}
		c.used += int64(len(b))
		if !c.take(b) {
			return
		}
	}
}

// Read is how c.in gets more. It is called when no whole message is at hand: now the replies go out.
func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	c.send()
	hello := c.msize == 0
	c.mu.Unlock()
	c.deadline(hello)
	n, err := c.rwc.Read(p)
	c.got += int64(n)
	c.s.count.in.Add(int64(n))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSlow
		if hello {
			err = errHello
		}
	}
	return n, err
}

// deadline bounds the time until the first Tversion and that of each message, begun but not whole, where the
// connection can do that.
func (c *conn) deadline(hello bool) {
	d, ok := c.rwc.(interface{ SetReadDeadline(time.Time) error })
	switch {
	case !ok:
	case hello:
		if c.timed < 0 {
			c.timed = 0
			d.SetReadDeadline(time.Now().Add(c.limits.Hello))
		}
	case c.got == c.used:
		if c.timed >= 0 {
			c.timed = -1
			d.SetReadDeadline(time.Time{})
		}
	case c.timed != c.used:
		c.timed = c.used
		d.SetReadDeadline(time.Now().Add(c.limits.Frame))
	}
}

// take carries out a message. It says whether the caller still holds the reader's office.
func (c *conn) take(b []byte) bool {
	m := c.m
	if c.m = nil; m == nil {
		m = new(styx.Msg)
	}
	if styx.Type(b[4]) == styx.Twrite {
		b = c.in.Take() // m.Data lies there, and the reader may be another by the time that it is written
	}
	err := styx.Parse(b, c.dialect, m)
	c.mu.Lock()
	c.trace(m)
	c.makeRoom()
	if m.Type == styx.Tversion && err == nil {
		c.version(m)
		c.mu.Unlock()
		c.m = m
		return true
	}
	r := &req{c: c, tag: m.Tag, typ: m.Type}
	if err == nil {
		err = c.begin(r, m)
	}
	if err != nil || r.typ == styx.Tflush {
		if err != nil {
			c.refuse(m, err)
		}
		c.mu.Unlock()
		c.m = m
		return true
	}
	c.reqs[r.tag] = r
	c.running++
	c.inline = r
	if !c.armed {
		c.armed = true
		if c.watch == nil {
			c.watch = time.AfterFunc(patience, c.look)
		} else {
			c.watch.Reset(patience)
		}
	}
	if r.typ == styx.Tread {
		c.m = m
		c.mu.Unlock()
		data, err := r.read()
		return c.reply(r, data, err)
	}
	r.m = m
	if apart[m.Type] {
		c.handOn(r)
	}
	c.mu.Unlock()
	err = calls[r.typ](r, m)
	if !c.reply(r, nil, err) {
		return false
	}
	m.Data = nil
	c.m = m
	return true
}

// begin checks a request and binds it to its fid. c.mu is held.
func (c *conn) begin(r *req, m *styx.Msg) error {
	switch {
	case c.msize == 0:
		return errVersion
	case m.Tag == styx.NoTag || c.reqs[m.Tag] != nil:
		return errTag
	}
	switch m.Type {
	case styx.Tflush:
		c.flush(m)
		return nil
	case styx.Tauth, styx.Tattach:
		return nil
	}
	if calls[m.Type] == nil && m.Type != styx.Tread {
		return fs.Err(syscall.EOPNOTSUPP, "%s: not a request", m.Type)
	}
	f := c.fids[m.Fid]
	if f == nil {
		return errNoFid
	}
	switch m.Type {
	case styx.Tread:
		if m.Offset > maxOffset {

			return errOffset
		}
		r.off, r.count = int64(m.Offset), m.Count
	case styx.Twrite:
		if c.held+len(m.Data) > maxHeld && c.held > 0 {
			return errMemory
		}
	}
	account := f.account()
	if err := account.Take(fs.Requests, 1); err != nil {
		return err
	}
	switch m.Type {
	case styx.Twrite:
		if err := account.Take(fs.Memory, int64(len(m.Data))); err != nil {
			account.Give(fs.Requests, 1)
			return err
		}
		c.held += len(m.Data)
	case styx.Tclunk, styx.Tremove:
		delete(c.fids, m.Fid)
		c.s.count.fids.Add(-1)
		account.Give(fs.Fids, 1)
	}
	r.asker = f.asker
	f.add(r)
	return nil
}

// refuse answers a message that never became a request. c.mu is held.
func (c *conn) refuse(m *styx.Msg, err error) {
	tag := m.Tag
	c.s.count.failed(err)
	*m = styx.Msg{Names: m.Names, Qids: m.Qids}
	c.put(c.fault(m, tag, err))
}

// fault makes of m an error reply.
func (c *conn) fault(m *styx.Msg, tag styx.Tag, err error) *styx.Msg {
	m.Tag = tag
	if c.dialect == styx.Linux {
		m.Type, m.Ecode = styx.Rlerror, styx.Errno(err)
	} else {
		m.Type, m.Ename = styx.Rerror, styx.Ename(err)
	}
	return m
}

// handOn gives the reader's office to another goroutine if it is r that keeps it from reading. c.mu is held.
func (c *conn) handOn(r *req) {
	if c.inline == r {
		c.inline = nil
		go c.serve()
	}
}

// look is the watch: a request that the reader carries out itself and that was there at the last look keeps it no
// longer. (A system call that blocks has no context to ask for.)
func (c *conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inline == nil {
		c.armed, c.watched = false, nil
		if len(c.queue) == 0 && cap(c.queue)+cap(c.spare) > maxIdle {
			c.queue, c.spare = nil, nil
		}
		return
	}
	if c.inline == c.watched {
		c.handOn(c.inline)
	}
	c.watched = c.inline
	c.watch.Reset(patience)
}

// flush answers a Tflush, behind the reply of what it is to flush. c.mu is held.
func (c *conn) flush(m *styx.Msg) {
	r := c.reqs[m.Oldtag]
	if r == nil {
		m.Type = styx.Rflush
		c.put(m)
		return
	}
	c.reqs[m.Tag] = r
	r.flushes = append(r.flushes, m.Tag)
	r.flushed = true
	r.cancel(context.Canceled)
}

// version begins the conversation anew. c.mu is held, but not while it waits.
func (c *conn) version(m *styx.Msg) {
	c.reset(errReset)
	c.msize, c.dialect = 0, styx.Plain
	msize := min(m.Msize, c.limits.Msize)
	// What follows a version after a dot is an extension of it: hugelgupf/p9 asks for 9P2000.L.Google.7.
	is := func(version string) bool { return strings.HasPrefix(m.Version+".", version+".") }
	switch {
	case is(styx.VersionLinux):
		if msize >= 4096 {
			c.msize, c.dialect = msize, styx.Linux
		}
	case is(styx.VersionPlain) && msize >= 256:
		c.msize = msize
	}
	m.Type, m.Msize, m.Version = styx.Rversion, msize, "unknown"
	if c.msize != 0 {
		m.Version = c.dialect.String()
		c.in.SetMsize(c.msize)
	}
	c.put(m)
}
