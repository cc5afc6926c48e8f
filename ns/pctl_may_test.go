package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPctlRefused: what is refused is not touched.
func TestPctlRefused(t *testing.T) {
	uts := Pctl{Unshare: []string{"uts"}}
	refused := func(t *testing.T, x *target, m Pctl, want string) {
		t.Helper()
		before := x.view()
		err := x.p.Pctl(withTimeout(t), rootCred, m)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if err := x.view().same(before); err != nil {
			t.Error(err)
		}
	}
	t.Run("traced", func(t *testing.T) {
		x := newTarget(t, "read", nil)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := ptrace(unix.PTRACE_SEIZE, x.p.pid, 0, 0); err != nil {
			t.Fatal(err)
		}
		refused(t, x, uts, fmt.Sprintf("process is traced by process %d", unix.Gettid()))
		th := &tracee{tid: x.p.pid}
		if err := errors.Join(th.ptrace(unix.PTRACE_INTERRUPT, 0, 0), th.settle(), th.ptrace(unix.PTRACE_DETACH, 0, 0)); err != nil {
			t.Fatal(err)
		}
		x.finish()
	})
	t.Run("vfork", func(t *testing.T) {
		x := newTarget(t, "vfork", nil)
		x.settled("D")
		refused(t, x, uts, "process waits in the kernel")
		x.finish()
	})
	t.Run("frozen", func(t *testing.T) {
		both(t, func(t *testing.T, c *Cgroups) {
			x := newTarget(t, "read", nil)
			defer x.p.Close()
			g := makeGroup(t, c, "frozen")
			defer func() {
				if err := g.Remove(withTimeout(t)); err != nil {
					t.Error(err)
				}
			}()
			if err := errors.Join(g.Enter(x.p), g.Freeze(withTimeout(t))); err != nil {
				t.Fatal(err)
			}
			refused(t, x, uts, "process is frozen")
			if err := g.Thaw(withTimeout(t)); err != nil {
				t.Fatal(err)
			}
			x.finish()
		})
	})
	t.Run("session leader", func(t *testing.T) {
		x := newTarget(t, "read", &syscall.SysProcAttr{Setsid: true})
		refused(t, x, Pctl{NewPgrp: true, Unshare: []string{"uts"}}, "newpgrp: process leads a session")
		x.finish()
	})
	t.Run("group leader", func(t *testing.T) {
		x := newTarget(t, "read", &syscall.SysProcAttr{Setpgid: true})
		if err := x.p.Pctl(withTimeout(t), rootCred, Pctl{NewPgrp: true}); err != nil {
			t.Error(err)
		}
		x.finish()
	})
	t.Run("zombie", func(t *testing.T) {
		x := newTarget(t, "read", nil)
		x.p.Signal(unix.SIGKILL)
		x.settled("Z")
		if err := x.p.Pctl(withTimeout(t), rootCred, uts); err != ErrExited {
			t.Errorf("zombie: %v", err)
		}
		x.cmd.Wait()
		if err := x.p.Pctl(withTimeout(t), rootCred, uts); err != ErrExited {
			t.Errorf("gone: %v", err)
		}
	})
	t.Run("kernel thread", func(t *testing.T) {
		needsRoot(t)
		p, err := Open(2)
		if err != nil {
			lacks(t, "needs the first pid namespace: no process 2")
		}
		defer p.Close()
		if err := p.Pctl(withTimeout(t), rootCred, uts); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "kernel thread") {
			t.Errorf("%v", err)
		}
	})
	t.Run("32-bit", func(t *testing.T) {
		if runtime.GOARCH != "amd64" {
			t.Skip("needs an amd64 machine")
		}
		needsRoot(t)
		// Says ready, reads a byte, says what a target says at its end.
		prog := filepath.Join(t.TempDir(), "target32")
		const text = "ready\ndone 1 1864400896\n"
		code := []byte{0xeb, byte(len(text))} // jmp over the text
		code = append(code, text...)
		at := byte(52 + 32 + 2)
		say := func(off, n byte) []byte {
			return []byte{0xb8, 4, 0, 0, 0, 0xbb, 1, 0, 0, 0, 0xb9, at + off, 0x80, 0x04, 0x08, 0xba, n, 0, 0, 0, 0xcd, 0x80}
		}
		code = append(code, say(0, 6)...)
		code = append(code, 0xb8, 3, 0, 0, 0, 0x31, 0xdb, 0xb9, 0, 0x90, 0x04, 0x08, 0xba, 1, 0, 0, 0, 0xcd, 0x80)
		code = append(code, say(6, byte(len(text)-6))...)
		code = append(code, 0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80)
		if err := os.WriteFile(prog, elf32(code), 0755); err != nil {
			t.Fatal(err)
		}
		if err := exec.Command(prog).Run(); errors.Is(err, unix.ENOEXEC) {
			return // a kernel that runs no 32-bit programs has none to refuse
		}
		x := startTarget(t, nil, prog)
		x.settled("S")
		refused(t, x, uts, "process runs 32-bit code")
		x.finish()
	})
	t.Run("bad messages", func(t *testing.T) {
		x := newTarget(t, "read", nil)
		refused(t, x, Pctl{NewPgrp: true, Unshare: []string{"nonesuch"}}, "no such kind of namespace")
		refused(t, x, Pctl{NewPgrp: true, Close: []int{-1}}, "no descriptor")
		x.finish()
	})
}
