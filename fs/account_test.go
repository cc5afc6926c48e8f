package fs

import (
	"context"
	"strings"
	"testing"
)

func TestAccount(t *testing.T) {
	as := NewAccounts(7, Quota{Descriptors: 3, Memory: 100}, Quota{Descriptors: 5})
	a, b := as.Of(1), as.Of(2)
	take := func(who *Account, r Resource, n int64, want string) {
		t.Helper()
		err := who.Take(r, n)
		if got := ""; err != nil {
			if got = err.Error(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		} else if want != "" {
			t.Errorf("taken, want %q", want)
		}
	}
	take(a, Descriptors, 3, "")
	take(a, Descriptors, 1, "too many open files: a user may have 3")
	take(b, Descriptors, 3, "too many open files: all users together may have 5")
	take(b, Descriptors, 2, "")
	take(as.Of(1), Memory, 101, "too much memory: a user may have 100")
	take(a, Fids, 1000, "")
	for _, free := range []*Account{as.Of(0), as.Of(7), nil, (*Accounts)(nil).Of(1)} {
		take(free, Descriptors, 1000, "")
		free.Give(Descriptors, 1000)
	}
	a.Give(Descriptors, 1)
	take(b, Descriptors, 1, "")
	if !b.Tight() || as.Of(3).Tight() {
		t.Error("tight")
	}
}

// What is written and what a file keeps is on the account of who has it open until it is closed, and more is refused.
func TestAccountFiles(t *testing.T) {
	as := NewAccounts(0, Quota{Memory: 1000, Descriptors: 2}, Quota{})
	c := &Client{Uid: 1, Gid: 1, Account: as.Of(1), Errors: new(Errors)}
	ctx := WithClient(context.Background(), c)
	long := strings.Repeat("x", 600)
	get := func(subject, context.Context) (string, error) { return long, nil }
	add := func(subject, context.Context, string) error { return nil }
	d := Table[subject]{
		Text("text", 0666, get),
		Lines("lines", 0666, get, nil, add),
		Whole("whole", 0666, get, add),
		Ctl("ctl", 0666, get, add),
		Watched("wait", 0666, func(subject) (func(), error) { return func() {}, nil }, get),
		Special("log", 0666, func(subject, context.Context, How) (Handle, error) {
			l := NewLog(600, c.Account)
			l.TryWrite([]byte(long))
			l.End()
			r := l.Open(false)
			l.Close()
			return r, nil
		}),
	}.Dir("d", 0755, func(context.Context) (subject, error) { return subject{}, nil })
	open := func(name string) Handle {
		t.Helper()
		n, err := d.Walk(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		h, err := Enter(ctx, n, Read|Write)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	full := func(name string, do func(h Handle) error) {
		t.Helper()
		for range 3 { // what is closed leaves nothing
			h, other := open(name), open("text")
			if err := do(h); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := other.Read(ctx, 0, 1); err == nil || err.Error() != "too much memory: a user may have 1000" {
				t.Errorf("beside %s: %v", name, err)
			}
			n, err := d.Walk(ctx, name)
			if err == nil {
				_, err = Enter(ctx, n, Read|Write)
			}
			if err == nil || err.Error() != "too many open files: a user may have 2" {
				t.Errorf("a third: %v", err)
			}
			h.Close(ctx)
			if _, err := other.Read(ctx, 0, 1); err != nil {
				t.Errorf("after %s: %v", name, err)
			}
			other.Close(ctx)
		}
	}
	for _, name := range []string{"text", "lines", "whole", "ctl", "wait", "log"} {
		full(name, func(h Handle) error {
			_, err := h.Read(ctx, 0, 1)
			return err
		})
	}
	for _, name := range []string{"lines", "whole"} {
		full(name, func(h Handle) error {
			_, err := h.Write(ctx, 0, []byte(long))
			return err
		})
	}
}

// subject is one that holds something while it is in use.
type subject struct{}

func (subject) Owner() (uid, gid uint32) { return 1, 1 }
func (subject) Qid() uint64              { return 256 }
func (subject) Release()                 {}

// A log for which there is no room keeps the last bytes all the same, and a reader who is there loses none.
func TestLogWithoutRoom(t *testing.T) {
	a := NewAccounts(0, Quota{Memory: 10000}, Quota{}).Of(1)
	l := NewLog(1<<20, a)
	line := []byte(strings.Repeat("x", 999) + "\n")
	for range 100 {
		if err := l.Write(context.Background(), line); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.end - l.start; n < 8000 || n > 10000 {
		t.Errorf("%d bytes are kept", n)
	}
	a.Take(Memory, 1) // and it has no more
	second := NewLog(1<<20, a)
	for second.free(1000) >= 1000 && second.end < 100_000 {
		second.TryWrite(line)
	}
	r := second.Open(false)
	if n := second.end - second.start; n < leastKept-1000 || n > leastKept {
		t.Errorf("%d bytes are kept without an account", n)
	}
	if second.TryWrite(line) {
		t.Error("a reader has lost a line")
	}
	r.Close(context.Background())
	l.Close()
	if err := a.Take(Memory, 9999); err != nil {
		t.Errorf("after the close: %v", err)
	}
}
