package ns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

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
