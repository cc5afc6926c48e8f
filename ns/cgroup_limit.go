package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A limit is a word of version 2, and how version 1 has it. Where one of the
// functions is nil, version 1 does not have it.
type limit struct {
	word string
	get  func(dir *os.File) (string, error)
	set  func(dir *os.File, value string) error
}

var limits = []limit{
	{"cpu.max", getCPUMax, setCPUMax},
	file1("cpu.max.burst", "cpu.cfs_burst_us", ""),
	{"cpu.weight", getCPUWeight, setCPUWeight},
	file1("cpu.idle", "cpu.idle", ""),
	{word: "cpu.uclamp.min"},
	{word: "cpu.uclamp.max"},
	file1("cpuset.cpus", "cpuset.cpus", ""),
	file1("cpuset.mems", "cpuset.mems", ""),
	{word: "cpuset.cpus.partition"},
	file1("io.bfq.weight", "blkio.bfq.weight", ""),
	{word: "io.latency"},
	{"io.max", getIOMax, setIOMax},
	{word: "io.weight"},
	{word: "memory.high"},
	file1("memory.low", "memory.soft_limit_in_bytes", "-1"),
	{"memory.max", getMemoryMax, setMemoryMax},
	{word: "memory.min"},
	{word: "memory.oom.group"},
	{word: "memory.swap.high"},
	{"memory.swap.max", getSwapMax, setSwapMax},
	{word: "memory.zswap.max"},
	file1("pids.max", "pids.max", "max"),
	{word: "rdma.max"},
	{word: "misc.max"},
}

// LimitWords gives the words that Set knows, without those of hugetlb, whose
// names depend on the machine (hugetlb.2MB.max).
func LimitWords() []string {
	var words []string
	for _, l := range limits {
		words = append(words, l.word)
	}
	return words
}

func limitOf(word string) (limit, bool) {
	if i := slices.IndexFunc(limits, func(l limit) bool { return l.word == word }); i >= 0 {
		return limits[i], true
	}
	size, ok := strings.CutPrefix(word, "hugetlb.")
	if size, max := strings.CutSuffix(size, ".max"); ok && max && size != "" && !strings.ContainsAny(size, "./") {
		return file1(word, "hugetlb."+size+".limit_in_bytes", "-1"), true
	}
	return limit{}, false
}

// Set sets a limit in version 2's words ("memory.max" to "100M" or "max") in
// whichever version the controller is. Version 1's hierarchy of the controller is
// then entered by all that is in the group.
func (g *Group) Set(word, value string) error {
	l, ok := limitOf(word)
	if !ok {
		return fmt.Errorf("no such limit: %q", word)
	}
	// The kernel takes an empty memory.max for 0; an empty cpuset.cpus means something.
	if strings.ContainsAny(value, "\n\x00") || len(value) > 4096 || value == "" && !strings.HasPrefix(word, "cpuset.") {
		return fmt.Errorf("%s: bad value: %q", word, value)
	}
	err := g.set(l, value)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) ||
		errors.Is(err, strconv.ErrSyntax) || errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%s: bad value: %q", word, value)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", word, err)
	}
	return nil
}

func (g *Group) set(l limit, value string) error {
	controller, _, _ := strings.Cut(l.word, ".")
	if c := g.cgroups; c.v2 != nil && slices.Contains(c.v2.controllers, controller) {
		if err := c.enable(controller); err != nil {
			return err
		}
		return absent(write(g.dir, l.word, value))
	}
	h := g.cgroups.with(controller)
	switch {
	case h == nil:
		return fmt.Errorf("no cgroup controller %q: %w", controller, errors.ErrUnsupported)
	case l.set == nil:
		return fmt.Errorf("cgroup version 1 does not have it: %w", errors.ErrUnsupported)
	}
	dir, err := g.enter1(h)
	if err != nil {
		return err
	}
	return absent(l.set(dir, value))
}

// absent says of a file that is not there that the kernel does not have it.
func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("this kernel does not have it: %w", errors.ErrUnsupported)
	}
	return err
}

// Get gives a limit in version 2's words. The error is fs.ErrNotExist where the
// controller does not look at the group (no limit of it was ever set) or knows no
// such limit.
func (g *Group) Get(word string) (string, error) {
	l, ok := limitOf(word)
	if !ok {
		return "", fmt.Errorf("no such limit: %q", word)
	}
	controller, _, _ := strings.Cut(word, ".")
	value, err := "", error(fs.ErrNotExist)
	if v2 := g.cgroups.v2; v2 != nil && slices.Contains(v2.controllers, controller) {
		value, err = read(g.dir, word)
	} else if dir := g.in(controller); dir != nil && l.get != nil {
		value, err = l.get(dir)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", word, err)
	}
	return value, nil
}

// in gives the group's directory in version 1's hierarchy of a controller, nil
// if it has none.
func (g *Group) in(controller string) *os.File {
	h := g.cgroups.with(controller)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.v1[h]
}

// Account makes all that the group uses be counted, by whichever version counts it.
func (g *Group) Account() error {
	for _, h := range g.cgroups.v1 {
		if _, err := g.enter1(h); err != nil {
			return fmt.Errorf("cgroup %s: %w", h.name, err)
		}
	}
	return nil
}

// enter1 makes the group in one of version 1's hierarchies and moves its
// processes there. While that goes on they are frozen, or children of those that
// are not yet moved could be missed for ever; a pass that finds nobody to move
// is the last.
func (g *Group) enter1(h *hierarchy) (*os.File, error) {
	if h == g.cgroups.life() {
		return g.dir, nil
	}
	g.mu.Lock()
	dir, killed := g.v1[h], g.killed
	g.mu.Unlock()
	if dir != nil {
		return dir, nil
	}
	if killed {
		return nil, ErrKilled
	}
	path, err := h.make(g.cgroups.base, g.name)
	if errors.Is(err, fs.ErrExist) { // by another Set meanwhile, or left behind
		path, err = filepath.Join(h.parent, g.cgroups.base, g.name), nil
	}
	if err != nil {
		return nil, err
	}
	if dir, err = os.Open(path); err != nil {
		return nil, err
	}
	g.mu.Lock()
	if other := g.v1[h]; other != nil {
		g.mu.Unlock()
		dir.Close()
		return other, nil
	}
	g.v1[h] = dir // from now on Enter goes there
	g.mu.Unlock()
	return dir, g.moveAll(dir)
}

func (g *Group) moveAll(dir *os.File) error {
	pids, err := g.Procs()
	if err != nil || len(pids) == 0 {
		return err
	}
	file, freeze, thaw := "cgroup.freeze", "1", "0"
	if g.cgroups.v2 == nil {
		file, freeze, thaw = "freezer.state", "FROZEN", "THAWED"
	}
	if was, err := read(g.dir, file); err != nil {
		return err
	} else if was == thaw {
		if err := write(g.dir, file, freeze); err != nil {
			return err
		}
		defer write(g.dir, file, thaw)
	}
	moved := make(map[int]bool)
	for {
		more := false
		for _, pid := range pids {
			if moved[pid] {
				continue
			}
			moved[pid], more = true, true
			if err := write(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
		if !more {
			return nil
		}
		if pids, err = g.Procs(); err != nil {
			return err
		}
	}
}
