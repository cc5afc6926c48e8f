package ns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// soon is long enough for everything that happens here: it ends a test that hangs.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// lacking skips, or fails where nothing may be lacking.
func lacking(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "needs root: changes identity")
	}
}

// A sh is a shell that is told what to do, one line at a time, and is a parent that is not this process.
type sh struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func shell(t testing.TB, attr *syscall.SysProcAttr) *sh {
	t.Helper()
	s := &sh{t: t, cmd: exec.Command("/bin/sh")}
	s.cmd.SysProcAttr = attr
	s.cmd.Stderr = os.Stderr
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in, s.out = in, bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		s.cmd.Process.Kill()
		s.cmd.Wait()
	})
	return s
}

func (s *sh) do(format string, arg ...any) { fmt.Fprintf(s.in, format+"\n", arg...) }

// ask is do for a command that answers with one line.
func (s *sh) ask(format string, arg ...any) string {
	s.t.Helper()
	s.do(format, arg...)
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.t.Fatalf("%s: %v", format, err)
	}
	return strings.TrimSpace(line)
}

func (s *sh) num(format string, arg ...any) (n int) {
	s.t.Helper()
	if _, err := fmt.Sscan(s.ask(format, arg...), &n); err != nil {
		s.t.Fatalf("%s: %v", format, err)
	}
	return n
}

