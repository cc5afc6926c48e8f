package fs

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// A thing with some files; it counts who holds it.
type thing struct {
	words []string
	held  int
	loud  bool
}

func (t *thing) Owner() (uid, gid uint32) { return 7, 70 }
func (t *thing) Qid() uint64              { return 0x100 }
func (t *thing) Release()                 { t.held-- }

func (t *thing) text(context.Context) (string, error) { return Words(t.words...) + "\n", nil }
func (t *thing) clear(context.Context) error          { t.words = nil; return nil }
func (t *thing) add(_ context.Context, line string) error {
	if line == "bad" {
		return errors.New("bad word")
	}
	t.words = append(t.words, line)
	return nil
}

var thingFiles = Table[*thing]{
	Text("text", 0444, (*thing).text),
	Value("value", 0640, (*thing).text, (*thing).add),
	Lines("lines", 0600, (*thing).text, (*thing).clear, (*thing).add).Or(0644, func(t *thing) bool { return t.loud }),
	Ctl("ctl", 0600, (*thing).text, func(t *thing, ctx context.Context, msg string) error { return t.add(ctx, strings.TrimSpace(msg)) }),
	Text("loud", 0444, (*thing).text).If(func(t *thing) bool { return t.loud }),
}

func (t *thing) dir() Dir {
	return thingFiles.Dir("thing", 0555, func(context.Context) (*thing, error) { t.held++; return t, nil })
}

func open(t *testing.T, ctx context.Context, d Dir, name string, how How) Handle {
	t.Helper()
	n, err := Look(ctx, d, name)
	if err != nil {
		t.Fatal(err)
	}
	h, err := Enter(ctx, n, how)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func as(uid uint32, groups ...uint32) context.Context {
	return WithClient(context.Background(), &Client{Uid: uid, Gid: uid, Groups: groups})
}

// Lines are taken by the write that ends them, `>` empties and `>>` does not, and the subject is let go of.
func TestLines(t *testing.T) {
	ctx := as(7)
	x := &thing{words: []string{"old"}}
	write := func(name string, how How, p ...string) (err error) {
		h := open(t, ctx, x.dir(), name, how)
		for i, s := range p {
			var n int
			if n, err = h.Write(ctx, int64(100*i), []byte(s)); err == nil && n != len(s) {
				t.Fatalf("write %q: %d bytes", s, n)
			}
		}
		if e := h.Close(ctx); err == nil {
			err = e
		}
		return err
	}
	for _, step := range []struct {
		name  string
		how   How
		write []string
		want  string
		err   string
	}{
		{"lines", Write, []string{"a\nb", "c\n"}, "old a bc", ""},
		{"lines", Write | Trunc, []string{"x"}, "x", ""},
		{"value", Write | Trunc, []string{"y\n"}, "x y", ""},
		{"lines", Write | Trunc, []string{"p 'q\nr'\n"}, "'p ''q␊r'''", ""},
		{"lines", Write | Trunc, []string{"one\nbad\ntwo\n"}, "one", "bad word"},
		{"lines", Write, []string{"bad"}, "one", "bad word"},
		{"ctl", Write | Trunc, []string{"", "verb\n"}, "one verb", ""},
	} {
		err := write(step.name, step.how, step.write...)
		got, _ := x.text(ctx)
		if got = strings.TrimSpace(got); got != step.want || step.err == "" != (err == nil) || err != nil && err.Error() != step.err {
			t.Errorf("%s %q: %q, %v; want %q, %q", step.name, step.write, got, err, step.want, step.err)
		}
	}
	if x.held != 0 {
		t.Errorf("held %d times", x.held)
	}
}

// A text is made at offset 0 and stays what it was for later offsets; a descriptor that has written reads from where it stands.
func TestTextOffsets(t *testing.T) {
	ctx := as(7)
	x := &thing{words: []string{"abc"}}
	h := open(t, ctx, x.dir(), "ctl", Read|Write)
	defer h.Close(ctx)
	read := func(off int64, n int, want string) {
		t.Helper()
		if b, err := h.Read(ctx, off, n); string(b) != want || err != nil {
			t.Errorf("read %d at %d: %q, %v; want %q", n, off, b, err, want)
		}
	}
	read(0, 2, "ab")
	x.words = []string{"new"}
	read(2, 9, "c\n")
	read(4, 9, "")
	read(0, 9, "new\n")
	h.Write(ctx, 4, []byte("verb"))
	read(8, 9, "new verb\n")
	read(17, 9, "")
	read(0, 3, "new")
}

func TestAccess(t *testing.T) {
	x := new(thing)
	none := WithClient(context.Background(), &Client{Uid: 7, Gid: 70, None: true})
	for _, test := range []struct {
		who  string
		ctx  context.Context
		name string
		how  How
		ok   bool
	}{
		{"owner", as(7), "lines", Read | Write, true},
		{"root", as(0), "lines", Read | Write, true},
		{"group", as(8, 70), "value", Read, true},
		{"group", as(8, 70), "value", Write, false},
		{"other", as(8), "value", Read, false},
		{"other", as(8), "text", Read, true},
		{"owner", as(7), "text", Write, false},
		{"none", none, "text", Read, true},
		{"none", none, "lines", Write, false},
		{"none", none, "value", Read, false},
	} {
		n, err := Look(test.ctx, x.dir(), test.name)
		if err != nil {
			t.Fatal(err)
		}
		h, err := Enter(test.ctx, n, test.how)
		if (err == nil) != test.ok || err != nil && !errors.Is(err, ErrPerm) {
			t.Errorf("%s opens %s for %b: %v", test.who, test.name, test.how, err)
		}
		if err == nil {
			h.Close(test.ctx)
		}
	}
	loud := as(8)
	if err := Empty(loud, mustLook(t, loud, x.dir(), "lines")); !errors.Is(err, ErrPerm) {
		t.Errorf("another empties lines: %v", err)
	}
	x.loud = true
	if st, _ := mustLook(t, loud, x.dir(), "lines").Stat(loud); st.Mode != 0644 || st.Uid != 7 || st.Gid != 70 || st.Qid != 0x103 {
		t.Errorf("lines: %+v", st)
	}
	if l, _ := Contents(loud, x.dir()); len(l) != 5 || l[4].Name != "loud" || l[4].Qid != 0x105 {
		t.Errorf("list: %+v", l)
	}
	x.loud = false
	if _, err := Look(loud, x.dir(), "loud"); err != ErrNotExist {
		t.Errorf("a row that is not there: %v", err)
	}
	if _, err := Make(as(0), x.dir(), "new", 0777); !errors.Is(err, ErrPerm) {
		t.Errorf("mkdir: %v", err)
	}
}

func mustLook(t *testing.T, ctx context.Context, d Dir, name string) Node {
	t.Helper()
	n, err := Look(ctx, d, name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"":          "''",
		"a=b":       "a=b",
		"it's":      "'it''s'",
		"a b":       "'a b'",
		"a\nb\x1b":  "'a␊b␛'",
		"\xff":      "'\ufffd'",
		"grün":      "grün",
		"a\u2028b":  "'a\ufffdb'",
		"del\x7f":   "'del␡'",
		"\u0085nel": "'\ufffdnel'",
	} {
		if got := Quote(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
