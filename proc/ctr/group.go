package ctr

import (
	"context"
	"errors"
	"os"

	"ctrfs/fs"
	"ctrfs/ns"
)

// fresh gives a group for a new run: the old one, unless it was killed, or a new one, nil where this program may make none.
func (c *Ctr) fresh(ctx context.Context, old *ns.Group) (*ns.Group, error) {
	if old != nil {
		if _, err := old.Dir(); err == nil {
			return old, old.Thaw(ctx) // the last run may have ended while it was paused
		}
		if err := c.ungroup(ctx, old); err != nil { // it was killed when the end was being noted
			return nil, err
		}
	}
	group, err := c.set.Cgroups.MakeGroup(c.id)
	switch {
	case err == nil:
		c.mu.Lock()
		s := c.spec
		c.mu.Unlock()
		if c.set.config().Accounting {
			err = group.Account()
		}
		if err == nil {
			err = s.limit(group)
		}
		if err != nil {
			group.Remove(context.WithoutCancel(ctx)) // it is empty
			return nil, err
		}
	case os.Geteuid() == 0 || !errors.Is(err, fs.ErrPerm):
		return nil, err
	}
	if group != nil {
		c.set.forks.begin(c.set, group)
	}
	return group, nil
}

// ungroup removes the container's group when all in it have ended.
func (c *Ctr) ungroup(ctx context.Context, group *ns.Group) error {
	if group == nil {
		return nil
	}
	if err := group.WaitEmpty(ctx); err != nil {
		return err
	}
	forks := c.set.forks.end(group)
	if err := group.Remove(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	c.group = nil
	c.forks += forks
	c.mu.Unlock()
	return nil
}

// free lets go of what lasts from run to run. No run goes on, and who calls has the turn.
func (c *Ctr) free(ctx context.Context) error {
	c.mu.Lock()
	group, by := c.group, c.by(&c.spec)
	c.mu.Unlock()
	if by != nil {
		if err := c.unbundle(ctx, by); err != nil {
			return err
		}
	}
	if err := c.ungroup(ctx, group); err != nil {
		return err
	}
	c.scratch.Close()
	return nil
}
