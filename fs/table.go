package fs

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// A Subject is what the files of a directory tell about.
type Subject interface {
	// Owner gives the user and group that the files belong to.
	Owner() (uid, gid uint32)
	// Qid is the number of the directory. The 127 above it are its files', which with 128 more have room for one below each.
	Qid() uint64
}

// A Releaser is a subject that holds something (a descriptor) for as long as it is in use.
type Releaser interface{ Release() }

// A Row is a file of a directory: its name, its mode, and what it does.
type Row[T Subject] struct {
	Name string
	Mode FileMode

	open  func(context.Context, T, How) (Handle, error)
	empty func(context.Context, T) error                // truncation without an open file
	sub   func(context.Context, T, uint64) (Dir, error) // the row is a directory
	when  func(T) bool                                  // nil: always there
	modes []modeIf
}

type modeIf struct {
	when func(T any) bool
	mode FileMode
}

// If makes the row be there only while when says so.
func (r Row[T]) If(when func(T) bool) Row[T] {
	r.when = when
	return r
}

// Or gives the row another mode while when says so.
func (r Row[T]) Or(mode FileMode, when func(T) bool) Row[T] {
	r.modes = append(r.modes, modeIf{func(t any) bool { return when(t.(T)) }, mode})
	return r
}

func (r *Row[T]) mode(t T) FileMode {
	for _, m := range r.modes {
		if m.when(t) {
			return m.mode
		}
	}
	return r.Mode
}

// Text is a file whose text is made when it is read at offset 0 and served from there for later offsets.
func Text[T Subject](name string, mode FileMode, get func(T, context.Context) (string, error)) Row[T] {
	return Row[T]{Name: name, Mode: mode, open: func(_ context.Context, t T, _ How) (Handle, error) {
		return &text{get: func(ctx context.Context) (string, error) { return get(t, ctx) }}, nil
	}}
}

// Answer is a Text whose making blocks: every reader gets the same record, then 0 bytes.
func Answer[T Subject](name string, mode FileMode, wait func(T, context.Context) (string, error)) Row[T] {
	return Text(name, mode, wait)
}

// Watched is an Answer that begins to look when it is opened, with begin, and ends with what that gives.
func Watched[T Subject](name string, mode FileMode, begin func(T) (end func(), err error), wait func(T, context.Context) (string, error)) Row[T] {
	return Special(name, mode, func(t T, ctx context.Context, _ How) (Handle, error) {
		end, err := begin(t)
		if err != nil {
			return nil, err
		}
		return &watched{text{get: func(ctx context.Context) (string, error) { return wait(t, ctx) }}, end}, nil
	})
}

// Value is a Text of which each line that is written sets what it names. Truncation changes nothing.
func Value[T Subject](name string, mode FileMode, get func(T, context.Context) (string, error), set func(T, context.Context, string) error) Row[T] {
	return Lines(name, mode, get, nil, set)
}

// Lines is a Text that `>` empties and to which each line that is written is added.
func Lines[T Subject](name string, mode FileMode, get func(T, context.Context) (string, error), empty func(T, context.Context) error, add func(T, context.Context, string) error) Row[T] {
	r := Row[T]{Name: name, Mode: mode}
	r.open = func(_ context.Context, t T, _ How) (Handle, error) {
		h := &lines{add: func(ctx context.Context, line string) error { return add(t, ctx, line) }}
		h.get = func(ctx context.Context) (string, error) { return get(t, ctx) }
		if empty != nil {
			h.empty = func(ctx context.Context) error { return empty(t, ctx) }
		}
		return h, nil
	}
	if empty != nil {
		r.empty = func(ctx context.Context, t T) error { return empty(t, ctx) }
	}
	return r
}

// Whole is a Text that is replaced by what is written from its opening to its closing; put's error answers the close.
func Whole[T Subject](name string, mode FileMode, get func(T, context.Context) (string, error), put func(T, context.Context, string) error) Row[T] {
	return Special(name, mode, func(t T, _ context.Context, _ How) (Handle, error) {
		h := &whole{put: func(ctx context.Context, text string) error { return put(t, ctx, text) }}
		h.get = func(ctx context.Context) (string, error) { return get(t, ctx) }
		return h, nil
	})
}

// Ctl is a file of which each write is a message that do carries out; read, it gives what it controls.
func Ctl[T Subject](name string, mode FileMode, get func(T, context.Context) (string, error), do func(T, context.Context, string) error) Row[T] {
	return Row[T]{Name: name, Mode: mode, open: func(_ context.Context, t T, _ How) (Handle, error) {
		return NewCtl(
			func(ctx context.Context) (string, error) { return get(t, ctx) },
			func(ctx context.Context, msg string) error { return do(t, ctx, msg) },
			nil), nil
	}}
}

// Special is a file that makes its own handles.
func Special[T Subject](name string, mode FileMode, open func(T, context.Context, How) (Handle, error)) Row[T] {
	return Row[T]{Name: name, Mode: mode, open: func(ctx context.Context, t T, how How) (Handle, error) { return open(t, ctx, how) }}
}

// Sub is a directory within the directory; qid is to be its number.
func Sub[T Subject](name string, dir func(t T, ctx context.Context, qid uint64) (Dir, error)) Row[T] {
	return Row[T]{Name: name, Mode: ModeDir, sub: func(ctx context.Context, t T, qid uint64) (Dir, error) { return dir(t, ctx, qid) }}
}

