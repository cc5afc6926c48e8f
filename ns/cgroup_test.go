package ns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGroupLife: processes that fork are frozen, thawed, frozen, killed, and the group removed.
func TestGroupLife(t *testing.T) {
	both(t, func(t *testing.T, c *Cgroups) {
		ctx := withTimeout(t)
		g := makeGroup(t, c, "life")
		if full, err := g.Populated(); full || err != nil {
			t.Errorf("new group: populated %v, %v", full, err)
		}
		if err := g.WaitEmpty(ctx); err != nil {
			t.Error(err)
		}
		cmd := shellIn(t, g, "sleep 1000 & while :; do /bin/true; done")
		if full, err := g.Populated(); !full || err != nil {
			t.Errorf("populated %v, %v", full, err)
		}
		p, err := Open(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		in, err := p.Cgroups()
		if err != nil || !slices.Contains(in, Membership{c.life().name, g.Path()}) {
			t.Errorf("process is in %v, %v; want %q", in, err, g.Path())
		}
		p.Close()
		for _, want := range []bool{true, false, true} {
			f := g.Freeze
			if !want {
				f = g.Thaw
			}
			if err := f(ctx); err != nil {
				t.Fatal(err)
			}
			if got, err := g.Frozen(); got != want || err != nil {
				t.Errorf("frozen is %v, %v; want %v", got, err, want)
			}
		}
		pids, err := g.Procs()
		if err != nil || !slices.Contains(pids, cmd.Process.Pid) {
			t.Errorf("processes %v, %v; want %d among them", pids, err, cmd.Process.Pid)
		}
		if err := g.Kill(); err != nil {
			t.Fatal(err)
		}
		if sig := signalOf(cmd.Wait()); sig != syscall.SIGKILL {
			t.Errorf("killed by %v", sig)
		}
		if err := g.Remove(ctx); err != nil {
			t.Error(err)
		}
		if g, err := c.OpenGroup("life"); err == nil {
			g.Close()
			t.Error("the group is still there")
		}
	})
}

// TestGroupKillOneByOne is Kill on kernels without cgroup.kill, with a program
// that forks as fast as it can.
func TestGroupKillOneByOne(t *testing.T) {
	c := testGroups(t)
	if c.v2 == nil {
		lacks(t, "needs cgroup version 2")
	}
	ctx := withTimeout(t)
	g := makeGroup(t, c, "forks")
	cmd := shellIn(t, g, "f() { /bin/true; f & }; f; f; f; while :; do /bin/true & wait $!; done")
	if err := g.killAll("cgroup.freeze", "1", "0"); err != nil {
		t.Error(err)
	}
	cmd.Wait()
	if err := g.Remove(ctx); err != nil {
		t.Error(err)
	}
}

// TestGroupKilled: what was killed takes nobody any more, also when it is opened anew.
func TestGroupKilled(t *testing.T) {
	both(t, func(t *testing.T, c *Cgroups) {
		ctx := withTimeout(t)
		g := makeGroup(t, c, "killed")
		if err := g.Kill(); err != nil {
			t.Fatal(err)
		}
		groups := []*Group{g}
		if c.v2 != nil {
			again, err := c.OpenGroup("killed")
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			groups = append(groups, again)
		}
		other := exec.Command("sleep", "1000")
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		p, err := Open(other.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		for i, g := range groups {
			if _, err := g.Dir(); err != ErrKilled {
				t.Errorf("%d: Dir: %v, want %v", i, err, ErrKilled)
			}
			if err := g.Enter(p); err != ErrKilled {
				t.Errorf("%d: Enter: %v, want %v", i, err, ErrKilled)
			}
		}
		p.Signal(syscall.SIGKILL)
		other.Wait()
		if err := g.Remove(ctx); err != nil {
			t.Fatal(err)
		}
		g = makeGroup(t, c, "killed")
		if err := shellIn(t, g, "exit 3").Wait(); signalOf(err) != 0 {
			t.Errorf("in the next group of that name: %v", err)
		}
		if err := g.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestGroupCancel: waits end with their context and leave nothing behind.
func TestGroupCancel(t *testing.T) {
	both(t, func(t *testing.T, c *Cgroups) {
		g := makeGroup(t, c, "cancel")
		cmd := shellIn(t, g, "exec sleep 1000")
		why := errors.New("asked to")
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		go func() { done <- g.WaitEmpty(ctx) }()
		cancel(why)
		if err := <-done; err != why && !errors.Is(err, context.Canceled) {
			t.Errorf("WaitEmpty: %v, want %v", err, why)
		}
		if err := g.Freeze(ctx); err == nil { // it may have been quicker than the look at ctx
			err = g.Thaw(t.Context())
			if err != nil {
				t.Error(err)
			}
		}
		if frozen, err := g.Frozen(); frozen || err != nil {
			t.Errorf("frozen after a Freeze that was given up: %v, %v", frozen, err)
		}
		if err := g.Remove(ctx); err == nil {
			t.Error("a populated group was removed")
		}
		if err := g.Kill(); err != nil {
			t.Error(err)
		}
		cmd.Wait()
		if err := g.Remove(withTimeout(t)); err != nil {
			t.Error(err)
		}
	})
}

// TestGroupNested: groups that a container made go too, and its processes are seen.
func TestGroupNested(t *testing.T) {
	both(t, func(t *testing.T, c *Cgroups) {
		ctx := withTimeout(t)
		g := makeGroup(t, c, "nested")
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		cmd := shellIn(t, g, fmt.Sprintf(
			"cd %s; mkdir -p a/b a/c; echo $$ >a/b/cgroup.procs; exec 3>&-; exec sleep 1000", g.dir.Name()), w)
		w.Close()
		if _, err := io.ReadAll(r); err != nil { // the shell has moved
			t.Fatal(err)
		}
		if pids, err := g.Procs(); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
			t.Errorf("processes %v, %v; want %d", pids, err, cmd.Process.Pid)
		}
		if full, err := g.Populated(); !full || err != nil {
			t.Errorf("populated %v, %v", full, err)
		}
		if err := g.Kill(); err != nil {
			t.Fatal(err)
		}
		if sig := signalOf(cmd.Wait()); sig != syscall.SIGKILL {
			t.Errorf("killed by %v", sig)
		}
		if err := g.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestGroupNames(t *testing.T) {
	c := testGroups(t)
	for _, name := range []string{"", "a/b", "..\x00", "a\nb", strings.Repeat("x", 255)} {
		if _, err := c.MakeGroup(name); err == nil {
			t.Errorf("made a group %q", name)
		}
	}
	for _, name := range []string{".", "..", "memory.max", "cgroup.procs", "_x", "web-1_2"} {
		g := makeGroup(t, c, name)
		if _, err := c.MakeGroup(name); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a second group %q: %v", name, err)
		}
		if err := g.Remove(withTimeout(t)); err != nil {
			t.Error(err)
		}
	}
}

func TestNoGroups(t *testing.T) {
	for _, c := range []*Cgroups{{base: "x"}, {base: "x", v2: &hierarchy{name: Unified, mount: "/sys/fs/cgroup"}}} {
		if _, err := c.MakeGroup("web"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("made where none can be: %v", err)
		}
		c.Close()
	}
}

func TestHierarchyDir(t *testing.T) {
	for _, c := range []struct{ root, group, want string }{
		{"/", "/", "/m"},
		{"/", "/a/b", "/m/a/b"},
		{"/docker/1", "/docker/1/a", "/m/a"},
		{"/docker/1", "/docker/1", "/m"},
		{"/docker/1", "/docker/12", ""},
		{"/docker/1", "/", ""},
		{"/..", "/", ""},
		{"/", "/../x", ""},
	} {
		h := &hierarchy{mount: "/m", root: c.root}
		got, ok := h.dir(c.group)
		if got != c.want || ok != (c.want != "") {
			t.Errorf("mount of %q: group %q is in %q, want %q", c.root, c.group, got, c.want)
		}
		if ok && h.group(got) != c.group {
			t.Errorf("mount of %q: %q is %q, want %q", c.root, got, h.group(got), c.group)
		}
	}
}

func TestMemberships(t *testing.T) {
	got, err := parseMemberships([]byte("3:cpu,cpuacct:/a:b\n2:name=systemd:/\n0::/x (deleted)\n"))
	want := []Membership{{"cpu,cpuacct", "/a:b"}, {"name=systemd", "/"}, {Unified, "/x (deleted)"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"x\n", "0:\n", "0::\n", "0::x\n"} {
		if got, err := parseMemberships([]byte(text)); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

// TestGroupService: in a delegated group of version 2 the processes of the
// service make room for the controllers.
func TestGroupService(t *testing.T) {
	c := testGroups(t)
	if c.v2 == nil || len(c.v2.controllers) == 0 {
		lacks(t, "needs a controller in cgroup version 2")
	}
	ctx := withTimeout(t)
	service := makeGroup(t, c, "service")
	if err := c.enable(c.v2.controllers[0]); err != nil {
		t.Fatal(err)
	}
	cmd := shellIn(t, service, "exec sleep 1000")
	inner := *c.v2
	inner.own = service.dir.Name()
	if err := unix.Setxattr(inner.own, "user.delegate", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if inner.parent = inner.place(); inner.parent != inner.own {
		t.Errorf("groups go into %q, want %q", inner.parent, inner.own)
	}
	sub := &Cgroups{base: "sub", v2: &inner}
	g := makeGroup(t, sub, "web")
	if err := sub.enable(c.v2.controllers[0]); err != nil {
		t.Error(err)
	}
	p, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	in, err := p.Cgroups()
	p.Close()
	if want := (Membership{Unified, service.Path() + "/sub.server"}); err != nil || !slices.Contains(in, want) {
		t.Errorf("the service is in %v, %v; want %v", in, err, want)
	}
	if err := g.Remove(ctx); err != nil {
		t.Error(err)
	}
	if err := service.Kill(); err != nil {
		t.Error(err)
	}
	cmd.Wait()
	if err := service.Remove(ctx); err != nil {
		t.Error(err)
	}
}
