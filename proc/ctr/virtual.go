package ctr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/ns"
)

// Flags that begin with virt_ show in files of proc what the container has instead of what the machine has. They are written anew
// every tendTime: a program that reads them asks nobody.

// tendTime is how often what has to be looked at again is.
const tendTime = 500 * time.Millisecond

// covers are the files of proc that are the container's own, the flag that says so and what is in each.
var covers = map[string]struct {
	flag uint64
	text func(*Ctr, *run) (string, error)
}{
	"meminfo": {virtMem, (*Ctr).meminfo},
	"stat":    {virtCPU, (*Ctr).procStat},
	"cpuinfo": {virtCPU, (*Ctr).cpuinfo},
	"loadavg": {virtLoad, (*Ctr).loadavg},
}

// inside is where the run's mounts are.
func (r *run) inside() ns.Place {
	return ns.Place{First: r.job.Process(), User: r.spec.Flags&unix.CLONE_NEWUSER != 0}
}

// cover is what flags do that cover files, at once where it runs.
func cover(names ...string) func(*Ctr, context.Context, bool) error {
	return func(c *Ctr, ctx context.Context, on bool) error {
		r, err := c.current()
		if err != nil {
			return nil // what starts asks for it
		}
		for _, name := range names {
			if !on {
				err = c.uncover(ctx, r, name)
			} else {
				err = c.cover(ctx, r, name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// coverAll covers what the flags say, in a run that begins or that an earlier server began.
func (c *Ctr) coverAll(ctx context.Context, r *run) error {
	for name, f := range covers {
		if c.flagged(f.flag) {
			if err := c.cover(ctx, r, name); err != nil {
				return fmt.Errorf("flags: /proc/%s: %w", name, err)
			}
		}
	}
	if c.flagged(forkRSS) {
		c.tend(r)
	}
	return nil
}

func (c *Ctr) cover(ctx context.Context, r *run, name string) error {
	f, err := ns.Cover(ctx, r.inside(), "/proc/"+name)
	if err != nil {
		return err
	}
	if err := c.fill(r, name, f); err != nil {
		f.Close()
		return err
	}
	c.mu.Lock()
	if r.covers == nil {
		r.covers = map[string]*os.File{}
	}
	r.covers[name] = f
	c.mu.Unlock()
	c.tend(r)
	return nil
}

func (c *Ctr) uncover(ctx context.Context, r *run, name string) error {
	c.mu.Lock()
	f := r.covers[name]
	delete(r.covers, name)
	c.mu.Unlock()
	if f == nil {
		return nil
	}
	defer f.Close()
	return ns.Uncover(ctx, r.inside(), "/proc/"+name)
}

// fill writes what is so now.
func (c *Ctr) fill(r *run, name string, f *os.File) error {
	text, err := covers[name].text(c, r)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(text)))
}

// tend looks after a run until it is over.
func (c *Ctr) tend(r *run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.tended {
		return
	}
	r.tended = true
	go func() {
		tick := time.NewTicker(tendTime)
		defer tick.Stop()
		full := false
		for {
			select {
			case <-tick.C:
			case <-r.done:
				for _, f := range r.covers { // nobody changes them any more
					f.Close()
				}
				return
			}
			c.mu.Lock()
			files := maps.Clone(r.covers)
			c.mu.Unlock()
			for name, f := range files {
				c.fill(r, name, f) // what cannot be known now stays as it was
			}
			full = c.fits(r, full)
		}
	}()
}

func (c *Ctr) tended(_ context.Context, on bool) error {
	r, err := c.current()
	if err == nil && on {
		if r.group == nil {
			return errors.New("the container has no cgroup")
		}
		c.tend(r)
	}
	return nil
}

// fits is fork_rss: no process more while the memory that they have is all that there may be. Threads are tasks like
// others to the kernel. full is what it said last.
func (c *Ctr) fits(r *run, full bool) bool {
	if !full && !c.flagged(forkRSS) || r.group == nil {
		return false
	}
	most, err := r.group.Get("memory.high")
	if err != nil || most == "max" {
		most, err = r.group.Get("memory.max")
	}
	used, ok := r.number("memory.current")
	limit, e := strconv.ParseUint(most, 10, 64)
	is := err == nil && e == nil && ok && c.flagged(forkRSS) && used >= limit-limit/16
	if is == full {
		return full
	}
	max := "max"
	c.mu.Lock()
	for _, l := range c.spec.limits {
		if l.word == "pids.max" {
			max = l.value
		}
	}
	c.mu.Unlock()
	if is {
		max = "0" // those that there are stay, and none follows one that ends
	}
	if err := r.group.Set("pids.max", max); err != nil {
		c.set.Log.Warn("fork_rss", "ctr", c.Name(), "error", err)
		return full
	}
	return is
}

// number gives what the cgroup has counted.
func (r *run) number(name string) (uint64, bool) {
	if r.group != nil {
		for _, n := range r.group.Numbers() {
			if n.Name == name {
				return n.Value, true
			}
		}
	}
	return 0, false
}

// memory is what the container may have and has, in bytes, of memory and of swap.
func (c *Ctr) memory(r *run) (total, used, swap uint64, err error) {
	var machine unix.Sysinfo_t
	if err := unix.Sysinfo(&machine); err != nil {
		return 0, 0, 0, err
	}
	limit := func(word string, all uint64) uint64 {
		if r.group == nil {
			return all
		}
		text, err := r.group.Get(word)
		if n, e := strconv.ParseUint(text, 10, 64); err == nil && e == nil {
			return min(n, all)
		}
		return all
	}
	total = limit("memory.max", machine.Totalram*uint64(machine.Unit))
	swap = limit("memory.swap.max", machine.Totalswap*uint64(machine.Unit))
	used, ok := r.number("memory.current")
	if !ok { // it is not accounted
		if used, err = r.rss(); err != nil {
			return 0, 0, 0, err
		}
	}
	return total, min(used, total), swap, nil
}

func (c *Ctr) meminfo(r *run) (string, error) {
	total, used, swap, err := c.memory(r)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	line := func(key string, n uint64) { fmt.Fprintf(&b, "%-15s %8d kB\n", key+":", n>>10) }
	line("MemTotal", total)
	line("MemFree", total-used)
	line("MemAvailable", total-used)
	line("Buffers", 0)
	line("Cached", 0)
	line("SwapCached", 0)
	line("SwapTotal", swap)
	line("SwapFree", swap)
	return b.String(), nil
}

func (c *Ctr) loadavg(r *run) (string, error) {
	n, err := c.look(time.Now())
	if err != nil {
		return "", err
	}
	pids, err := r.pids()
	if err != nil {
		return "", err
	}
	last := 1
	for _, pid := range pids {
		if p, err := ns.Open(pid); err == nil {
			last = max(last, c.inside(p))
			p.Close()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, mean := range c.load.mean {
		fmt.Fprintf(&b, "%d.%02d ", mean/loadOne, mean%loadOne*100/loadOne)
	}
	fmt.Fprintf(&b, "%d/%d %d\n", n.running, n.threads, last)
	return b.String(), nil
}

// cpus are the processors that the container may use.
func (r *run) cpus() (unix.CPUSet, error) {
	var set unix.CPUSet
	err := unix.SchedGetaffinity(r.job.Process().Pid(), &set)
	return set, err
}

// procStat is /proc/stat, in hundredths of a second, of the processors that it may use as if it had them all alike.
func (c *Ctr) procStat(r *run) (string, error) {
	set, err := r.cpus()
	if err != nil {
		return "", err
	}
	state, err := c.look(time.Now())
	if err != nil {
		return "", err
	}
	const tick = 10_000 // microseconds
	user, _ := r.number("cpu.user_usec")
	sys, _ := r.number("cpu.system_usec")
	c.mu.Lock()
	made, group, forks := c.made, c.group, c.forks
	c.mu.Unlock()
	n := uint64(set.Count())
	idle := uint64(max(0, time.Since(made).Microseconds()))*n - min(user+sys, uint64(max(0, time.Since(made).Microseconds()))*n)
	var b strings.Builder
	fmt.Fprintf(&b, "cpu  %d 0 %d %d 0 0 0 0 0 0\n", user/tick, sys/tick, idle/tick)
	for i := range n {
		fmt.Fprintf(&b, "cpu%d %d 0 %d %d 0 0 0 0 0 0\n", i, user/n/tick, sys/n/tick, idle/n/tick)
	}
	if more, err := c.set.forks.count(group); err == nil {
		forks += more
	}
	fmt.Fprintf(&b, "intr 0\nctxt 0\nbtime %d\nprocesses %d\nprocs_running %d\nprocs_blocked %d\n", made.Unix(), forks, state.running, state.blocked)
	return b.String(), nil
}

// cpuinfo is what the machine's has of the processors that it may use, counted anew.
func (c *Ctr) cpuinfo(r *run) (string, error) {
	set, err := r.cpus()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	n := 0
	for part := range bytes.SplitSeq(text, []byte("\n\n")) {
		number, rest, _ := bytes.Cut(part, []byte("\n"))
		key, value, _ := strings.Cut(string(number), ":")
		cpu, err := strconv.Atoi(strings.TrimSpace(value))
		if strings.TrimSpace(key) != "processor" || err != nil {
			if len(bytes.TrimSpace(part)) > 0 {
				b.Write(append(part, '\n')) // of no single processor
			}
			continue
		}
		if set.IsSet(cpu) {
			fmt.Fprintf(&b, "%s: %d\n%s\n\n", key, n, rest)
			n++
		}
	}
	return b.String(), nil
}

// sinceMade is what added to the time since boot makes it the time since the container was made.
func (c *Ctr) sinceMade() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, err
	}
	return time.Since(c.made) - time.Duration(now.Nano()), nil
}
