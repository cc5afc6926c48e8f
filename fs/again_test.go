package fs

import (
	"context"
	"syscall"
	"testing"
)

// owned is a subject that somebody owns.
type owned uint32

func (o owned) Owner() (uid, gid uint32) { return uint32(o), uint32(o) }
func (owned) Qid() uint64                { return 256 }

// What a name stands for may be another's by the time that it is opened or emptied: the mode that counts is that of what
// is opened.
func TestAnothersMeanwhile(t *testing.T) {
	table := Table[owned]{Lines("secret", 0600,
		func(owned, context.Context) (string, error) { return "secret", nil },
		func(owned, context.Context) error { t.Error("emptied"); return nil },
		func(owned, context.Context, string) error { return nil })}
	uses := 0
	d := table.Dir("d", 0755, func(context.Context) (owned, error) {
		uses++
		if uses > 1 {
			return 0, nil
		}
		return 1000, nil
	})
	ctx := WithClient(context.Background(), &Client{Uid: 1000, Gid: 1000})
	n, err := d.Walk(context.Background(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	uses = 0
	if _, err := Enter(ctx, n, Read); err != ErrPerm {
		t.Errorf("opened, it is another's: %v", err)
	}
	uses = 0
	if err := Empty(ctx, n); err != ErrPerm {
		t.Errorf("emptied, it is another's: %v", err)
	}
}

// Who has a file open asks what it is before he reads it, maybe when what it tells of is gone.
func TestStatOfWhatIsGone(t *testing.T) {
	table := Table[owned]{Text("wait", 0444, func(owned, context.Context) (string, error) { return "ended", nil })}
	var gone error
	d := table.Dir("d", 0755, func(context.Context) (owned, error) { return 1000, gone })
	ctx := context.Background()
	n, err := d.Walk(ctx, "wait")
	if err != nil {
		t.Fatal(err)
	}
	gone = ErrNotExist
	if st, err := n.Stat(ctx); err != ErrNotExist {
		t.Errorf("never asked before: %v, %v", st, err)
	}
	gone = nil
	before, err := n.Stat(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, gone = range []error{ErrNotExist, Err(syscall.ENOENT, "process exited")} {
		if st, err := n.Stat(ctx); err != nil || st != before {
			t.Errorf("%v: %v, %v", gone, st, err)
		}
	}
	gone = ErrPerm
	if _, err := n.Stat(ctx); err != ErrPerm {
		t.Errorf("no longer to be seen: %v", err)
	}
}
