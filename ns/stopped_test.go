package ns

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func needStops(t testing.TB) {
	t.Helper()
	err := StopEvents()
	if errors.Is(err, errors.ErrUnsupported) {
		lacks(t, "needs perf events: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A server of a user's own says what it lacks.
func TestStoppedLacks(t *testing.T) {
	const role = "NS_TEST_STOPPED"
	if os.Getenv(role) == "" {
		needsRoot(t)
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestStoppedLacks$", "-test.v")
		cmd.Env = append(os.Environ(), role+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	_, err := Stopped(withTimeout(t), open(t, os.Getpid()))
	const want = "stopped: needs the capability sys_admin, to read tracefs: operation not permitted"
	if err == nil || err.Error() != want || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestStopped(t *testing.T) {
	needStops(t)
	atEnd(t)
	type answer struct {
		stopped bool
		err     error
	}
	wait := func(ctx context.Context, p *Process) chan answer {
		c := make(chan answer, 1)
		go func() {
			s, err := Stopped(ctx, p)
			c <- answer{s, err}
		}()
		for { // until it waits, or has answered
			if watched(p, 1) || len(c) > 0 {
				return c
			}
			runtime.Gosched()
		}
	}
	for _, cmd := range []string{"while :; do :; done", "exec cat"} { // running, sleeping
		s := shell(t, nil)
		pid := s.num("exec 3<&0; (%s) <&3 >/dev/null & echo $!", cmd)
		p := open(t, pid)
		for range 20 {
			c := wait(withTimeout(t), p)
			select {
			case a := <-c:
				t.Fatalf("%s: answer %v before the stop", cmd, a)
			default:
			}
			if err := p.Signal(unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			if a := <-c; a != (answer{true, nil}) {
				t.Fatalf("%s: answer to a stop: %v", cmd, a)
			}
			// It is stopped already.
			if a := <-wait(withTimeout(t), p); a != (answer{true, nil}) {
				t.Fatalf("%s: answer while stopped: %v", cmd, a)
			}
			if st, err := p.Status(); err != nil || st.TracerPid != 0 {
				t.Fatalf("%s: traced by %d, %v", cmd, st.TracerPid, err)
			}
			if err := p.Signal(unix.SIGCONT); err != nil {
				t.Fatal(err)
			}
			for st, err := p.Stat(); st.State == 'T'; st, err = p.Stat() {
				if err != nil {
					t.Fatal(err)
				}
				runtime.Gosched()
			}
		}
		ctx, cancel := context.WithCancelCause(withTimeout(t))
		c := wait(ctx, p)
		why := errors.New("flushed")
		cancel(why)
		if a := <-c; a.err != why {
			t.Errorf("%s: answer to a cancel: %v", cmd, a)
		}
		c = wait(withTimeout(t), p)
		if err := p.Signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if a := <-c; a != (answer{false, nil}) {
			t.Errorf("%s: answer to the end: %v", cmd, a)
		}
	}
}
