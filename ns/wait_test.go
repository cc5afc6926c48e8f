package ns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func wantExit(t *testing.T, p *Process, words string) Exit {
	t.Helper()
	e, err := Wait(withTimeout(t), p)
	if err != nil {
		t.Fatal(err)
	}
	if e.String() != words {
		t.Errorf("end is %q, not %q", e, words)
	}
	return e
}

// The child of a shell that does not wait for it stays a zombie; of one that waits it is reaped at once.
func TestWaitOthers(t *testing.T) {
	atEnd(t)
	for _, e := range ends {
		t.Run(e.cmd, func(t *testing.T) {
			waiting := func(p *Process) []chan string {
				var got []chan string
				for range 3 {
					c := make(chan string, 1)
					got = append(got, c)
					go func() {
						x, err := Wait(withTimeout(t), p)
						c <- fmt.Sprint(x, err)
					}()
				}
				for !watched(p, 3) {
					runtime.Gosched()
				}
				return got
			}
			check := func(got []chan string) {
				for _, c := range got {
					if s := <-c; s != e.words+" <nil>" {
						t.Errorf("end is %q", s)
					}
				}
			}
			t.Run("during zombie", func(t *testing.T) {
				c := shell(t, nil).later(e.cmd)
				p := open(t, c.pid)
				got := waiting(p)
				c.begin()
				check(got)
				if x, _ := Exited(p); x.Real < 0 || x.At.IsZero() || x.User < 0 || x.Sys < 0 {
					t.Errorf("times of %+v are unknown", x)
				}
			})
			t.Run("during reaped", func(t *testing.T) {
				c := shell(t, nil).later(e.cmd)
				p := open(t, c.pid)
				got := waiting(p)
				c.do("wait %d; echo done", c.pid)
				c.begin()
				check(got)
				if x, _ := Exited(p); x.Real < 0 || x.At.IsZero() {
					t.Errorf("times of %+v are unknown", x)
				}
			})
			t.Run("never a zombie", func(t *testing.T) {
				c := ignoring(t, e.cmd)
				p := open(t, c.pid)
				got := waiting(p)
				c.begin()
				check(got)
			})
			t.Run("after zombie", func(t *testing.T) {
				c := shell(t, nil).later(e.cmd)
				p := open(t, c.pid)
				c.begin()
				untilEnd(t, p, false)
				if x := wantExit(t, p, e.words); x.User < 0 || !x.At.IsZero() {
					t.Errorf("record is %+v", x)
				}
				q := open(t, c.pid) // another look at the zombie
				wantExit(t, q, e.words)
				c.ask("wait %d; echo done", c.pid)
				wantExit(t, p, e.words)
				if _, err := p.Stat(); err != ErrExited {
					t.Errorf("stat of a reaped process: %v", err)
				}
			})
			t.Run("after reaped", func(t *testing.T) {
				if !exitInfo() {
					lacks(t, "needs Linux 6.15: status of a reaped process")
				}
				c := shell(t, nil).later(e.cmd)
				p := open(t, c.pid)
				c.do("wait %d; echo done", c.pid)
				c.begin()
				untilEnd(t, p, true)
				if x := wantExit(t, p, e.words); x.User != -1 || x.Real != -1 || !x.At.IsZero() {
					t.Errorf("record is %+v", x)
				}
				if _, err := Open(c.pid); err != fs.ErrNotExist {
					t.Errorf("open of a gone process: %v", err)
				}
			})
		})
	}
}

func watched(p *Process, n int) bool {
	watching.mu.Lock()
	defer watching.mu.Unlock()
	return p.watch != nil && p.watch.users == n
}

// waiters are all who wait for the process with a number.
func waiters(pid int) (n int) {
	watching.mu.Lock()
	defer watching.mu.Unlock()
	for _, w := range watching.watches {
		if w.p.pid == pid {
			n += w.users
		}
	}
	return n
}

// Who waits for one process by several Processes gets one record.
func TestWaitOneRecord(t *testing.T) {
	atEnd(t)
	parent := shell(t, nil)
	pid := parent.num("sleep 1000 & echo $!")
	first, second := open(t, pid), open(t, pid)
	answers := make(chan Exit, 2)
	for _, p := range []*Process{first, second} {
		go func() {
			e, err := Wait(withTimeout(t), p)
			if err != nil {
				t.Error(err)
			}
			answers <- e
		}()
	}
	for waiters(pid) < 2 {
		runtime.Gosched()
	}
	if err := second.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	a, b := <-answers, <-answers
	if a != b {
		t.Errorf("one got %+v, the other %+v", a, b)
	}
	for _, p := range []*Process{first, second} {
		if e, ok := Exited(p); !ok || e != a {
			t.Errorf("recorded is %+v, %v", e, ok)
		}
	}
}

