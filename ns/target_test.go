package ns

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

var targetProgram = sync.OnceValues(func() (string, error) {
	f, err := os.CreateTemp("", "target")
	if err != nil {
		return "", err
	}
	f.Close()
	out, err := exec.Command("gcc", "-O2", "-Wall", "-o", f.Name(), "testdata/target.c", "-lpthread").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	os.Chmod(f.Name(), 0755)
	atExit = append(atExit, func() { os.Remove(f.Name()) })
	return f.Name(), nil
})

// A target is a running testdata/target.c.
type target struct {
	t   testing.TB
	cmd *exec.Cmd
	in  *os.File
	out *bufio.Reader
	p   *Process
}

func newTarget(t testing.TB, mode string, attr *syscall.SysProcAttr) *target {
	t.Helper()
	needsRoot(t)
	prog, err := targetProgram()
	if err != nil {
		lacks(t, "a C compiler: %v", err)
	}
	return startTarget(t, attr, prog, mode)
}

func startTarget(t testing.TB, attr *syscall.SysProcAttr, argv ...string) *target {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	if cmd.Dir = "/"; attr == nil || attr.Chroot == "" && attr.Credential == nil {
		cmd.Dir = t.TempDir()
	}
	r, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdin = r
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	x := &target{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
		if x.p != nil {
			x.p.Close()
		}
	})
	if line, err := x.out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("target: %q, %v", line, err)
	}
	if x.p, err = Open(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return x
}

// settled waits until the target's thread is in one of the states.
func (x *target) settled(states string) {
	x.t.Helper()
	ctx := withTimeout(x.t)
	for n := 0; ctx.Err() == nil; {
		if st, err := x.p.Stat(); err == nil && strings.IndexByte(states, st.State) >= 0 {
			if n++; n == 3 {
				return
			}
		}
		runtime.Gosched()
	}
	x.t.Fatalf("never in a state of %s", states)
}

// doneLine is what a target says that was not disturbed.
const doneLine = "done 1 1864400896\n"

// finish lets the target come to its end and checks that it was not disturbed.
func (x *target) finish() {
	x.t.Helper()
	x.in.Write([]byte("x"))
	if line, err := x.out.ReadString('\n'); line != doneLine {
		x.t.Errorf("target says %q, %v", line, err)
	}
	if err := x.cmd.Wait(); err != nil {
		x.t.Errorf("target: %v", err)
	}
}

func (x *target) fds() []int {
	x.t.Helper()
	fds, err := numbers(x.p.path("fd"))
	if err != nil {
		x.t.Fatal(err)
	}
	slices.Sort(fds)
	return fds
}

func (x *target) kind(kind string) []uint64 {
	x.t.Helper()
	tids, err := numbers(x.p.path("task"))
	if err != nil {
		x.t.Fatal(err)
	}
	var all []uint64
	for _, tid := range tids {
		ino, err := nsInode(tid, kind)
		if err != nil {
			continue // it has ended
		}
		all = append(all, ino)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
