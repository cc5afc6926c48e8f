package ns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestPctlJoin: into the namespaces, root and control groups of another process.
func TestPctlJoin(t *testing.T) {
	needsRoot(t)
	g := makeGroup(t, testGroups(t), "joined")
	t.Cleanup(func() {
		if err := g.Remove(withTimeout(t)); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	there := park(t, Opt{})
	if err := there.Pctl(withTimeout(t), Pctl{Unshare: []string{"uts", "net", "ipc", "cgroup"}, ForkNS: true}); err != nil {
		t.Fatal(err)
	}
	if err := there.Chdir(withTimeout(t), dir); err != nil {
		t.Fatal(err)
	}
	if err := there.do(withTimeout(t), func(p *Plan) { p.Do("chroot", unix.SYS_CHROOT, ".") }); err != nil {
		t.Fatal(err)
	}
	p, err := Open(there.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := g.Enter(p); err != nil {
		t.Fatal(err)
	}
	join := func(kinds ...string) *Join {
		j, err := OpenJoin(rootCred, p, kinds, true)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { j.Close() })
		return j
	}
	check := func(t *testing.T, pid int, kinds ...string) {
		t.Helper()
		for _, k := range kinds {
			a, e1 := nsInode(pid, k)
			b, e2 := nsInode(there.Pid, k)
			if a != b || e1 != nil || e2 != nil {
				t.Errorf("%s %d, want %d", k, a, b)
			}
		}
		a, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", there.Pid))
		if !bytes.Equal(a, b) {
			t.Errorf("cgroups\n%swant\n%s", a, b)
		}
		if slices.Contains(kinds, "mnt") {
			for _, l := range []string{"root", "cwd"} {
				if to, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, l)); err != nil || to != dir {
					t.Errorf("%s is %q, %v, want %q", l, to, err, dir)
				}
			}
		}
	}
	all := []string{"uts", "net", "ipc", "cgroup", "mnt"}
	t.Run("running", func(t *testing.T) {
		x := newTarget(t, "epoll", nil)
		x.settled("S")
		fds := x.fds()
		if err := x.p.Pctl(withTimeout(t), rootCred, Pctl{Join: join()}); err != nil {
			t.Fatal(err)
		}
		check(t, x.p.pid, all...)
		if now := x.fds(); !slices.Equal(now, fds) {
			t.Errorf("descriptors %v, were %v", now, fds)
		}
		x.finish()
	})
	t.Run("parked", func(t *testing.T) {
		q := park(t, Opt{})
		if err := q.Pctl(withTimeout(t), Pctl{Join: join()}); err != nil {
			t.Fatal(err)
		}
		check(t, q.Pid, all...)
	})
	t.Run("threads", func(t *testing.T) {
		x := newTarget(t, "threads", nil)
		x.settled("S")
		fds := x.fds()
		if err := x.p.Pctl(withTimeout(t), rootCred, Pctl{Join: join()}); err == nil || err.Error() != "join mnt: process has 11 threads" {
			t.Errorf("%v", err)
		}
		if err := x.p.Pctl(withTimeout(t), rootCred, Pctl{Join: join("net", "uts")}); err != nil {
			t.Fatal(err)
		}
		check(t, x.p.pid, "net", "uts")
		for _, k := range []string{"net", "uts"} {
			if n := x.kind(k); len(n) != 1 {
				t.Errorf("%s namespaces %v", k, n)
			}
		}
		if now := x.fds(); !slices.Equal(now, fds) {
			t.Errorf("descriptors %v, were %v", now, fds)
		}
		x.finish()
	})
	t.Run("as a user", func(t *testing.T) {
		if _, err := OpenJoin(Cred{Uid: 1000, Gid: 1000}, p, nil, false); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%v", err)
		}
	})
	if _, err := OpenJoin(rootCred, p, []string{"user"}, false); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("join user: %v", err)
	}
}

// TestNoOtherInit: that no process becomes the first of a pid namespace that has or had one is Linux's refusal, which
// join's set_init passes on.
func TestNoOtherInit(t *testing.T) {
	needsRoot(t)
	first := park(t, Opt{Flags: unix.CLONE_NEWPID})
	p, err := Open(first.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	pid1 := int32(1)
	asFirst := func(pid *int32) error {
		unlock, err := enterPidNS(first.Pidfd)
		if err != nil {
			return err
		}
		defer unlock()
		args := struct{ flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize, cgroup uint64 }{}
		if pid != nil {
			args.setTid, args.setTidSize = uint64(uintptr(unsafe.Pointer(pid))), 1
		}
		n, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
		runtime.KeepAlive(pid)
		if errno != 0 {
			return errno
		}
		if n == 0 { // a child, which is not to be
			unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
		}
		return nil
	}
	if err := asFirst(&pid1); err != unix.EEXIST {
		t.Errorf("a second first process: %v", err)
	}
	ns, err := os.Open(p.path("ns/pid")) // which outlives the process, and has no other
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	p.Signal(unix.SIGKILL)
	if _, err := Wait(withTimeout(t), p); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // and the thread ends with this goroutine: the namespace of its children cannot be left
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.StartProcess("/bin/true", []string{"true"}, new(os.ProcAttr)); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("a first process after the first: %v", err)
	}
}
