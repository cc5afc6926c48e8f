package ctr

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// pauseTime is how long pause tries: one who cannot be stopped, because it waits for a disk, must not keep others from
// killing it, for which they need the turn.
const pauseTime = 5 * time.Second

// pause stops every process of the container where it stands.
func (c *Ctr) pause(ctx context.Context, _ []string) error {
	release, err := c.take(ctx, "pause", isRunning)
	if err != nil {
		return err
	}
	defer release()
	r, err := c.current()
	if err != nil {
		return fmt.Errorf("cannot pause a %s container", c.now())
	}
	if r.group == nil && r.oci == nil {
		return fs.Err(unix.EOPNOTSUPP, "pause: the container has no cgroup")
	}
	brief, cancel := context.WithTimeout(ctx, pauseTime)
	defer cancel()
	defer func() {
		c.mu.Lock()
		c.pausing = false
		c.mu.Unlock()
	}()
	if err = c.quiet(brief); err == nil {
		err = r.freeze(brief)
	}
	if err == nil && c.move(isRunning, isPaused, "pause") {
		return nil
	}
	if err != nil && !ended(r.job.Process()) {
		return fmt.Errorf("pause: %w", err)
	}
	// It has ended meanwhile, which is only still to be noted.
	select {
	case <-r.done:
		return fmt.Errorf("cannot pause a %s container", isStopped)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ended says whether the process has ended, be it that its parent has not heard of it.
func ended(p *ns.Process) bool {
	_, over := ns.Exited(p)
	return over || p.Check() != nil
}

// resume lets a paused container go on.
func (c *Ctr) resume(ctx context.Context, _ []string) error {
	release, err := c.take(ctx, "resume", isPaused)
	if err != nil {
		return err
	}
	defer release()
	return c.thaw(ctx)
}

// thaw lets the container go on if it is paused. Who calls has the turn.
func (c *Ctr) thaw(ctx context.Context) error {
	r, err := c.current()
	if err != nil || !c.move(isPaused, isRunning, "resume") {
		return nil // it has ended
	}
	if err := r.thaw(context.WithoutCancel(ctx)); err != nil && !ended(r.job.Process()) {
		return err
	}
	return nil
}

// move makes the state another and tells of it before anybody can tell of what comes after. It does nothing to a container
// that has ended meanwhile, which waits for no turn.
func (c *Ctr) move(from, to state, topic string) bool {
	c.mu.Lock()
	moves := c.state == from
	if moves {
		c.state = to
		c.set.Feed.Put(fs.Event{Topic: topic, Words: []string{"ctr=" + c.name}, Of: c.qid})
	}
	c.mu.Unlock()
	if moves {
		c.saved()
	}
	return moves
}

// awake lets a process of the container carry out something until done is called, for which pause waits: if it were stopped
// in the middle its client would have to wait until somebody else says resume.
func (c *Ctr) awake() (done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == isPaused || c.pausing {
		return nil, fs.Err(unix.EBUSY, "container is paused")
	}
	c.busy++
	return c.done, nil
}

func (c *Ctr) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy--; c.busy == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// quiet makes awake refuse until c.pausing is taken back, and waits for those whom it has let.
func (c *Ctr) quiet(ctx context.Context) error {
	c.mu.Lock()
	c.pausing = true
	if c.busy > 0 && c.idle == nil {
		c.idle = make(chan struct{})
	}
	idle := c.idle
	c.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// restart ends the run as stop does, and begins another when it is over. It answers when it has asked. A stop or a kill
// after it has the last word.
func (c *Ctr) restart(ctx context.Context, _ []string) error {
	release, err := c.take(ctx, "restart", isRunning, isPaused, isStopped)
	if err != nil {
		return err
	}
	defer release()
	r, err := c.current()
	if err != nil {
		return c.launch(ctx)
	}
	if err := c.end(ctx, r, stopTime); err != nil {
		return err
	}
	c.mu.Lock()
	r.again = true
	c.mu.Unlock()
	go c.rerun(r)
	return c.save()
}

// rerun begins a new run when r is over, if that is still wanted.
func (c *Ctr) rerun(r *run) {
	<-r.done
	ctx := context.Background()
	release, err := c.take(ctx, "restart", isStopped)
	if err != nil {
		return
	}
	defer release()
	c.mu.Lock()
	again := r.again && c.run == r
	c.mu.Unlock()
	if !again {
		return
	}
	if err := c.launch(ctx); err != nil {
		c.set.Log.Error("restart", "ctr", c.Name(), "error", err)
	}
}

// noMore makes the end of the run be the last word, also after a restart, be it that it has ended and the next has not begun.
// Who calls has the turn.
func (c *Ctr) noMore() {
	c.mu.Lock()
	r := c.run
	again := r != nil && r.again
	if again {
		r.again = false
	}
	c.mu.Unlock()
	if again {
		c.saved()
	}
}
