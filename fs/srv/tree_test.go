package srv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/fs/styx"
)

// A world is the tree that the tests serve: one of each kind of file.
type world struct {
	log   *fs.Log       // log, data
	end   chan struct{} // closed: wait answers
	open  atomic.Int64  // handles open
	walks atomic.Int64

	mu      sync.Mutex // guards what follows
	last    uint64
	dirs    map[string]*box
	did     []string // what was written to ctl, a message each
	text    string   // of note
	clones  int      // ever made
	waiting chan struct{}
	waiters int
	want    int
}

func newWorld() *world {
	w := &world{log: fs.NewLog(1 << 20), end: make(chan struct{}), last: 0x1000, text: "note\n", dirs: map[string]*box{}}
	w.Mkdir(context.Background(), "d", 0755)
	return w
}

// A box is a directory of the world, with one file in it; the world is the root.
type box struct {
	w   *world
	id  uint64
	uid uint32
	now func() string
}

func (b *box) Owner() (uid, gid uint32) { return b.uid, b.uid }
func (b *box) Qid() uint64              { return b.id }

var boxFiles = fs.Table[*box]{
	fs.Text("name", 0444, func(b *box, _ context.Context) (string, error) { return b.now() + "\n", nil }),
	fs.Special("secret", 0600, func(b *box, _ context.Context, _ fs.How) (fs.Handle, error) {
		b.w.open.Add(1)
		return &handle{w: b.w, read: func(context.Context, int64, int) ([]byte, error) { return []byte("secret\n"), nil }}, nil
	}),
}

func (w *world) Owner() (uid, gid uint32) { return 0, 0 }
func (w *world) Qid() uint64              { return 1 << 8 }

// handle is a file of the tests' own; what is nil is refused.
type handle struct {
	w     *world
	read  func(context.Context, int64, int) ([]byte, error)
	write func(context.Context, []byte) error
	close func() error
	short bool // takes one byte of each write
	once  sync.Once
}

func (h *handle) Read(ctx context.Context, off int64, n int) ([]byte, error) {
	if h.read == nil {
		return nil, fs.ErrPerm
	}
	return h.read(ctx, off, n)
}

func (h *handle) Write(ctx context.Context, _ int64, p []byte) (int, error) {
	switch {
	case h.short:
		return 1, nil
	case h.write == nil:
		return 0, fs.ErrPerm
	}
	return len(p), h.write(ctx, p)
}

func (h *handle) Close(ctx context.Context) error {
	closed := false
	h.once.Do(func() { closed = true })
	if !closed {
		panic("closed twice")
	}
	if ctx.Err() != nil || ctx.Done() != nil {
		panic("a context that ends")
	}
	h.w.open.Add(-1)
	if h.close != nil {
		return h.close()
	}
	return nil
}

// opens makes a row of handles that are counted.
func opens(name string, mode fs.FileMode, open func(*world, fs.How) (*handle, error)) fs.Row[*world] {
	return fs.Special(name, mode, func(w *world, _ context.Context, how fs.How) (fs.Handle, error) {
		h, err := open(w, how)
		if err != nil {
			return nil, err
		}
		h.w = w
		w.open.Add(1)
		return h, nil
	})
}

// block waits as a file that blocks does; blocked tells the test.
func (w *world) block(ctx context.Context) error {
	done := ctx.Done()
	w.mu.Lock()
	w.waiters++
	if w.waiting != nil && w.waiters == w.want {
		close(w.waiting)
		w.waiting = nil
	}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.waiters--
		w.mu.Unlock()
	}()
	select {
	case <-w.end:
		return nil
	case <-done:
		return ctx.Err()
	}
}

// blocked waits until n requests block.
func (w *world) blocked(t testing.TB, n int) {
	t.Helper()
	w.mu.Lock()
	c := make(chan struct{})
	if w.waiters == n {
		close(c)
	} else {
		w.waiting, w.want = c, n
	}
	w.mu.Unlock()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatalf("no %d blocked requests after a minute", n)
	}
}

