package ctr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// Bits of libvserver's flags.
const (
	infoSched   = 1 << 1
	infoNproc   = 1 << 2
	infoPrivate = 1 << 3
	infoInit    = 1 << 4
	infoHide    = 1 << 5
	infoUlimit  = 1 << 6
	infoNspace  = 1 << 7
	schedHard   = 1 << 8
	schedPrio   = 1 << 9
	schedPause  = 1 << 10
	virtMem     = 1 << 16
	virtUptime  = 1 << 17
	virtCPU     = 1 << 18
	virtLoad    = 1 << 19
	virtTime    = 1 << 20
	hideMount   = 1 << 24
	hideNetif   = 1 << 25
	hideVinfo   = 1 << 26
	stateSetup  = 1 << 32
	stateInit   = 1 << 33
	stateAdmin  = 1 << 34
	scHelper    = 1 << 36
	rebootKill  = 1 << 37
	persistent  = 1 << 38
	forkRSS     = 1 << 48
	prolific    = 1 << 49
	ignegNice   = 1 << 52
)

// newFlags are those of a new container.
const newFlags = stateSetup | stateInit | stateAdmin | infoInit | infoNspace | rebootKill

// flags is libvserver's context flags.
var flags = words{
	file: "flags",
	kept: func(s *spec) *uint64 { return &s.flags },
	take: (*Ctr).takeState,
}

func init() { // what the words do leads back to them
	flags.list = []word{
		{name: "info_sched", bit: infoSched, now: func(c *Ctr) bool { return c.spec.limited("cpu.") }, do: (*Ctr).oneForScheduler},
		{name: "info_nproc", bit: infoNproc, do: (*Ctr).limitTasks},
		{name: "info_private", bit: infoPrivate},
		{name: "info_init", bit: infoInit, when: down, off: "a container has a pid name space of its own always"},
		{name: "info_hide", bit: infoHide},
		{name: "info_ulimit", bit: infoUlimit, do: (*Ctr).limitAll},
		{name: "info_nspace", bit: infoNspace, when: down, off: "a container has a mnt name space of its own always"},
		{name: "sched_hard", bit: schedHard, now: func(c *Ctr) bool { return c.spec.limited("cpu.max") }, do: (*Ctr).hardSched},
		{name: "sched_prio", bit: schedPrio, now: func(c *Ctr) bool { return c.spec.limited("cpu.weight") }, do: (*Ctr).weighed},
		{name: "sched_pause", bit: schedPause, now: func(c *Ctr) bool { return c.state == isPaused }, do: (*Ctr).pauses, may: func(c *Ctr) error {
			if c.state != isRunning {
				return fmt.Errorf("cannot pause a %s container", c.state)
			}
			return nil
		}},
		{name: "virt_mem", bit: virtMem, do: cover("meminfo")},
		{name: "virt_uptime", bit: virtUptime, when: down},
		{name: "virt_cpu", bit: virtCPU, do: cover("stat", "cpuinfo")},
		{name: "virt_load", bit: virtLoad, do: cover("loadavg")},
		{name: "virt_time", bit: virtTime, not: "Linux has one real-time clock for all, and programs read it without a system call"},
		{name: "hide_mount", bit: hideMount, when: down},
		{name: "hide_netif", bit: hideNetif, when: down, now: func(c *Ctr) bool { return c.spec.from("net") != "host" }, do: (*Ctr).hideNetif},
		{name: "hide_vinfo", bit: hideVinfo},
		{name: "state_setup", bit: stateSetup, when: once},
		{name: "state_init", bit: stateInit, when: once},
		{name: "state_admin", bit: stateAdmin, when: once},
		{name: "sc_helper", bit: scHelper},
		{name: "reboot_kill", bit: rebootKill, when: heard},
		{name: "persistent", bit: persistent, do: (*Ctr).persist},
		{name: "fork_rss", bit: forkRSS, do: (*Ctr).tended},
		{name: "prolific", bit: prolific, when: down},
		{name: "igneg_nice", bit: ignegNice, when: heard},
	}
}

func (c *Ctr) readFlags(ctx context.Context) (string, error) { return flags.read(c, ctx) }

func (c *Ctr) setFlags(ctx context.Context, line string) error {
	if err := flags.write(c, ctx, line); err != nil {
		return err
	}
	if !c.flagged(persistent) {
		c.letGo()
	}
	return nil
}

// flagged says whether a flag is set of those that are kept. Called with the lock.
func (s *spec) flagged(bit uint64) bool { return s.flags&bit != 0 }

// flagged is that of the container's next run.
func (c *Ctr) flagged(bit uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spec.flagged(bit)
}

// limited says whether a limit whose word begins so holds the container to less than there is.
func (s *spec) limited(word string) bool {
	for _, l := range s.limits {
		if strings.HasPrefix(l.word, word) && l.word != word+".burst" && !strings.HasPrefix(l.value, "max") {
			return true
		}
	}
	return false
}

// takeState takes away what is taken once: state_init makes the first process, state_setup runs it, and after state_admin
// nobody changes the container any more.
func (c *Ctr) takeState(ctx context.Context, off uint64) error {
	if off&stateInit != 0 && c.now() == isNew {
		if err := c.create(ctx, nil); err != nil {
			return err
		}
	}
	if off&stateSetup != 0 {
		if err := c.start(ctx, nil); err != nil {
			return err
		}
	}
	if off&stateAdmin == 0 {
		return nil
	}
	return c.change(func(s *spec) error { s.flags &^= stateAdmin; return nil })
}

