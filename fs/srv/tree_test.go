package srv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
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
	w := &world{log: fs.NewLog(1<<20, nil), end: make(chan struct{}), last: 0x1000, text: "note\n", dirs: map[string]*box{}}
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
			if msg == "long\n" {
				return errors.New(strings.Repeat("é", 200))
			}
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
	opens("stuck", 0666, func(w *world, _ fs.How) (*handle, error) { // blocks in both directions, and its writes fail in the end
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
