package ns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"testing"

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
