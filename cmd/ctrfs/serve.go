package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/fs/srv"
	"ctrfs/ns"
	"ctrfs/proc"
	"ctrfs/proc/ctr"
)

// A server is the tree and those who talk to it.
type server struct {
	srv      *srv.Server
	admin    func() (gid uint32, ok bool) // the group that is root's equal here, where there is one
	uid, gid uint32
	feed     fs.Feed

	processes proc.Processes
	machine   *proc.Space
	ctrs      *ctr.Containers

	level   slog.LevelVar
	tracing atomic.Bool
	args    []string           // that it was started with
	options options            // which they are
	stop    context.CancelFunc // begins the end

	mu     sync.Mutex // guards what follows
	conns  map[net.Conn]struct{}
	follow string // what is to follow the end; "": nothing, and the containers end with it
}

func newServer(keeper *ns.Keeper, stop context.CancelFunc) (*server, error) {
	s := &server{
		admin: func() (uint32, bool) { return ns.GroupID("ctrfs-admin") },
		uid:   uint32(os.Geteuid()), gid: uint32(os.Getegid()),
		stop:  stop,
		conns: map[net.Conn]struct{}{},
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: &s.level}))
	groups, err := ns.FindCgroups("ctrfs")
	if err != nil {
		return nil, err
	}
	// Where memory is short it is collected before the kernel kills; what is live, the accounts bound.
	if most := groups.MemoryMax(); most != 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(most / 4 * 3)
	}
	uid, gid := s.Owner()
	s.ctrs = &ctr.Containers{Processes: &s.processes, Cgroups: groups, Feed: &s.feed, Log: log, Uid: uid, Gid: gid, Shared: s.hasAdmin(), State: runDir}
	s.processes.Keeper = keeper
	s.processes.Feed, s.processes.Ctr, s.processes.First, s.processes.Open = &s.feed, s.ctrs.Of, s.ctrs.First, s.ctrs.Open
	s.machine = s.processes.Machine()
	accounts, err := newAccounts(s.uid)
	if err != nil {
		return nil, err
	}
	s.srv = &srv.Server{Root: s.root(), Users: users{}, Log: log, Accounts: accounts}
	return s, nil
}

// newAccounts is what a user may make a server hold; see ctrfs(4), Limits.
func newAccounts(owner uint32) (*fs.Accounts, error) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	n := int64(min(files.Cur, 1<<30))
	return fs.NewAccounts(owner,
		fs.Quota{fs.Fids: 1 << 16, fs.Requests: 1 << 14, fs.Descriptors: n / 4, fs.Memory: 64 << 20},
		fs.Quota{fs.Descriptors: n / 4 * 3}), nil
}

// What the end of the server leaves to those who talk to it: first it hears no more of them but finishes what they asked
// for, then it takes their connections away.
const (
	grace = 3 * time.Second
	rest  = 2 * time.Second
)

// serve serves whoever connects until ctx ends, or there is nobody any more who could. When it does, up is called with the
// context that ends with the last conversation; it may give something to do at the end.
func (s *server) serve(ctx context.Context, listeners []net.Listener, up func(context.Context) (down func(), err error)) error {
	hard, cut := context.WithCancel(context.Background())
	defer cut()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var accepting, talking sync.WaitGroup
	for _, l := range listeners {
		accepting.Go(func() {
			accept(ctx, l, func(c net.Conn) {
				s.add(c)
				talking.Go(func() {
					defer s.drop(c)
					s.talk(hard, c)
				})
			})
		})
	}
	quiet := make(chan struct{})
	go func() {
		accepting.Wait()
		talking.Wait()
		close(quiet)
	}()
	down, err := up(hard)
	if err != nil {
		stop()
	}
	select {
	case <-ctx.Done():
	case <-quiet:
	}
	s.srv.Log.Info("ending")
	stop()
	for _, l := range listeners {
		if file, ok := l.(*sockFile); ok && s.isFollowed() {
			file.made = nil // it is the next server's, whose keeper has the socket
		}
		l.Close()
	}
	accepting.Wait()
	if down != nil {
		down() // while there is still somebody who answers the kernel
	}
	s.hush()
	select {
	case <-quiet:
		return err
	case <-time.After(grace):
	}
	cut()
	select {
	case <-quiet:
		return err
	case <-time.After(rest):
		return errors.Join(err, errors.New("some requests did not come to an end"))
	}
}

func (s *server) talk(ctx context.Context, c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		if err := notForEver(t); err != nil {
			s.srv.Log.Warn("keep alive", "error", err)
		}
	}
	peer, err := peerOf(c)
	if err != nil {
		s.srv.Log.Warn("refused a connection", "error", err)
		c.Close()
		return
	}
	s.srv.Serve(ctx, c, peer) // which logs what goes wrong
}

// vanished is how long a peer that the network no longer reaches keeps what it holds: by default it would be hours, and with a
// reply under way a quarter of an hour.
const vanished = 45 * time.Second

func notForEver(c *net.TCPConn) error {
	if err := c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: vanished / 3, Interval: vanished / 3, Count: 2}); err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(vanished.Milliseconds()))
	}); e != nil {
		return e
	}
	return err
}

func (s *server) add(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
}

func (s *server) drop(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// end begins the end, and says what is to follow.
func (s *server) end(next string) {
	s.mu.Lock()
	s.follow = next
	s.mu.Unlock()
	s.stop()
}

// next is what is to follow the end.
func (s *server) next() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.follow
}

// isFollowed reports whether another server listens at the same sockets, which the keeper has.
func (s *server) isFollowed() bool {
	next := s.next()
	return next == "reload" || next == "upgrade"
}

// hush makes every conversation end as if its client had hung up, after the replies to what it has asked for.
func (s *server) hush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if r, ok := c.(interface{ CloseRead() error }); ok {
			r.CloseRead()
		}
	}
}
