package ns

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Wait waits until p has ended and says how, whoever p's parent is, and also if it ended before. A cancelled
// ctx ends the wait with its cause. Every Wait of one Process gets the same answer, and so do those who wait for
// one process by several.
//
// The status comes from what the kernel shows of a zombie (/proc/PID/stat, if this process may read it there) or,
// once it was reaped, from its pidfd (6.15) or the proc connector; times only from a zombie, so
// they are unknown where the parent was faster. Nothing is polled: one epoll has all pidfds.
func Wait(ctx context.Context, p *Process) (Exit, error) {
	if err := Await(ctx, p); err != nil {
		return Exit{}, err
	}
	e, _ := Exited(p)
	return e, nil
}

// Await is Wait for those who ask later how it was. Whoever waits has a stack of 4 kB only if little of it is in use, and
// an Exit is not little.
func Await(ctx context.Context, p *Process) error {
	w, err := watching.join(p, false)
	if err != nil {
		return err
	}
	defer watching.leave(w)
	select {
	case <-w.done:
		watching.keep(p, w)
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Reap makes this process, p's parent, look after p's end: it is recorded with its resource usage, then reaped,
// and then every Wait answers. Nobody else may wait for p. The error is ECHILD if p is another's child.
// p may be closed.
func Reap(p *Process) error {
	_, err := watching.join(p, true)
	return err
}

// Exited is what Wait gives, if p's end is already recorded.
func Exited(p *Process) (Exit, bool) {
	watching.mu.Lock()
	defer watching.mu.Unlock()
	if p.exit == nil {
		return Exit{}, false
	}
	return *p.exit, true
}

// An incarnation is one process, among all that ever have its number.
type incarnation struct {
	pid   int
	start uint64 // in ticks
}

// A watch is one process whose end somebody waits for.
type watch struct {
	p     *Process // the first by which it was asked for
	fd    int
	key   uint64
	late  bool   // it had ended when the watch began
	start uint64 // when it began, in ticks; 0 unknown
	exit  *Exit  // guarded by watching.mu, and set before done is closed
	own   bool   // guarded by watching.mu: we reap it
	kept  bool   // guarded by watching.mu: the keeper reaps it, and tells
	done  chan struct{}

	users int // guarded by watching.mu: waiters, Reap, the keeper's watch, and the loop while it looks
}

// watching is the one epoll of all waits. It is itself an entry of the runtime's poller, so that no thread
// waits in it. Its goroutine runs while anything is watched.
var watching watcher

type watcher struct {
	mu      sync.Mutex // guards what follows, and watch and exit of every Process
	epoll   *os.File
	conn    *connector // nil unless the kernel needs it
	watches map[uint64]*watch
	byStart map[incarnation]*watch // those of watches whose start is known, the newest of each process
	key     uint64
	running bool
}

// connectorKey is the connector's entry in the epoll; the others count from 1.
const connectorKey = 0

// begin makes the epoll, once. Called with the lock.
func (s *watcher) begin() error {
	if s.epoll != nil {
		return nil
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	s.epoll = os.NewFile(uintptr(fd), "epoll")
	s.watches = make(map[uint64]*watch)
	s.byStart = make(map[incarnation]*watch)
	if !exitInfo() {
		if c, err := listen(); err == nil { // without it more ends are unknown
			s.conn = c
			return s.ctl(unix.EPOLL_CTL_ADD, c.fd, connectorKey)
		}
	}
	return nil
}

// ctl adds or removes a descriptor. Called with the lock.
func (s *watcher) ctl(op, fd int, key uint64) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(key), Pad: int32(key >> 32)}
	raw, err := s.epoll.SyscallConn()
	if err != nil {
		return err
	}
	var e error
	if err := raw.Control(func(epfd uintptr) { e = unix.EpollCtl(int(epfd), op, fd, &ev) }); err != nil {
		return err
	}
	return e
}

// run starts the loop if it is not running. Called with the lock.
func (s *watcher) run() {
	s.epoll.SetReadDeadline(time.Time{})
	if !s.running {
		s.running = true
		s.conn.drain()
		go s.loop()
	}
}

// rest lets the loop end when nothing is left. Called with the lock.
func (s *watcher) rest() {
	if len(s.watches) == 0 {
		s.epoll.SetReadDeadline(time.Unix(1, 0))
	}
}

// join is the beginning of a wait for p, leave its end. own: and we reap it.
func (s *watcher) join(p *Process, own bool) (*watch, error) {
	fd, err := p.hold()
	if err != nil {
		return nil, err
	}
	kept := false // by a new watch, for its time
	defer func() {
		if !kept {
			p.drop()
		}
	}()
	if own && !ours(fd) {
		return nil, unix.ECHILD
	}
	late := ended(fd)
	start, _ := p.Start() // if it was just reaped, how long it ran stays unknown

	s.mu.Lock()
	defer s.mu.Unlock()
	if p.exit != nil && !(own && !reap(fd)) {
		w := &watch{exit: p.exit, done: make(chan struct{})}
		close(w.done)
		return w, nil
	}
	w := p.watch
	if w == nil && start != 0 && !own {
		w = s.byStart[incarnation{p.pid, start}]
	}
	if w == nil {
		if err := s.begin(); err != nil {
			return nil, err
		}
		s.key++
		w = &watch{p: p, fd: fd, key: s.key, late: late, start: start, done: make(chan struct{})}
		if err := s.ctl(unix.EPOLL_CTL_ADD, fd, w.key); err != nil {
			return nil, fmt.Errorf("wait for process %d: %w", p.pid, err)
		}
		kept = true
		s.run()
		s.watches[w.key] = w
		if start != 0 {
			s.byStart[incarnation{p.pid, start}] = w
		}
		s.conn.add(w)
		p.watch = w
	}
	if own {
		if w.own {
			return w, nil
		}
		w.own = true
	}
	w.users++
	return w, nil
}

func (s *watcher) leave(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveLocked(w)
}

func (s *watcher) leaveLocked(w *watch) {
	if w.p == nil { // it was answered from the record
		return
	}
	if w.users--; w.users > 0 {
		return
	}
	if w.exit == nil {
		s.remove(w)
	}
	w.p.drop()
}

// remove forgets a watch, but for its descriptor, which goes with the last user. Called with the lock.
func (s *watcher) remove(w *watch) {
	s.ctl(unix.EPOLL_CTL_DEL, w.fd, 0)
	delete(s.watches, w.key)
	if i := (incarnation{w.p.pid, w.start}); s.byStart[i] == w {
		delete(s.byStart, i)
	}
	s.conn.remove(w)
	w.p.watch = nil
	s.rest()
}

// keep records in p what its watch, which may be another's, has found.
func (s *watcher) keep(p *Process, w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.exit == nil {
		p.exit = w.exit
	}
}

// finish records the end of w's process. Called with the lock.
func (s *watcher) finish(w *watch, e Exit) {
	if w.exit != nil {
		return
	}
	s.remove(w)
	if w.p.exit == nil {
		w.p.exit = &e
	}
	w.exit = w.p.exit
	if w.own {
		reap(w.fd)
	}
	if w.own || w.kept {
		w.users-- // Reap's, or the keeper's; the caller has one too
	}
	close(w.done)
}

func (s *watcher) loop() {
	raw, err := s.epoll.SyscallConn()
	if err != nil {
		panic(err) // the file is never closed
	}
	events := make([]unix.EpollEvent, 128)
	for {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events, 0)
			return n > 0
		})
		for i := range max(n, 0) {
			s.event(events[i])
		}
		s.mu.Lock()
		if len(s.watches) == 0 {
			s.running = false
			s.mu.Unlock()
			return
		}
		if err != nil { // told to rest, but somebody has come since
			s.epoll.SetReadDeadline(time.Time{})
		}
		s.mu.Unlock()
	}
}

func (s *watcher) event(ev unix.EpollEvent) {
	key := uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
	if key == connectorKey {
		s.conn.receive()
		return
	}
	s.mu.Lock()
	w := s.watches[key]
	own := false
	if w != nil && w.kept {
		w = nil // who reaps it knows more
	}
	if w != nil {
		w.users++ // so that its descriptor stays
		own = w.own
	}
	s.mu.Unlock()
	if w == nil {
		return
	}
	e, ok := w.look(ev.Events&unix.EPOLLHUP != 0)
	// A child that was traced when it died is its parent's only when the tracer has let go of it. The kernel
	// tells that too, and until then nobody could reap it.
	traced := own && held(w.fd)
	s.mu.Lock()
	defer s.mu.Unlock()
	if traced {
		s.leaveLocked(w)
		return
	}
	if !ok && w.exit == nil {
		e, ok = s.conn.look(w, ev.Events&unix.EPOLLHUP != 0)
	}
	if ok {
		s.finish(w, w.complete(e))
	}
	s.leaveLocked(w)
}
