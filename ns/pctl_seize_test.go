package ns

import (
	"context"
	"errors"
	"io"
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

// TestPctlSeize: who may is asked twice, and each question is one that the other does not put. Seizing as the client keeps what
// he traces from gaining rights by an execve in between; but the thread that seizes has root's permitted capabilities still, so
// of those that the process has the opening of mem decides.
func TestPctlSeize(t *testing.T) {
	needsRoot(t)
	user := Cred{Uid: 1000, Gid: 1000}
	dir, err := os.MkdirTemp("", "seize") // t.TempDir's is not for others
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil && st.Flags&unix.ST_NOSUID != 0 {
		lacks(t, "needs a directory for temporary files that is not mounted nosuid: %s", dir)
	}
	suid := filepath.Join(dir, "id")
	text, err := os.ReadFile("/usr/bin/id")
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0755), os.WriteFile(suid, text, 0755), os.Chmod(suid, 0755|os.ModeSetuid))
	}
	if err != nil {
		t.Fatal(err)
	}
	attr := func(uid, gid uint32, caps ...uintptr) *syscall.SysProcAttr {
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}, AmbientCaps: caps}
	}
	for _, c := range []struct {
		name       string
		attr       *syscall.SysProcAttr
		as         *Cred
		seize, may error
		says       string // which user the setuid program runs as, if it was seized
	}{
		{"own", attr(1000, 1000), &user, nil, nil, "1000"},
		{"own, with a capability", attr(1000, 1000, unix.CAP_NET_RAW), &user, nil, fs.ErrPermission, "1000"},
		{"another's", attr(1001, 1000), &user, fs.ErrPermission, fs.ErrPermission, ""},
		{"another group's", attr(1000, 1001), &user, fs.ErrPermission, fs.ErrPermission, ""},
		{"root's", attr(0, 0), &user, fs.ErrPermission, fs.ErrPermission, ""},
		{"own, by root", attr(1000, 1000), nil, nil, nil, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			cmd := exec.Command("/bin/sh", "-c", "read x; exec "+suid+" -u")
			cmd.SysProcAttr = c.attr
			in, e1 := cmd.StdinPipe()
			out, e2 := cmd.StdoutPipe()
			if err := errors.Join(e1, e2, cmd.Start()); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			x := &tracer{p: open(t, cmd.Process.Pid), as: c.as, m: new(Pctl), threads: make(map[int]*tracee)}
			if err := x.seize([]int{x.p.pid}); !errors.Is(err, c.seize) {
				t.Fatalf("seize: %v, want %v", err, c.seize)
			}
			who := rootCred
			if c.as != nil {
				who = *c.as
			}
			if err := x.p.mayTrace(who); !errors.Is(err, c.may) {
				t.Errorf("mayTrace: %v, want %v", err, c.may)
			}
			if c.seize != nil {
				return
			}
			in.Close()
			for { // it stops at its execve
				var ws unix.WaitStatus
				if _, err := unix.Wait4(x.p.pid, &ws, unix.WALL, nil); err != nil {
					t.Fatal(err)
				}
				if !ws.Stopped() {
					break
				}
				if err := ptrace(unix.PTRACE_CONT, x.p.pid, 0, delivered(ws)); err != nil {
					t.Fatal(err)
				}
			}
			if text, err := io.ReadAll(out); err != nil || strings.TrimSpace(string(text)) != c.says {
				t.Errorf("the program that it executed runs as %q, %v; want %s", text, err, c.says)
			}
		})
	}
}

// TestHalt stops processes that are just executing their program: of two stops that are due the kernel takes one back.
func TestHalt(t *testing.T) {
	needsRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx := withTimeout(t)
	for range 300 {
		stub, err := new(Opt).start(ctx)
		if err != nil {
			t.Fatal(err)
		}
		stop := context.AfterFunc(ctx, func() { unix.PidfdSendSignal(stub.Pidfd, unix.SIGKILL, nil, 0) })
		x := &tracer{p: open(t, stub.Pid), m: new(Pctl), threads: make(map[int]*tracee)}
		err = x.seize([]int{stub.Pid})
		if err == nil {
			th := x.threads[stub.Pid]
			err = errors.Join(x.halt(th), th.release())
		}
		stop()
		stub.End()
		if err != nil {
			t.Fatal(err)
		}
	}
}
