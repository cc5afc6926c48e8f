package ns

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

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
		ctx := withTimeout(t)
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
	script := fmt.Sprintf("read x <'%s'; exec sh -c '%s'", f.Name(), cmd)
	pid := s.num("export %s=\"%s\"; exec %s", ignorer, strings.ReplaceAll(script, "$", `\$`), os.Args[0]) // a test's name may have a $ too
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
