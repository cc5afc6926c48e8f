package ns

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
)

// Who makes a container below a group that somebody has frozen waits for that, and nobody else does: not the collector, for
// which all threads must be reached.
func TestCreateFrozen(t *testing.T) {
	needsRoot(t)
	c := testGroups(t)
	if c.v2 == nil {
		lacks(t, "needs cgroup version 2")
	}
	eachCtr(t, func(t *testing.T, s Spec) {
		g := makeGroup(t, c, "frozen"+strconv.FormatUint(uint64(s.Flags), 16))
		holder := filepath.Join(c.v2.parent, c.base, "cgroup.freeze")
		if err := os.WriteFile(holder, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		defer os.WriteFile(holder, []byte("0"), 0)
		s.Cgroup = g
		ctx, cancel := context.WithCancel(withTimeout(t))
		var all sync.WaitGroup
		for range parallel + 1 {
			all.Go(func() {
				p, err := Create(ctx, s)
				if !errors.Is(err, context.Canceled) {
					t.Errorf("made in a frozen group: %v", err)
				}
				if p != nil {
					p.End()
				}
			})
		}
		for n := 0; n < parallel+1; {
			pids, err := g.Procs()
			if err != nil {
				t.Fatal(err)
			}
			n = len(pids)
			runtime.GC()
		}
		cancel()
		all.Wait()
		if err := g.Remove(withTimeout(t)); err != nil {
			t.Error(err)
		}
	})
}

// The cgroup namespace of a container begins at its cgroup.
func TestCgroupInside(t *testing.T) {
	needsRoot(t)
	c := testGroups(t)
	eachCtr(t, func(t *testing.T, s Spec) {
		g := makeGroup(t, c, "inside"+strconv.FormatUint(uint64(s.Flags), 16))
		defer func() {
			if err := g.Remove(withTimeout(t)); err != nil {
				t.Error(err)
			}
		}()
		s.Cgroup = g
		out, code := inside(t, s, "grep", "0::", "/proc/self/cgroup")
		if c.v2 != nil && (out != "0::/\n" || code != 0) {
			t.Errorf("inside: %q, status %d", out, code)
		}
	})
}
