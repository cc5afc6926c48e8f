package ctr

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ctrfs/ns"
)

// A load is Linux-VServer's load of a container: the mean number of its threads that ran or could not be interrupted, over 1, 5
// and 15 minutes, in 1/2048. It is a linear mean, unlike the machine's, and looked at at most every five seconds.
type load struct {
	mean [3]uint64
	last time.Time // when it was looked at
}

const (
	loadTime = 5 * time.Second
	loadOne  = 1 << 11
)

var loadSpans = [3]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute}

// add takes in that so many threads are running at a time.
func (l *load) add(running int, now time.Time) {
	for i, span := range loadSpans {
		n := uint64(running) * loadOne
		if since := now.Sub(l.last); since < span {
			ms := func(d time.Duration) uint64 { return uint64(d.Milliseconds()) }
			n = (l.mean[i]*ms(span-since) + n*ms(since)) / ms(span)
		}
		l.mean[i] = n
	}
	l.last = now
}

// A count is what the threads of a container do.
type count struct{ threads, running, blocked int }

func (r *run) count() (n count, err error) {
	tids, err := r.threads()
	for _, tid := range tids {
		switch ns.ThreadState(tid) {
		case 0:
			continue // ended meanwhile
		case 'R':
			n.running++
		case 'D':
			n.blocked++
		}
		n.threads++
	}
	return n, err
}

// look looks what the threads do, and makes the load of it when it is time.
func (c *Ctr) look(now time.Time) (n count, err error) {
	r, err := c.current()
	if err == nil {
		n, err = r.count()
	}
	if err != nil && err != errNotRunning {
		return n, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.load.last) >= loadTime {
		c.load.add(n.running+n.blocked, now)
	}
	return n, nil
}

// ran notes that a run has begun (1) or is over (-1).
func (cs *Containers) ran(n int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.runs += n
	switch {
	case n > 0 && cs.runs == 1:
		cs.idle = make(chan struct{})
		go cs.sample(cs.idle)
	case cs.runs == 0:
		close(cs.idle)
	}
}

// sample looks at every container while one runs.
func (cs *Containers) sample(idle <-chan struct{}) {
	tick := time.NewTicker(loadTime)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			for _, c := range cs.all() {
				c.look(now)
			}
		case <-idle:
			return
		}
	}
}

// all is the containers that are there.
func (cs *Containers) all() []*Ctr {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	all := make([]*Ctr, 0, len(cs.names))
	for _, c := range cs.names {
		all = append(all, c)
	}
	return all
}

// stat is libvserver's vx_stat.
func (c *Ctr) stat(context.Context) (string, error) {
	now := time.Now()
	n, err := c.look(now)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return "", errNoCtr
	}
	var b strings.Builder
	line := func(key string, n any) { fmt.Fprintln(&b, key, n) }
	held := 0
	if c.state == isPaused {
		held = n.threads
	}
	line("usecnt", n.threads+1) // and the directory
	line("tasks", n.threads)
	line("nr_threads", n.threads)
	line("nr_running", n.running)
	line("nr_unintr", n.blocked)
	line("nr_onhold", held)
	if forks, err := c.set.forks.count(c.group); err == nil {
		line("nr_forks", c.forks+forks)
	}
	for i, mean := range c.load.mean {
		line(fmt.Sprintf("load[%d]", i), mean)
	}
	line("offset", 0) // there is no clock of its own
	line("uptime", now.Sub(c.made).Nanoseconds())
	return b.String(), nil
}
