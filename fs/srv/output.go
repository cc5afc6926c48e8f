package srv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	cfs "ctrfs/fs"
	"ctrfs/fs/styx"
)

// An output is the replies on their way, guarded by conn.mu. They gather in queue while others are being written and
// while the reader has more requests at hand.
type output struct {
	queue   []byte
	spare   []byte // the last one written, to be used again
	sending bool
	room    sync.Cond // the queue was taken, or nothing will be
	until   time.Time // the deadline set
	answer  styx.Msg  // Rread's, to save making it
	stalled error
}

const (
	gather  = 32 << 10 // bytes at which replies gather no longer
	maxIdle = 8 << 10  // bytes of a buffer that is kept when the connection is idle
)

// full says that no reply may be added for now: whoever has one waits. c.mu is held.
func (c *conn) full() bool {
	return len(c.queue) >= max(gather, int(c.msize)) && !c.closed
}

// makeRoom lets the queue not become larger than it may. c.mu is held, but not while it waits.
func (c *conn) makeRoom() {
	for c.full() {
		if c.sending {
			c.room.Wait()
		} else {
			c.send()
		}
	}
}

// put adds a reply. c.mu is held.
func (c *conn) put(m *styx.Msg) {
	if c.closed {
		return
	}
	start := len(c.queue)
	b, err := m.Append(c.queue, c.dialect)
	if err == nil && c.msize != 0 && len(b)-start > int(c.msize) {
		err = errTooLarge
	}
	if err != nil {
		m = c.fault(new(styx.Msg), m.Tag, err)
		if b, err = m.Append(c.queue[:start], c.dialect); err != nil {
			panic(err) // an error reply is a number or a short string
		}
	}
	c.queue = b
	c.trace(m)
}

// reply ends a request: its reply is queued, its tag and its fid are free, and the flushes that waited are answered,
// in one step, so that no flush can find the tag free before the reply is under way. It says whether the caller
// holds the reader's office.
func (c *conn) reply(r *req, data []byte, err error) bool {
	if err != nil {
		err = c.blame(r, err)
	}
	c.mu.Lock()
	reader := c.inline == r
	if reader {
		c.inline = nil
	}
	c.makeRoom()
	if r.flushed && len(data) > 0 {
		c.mu.Unlock()
		if u, ok := r.fid.open.Load().h.(cfs.Unreader); ok {
			u.Unread(r.asker, data)
		}
		c.mu.Lock()
	}
	if r.fid != nil {
		r.fid.remove(r)
		r.fid.account().Give(cfs.Requests, 1)
	}
	if r.typ == styx.Twrite {
		c.held -= len(r.m.Data)
		r.fid.account().Give(cfs.Memory, int64(len(r.m.Data)))
	}
	if c.reqs[r.tag] == r { // else the session was reset
		delete(c.reqs, r.tag)
		switch {
		case r.flushed && (r.typ == styx.Tread || errors.Is(err, errFlushed)):
		case err != nil:
			c.put(c.fault(&c.answer, r.tag, err))
		case r.m != nil:
			r.m.Type++
			c.put(r.m)
		default:
			c.answer.Type, c.answer.Tag, c.answer.Data = styx.Rread, r.tag, data
			c.put(&c.answer)
			c.answer.Data = nil
		}
		for _, tag := range r.flushes {
			delete(c.reqs, tag)
			c.answer.Type, c.answer.Tag = styx.Rflush, tag
			c.put(&c.answer)
		}
	}
	c.running--
	c.s.count.requests.Add(1)
	if !reader && !c.sending && len(c.queue) > 0 && !c.closed {
		// Whoever else was woken by the same event comes first, so that one write takes all replies.
		c.sending = true
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
		c.sending = false
		c.send()
	}
	if c.running == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
	c.mu.Unlock()
	return reader
}

var errFlushed = cfs.Err(syscall.EINTR, "Interrupted system call")

// blame makes of a handler's error the one that the client gets, and keeps it where the user can read it.
func (c *conn) blame(r *req, err error) error {
	c.mu.Lock()
	cause, flushed := r.cause, r.flushed
	c.mu.Unlock()
	if cause != nil && errors.Is(err, context.Canceled) {
		if flushed {
			return errFlushed
		}
		return cause
	}
	c.s.count.failed(err)
	switch r.typ {
	case styx.Txattrwalk, styx.Txattrcreate:
		return err
	case styx.Twalk, styx.Tgetattr, styx.Tstat, styx.Tattach:
		if errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if cl := r.client(); cl != nil {
		cl.Errors.Add(r.where(), err)
	}
	return err
}

// send writes what is queued, unless somebody does so already, who will take this too. c.mu is held, but not while
// it writes.
func (c *conn) send() {
	if c.sending {
		return
	}
	c.sending = true
	for len(c.queue) > 0 && !c.closed {
		b := c.queue
		c.queue, c.spare = c.spare[:0], nil
		c.mu.Unlock()
		err := c.write(b)
		c.mu.Lock()
		c.spare = b
		if err != nil {
			c.stalled, c.closed = err, true
			c.mu.Unlock()
			c.rwc.Close()
			c.mu.Lock()
		}
		c.room.Broadcast()
	}
	if c.closed {
		c.queue = nil
	}
	c.sending = false
}

// write writes b, as long as the client goes on taking some of it.
func (c *conn) write(b []byte) error {
	c.s.count.out.Add(int64(len(b)))
	for {
		if d, ok := c.rwc.(interface{ SetWriteDeadline(time.Time) error }); ok {
			if now := time.Now(); c.until.Sub(now) < c.limits.Stall/2 {
				c.until = now.Add(c.limits.Stall)
				d.SetWriteDeadline(c.until)
			}
		}
		n, err := c.rwc.Write(b)
		b = b[n:]
		switch {
		case err == nil && len(b) == 0:
			return nil
		case err == nil:
			return io.ErrShortWrite
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case n == 0:
			return errStalled
		}
	}
}

// trace shows a message. c.mu is held, so that the lines are in the order of the wire.
func (c *conn) trace(m *styx.Msg) {
	if w := c.s.trace.Load(); w != nil {
		fmt.Fprintln(*w, c.number, m)
	}
}
