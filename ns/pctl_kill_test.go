package ns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// echo asks a target in the mode echo whether all is right with it, and how many signals it has caught.
func (x *target) echo() (signals int, err error) {
	if _, err := x.in.Write([]byte("x")); err != nil {
		return 0, err
	}
	line, err := x.out.ReadString('\n')
	var n int
	if _, e := fmt.Sscanf(line, "right 1864400896 %d\n", &n); err != nil || e != nil {
		return 0, fmt.Errorf("target says %q, %v", line, err)
	}
	return n, nil
}

// TestPctlSignals: of the signals that come during verbs none is lost and none comes twice.
func TestPctlSignals(t *testing.T) {
	x := newTarget(t, "echo", nil)
	x.settled("S")
	const signals, rtmin = 500, 34
	var wg sync.WaitGroup
	wg.Go(func() {
		for range signals {
			if err := unix.Kill(x.p.pid, rtmin); err != nil {
				t.Error(err)
			}
			unix.Nanosleep(&unix.Timespec{Nsec: 200e3}, nil) // to be spread over the verbs, not to wait for anything
		}
	})
	for range 20 {
		if err := x.p.Pctl(withTimeout(t), rootCred, Pctl{Unshare: []string{"uts"}, ForkFD: true}); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if n, err := x.echo(); err != nil || n != signals {
		t.Errorf("%d signals caught of %d, %v", n, signals, err)
	}
}

func init() {
	// A server that does one verb after the other to a process.
	roles["pctl"] = func() error {
		pid, err := strconv.Atoi(os.Args[1])
		if err != nil {
			return err
		}
		p, err := Open(pid)
		if err != nil {
			return err
		}
		fmt.Println("begin")
		for {
			for _, m := range []Pctl{{Unshare: []string{"uts", "ipc"}}, {ForkFD: true}, {NewFD: true, FDs: []int{0, 1, 2}}, {ForkNS: true}, {NewPgrp: true}} {
				if err := p.Pctl(context.Background(), rootCred, m); err != nil {
					return err
				}
			}
		}
	}
}

// TestPctlKilled kills the server at random moments of a verb: the process is right each time.
func TestPctlKilled(t *testing.T) {
	x := newTarget(t, "echo", nil)
	x.settled("S")
	fds := x.fds()
	rounds := 1000
	switch {
	case testing.Short():
		rounds = 50
	case underRace: // it finds nothing in processes that are killed
		rounds = 100
	}
	for i := range rounds {
		cmd := exec.Command("/proc/self/exe", strconv.Itoa(x.p.pid))
		cmd.Env = append(os.Environ(), "NS_TEST_ROLE=pctl")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		unix.Nanosleep(&unix.Timespec{Nsec: rand.Int64N(20e6)}, nil) // the random moment
		cmd.Process.Kill()
		cmd.Wait()
		if _, err := x.echo(); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		untraced(t, x.p) // until the last tracer is through
		if now := x.fds(); !slices.Equal(now, fds) && !slices.Equal(now, []int{0, 1, 2}) {
			t.Fatalf("round %d: descriptors %v, were %v", i, now, fds)
		}
	}
	untraced(t, x.p)
	if _, err := x.echo(); err != nil {
		t.Fatal(err)
	}
}

// untraced waits until nobody traces p.
func untraced(t testing.TB, p *Process) {
	t.Helper()
	for ctx := withTimeout(t); ; runtime.Gosched() {
		st, err := p.Status()
		if err != nil || ctx.Err() != nil {
			t.Fatalf("traced by %d, %v", st.TracerPid, err)
		}
		if st.TracerPid == 0 {
			return
		}
	}
}

// TestPctlTracerKilled kills the tracer itself, at random moments while it has a process stopped: the process goes on, with
// its own registers and mask, and makes the call again that it was in; but calls that end with EINTR when their process is
// stopped may do so if the tracer is killed before it has hidden that.
func TestPctlTracerKilled(t *testing.T) {
	rounds := 56
	if testing.Short() {
		rounds = 14
	}
	if n, err := strconv.Atoi(os.Getenv("NS_TRACER_KILLS")); err == nil {
		rounds = n
	}
	modes := []string{"read", "poll", "select", "epoll", "sigtimedwait", "pause", "wait", "futex", "recv", "semop", "accept", "tty", "spin", "threads"}
	ends := []string{"epoll", "sigtimedwait", "recv", "semop"}
	var killed, inside, interrupted int
	for i := range rounds {
		mode := modes[i%len(modes)]
		m := Pctl{Unshare: []string{"uts", "ipc"}, ForkNS: true}
		if mode == "semop" {
			m.Unshare = []string{"uts"}
		}
		if mode == "threads" {
			m = Pctl{Unshare: []string{"uts"}, ForkFD: true}
		}
		x := newTarget(t, mode, nil)
		x.settled("SR")
		mask := x.view().mask
		done := make(chan error)
		ctx := withTimeout(t)
		defer context.AfterFunc(ctx, func() { x.cmd.Process.Kill() })() // what hangs ends
		go func() { done <- x.p.Pctl(ctx, rootCred, m) }()
		var err error
		tracer, late := 0, false
		for tracer == 0 && !late {
			select {
			case err = <-done:
				late = true
			default:
				if st, e := x.p.Stat(); e == nil && st.State == 't' {
					if st, e := x.p.Status(); e == nil {
						tracer = st.TracerPid
					}
				}
			}
		}
		for until := time.Now().Add(rand.N(300 * time.Microsecond)); time.Now().Before(until); {
		}
		if !late {
			unix.Kill(tracer, unix.SIGKILL) // a zombie at worst: nobody but the goroutine waits for it, after that
			err = <-done
		}
		if st, e := x.p.Stat(); e != nil || st.State == 't' || st.State == 'T' { // the kernel lets go before it tells of the end
			t.Fatalf("state %c, %v", st.State, e)
		}
		if err != nil {
			killed++
			if clear, e := homeIsClear(x.p.pid); e == nil && !clear { // else it has come to its end
				inside++
			}
			for mode != "sigtimedwait" && mask != x.view().mask && x.p.Alive() && ctx.Err() == nil { // which has another one in its call
				runtime.Gosched()
			}
		}
		x.in.Write([]byte("x"))
		line, e := x.out.ReadString('\n')
		switch {
		case line == doneLine:
		case err != nil && slices.Contains(ends, mode) && (line == "done 4 1864400896\n" || line == "done 900 1864400896\n"):
			interrupted++
		default:
			t.Fatalf("round %d, mode %s, after %v: target says %q, %v", i, mode, err, line, e)
		}
		x.cmd.Wait()
	}
	t.Logf("%d tracers killed in %d rounds, %d of them inside of the process; %d calls interrupted", killed, rounds, inside, interrupted)
}

// homeIsClear reports whether a tracer has left nothing in the process.
func homeIsClear(pid int) (bool, error) {
	m, err := openMemory(pid)
	if err != nil {
		return false, err
	}
	defer unix.Close(m.fd)
	own, err := ownVDSO()
	used := len(bytes.TrimRight(own, "\x00"))
	return m.home == vdso(pid)+uint64(used+15)&^15, err
}

// TestNoDevs opens devices of all kinds afterwards, with all rights.
func TestNoDevs(t *testing.T) {
	needsRoot(t)
	c := testGroups(t)
	if c.v2 == nil {
		lacks(t, "needs cgroup version 2")
	}
	g := makeGroup(t, c, "nodevs")
	defer func() {
		if err := g.Remove(withTimeout(t)); err != nil {
			t.Error(err)
		}
	}()
	dir := t.TempDir()
	script := `read go
for d in null zero full urandom random; do : <$d || echo "no $d"; done
mknod ` + dir + `/kmsg c 1 11
for d in kmsg mem kvm fuse ` + dir + `/kmsg; do if [ -e $d ] && ( : <$d ) 2>/dev/null; then echo "opened $d"; fi; done
mkdir ` + dir + `/m && mount -t tmpfs none ` + dir + `/m && mknod ` + dir + `/m/mem c 1 1 && { ( : <` + dir + `/m/mem ) 2>/dev/null && echo "opened after mount"; umount ` + dir + `/m; }
( : <ptmx ) || echo "no ptmx"
echo done; read go`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = "/dev"
	in, _ := cmd.StdinPipe()
	var out strings.Builder
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	cmd.Stdout, cmd.Stderr = pw, pw
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	p, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := g.Enter(p); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do
		if err := p.Pctl(withTimeout(t), rootCred, Pctl{NoDevs: true}); err != nil {
			t.Fatal(err)
		}
	}
	in.Write([]byte("go\n"))
	buf := make([]byte, 4096)
	for !strings.Contains(out.String(), "done\n") {
		n, err := pr.Read(buf)
		if err != nil {
			t.Fatalf("%q, %v", out.String(), err)
		}
		out.Write(buf[:n])
	}
	if out.String() != "done\n" {
		t.Errorf("with nodevs:\n%s", out.String())
	}
	in.Close()
	if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Error(err)
	}
	// Its group goes when it has ended.
	for ctx := withTimeout(t); ; runtime.Gosched() {
		left, err := filepath.Glob(filepath.Join(g.dir.Name(), noDevs+"*"))
		if err != nil || ctx.Err() != nil {
			t.Fatalf("group is left: %v, %v", left, err)
		}
		if len(left) == 0 {
			return
		}
	}
}