func open(t testing.TB, pid int) *Process {
	t.Helper()
	p, err := Open(pid)
	if err != nil {
		t.Fatalf("open %d: %v", pid, err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// atEnd checks that nothing of the test's is left.
func atEnd(t testing.TB) {
	t.Helper()
	count := func() int {
		n, err := numbers("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(n)
	}
	watching.mu.Lock()
	watching.begin() // its descriptors stay
	watching.mu.Unlock()
	before := count()
	t.Cleanup(func() {
		ctx := soon(t)
		watches, fds := 1, before+1
		for (watches > 0 || fds > before) && ctx.Err() == nil { // those killed are reaped by and by
			runtime.Gosched()
			watching.mu.Lock()
			watches, fds = len(watching.watches), count()
			watching.mu.Unlock()
		}
		if ctx.Err() != nil {
			t.Errorf("%d watches are left, %d descriptors; %d before", watches, fds, before)
		}
	})
}

var ends = []struct{ cmd, words string }{
	{"exit 0", ""},
	{"exit 3", "exit: 3"},
	{"exit 255", "exit: 255"},
	{"kill -KILL $$", "signal: KILL"},
	{"kill -TERM $$", "signal: TERM"},
	{"ulimit -c 0; kill -SEGV $$", "signal: SEGV"},
}

// A turn is a child of a shell that runs a command once it is told to.
type turn struct {
	*sh
	pid  int
	fifo *os.File
}

func fifo(t testing.TB) *os.File {
	t.Helper()
	path := t.TempDir() + "/go"
	if err := unix.Mkfifo(path, 0666); err != nil {
		t.Fatal(err)
	}
	// Open for both, it waits for nobody.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (s *sh) later(cmd string) *turn {
	s.t.Helper()
	f := fifo(s.t)
	return &turn{s, s.num(`(read x <'%s'; exec sh -c '%s') & echo $!`, f.Name(), cmd), f}
}

func (c *turn) begin() { fmt.Fprintln(c.fifo) }

// With this variable the test is a parent that ignores SIGCHLD, so that its child never is a zombie; its value is
// the child's script. It says the child's pid and lives until its input ends.
const ignorer = "NS_TEST_IGNORE_SIGCHLD"

func init() {
	script := os.Getenv(ignorer)
	if script == "" {
		return
	}
	signal.Ignore(syscall.SIGCHLD)
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
	if err != nil {
		panic(err)
	}
	fmt.Println(pid)
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// ignoring is later with such a parent.
func ignoring(t testing.TB, cmd string) *turn {
	t.Helper()
	f := fifo(t)
	s := shell(t, nil)
	pid := s.num("export %s=\"read x <'%s'; exec sh -c '%s'\"; exec %s", ignorer, f.Name(), strings.ReplaceAll(cmd, "$", `\$`), os.Args[0])
	return &turn{s, pid, f}
}

// untilEnd waits for a pidfd by the kernel's own means.
func untilEnd(t testing.TB, p *Process, hup bool) {
	t.Helper()
	p.use(func(fd int) error {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if hup {
			poll[0].Events = 0
		}
		for {
			n, err := unix.Poll(poll, 60000)
			if err == unix.EINTR {
				continue
			}
			if n != 1 {
				t.Errorf("process %d does not end: %v", p.pid, err)
			}
			return nil
		}
	})
}

func wantExit(t *testing.T, p *Process, words string) Exit {
	t.Helper()
	e, err := Wait(soon(t), p)
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
						x, err := Wait(soon(t), p)
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
					lacking(t, "needs Linux 6.15: status of a reaped process")
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
			e, err := Wait(soon(t), p)
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
		x, _ := Wait(soon(t), p)
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

// child starts our own child without os/exec, which would wait for it.
func child(t testing.TB, script string) (p *Process, in *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", "read x; " + script}, &syscall.ProcAttr{Files: []uintptr{r.Fd(), 2, 2}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return open(t, pid), w
}

func TestReap(t *testing.T) {
	atEnd(t)
	for _, e := range ends {
		for _, order := range []string{"before", "zombie", "known"} {
			p, in := child(t, e.cmd)
			if order == "before" {
				if err := Reap(p); err != nil {
					t.Fatal(err)
				}
			}
			in.Close()
			if order != "before" {
				untilEnd(t, p, false)
			}
			if order == "known" {
				wantExit(t, p, e.words)
				if err := p.Check(); err != nil {
					t.Fatalf("Wait has reaped: %v", err)
				}
			}
			if order != "before" {
				if err := Reap(p); err != nil {
					t.Fatal(err)
				}
			}
			x := wantExit(t, p, e.words)
			if x.User < 0 {
				t.Errorf("times of %+v are unknown", x)
			}
			if err := p.Check(); err != ErrExited {
				t.Errorf("%s %q: after the record it is not reaped: %v", order, e.cmd, err)
			}
			if err := Reap(p); err != unix.ECHILD {
				t.Errorf("second Reap: %v", err)
			}
		}
	}
	c := shell(t, nil).later("exit 1")
	if err := Reap(open(t, c.pid)); err != unix.ECHILD {
		t.Errorf("Reap of another's child: %v", err)
	}
}

// 400 children of ours, as many of os/exec: each is reaped by who started it, and every status is right.
func TestReapNoOthers(t *testing.T) {
	atEnd(t)
	others := make(chan error, 100)
	for i := range cap(others) {
		go func() {
			err := exec.Command("/bin/sh", "-c", fmt.Sprintf("exit %d", i+1)).Run()
			var x *exec.ExitError
			if !errors.As(err, &x) || x.ExitCode() != i+1 {
				others <- fmt.Errorf("os/exec's child: %v", err)
				return
			}
			others <- nil
		}()
	}
	for i := range 100 {
		p, in := child(t, fmt.Sprintf("exit %d", i+1))
		if err := Reap(p); err != nil {
			t.Fatal(err)
		}
		in.Close()
		wantExit(t, p, fmt.Sprintf("exit: %d", i+1))
	}
	for range cap(others) {
		if err := <-others; err != nil {
			t.Error(err)
		}
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
		lacking(t, "needs the proc connector: "+err.Error())
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
		lacking(t, fmt.Sprintf("needs %d descriptors: limit is %d", n, lim.Cur))
	}
	c := shell(t, nil).later("exit 9")
	one := open(t, c.pid)
	ctx := soon(t)
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