var worldFiles = fs.Table[*world]{
	opens("hello", 0444, func(w *world, _ fs.How) (*handle, error) {
		return &handle{read: func(_ context.Context, off int64, n int) ([]byte, error) {
			const s = "hello, world\n"
			return []byte(s[min(off, int64(len(s))):]), nil // too much, if n is less
		}}, nil
	}),
	fs.Ctl("ctl", 0600, func(*world, context.Context) (string, error) { return "1\n", nil },
		func(w *world, _ context.Context, msg string) error {
			if msg == "fail\n" {
				return errors.New(`unknown control message: "fail"`)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.did = append(w.did, msg)
			return nil
		}),
	fs.Lines("note", 0644, func(w *world, _ context.Context) (string, error) { return w.text, nil },
		func(w *world, _ context.Context) error { w.text = ""; return nil },
		func(w *world, _ context.Context, line string) error { w.text += line + "\n"; return nil }),
	fs.Answer("wait", 0444, func(w *world, ctx context.Context) (string, error) {
		if err := w.block(ctx); err != nil {
			return "", err
		}
		return "1 0 0 0 ''\n", nil
	}),
	fs.Special("log", 0444, func(w *world, _ context.Context, _ fs.How) (fs.Handle, error) { return w.log.Open(false), nil }),
	fs.Special("data", 0444, func(w *world, _ context.Context, _ fs.How) (fs.Handle, error) { return w.log.Open(true), nil }),
	opens("clone", 0666, func(w *world, _ fs.How) (*handle, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.clones++
		n := w.clones
		return &handle{
			read: func(_ context.Context, off int64, _ int) ([]byte, error) {
				s := fmt.Sprintf("%d\n", n)
				return []byte(s[min(off, int64(len(s))):]), nil
			},
			write: func(context.Context, []byte) error { return nil },
		}, nil
	}),
	opens("stuck", 0644, func(w *world, _ fs.How) (*handle, error) { // blocks in both directions, and its writes fail in the end
		return &handle{
			read:  func(ctx context.Context, _ int64, _ int) ([]byte, error) { return []byte("x"), w.block(ctx) },
			write: func(ctx context.Context, _ []byte) error { return w.block(ctx) },
		}, nil
	}),
	opens("deaf", 0444, func(w *world, _ fs.How) (*handle, error) { // a system call that blocks: no context is asked for
		return &handle{read: func(context.Context, int64, int) ([]byte, error) {
			return []byte("deaf"), w.block(context.Background())
		}}, nil
	}),
	opens("broken", 0666, func(w *world, _ fs.How) (*handle, error) {
		return &handle{
			read:  func(context.Context, int64, int) ([]byte, error) { return nil, fs.ErrNoFree },
			write: func(context.Context, []byte) error { return unix.EINTR },
			close: func() error { return errors.New("config is not JSON") },
		}, nil
	}),
	opens("big", 0444, func(w *world, _ fs.How) (*handle, error) {
		return &handle{read: func(ctx context.Context, _ int64, n int) ([]byte, error) {
			return zero[:n], w.block(ctx)
		}}, nil
	}),
	fs.Special("late", 0444, func(w *world, _ context.Context, _ fs.How) (fs.Handle, error) {
		return late{w.log.Open(true), w}, nil
	}),
	opens("short", 0222, func(*world, fs.How) (*handle, error) { return &handle{short: true}, nil }),
	fs.Special("zeros", 0666, func(*world, context.Context, fs.How) (fs.Handle, error) { return zeros{}, nil }),
	fs.Text("error", 0444, func(_ *world, ctx context.Context) (string, error) { return fs.ClientOf(ctx).Errors.Text(ctx) }),
	fs.Text("who", 0444, func(_ *world, ctx context.Context) (string, error) {
		c := fs.ClientOf(ctx)
		return fmt.Sprintf("uid %d gid %d groups %v none %v pid %d gathers %v bare %v\n", int32(c.Uid), int32(c.Gid), c.Groups, c.None, c.Pid, c.Gathers, c.Bare), nil
	}),
	fs.Text("tool", 0555, func(*world, context.Context) (string, error) { return "#!/bin/rc\n", nil }),
}

// late is a log whose reads come to nothing before the end, and hear no flush.
type late struct {
	*fs.LogReader
	w *world
}

func (l late) Read(ctx context.Context, off int64, n int) ([]byte, error) {
	l.w.block(context.Background())
	return l.LogReader.Read(ctx, off, n)
}

// zeros is an endless file that also takes everything.
type zeros struct{}

var zero [1 << 20]byte

func (zeros) Read(_ context.Context, _ int64, n int) ([]byte, error) {
	return zero[:min(n, len(zero))], nil
}
func (zeros) Write(_ context.Context, _ int64, p []byte) (int, error) { return len(p), nil }
func (zeros) Close(context.Context) error                             { return nil }

func (w *world) files() fs.Dir {
	return worldFiles.Dir("/", 0755, func(context.Context) (*world, error) { return w, nil })
}

func (w *world) Stat(ctx context.Context) (fs.Stat, error) { return w.files().Stat(ctx) }

func (w *world) Walk(ctx context.Context, name string) (fs.Node, error) {
	w.walks.Add(1)
	w.mu.Lock()
	_, ok := w.dirs[name]
	w.mu.Unlock()
	if !ok {
		return w.files().Walk(ctx, name)
	}
	return w.dir(name), nil
}

// dir is the directory that is called so when it is used.
func (w *world) dir(name string) fs.Dir {
	return boxFiles.Dir(name, 0755, func(context.Context) (*box, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		b := w.dirs[name]
		if b == nil {
			return nil, fs.ErrNotExist
		}
		return b, nil
	})
}

func (w *world) List(ctx context.Context) ([]fs.Entry, error) {
	list, err := w.files().List(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, b := range w.dirs {
		list = append(list, fs.Entry{Name: name, Qid: b.id, Type: fs.ModeDir})
	}
	return list, err
}

func (w *world) Mkdir(ctx context.Context, name string, _ fs.FileMode) (fs.Node, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dirs[name] != nil {
		return nil, fs.ErrExist
	}
	w.last += 0x100
	b := &box{w: w, id: w.last, uid: fs.ClientOf(ctx).Uid}
	if fs.ClientOf(ctx).None {
		b.uid = 0 // the test itself
	}
	id := w.last
	b.now = func() string { return fmt.Sprintf("%s %#x", name, id) }
	w.dirs[name] = b
	return w.dir(name), nil
}

func (w *world) Remove(_ context.Context, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dirs[name] == nil {
		return fs.ErrPerm
	}
	delete(w.dirs, name)
	return nil
}

func (w *world) Rename(_ context.Context, from, to string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.dirs[from] == nil:
		return fs.ErrPerm
	case w.dirs[to] != nil:
		return fs.ErrExist
	}
	w.dirs[to] = w.dirs[from]
	delete(w.dirs, from)
	return nil
}

// people is a user database: root, and glenda who is in group 7.
type people struct{}

func (people) ByName(name string) (uint32, bool) {
	uid, ok := map[string]uint32{"root": 0, "glenda": 1000}[name]
	return uid, ok
}

func (people) ByUid(uid uint32) (string, uint32, []uint32, bool) {
	switch uid {
	case 0:
		return "root", 0, nil, true
	case 1000:
		return "glenda", 100, []uint32{7}, true
	}
	return "", 0, nil, false
}

func (people) Group(gid uint32) (string, bool) {
	name, ok := map[uint32]string{0: "root", 100: "users"}[gid]
	return name, ok
}

var (
	asRoot   = Peer{Proven: true, Pid: 1}
	asGlenda = Peer{Proven: true, Uid: 1000, Gid: 100, Groups: []uint32{7}, Pid: 42}
	asMount  = Peer{Proven: true, MayClaim: true, Pid: 1}
	asNobody = Peer{}
)

// socketpair is a connection's two ends.
func socketpair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var c [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		c[i] = conn.(*net.UnixConn)
	}
	return c[0], c[1]
}

