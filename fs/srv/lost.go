package srv

import (
	"ctrfs/fs"
	"ctrfs/fs/styx"
	"errors"
	"io"
	"net"
	"syscall"
)

// reset ends all requests without a reply and closes all fids. c.mu is held, but not while it waits.
func (c *conn) reset(cause error) {
	for _, r := range c.reqs {
		r.cancel(cause)
	}
	clear(c.reqs)
	if c.running > 0 {
		idle := make(chan struct{})
		c.idle = idle
		c.mu.Unlock()
		<-idle
		c.mu.Lock()
	}
	fids := c.fids
	c.fids = map[styx.Fid]*fid{}
	c.s.count.fids.Add(-int64(len(fids)))
	c.mu.Unlock()
	for _, f := range fids {
		f.account().Give(fs.Fids, 1)
		f.close()
	}
	c.mu.Lock()
}

// finish ends the conversation.
func (c *conn) finish(err error) {
	c.mu.Lock()
	c.send()
	c.closed = true
	c.room.Broadcast()
	c.mu.Unlock()
	c.rwc.Close()
	c.mu.Lock()
	c.reset(errLost)
	if c.watch != nil {
		c.watch.Stop()
	}
	if c.stalled != nil {
		err = c.stalled
	}
	c.mu.Unlock()
	if !hungUp(err) {
		c.err = err
	}
	close(c.gone)
}

// hungUp says whether the error is the way in which a peer that has gone is seen.
func hungUp(err error) bool {
	for _, e := range []error{io.EOF, net.ErrClosed, io.ErrClosedPipe, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