var (
	errSealed  = fs.Err(unix.EACCES, "container is sealed: state_admin was taken away")
	errPrivate = fs.Err(unix.EACCES, "container is private: nobody may enter")
)

// closed says why nobody may enter it. Called with the lock.
func (s *spec) closed() error {
	switch {
	case !s.flagged(stateAdmin):
		return errSealed
	case s.flagged(infoPrivate):
		return errPrivate
	}
	return nil
}

func (c *Ctr) closed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spec.closed()
}

// limitTo sets a limit, or takes it back: value is what it is without.
func (c *Ctr) limitTo(ctx context.Context, on bool, word, value, without string) error {
	if on {
		return c.setLimit(ctx, fs.Words(word, value))
	}
	if err := c.setLimit(ctx, fs.Words(word, without)); err != nil {
		return err
	}
	return c.change(func(s *spec) error {
		for i, l := range s.limits {
			if l.word == word {
				s.limits = append(s.limits[:i:i], s.limits[i+1:]...)
				break
			}
		}
		return nil
	})
}

// hardSched is Linux-VServer's default token bucket, a quarter of each processor, where limits says nothing else.
func (c *Ctr) hardSched(ctx context.Context, on bool) error {
	return c.limitTo(ctx, on, "cpu.max", fmt.Sprintf("%d 100000", 25000*runtime.NumCPU()), "max")
}

// weighed gives it a weight of its own, that of everybody where limits says nothing else.
func (c *Ctr) weighed(ctx context.Context, on bool) error {
	return c.limitTo(ctx, on, "cpu.weight", "100", "100")
}

// oneForScheduler puts it into a control group of cpu, where it is to the scheduler what others are.
func (c *Ctr) oneForScheduler(ctx context.Context, on bool) error {
	if !on {
		c.mu.Lock()
		hard := c.spec.limited("cpu.max")
		c.mu.Unlock()
		if hard {
			return errors.New("its processors are limited: ~sched_hard")
		}
	}
	return c.weighed(ctx, on)
}

func (c *Ctr) pauses(ctx context.Context, on bool) error {
	if on {
		return c.pause(ctx, nil)
	}
	return c.resume(ctx, nil)
}

func (c *Ctr) hideNetif(ctx context.Context, on bool) error {
	if on {
		return c.setNsgrp(ctx, "net new")
	}
	return c.setNsgrp(ctx, "net host")
}

// model gives the first process; where there is none this program, from which it will have its limits.
func (c *Ctr) model() (*ns.Process, func(), error) {
	if r, err := c.current(); err == nil {
		return r.job.Process(), func() {}, nil
	}
	p, err := ns.Open(os.Getpid())
	return p, func() { p.Close() }, err
}

// hard gives the hard resource limits that its first process has, or will have.
func (c *Ctr) hard() ([]ns.Limit, error) {
	p, done, err := c.model()
	if err != nil {
		return nil, err
	}
	defer done()
	return p.Limits()
}

// limitTasks makes its maker's limit of processes that of the container.
func (c *Ctr) limitTasks(ctx context.Context, on bool) error {
	limits, err := c.hard()
	if err != nil {
		return err
	}
	for _, l := range limits {
		if l.Name == "nproc" {
			return c.limitTo(ctx, on, "pids.max", limitValue(l.Hard), "max")
		}
	}
	return errors.ErrUnsupported
}

func limitValue(n uint64) string {
	if n == ns.Unlimited {
		return "max"
	}
	return fmt.Sprint(n)
}

// limitAll makes the limits of its first process those of all: of each process that there is or will be, and where a control
// group has one, of all together.
func (c *Ctr) limitAll(ctx context.Context, on bool) error {
	limits, err := c.hard()
	if err != nil {
		return err
	}
	for _, l := range limits {
		word := map[string]string{"nproc": "pids.max", "rss": "memory.max"}[l.Name]
		if word == "" || l.Hard == ns.Unlimited {
			continue
		}
		if err := c.limitTo(ctx, on, word, limitValue(l.Hard), "max"); err != nil {
			return err
		}
	}
	r, err := c.current()
	if err != nil || !on {
		return nil
	}
	pids, err := r.pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		p, err := ns.Open(pid)
		if err != nil {
			continue // ended meanwhile
		}
		if in, err := r.has(p); in && err == nil {
			err = limitProcess(ctx, p, limits)
		}
		p.Close()
		if err != nil && !errors.Is(err, ns.ErrExited) {
			return err
		}
	}
	return nil
}

// limitParked gives the limits of the first process to one that is to run in the container.
func (c *Ctr) limitParked(ctx context.Context, parked *ns.Parked) error {
	limits, err := c.hard()
	if err != nil {
		return err
	}
	p, err := ns.Open(parked.Pid)
	if err != nil {
		return err
	}
	defer p.Close()
	return limitProcess(ctx, p, limits)
}

// limitProcess gives a process limits, so far as they are less than its own, which the kernel lets anybody do.
func limitProcess(ctx context.Context, p *ns.Process, limits []ns.Limit) error {
	own, err := p.Limits()
	if err != nil {
		return err
	}
	for i, l := range limits {
		if l.Soft >= own[i].Soft && l.Hard >= own[i].Hard {
			continue
		}
		l.Hard = min(l.Hard, own[i].Hard)
		l.Soft = min(l.Soft, l.Hard)
		if err := p.SetLimit(ctx, ns.Cred{Uid: uint32(os.Geteuid())}, l); err != nil {
			return err
		}
	}
	return nil
}
