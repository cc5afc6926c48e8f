package ctr

import (
	"context"
	"fmt"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/ns"
	"ctrfs/proc"
)

// tty gives the first process a terminal, now if there is one that waits, and from now on.
func (c *Ctr) tty(ctx context.Context, args []string) error {
	size, err := proc.TerminalSize(args)
	if err != nil {
		return err
	}
	release, err := c.take(ctx, "tty", isNew, isCreated, isStopped)
	if err != nil {
		return err
	}
	defer release()
	if r, err := c.current(); err == nil {
		if err := r.job.Parked(ctx, "tty", func(*ns.Parked) error { return r.job.Terminal(ctx, size) }); err != nil {
			return err
		}
	}
	return c.change(func(s *spec) error { s.tty = &size; return nil })
}

// hasTTY says whether the present run, or the last, has a terminal.
func (c *Ctr) hasTTY() bool {
	stdio, err := c.stdio()
	return err == nil && stdio.Terminal()
}

// openConsole opens the terminal as one file, as data of a process.
func (c *Ctr) openConsole(_ context.Context, how fs.How) (fs.Handle, error) {
	stdio, err := c.stdio()
	if err != nil {
		return nil, err
	}
	return stdio.Data(how)
}

func (c *Ctr) winsize(context.Context) (string, error) {
	r, err := c.current()
	if err != nil {
		return "", err
	}
	return r.job.Stdio().Winsize()
}

func (c *Ctr) setWinsize(ctx context.Context, line string) error {
	words, err := ctl.Words(line)
	if err != nil {
		return err
	}
	return c.resize(ctx, words)
}

// resize sets the size of the terminal.
func (c *Ctr) resize(_ context.Context, words []string) error {
	r, err := c.current()
	if err != nil {
		return fmt.Errorf("winsize: %w", err)
	}
	return r.job.Stdio().Resize(words)
}
