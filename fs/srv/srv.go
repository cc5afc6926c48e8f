// Package srv serves a tree of fs over 9P: fids, tags, flush, who is asking, and limits, in the dialects 9P2000.L
// (Linux v9fs) and 9P2000. One Server serves any number of conversations; one conversation never waits for another,
// nor for a request of its own that blocks.
package srv

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/fs/styx"
)

// A Server is a tree and how it is served. Its fields are not changed once it serves.
type Server struct {
	Root  fs.Dir
	Users Users        // nil: nobody has a name
	Log   *slog.Logger // what went wrong with a connection; nil: nowhere

	Limits   Limits
	Accounts *fs.Accounts // nil: users have no others

	mu    sync.Mutex // guards conns
	conns map[uint32]int

	count counters
	trace atomic.Pointer[io.Writer]
}

// Trace makes the server write every message to w, a line each: the number of the connection, counted from 1, and styx's text
// form; nil: to nobody.
func (s *Server) Trace(w io.Writer) {
	if w == nil {
		s.trace.Store(nil)
	} else {
		s.trace.Store(&w)
	}
}

// Limits are what a client can make the server hold. What is 0 has the value named here.
type Limits struct {
	Msize uint32        // bytes of a message: 1 MiB
	Fids  int           // of a connection: 16,384; 64 times as many where several users may share it
	Conns int           // of a user, root excepted: 256
	Hello time.Duration // until Tversion has come: 10 s
	Frame time.Duration // between the first and the last byte of a message: 30 s
	Stall time.Duration // in which a client that does not read its replies must read some: 60 s
}

func (l Limits) or(d Limits) Limits {
	def(&l.Msize, d.Msize)
	def(&l.Fids, d.Fids)
	def(&l.Conns, d.Conns)
	def(&l.Hello, d.Hello)
	def(&l.Frame, d.Frame)
	def(&l.Stall, d.Stall)
	return l
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

var limits = Limits{1 << 20, 16384, 256, 10 * time.Second, 30 * time.Second, time.Minute}

// Serve holds one conversation with peer over c, and closes c. It returns when no request is under way any more and
// all files are closed: nil if the peer hung up or ctx ended, else what was wrong with the connection.
func (s *Server) Serve(ctx context.Context, c io.ReadWriteCloser, peer Peer) error {
	defer c.Close()
	l := s.Limits.or(limits)
	who := peer.Uid
	if !peer.Proven {
		who = nobody
	}
	if err := s.enter(who, l.Conns); err != nil {
		s.log("refused a connection", peer, err)
		return err
	}
	defer s.leave(who)
	account := s.Accounts.Of(who)
	if err := account.Take(fs.Descriptors, 1); err != nil {
		s.log("refused a connection", peer, err)
		return err
	}
	defer account.Give(fs.Descriptors, 1)
	conv := newConn(context.WithoutCancel(ctx), s, c, peer, l)
	defer context.AfterFunc(ctx, func() { c.Close() })()
	conv.serve()
	<-conv.gone
	if ctx.Err() != nil || conv.err == nil {
		return nil
	}
	s.log("lost a connection", peer, conv.err)
	return conv.err
}

func (s *Server) log(what string, peer Peer, err error) {
	if s.Log != nil {
		s.Log.Warn(what, "proven", peer.Proven, "uid", peer.Uid, "pid", peer.Pid, "err", err)
	}
}

func (s *Server) enter(uid uint32, most int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[uint32]int{}
	}
	if uid != 0 && s.conns[uid] >= most {
		return fs.Err(syscall.EMFILE, "user %d has %d connections", uid, most)
	}
	s.conns[uid]++
	return nil
}

func (s *Server) leave(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns[uid]--; s.conns[uid] == 0 {
		delete(s.conns, uid)
	}
}

type counters struct {
	connections, requests, fids, in, out atomic.Int64
	errors                               [256]atomic.Int64 // by errno
}

// Stats gives what was counted since the start, `name value` a line: connections and fids also as they are now,
// bytes in and out, requests, and the errors given by errno.
func (s *Server) Stats() string {
	var b strings.Builder
	line := func(name string, n int64) { fmt.Fprintf(&b, "%s %d\n", name, n) }
	open := 0
	s.mu.Lock()
	for _, n := range s.conns {
		open += n
	}
	s.mu.Unlock()
	line("ctrfs_connections", int64(open))
	line("ctrfs_connections_total", s.count.connections.Load())
	line("ctrfs_fids", s.count.fids.Load())
	line("ctrfs_requests_total", s.count.requests.Load())
	line("ctrfs_received_bytes_total", s.count.in.Load())
	line("ctrfs_sent_bytes_total", s.count.out.Load())
	for e := range s.count.errors {
		if n := s.count.errors[e].Load(); n > 0 {
			line(fmt.Sprintf("ctrfs_errors_total{errno=%q}", errnoName(e)), n)
		}
	}
	return b.String()
}

func errnoName(e int) string {
	if name := unix.ErrnoName(syscall.Errno(e)); name != "" {
		return name
	}
	return fmt.Sprint(e)
}

// failed counts an error that a client is given.
func (n *counters) failed(err error) {
	if e := styx.Errno(err); int(e) < len(n.errors) {
		n.errors[e].Add(1)
	}
}
