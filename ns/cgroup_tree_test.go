package ns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// testGroups finds the machine's cgroups, with a base of the test's own, and
// checks at the end that the trees are as they were and no descriptor is left.
func testGroups(t *testing.T, only ...string) *Cgroups {
	t.Helper()
	c, err := FindCgroups(fmt.Sprintf("ctrfs.test.%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if len(only) > 0 && c.v2 != nil { // as if version 2 were not mounted
		if c.v2 = nil; c.life() == nil {
			lacks(t, "needs cgroup version 1's freezer")
		}
	}
	if h := c.life(); h == nil || h.parent == "" {
		lacks(t, "needs a cgroup hierarchy in which groups may be made")
	}
	enabled := ""
	if c.v2 != nil {
		enabled = givenControllers(t, c)
	}
	before := trees(t, c)
	fds := openFiles(t)
	t.Cleanup(func() {
		c.Close()
		if c.v2 != nil {
			for controller := range strings.FieldsSeq(givenControllers(t, c)) {
				if !slices.Contains(strings.Fields(enabled), controller) {
					os.WriteFile(filepath.Join(c.v2.parent, "cgroup.subtree_control"), []byte("-"+controller), 0)
				}
			}
		}
		if after := trees(t, c); !slices.Equal(before, after) {
			t.Errorf("groups before the test: %q, after: %q", before, after)
		}
		after := openFiles(t)
		for ctx := withTimeout(t); after > fds && ctx.Err() == nil; after = openFiles(t) {
			runtime.Gosched() // what waits for an end lets go of its pidfd in its own time
		}
		if after > fds {
			t.Errorf("%d descriptors before the test, %d after", fds, after)
		}
	})
	return c
}

func givenControllers(t *testing.T, c *Cgroups) string {
	text, err := os.ReadFile(filepath.Join(c.v2.parent, "cgroup.subtree_control"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// trees lists the groups in which tests could leave some.
func trees(t *testing.T, c *Cgroups) (all []string) {
	for _, h := range append([]*hierarchy{c.life()}, c.v1...) {
		if h.parent == "" {
			continue
		}
		list, err := filepath.Glob(filepath.Join(h.parent, c.base, "*"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(h.parent, c.base)); err == nil {
			list = append(list, filepath.Join(h.parent, c.base))
		}
		all = append(all, list...)
	}
	return all
}

// openFiles counts the descriptors of groups and processes.
func openFiles(t *testing.T) int {
	list, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range list {
		if link, err := os.Readlink(fd); err == nil &&
			(strings.Contains(link, "cgroup") || strings.Contains(link, "pidfd")) {
			n++
		}
	}
	return n
}

func makeGroup(t *testing.T, c *Cgroups, name string) *Group {
	t.Helper()
	g, err := c.MakeGroup(name)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// shellIn starts a shell in the group, which runs the script with those files
// from 3 on.
func shellIn(t *testing.T, g *Group, script string, files ...*os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "read go; "+script)
	cmd.ExtraFiles = files
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := g.Dir()
	if err != nil {
		t.Fatal(err)
	}
	if dir != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := g.Enter(p); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in)
	return cmd
}

func signalOf(err error) syscall.Signal {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
			return ws.Signal()
		}
	}
	return 0
}

// both runs a test with version 2, if there is, and as if there were only 1.
func both(t *testing.T, f func(t *testing.T, c *Cgroups)) {
	t.Run("v2", func(t *testing.T) {
		c := testGroups(t)
		if c.v2 == nil {
			lacks(t, "needs cgroup version 2")
		}
		f(t, c)
	})
	t.Run("v1", func(t *testing.T) { f(t, testGroups(t, "v1")) })
}