// A Table is the files of a directory.
type Table[T Subject] []Row[T]

// Names gives the names of the files, for the manual's test.
func (t Table[T]) Names() []string {
	var names []string
	for _, r := range t {
		names = append(names, r.Name)
	}
	return names
}

// Dir is the directory called name whose files tell about what get gives. Get is asked at each use.
func (t Table[T]) Dir(name string, mode FileMode, get func(context.Context) (T, error)) Dir {
	return &tableDir[T]{t, name, mode | ModeDir, get}
}

type tableDir[T Subject] struct {
	rows Table[T]
	name string
	mode FileMode
	get  func(context.Context) (T, error)
}

// release lets go of a subject that was got for one use.
func release(t any) {
	if r, ok := t.(Releaser); ok {
		r.Release()
	}
}

func (d *tableDir[T]) Stat(ctx context.Context) (Stat, error) {
	t, err := d.get(ctx)
	if err != nil {
		return Stat{}, err
	}
	defer release(t)
	uid, gid := t.Owner()
	return Stat{Name: d.name, Qid: t.Qid(), Mode: d.mode, Uid: uid, Gid: gid, Time: time.Now()}, nil
}

func (d *tableDir[T]) Walk(ctx context.Context, name string) (Node, error) {
	t, err := d.get(ctx)
	if err != nil {
		return nil, err
	}
	defer release(t)
	for i := range d.rows {
		r := &d.rows[i]
		if r.Name != name || r.when != nil && !r.when(t) {
			continue
		}
		if r.sub != nil {
			return r.sub(ctx, t, t.Qid()+uint64(i)+1)
		}
		return &row[T]{dir: d, i: i}, nil
	}
	return nil, ErrNotExist
}

func (d *tableDir[T]) List(ctx context.Context) ([]Entry, error) {
	t, err := d.get(ctx)
	if err != nil {
		return nil, err
	}
	defer release(t)
	list := make([]Entry, 0, len(d.rows))
	for i := range d.rows {
		if r := &d.rows[i]; r.when == nil || r.when(t) {
			list = append(list, Entry{Name: r.Name, Qid: t.Qid() + uint64(i) + 1, Type: r.Mode.Type()})
		}
	}
	return list, nil
}

// A row of a directory as a node.
type row[T Subject] struct {
	dir  *tableDir[T]
	i    int
	last atomic.Pointer[Stat] // what Stat gave
}

// Stat gives, once the subject is gone, what it gave before: who has opened the file asks for that before he reads (cat does), and
// v9fs asks with a fid that is not the open one.
func (n *row[T]) Stat(ctx context.Context) (Stat, error) {
	t, err := n.dir.get(ctx)
	if err != nil {
		if last := n.last.Load(); last != nil && errors.Is(err, ErrNotExist) {
			return *last, nil
		}
		return Stat{}, err
	}
	defer release(t)
	st := n.of(t)
	n.last.Store(&st)
	return st, nil
}

// of describes the file of one subject.
func (n *row[T]) of(t T) Stat {
	r := &n.dir.rows[n.i]
	uid, gid := t.Owner()
	return Stat{Name: r.Name, Qid: t.Qid() + uint64(n.i) + 1, Mode: r.mode(t), Uid: uid, Gid: gid, Time: time.Now()}
}

// Open checks the mode itself: what the name stands for may have become another since anybody looked.
func (n *row[T]) Open(ctx context.Context, how How) (Handle, error) {
	t, err := n.dir.get(ctx)
	if err != nil {
		return nil, err
	}
	if err := Access(ctx, n.of(t), how); err != nil {
		release(t)
		return nil, err
	}
	open := n.dir.rows[n.i].open
	r, ok := any(t).(Releaser)
	if !ok {
		return open(ctx, t, how)
	}
	account := ClientOf(ctx).Account
	if err := account.Take(Descriptors, 1); err != nil {
		r.Release()
		return nil, err
	}
	h, err := open(ctx, t, how)
	if err != nil {
		account.Give(Descriptors, 1)
		r.Release()
		return nil, err
	}
	return &held{h, r, account}, nil
}

func (n *row[T]) Truncate(ctx context.Context) error {
	r := &n.dir.rows[n.i]
	if r.empty == nil {
		return nil
	}
	t, err := n.dir.get(ctx)
	if err != nil {
		return err
	}
	defer release(t)
	if err := Access(ctx, n.of(t), Trunc); err != nil {
		return err
	}
	return r.empty(ctx, t)
}

// held is a handle whose subject is let go of when it is closed.
type held struct {
	Handle
	subject Releaser
	account *Account // a descriptor of its subject is on this
}

func (h *held) Close(ctx context.Context) error {
	defer h.account.Give(Descriptors, 1)
	defer h.subject.Release()
	return h.Handle.Close(ctx)
}

func (h *held) Unread(ctx context.Context, p []byte) {
	if u, ok := h.Handle.(Unreader); ok {
		u.Unread(ctx, p)
	}
}

func (h *held) Truncate(ctx context.Context) error { return truncate(ctx, h.Handle) }

func truncate(ctx context.Context, h Handle) error {
	if t, ok := h.(Truncater); ok {
		return t.Truncate(ctx)
	}
	return nil
}
