package ctr

import (
	"context"
	"fmt"
)

// An oomWatch tells of the processes of a run that the kernel kills because the container's memory is full. It is guarded by
// Ctr.mu.
type oomWatch struct {
	over  bool // the run is
	end   context.CancelFunc
	done  chan struct{} // closed when it tells no more; nil: it never began
	seen  uint64        // what the kernel had counted when it was last told of
	kills uint64        // in this run
}

// oomKills is how many the kernel has counted, 0 where it does not count.
func (r *run) oomKills() uint64 {
	if r.group == nil {
		return 0
	}
	n, _ := r.group.OOMKills()
	return n
}

// watchOOM begins to tell of it, once, where memory is accounted.
func (c *Ctr) watchOOM(r *run) {
	if r.group == nil {
		return
	}
	seen, err := r.group.OOMKills()
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.oom.over || r.oom.done != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	r.oom.end, r.oom.done, r.oom.seen = cancel, done, seen
	go func() {
		defer close(done)
		for n, err := seen, error(nil); err == nil; {
			if n, err = r.group.WaitOOM(ctx, n); err == nil {
				c.tellOOM(r, n)
			}
		}
	}()
}

// endOOM tells of what was not told yet: before the end of the run is, and before its cgroup goes.
func (c *Ctr) endOOM(r *run) {
	c.mu.Lock()
	r.oom.over = true
	end, done := r.oom.end, r.oom.done
	c.mu.Unlock()
	if done == nil {
		return
	}
	end()
	<-done
	if n, err := r.group.OOMKills(); err == nil {
		c.tellOOM(r, n)
	}
}

// tellOOM tells that the kernel has counted n kills.
func (c *Ctr) tellOOM(r *run, n uint64) {
	c.mu.Lock()
	more := n - r.oom.seen
	r.oom.seen = n
	r.oom.kills += more
	c.mu.Unlock()
	if more > 0 {
		c.tell("oom", fmt.Sprint("kills=", more))
	}
}
