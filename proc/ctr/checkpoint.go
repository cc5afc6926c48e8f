package ctr

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// checkpoint writes the container into a directory, by its runtime and criu(8), and ends it, unless a word is leave-running.
func (c *Ctr) checkpoint(ctx context.Context, args []string) error {
	release, err := c.take(ctx, "checkpoint", isRunning, isPaused)
	if err != nil {
		return err
	}
	defer release()
	if err := c.mayImage("checkpoint", args); err != nil {
		return err
	}
	r, err := c.current()
	if err != nil {
		return err
	}
	err = r.job.During(func() error { // its end comes after it
		err := r.oci.Checkpoint(ctx, c.id, args[0], args[1:])
		if err == nil {
			c.tell("checkpoint", "dir="+args[0])
		}
		return err
	})
	if err != nil {
		return err
	}
	if status, err := r.oci.State(ctx, c.id); err == nil && status != "stopped" {
		return nil
	}
	select { // the runtime has ended it
	case <-r.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// restore makes the container of what checkpoint has written, and goes on where it stopped.
func (c *Ctr) restore(ctx context.Context, args []string) error {
	release, err := c.take(ctx, "restore", isNew, isStopped)
	if err != nil {
		return err
	}
	defer release()
	if err := c.mayImage("restore", args); err != nil {
		return err
	}
	c.mu.Lock()
	s := c.spec
	c.mu.Unlock()
	return c.parkBy(ctx, s, args[0], args[1:])
}

var option = regexp.MustCompile(`^[a-z][a-z-]*(=[^\x00]*)?$`)

// mayImage says why a checkpoint cannot be made or used here.
func (c *Ctr) mayImage(verb string, args []string) error {
	if !filepath.IsAbs(args[0]) {
		return fmt.Errorf("%s: not an absolute path: %q", verb, args[0])
	}
	for _, w := range args[1:] {
		if !option.MatchString(w) {
			return fmt.Errorf("%s: not an option: %q", verb, w)
		}
	}
	fd, err := ns.OpenAs(c.owner, args[0], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return fmt.Errorf("%s %q: %w", verb, args[0], err)
	}
	unix.Close(fd)
	c.mu.Lock()
	by := c.by(&c.spec)
	c.mu.Unlock()
	if by == nil {
		return fs.Err(unix.EOPNOTSUPP, "%s: the container has no runtime that could", verb)
	}
	return nil
}