// A client is the other end of a conversation, and knows the messages and nothing more.
type client struct {
	t testing.TB
	c net.Conn
	r *styx.Reader
	d styx.Dialect

	served chan error // what Serve returned
}

// dial begins a conversation. At the test's end it is over and all its files are closed.
func dial(t testing.TB, s *Server, p Peer) *client {
	t.Helper()
	a, b := socketpair(t)
	c := &client{t: t, c: a, r: styx.NewReader(a), served: make(chan error, 1)}
	c.r.SetMsize(1 << 20)
	a.SetDeadline(time.Now().Add(2 * time.Minute))
	go func() { c.served <- s.Serve(context.Background(), b, p) }()
	t.Cleanup(func() { c.hangUp() })
	return c
}

func (c *client) hangUp() {
	c.c.Close()
	select {
	case err := <-c.served:
		c.served <- err
	case <-time.After(time.Minute):
		c.t.Error("the conversation has not ended a minute after its connection")
	}
}

func (c *client) send(msgs ...*styx.Msg) {
	c.t.Helper()
	var b []byte
	for _, m := range msgs {
		var err error
		if b, err = m.Append(b, c.d); err == nil {
			continue
		}
		if b, err = m.Append(b, 1-c.d); err != nil { // the other dialect's
			c.t.Fatal(err)
		}
	}
	if _, err := c.c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) recv() *styx.Msg {
	c.t.Helper()
	b, err := c.r.Next()
	if err != nil {
		c.t.Fatalf("no reply: %v", err)
	}
	m := new(styx.Msg)
	if err := styx.Parse(b, c.d, m); err != nil {
		c.t.Fatalf("reply %x: %v", b, err)
	}
	if m.Type == styx.Rversion && m.Version == styx.VersionLinux {
		c.d = styx.Linux
	}
	if m.Data != nil {
		m.Data = append([]byte{}, m.Data...)
	}
	return m
}

// say sends what is written in text form.
func (c *client) say(lines ...string) {
	c.t.Helper()
	var msgs []*styx.Msg
	for _, line := range lines {
		m, err := styx.ParseText(line)
		if err != nil {
			c.t.Fatalf("%s: %v", line, err)
		}
		msgs = append(msgs, m)
	}
	c.send(msgs...)
}

// rpc sends one message and gives the next reply, which is to be its own.
func (c *client) rpc(format string, args ...any) *styx.Msg {
	c.t.Helper()
	line := fmt.Sprintf(format, args...)
	c.say(line)
	return c.recv()
}

// must is an rpc that is to succeed.
func (c *client) must(format string, args ...any) *styx.Msg {
	c.t.Helper()
	m := c.rpc(format, args...)
	if m.Type == styx.Rlerror || m.Type == styx.Rerror {
		c.t.Fatalf("%s: %s", fmt.Sprintf(format, args...), m)
	}
	return m
}

// start is a session with fid 0 attached.
func (c *client) start(version string) *client {
	c.t.Helper()
	c.must("Tversion msize 65536 version %s", version)
	c.must("Tattach fid 0 uname root aname ''")
	return c
}
