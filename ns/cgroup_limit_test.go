package ns

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGroupLimits sets limits on a running program, reads them back and looks
// whether it is under them.
func TestGroupLimits(t *testing.T) {
	c := testGroups(t)
	ctx := withTimeout(t)
	g := makeGroup(t, c, "limits")
	cmd := shellIn(t, g, "sleep 1000 & wait")
	set, disk := 0, aDisk(t)
	for _, l := range []struct{ word, value, want string }{
		{"memory.max", "64M", "67108864"},
		{"memory.swap.max", "16M", "16777216"},
		{"memory.max", "128M", "134217728"},
		{"memory.swap.max", "16M", "16777216"},
		{"memory.max", "32M", "33554432"},
		{"memory.swap.max", "max", "max"},
		{"memory.max", "max", "max"},
		{"pids.max", "2", "2"},
		{"pids.max", "max", "max"},
		{"cpu.max", "50000 100000", "50000 100000"},
		{"cpu.max", "max 100000", "max 100000"},
		{"cpu.weight", "250", "250"},
		{"cpuset.cpus", "0", "0"},
		{"cpuset.mems", "0", "0"},
		{"io.max", disk + " rbps=1048576 wiops=100", ""},
		{"io.max", disk + " rbps=max wiops=max", ""},
	} {
		err := g.Set(l.word, l.value)
		if errors.Is(err, errors.ErrUnsupported) {
			t.Logf("%v", err)
			if controller, _, _ := strings.Cut(l.word, "."); !strings.Contains(err.Error(), controller) {
				t.Errorf("%q does not name %s", err, controller)
			}
			continue
		}
		if errors.Is(err, unix.ENODEV) {
			t.Log(err)
			continue
		}
		if err != nil {
			t.Errorf("set %s to %s: %v", l.word, l.value, err)
			continue
		}
		set++
		got, err := g.Get(l.word)
		if l.word == "io.max" && err == nil { // version 2 lists the unset ones too
			limited := strings.Contains(got, "rbps=1048576") && strings.Contains(got, "wiops=100")
			if limited != strings.Contains(l.value, "1048576") {
				t.Errorf("%s set to %s is %q", l.word, l.value, got)
			}
			continue
		}
		if got != l.want || err != nil {
			t.Errorf("%s set to %s is %q, %v", l.word, l.value, got, err)
		}
	}
	if set == 0 {
		lacks(t, "needs a cgroup controller")
	}
	for _, l := range [][2]string{{"memory.max", "much"}, {"cpu.max", "-1"}, {"cpu.max", ""}, {"memory.max", ""}, {"pids.max", ""}, {"cpu.weight", "0"}, {"io.max", "8:0 rbps=0"},
		{"memory.max", "1\n2"}, {"cgroup.procs", "1"}, {"cgroup.kill", "1"}, {"../x", "1"}, {"memory.current", "1"}} {
		if err := g.Set(l[0], l[1]); err == nil {
			t.Errorf("%s was set to %q", l[0], l[1])
		}
	}
	p, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	in, err := p.Cgroups()
	p.Close()
	if err != nil {
		t.Fatal(err)
	}
	for h := range g.v1 {
		if !slices.Contains(in, Membership{h.name, h.group(filepath.Join(h.parent, c.base, g.name))}) {
			t.Errorf("%s: the running program did not enter: %v", h.name, in)
		}
	}
	usage := numbersOf(g)
	for word, least := range map[string]uint64{"pids.current": 1, "memory.current": 1, "cpu.usage_usec": 1} {
		if controller, _, _ := strings.Cut(word, "."); controller != "cpu" && g.in(controller) == nil &&
			(c.v2 == nil || !slices.Contains(c.v2.controllers, controller)) {
			if _, ok := usage[word]; ok {
				t.Errorf("%s without the controller", word)
			}
		} else if word == "memory.current" { // what was taken before entering stays where it was
			if _, ok := usage[word]; !ok {
				t.Error("no memory.current")
			}
		} else if usage[word] < least {
			t.Errorf("%s = %d, want at least %d", word, usage[word], least)
		}
	}
	if n, err := g.OOMKills(); n != 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OOM kills: %d, %v", n, err)
	}

	// A later server finds all of it.
	again, err := c.OpenGroup("limits")
	if err != nil {
		t.Fatal(err)
	}
	if len(again.v1) != len(g.v1) {
		t.Errorf("opened anew it is in %d hierarchies of version 1, not %d", len(again.v1), len(g.v1))
	}
	g.Close()
	if err := again.Kill(); err != nil {
		t.Error(err)
	}
	cmd.Wait()
	if err := again.Remove(ctx); err != nil {
		t.Error(err)
	}
}

