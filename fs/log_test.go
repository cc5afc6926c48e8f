package fs

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

func gatherer() context.Context {
	return WithClient(context.Background(), &Client{Gathers: true})
}

// stores are the two kinds of logs.
var stores = map[string]func(*testing.T, int) *Log{
	"memory": func(_ *testing.T, size int) *Log { return NewLog(size, nil) },
	"file": func(t *testing.T, size int) *Log {
		l, err := OpenLog(memfd(t), size, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		return l
	},
}

func memfd(t *testing.T) *os.File {
	fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "log")
}

// A client that gathers sees each batch, because one read after it gives 0 bytes; another never sees 0 before the end.
func TestLogBatches(t *testing.T) {
	ctx := gatherer()
	l := NewLog(64, nil)
	r := l.Open(false)
	defer r.Close(ctx)
	l.TryWrite([]byte("one\n"))
	want := func(ctx context.Context, off int64, s string) {
		t.Helper()
		b, err := r.Read(ctx, off, 100)
		if string(b) != s || err != nil {
			t.Fatalf("read at %d: %q, %v; want %q", off, b, err, s)
		}
	}
	want(ctx, 0, "one\n")
	want(ctx, 4, "")
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if b, err := r.Read(ended, 4, 100); err != context.Canceled {
		t.Fatalf("read at the end: %q, %v; want it to block", b, err)
	}
	if b, err := r.Read(WithClient(ended, &Client{}), 4, 100); err != context.Canceled {
		t.Fatalf("plain read at the end: %q, %v; want it to block", b, err)
	}
	want(ctx, 2, "e\n") // stepped back
	l.End()
	want(context.Background(), 4, "")
	if !l.Drained() {
		t.Fatal("not drained")
	}
}

// Whatever sizes are written and read, a reader that follows and one that steps back get every byte while they have
// the log open, though the ring is small.
func TestLogLosesNothing(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) { losesNothing(t, open) })
	}
}

func losesNothing(t *testing.T, open func(*testing.T, int) *Log) {
	synctest.Test(t, func(t *testing.T) {
		ctx := gatherer()
		l := open(t, 1000)
		var sent []byte
		for i := range 50_000 {
			sent = append(sent, byte(i>>8), byte(i))
		}
		read := func(follow, back bool) <-chan []byte {
			r, done := l.Open(follow), make(chan []byte)
			go func() {
				defer r.Close(ctx)
				var got []byte
				for zero := 0; zero < 2; {
					b, err := r.Read(ctx, int64(len(got)), 1+rand.IntN(300))
					if err != nil {
						t.Error(err)
						break
					}
					if len(b) == 0 {
						zero++
						continue
					}
					zero = 0
					if back {
						b = b[:1+rand.IntN(len(b))]
					}
					got = append(got, b...)
				}
				done <- got
			}()
			return done
		}
		a, b, c := read(false, false), read(true, false), read(false, true)
		for p := sent; len(p) > 0; {
			n := min(len(p), 1+rand.IntN(700))
			if err := l.Write(ctx, p[:n]); err != nil {
				t.Fatal(err)
			}
			p = p[n:]
		}
		l.End()
		for i, done := range []<-chan []byte{a, b, c} {
			if got := <-done; !bytes.Equal(got, sent) {
				t.Errorf("reader %d: %d bytes, want %d", i, len(got), len(sent))
			}
		}
	})
}

// With nobody reading the writer goes on and the oldest bytes go; who comes then is told how many are lost, once.
func TestLogOverrun(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) { overrun(t, open(t, 10)) })
	}
}

func overrun(t *testing.T, l *Log) {
	ctx := context.Background()
	for range 5 {
		if err := l.Write(ctx, []byte("0123456789abc")); err != nil {
			t.Fatal(err)
		}
	}
	r := l.Open(false)
	if _, err := r.Read(ctx, 0, 100); err == nil || err.Error() != "output lost: 55 bytes" {
		t.Fatalf("first read: %v", err)
	}
	if b, err := r.Read(ctx, 0, 100); string(b) != "3456789abc" || err != nil {
		t.Fatalf("second read: %q, %v", b, err)
	}
	if b, _ := l.Open(true).Read(ctx, 99, 4); string(b) != "3456" {
		t.Fatalf("following read: %q", b)
	}
	if l.TryWrite([]byte("x")) {
		t.Fatal("a byte that a reader has not got was overwritten")
	}
	r.Close(ctx)
}
