package fuse

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"ctrfs/fs"
)

// A world is a tree to be mounted: a root in which boxes are made, renamed and removed.
type world struct {
	mu    sync.Mutex
	boxes map[string]*box
	qid   uint64

	blocked chan struct{} // one for each read that has begun to block
	said    chan string   // what was written to a ctl file, and by whom
	opened  atomic.Int64  // ctl files that are open
}

// A box is a directory of one file of each kind.
type box struct {
	w    *world
	qid  uint64
	done chan struct{} // wait gives its answer when this is closed
	out  *fs.Log
	slow *slow

	mu   sync.Mutex
	list []string
}

func (b *box) Owner() (uid, gid uint32) { return 0, 12345 }
func (b *box) Qid() uint64              { return b.qid }

var files = fs.Table[*box]{
	fs.Text("text", 0444, func(*box, context.Context) (string, error) { return "one\ntwo\n", nil }),
	fs.Text("who", 0444, func(_ *box, ctx context.Context) (string, error) { return whoIs(ctx), nil }),
	fs.Text("secret", 0600, func(*box, context.Context) (string, error) { return "secret\n", nil }),
	fs.Text("ours", 0640, func(*box, context.Context) (string, error) { return "ours\n", nil }),
	fs.Answer("wait", 0444, (*box).wait),
	fs.Special("stdout", 0444, func(b *box, _ context.Context, _ fs.How) (fs.Handle, error) { return b.out.Open(false), nil }),
	fs.Special("stdin", 0200, func(b *box, _ context.Context, _ fs.How) (fs.Handle, error) { return stdin{b}, nil }),
	fs.Lines("list", 0666, (*box).text, (*box).empty, (*box).add),
	fs.Special("ctl", 0666, (*box).ctl),
	fs.Special("slow", 0444, func(b *box, _ context.Context, _ fs.How) (fs.Handle, error) { return b.slow, nil }),
	fs.Text("closed", 0444, func(b *box, _ context.Context) (string, error) { return fmt.Sprintln(b.slow.closed.Load()), nil }),
}

func whoIs(ctx context.Context) string {
	c := fs.ClientOf(ctx)
	return fmt.Sprintf("%d %d %v\n", c.Uid, c.Gid, c.Groups)
}

func (b *box) wait(ctx context.Context) (string, error) {
	select {
	case <-b.done:
		return "done\n", nil
	default:
	}
	b.w.blocked <- struct{}{}
	select {
	case <-b.done:
		return "done\n", nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (b *box) text(context.Context) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(append(b.list, ""), "\n"), nil
}

func (b *box) empty(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = nil
	return nil
}

func (b *box) add(_ context.Context, line string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = append(b.list, line)
	return nil
}

func (b *box) ctl(ctx context.Context, _ fs.How) (fs.Handle, error) {
	b.w.opened.Add(1)
	return fs.NewCtl(
		func(context.Context) (string, error) { return fmt.Sprintln(b.w.opened.Load()), nil },
		func(ctx context.Context, msg string) error {
			if strings.HasPrefix(msg, "frob") {
				return fs.Err(syscall.EINVAL, "unknown control message: %q", msg)
			}
			b.w.said <- fmt.Sprintf("%d %s", fs.ClientOf(ctx).Uid, msg)
			return nil
		},
		func(context.Context) error { b.w.opened.Add(-1); return nil }), nil
}

// stdin takes nothing: a pipe that is full.
type stdin struct{ b *box }

func (s stdin) Read(context.Context, int64, int) ([]byte, error) { return nil, fs.ErrPerm }
func (s stdin) Close(context.Context) error                      { return nil }
func (s stdin) Write(ctx context.Context, _ int64, p []byte) (int, error) {
	s.b.w.blocked <- struct{}{}
	select {
	case <-s.b.done:
		return len(p), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// slow is a file whose close takes as long as the test says.
type slow struct {
	closing, may chan struct{}
	closed       atomic.Bool
}

func (s *slow) Read(context.Context, int64, int) ([]byte, error)        { return nil, nil }
func (s *slow) Write(_ context.Context, _ int64, p []byte) (int, error) { return len(p), nil }
func (s *slow) Close(context.Context) error {
	close(s.closing)
	<-s.may
	s.closed.Store(true)
	return nil
}

func newWorld(names ...string) *world {
	w := &world{boxes: map[string]*box{}, blocked: make(chan struct{}, 20000), said: make(chan string, 100)}
	for _, n := range names {
		w.add(n)
	}
	return w
}

func (w *world) add(name string) *box {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.qid += 256
	b := &box{w: w, qid: w.qid << 8, done: make(chan struct{}), out: fs.NewLog(1<<20, nil),
		slow: &slow{closing: make(chan struct{}), may: make(chan struct{})}}
	w.boxes[name] = b
	return b
}

func (w *world) box(name string) (*box, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b := w.boxes[name]; b != nil {
		return b, nil
	}
	return nil, fs.ErrNotExist
}

func (w *world) Stat(context.Context) (fs.Stat, error) {
	return fs.Stat{Name: "/", Qid: 1, Mode: fs.ModeDir | 0775}, nil
}

func (w *world) Walk(_ context.Context, name string) (fs.Node, error) {
	if name == "error" {
		return errorFile{}, nil
	}
	if _, err := w.box(name); err != nil {
		return nil, err
	}
	return files.Dir(name, 0755, func(context.Context) (*box, error) { return w.box(name) }), nil
}

func (w *world) List(context.Context) ([]fs.Entry, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := []fs.Entry{{Name: "error", Qid: 2}}
	for n, b := range w.boxes {
		list = append(list, fs.Entry{Name: n, Qid: b.qid, Type: fs.ModeDir})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

func (w *world) Mkdir(ctx context.Context, name string, _ fs.FileMode) (fs.Node, error) {
	if _, err := w.box(name); err == nil {
		return nil, fs.ErrExist
	}
	w.add(name)
	return w.Walk(ctx, name)
}

func (w *world) Remove(_ context.Context, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.boxes[name] == nil {
		return fs.ErrNotExist
	}
	delete(w.boxes, name)
	return nil
}

func (w *world) Rename(_ context.Context, from, to string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.boxes[to] != nil {
		return fs.ErrExist
	}
	w.boxes[to] = w.boxes[from]
	delete(w.boxes, from)
	return nil
}

type errorFile struct{}

func (errorFile) Stat(context.Context) (fs.Stat, error) {
	return fs.Stat{Name: "error", Qid: 2, Mode: 0444}, nil
}

func (errorFile) Open(ctx context.Context, _ fs.How) (fs.Handle, error) {
	return fs.NewCtl(fs.ClientOf(ctx).Errors.Text, nil, nil), nil
}

// blocks waits until n reads or writes have begun to block.
func (w *world) blocks(t testing.TB, n int) {
	t.Helper()
	for i := range n {
		select {
		case <-w.blocked:
		case <-t.Context().Done():
			t.Fatalf("%d of %d are blocked", i, n)
		}
	}
}