func numbersOf(g *Group) map[string]uint64 {
	all := map[string]uint64{}
	for _, n := range g.Numbers() {
		all[n.Name] = n.Value
	}
	return all
}

// aDisk gives the number of a whole block device.
func aDisk(t *testing.T) string {
	list, err := filepath.Glob("/sys/block/*/dev")
	if err != nil || len(list) == 0 {
		t.Log("needs a block device: io.max is set for one that is not there")
		return "8:0"
	}
	text, err := os.ReadFile(list[0])
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// TestGroupPids: a limit that comes while a program forks as fast as it can
// counts every one of its processes.
func TestGroupPids(t *testing.T) {
	c := testGroups(t)
	ctx := withTimeout(t)
	g := makeGroup(t, c, "bomb")
	cmd := shellIn(t, g, "n=0; while [ $n -lt 30 ]; do sleep 1000 & n=$((n+1)); done; wait")
	err := g.Set("pids.max", "8")
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if err == nil {
		pids, err := g.Procs()
		if now := numbersOf(g)["pids.current"]; err != nil || now < uint64(len(pids)) {
			t.Errorf("%d processes are counted as %d, %v", len(pids), now, err)
		}
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	cmd.Wait()
	if err := g.Remove(ctx); err != nil {
		t.Error(err)
	}
}

func TestGroupOOM(t *testing.T) {
	c := testGroups(t)
	ctx := withTimeout(t)
	g := makeGroup(t, c, "oom")
	defer func() {
		if err := g.Remove(ctx); err != nil {
			t.Error(err)
		}
	}()
	if err := g.Set("memory.max", "8M"); errors.Is(err, errors.ErrUnsupported) {
		lacks(t, "needs the memory controller")
	} else if err != nil {
		t.Fatal(err)
	}
	g.Set("memory.swap.max", "0")
	brief, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := g.WaitOOM(brief, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that is ended: %v", err)
	}
	told := make(chan error)
	go func() {
		n, err := g.WaitOOM(ctx, 0)
		if n == 0 && err == nil {
			err = errors.New("none")
		}
		told <- err
	}()
	err := shellIn(t, g, "x=0123456789abcdef; while :; do x=$x$x; done").Wait()
	if sig := signalOf(err); sig != syscall.SIGKILL {
		t.Errorf("a program that takes all memory: %v", err)
	}
	n, err := g.OOMKills()
	if n == 0 || err != nil {
		t.Errorf("OOM kills: %d, %v", n, err)
	}
	if err := <-told; err != nil {
		t.Errorf("who waits for it: %v", err)
	}
	go func() {
		_, err := g.WaitOOM(ctx, n)
		told <- err
	}()
	for waits := 0; waits == 0; runtime.Gosched() {
		g.mu.Lock()
		waits = len(g.waits)
		g.mu.Unlock()
	}
	g.Close()
	if err := <-told; !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a wait at a group that is closed: %v", err)
	}
	if g, err = c.OpenGroup("oom"); err != nil {
		t.Fatal(err)
	}
}

// TestWeights: every weight comes back as it was set.
func TestWeights(t *testing.T) {
	for weight := uint64(1); weight <= 10000; weight++ {
		if got := weightOf(sharesOf(weight)); got != weight {
			t.Errorf("weight %d comes back as %d", weight, got)
		}
	}
	if got := sharesOf(100); got != 1024 {
		t.Errorf("the default weight is %d shares", got)
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]uint64{"0": 0, "1": 1, "4k": 4096, "64M": 64 << 20, "1G": 1 << 30, "2t": 2 << 40, "1E": 1 << 60} {
		if got, err := parseBytes(text); got != want || err != nil {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "M", "-1", "1KM", "1x", "8E", "99999999999999999999", "1 M"} {
		if got, err := parseBytes(text); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
}
