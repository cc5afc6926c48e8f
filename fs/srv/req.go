package srv

import (
	"context"
	"time"

	"ctrfs/fs"
	"ctrfs/fs/styx"
)

// A req is a request from its message to its reply, and the context in which it is carried out: the end of the
// context is how it hears that it was flushed, its fid clunked or the connection lost.
type req struct {
	c     *conn
	asker context.Context // carries the client, does not end; nil: nobody yet
	fid   *fid            // nil if the message has none
	m     *styx.Msg       // the message, then its reply; nil for Tread, so that a blocked one is small

	tag   styx.Tag
	typ   styx.Type
	count uint32 // Tread
	off   int64

	// guarded by c.mu
	done       chan struct{} // made when it is asked for
	cause      error         // why the request was cancelled
	flushes    []styx.Tag    // what waits for its end
	flushed    bool
	next, prev *req // of the same fid
}

// Done is asked for by those who are going to wait. So the reader, if it carries the request out itself, hands its
// office on here, and what never waits costs no goroutine.
func (r *req) Done() <-chan struct{} {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.done == nil {
		r.done = make(chan struct{})
		if r.cause != nil {
			close(r.done)
		}
	}
	c.handOn(r)
	return r.done
}

func (r *req) Err() error {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if r.cause != nil {
		return context.Canceled
	}
	return nil
}

func (r *req) Deadline() (time.Time, bool) { return time.Time{}, false }

func (r *req) Value(key any) any {
	if r.asker == nil {
		return nil
	}
	return r.asker.Value(key)
}

// cancel ends the request's context. c.mu is held.
func (r *req) cancel(cause error) {
	if r.cause != nil {
		return
	}
	r.cause = cause
	if r.done != nil {
		close(r.done)
	}
}

// where gives the path that the request is about, for the user to read.
func (r *req) where() string {
	if r.fid == nil {
		if r.m != nil && r.m.Type == styx.Tattach {
			return r.m.Aname
		}
		return "/"
	}
	p := r.fid.at.Load().path()
	if r.m != nil {
		if r.m.Type == styx.Twalk {
			for _, name := range r.m.Names {
				p = join(p, name)
			}
		} else if r.m.Name != "" {
			p = join(p, r.m.Name)
		}
	}
	return p
}

func join(path, name string) string {
	if path == "/" {
		return path + name
	}
	return path + "/" + name
}

// client gives who asks; nil if nobody has attached yet.
func (r *req) client() *fs.Client {
	if r.asker == nil {
		return nil
	}
	return fs.ClientOf(r.asker)
}