// A grandchild whose parent has gone is reaped by whoever adopted it.
func TestWaitOrphan(t *testing.T) {
	atEnd(t)
	s := shell(t, nil)
	f := fifo(t)
	pid := s.num(`sh -c '(read x <%s; exit 7) & echo $!'`, f.Name())
	p := open(t, pid)
	fmt.Fprintln(f)
	wantExit(t, p, "exit: 7")
}

func TestWaitCancel(t *testing.T) {
	atEnd(t)
	c := shell(t, nil).later("exit 5")
	p := open(t, c.pid)
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error)
	go func() {
		_, err := Wait(ctx, p)
		done <- err
	}()
	for !watched(p, 1) {
		runtime.Gosched()
	}
	why := errors.New("flushed")
	cancel(why)
	if err := <-done; err != why {
		t.Errorf("cancelled wait: %v", err)
	}
	c.begin()
	wantExit(t, p, "exit: 5")
}

// Close does not take the descriptor from those who wait.
func TestCloseWhileWaiting(t *testing.T) {
	atEnd(t)
	c := shell(t, nil).later("exit 6")
	p := open(t, c.pid)
	done := make(chan Exit)
	go func() {
		x, _ := Wait(withTimeout(t), p)
		done <- x
	}()
	for !watched(p, 1) {
		runtime.Gosched()
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	c.begin()
	if x := <-done; x.String() != "exit: 6" {
		t.Errorf("end is %q", x)
	}
	for p.Check() == nil { // the waiter is on its way out
		runtime.Gosched()
	}
	if err := p.Check(); err != fs.ErrClosed {
		t.Errorf("use after close: %v", err)
	}
}

// With nothing but the proc connector, as on kernels before 6.15.
func TestWaitConnector(t *testing.T) {
	old := exitInfo
	swap := func(info func() bool) {
		watching.mu.Lock()
		defer watching.mu.Unlock()
		exitInfo = info
		if watching.conn != nil {
			unix.Close(watching.conn.fd)
			watching.conn = nil
		}
		if watching.epoll != nil {
			for watching.running {
				watching.mu.Unlock()
				runtime.Gosched()
				watching.mu.Lock()
			}
			watching.epoll.Close()
			watching.epoll = nil
		}
	}
	swap(func() bool { return false })
	defer swap(old)
	if c, err := listen(); err != nil {
		lacks(t, "needs the proc connector: %v", err)
	} else {
		unix.Close(c.fd)
	}
	for _, e := range ends {
		// No zombie: only the connector knows.
		c := ignoring(t, e.cmd)
		p := open(t, c.pid)
		c.begin()
		wantExit(t, p, e.words)
	}
	// Whoever comes after the end learns nothing, and is not told a guess.
	c := shell(t, nil).later("exit 0")
	p := open(t, c.pid)
	c.do("wait %d; echo done", c.pid)
	c.begin()
	untilEnd(t, p, true)
	wantExit(t, p, "unknown")
}

// 10,000 wait, half of them on one descriptor and half each on its own; one end answers them all, the same.
func TestManyWaiters(t *testing.T) {
	atEnd(t)
	const n = 10000
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil || lim.Cur < n {
		lacks(t, "needs %d descriptors: limit is %d", n, lim.Cur)
	}
	c := shell(t, nil).later("exit 9")
	one := open(t, c.pid)
	ctx := withTimeout(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	got := make(chan string, n)
	for i := range n {
		p := one
		if i%2 == 0 {
			p = open(t, c.pid)
		}
		go func() {
			x, err := Wait(ctx, p)
			got <- fmt.Sprint(x, err)
		}()
	}
	for waiters(c.pid) < n {
		runtime.Gosched()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d bytes of memory for each", (after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/n)
	c.begin()
	for range n {
		if s := <-got; s != "exit: 9 <nil>" {
			t.Fatalf("end is %q", s)
		}
	}
}

func TestExitWords(t *testing.T) {
	for _, c := range []struct {
		e    Exit
		want string
		code int
	}{
		{Exit{Known: true, User: time.Second, Sys: 2500 * time.Microsecond, Real: -1}, "9 1000 2 - ", 0},
		{Exit{Known: true, Status: 3 << 8, User: -1, Sys: -1, Real: 30 * time.Millisecond}, "9 - - 30 exit: 3", 3},
		{Exit{Known: true, Status: 9, User: -1, Sys: -1, Real: -1}, "9 - - - signal: KILL", 137},
		{Exit{Known: true, Status: 11 | 0x80, User: -1, Sys: -1, Real: -1}, "9 - - - signal: SEGV (core dumped)", 139},
		{Exit{Known: true, Status: 37, User: -1, Sys: -1, Real: -1}, "9 - - - signal: RTMIN+3", 165},
		{unknownExit, "9 - - - unknown", -1},
	} {
		if got := strings.Join(c.e.Record(9), " "); got != c.want {
			t.Errorf("%+v is %q, not %q", c.e, got, c.want)
		}
		if n, ok := c.e.Code(); ok != (c.code >= 0) || ok && n != c.code {
			t.Errorf("%+v has code %d %v", c.e, n, ok)
		}
	}
}
