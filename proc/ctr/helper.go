package ctr

import (
	"context"
	"fmt"
	"time"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/ns"
)

// The helper is a command of the machine's, run as the container's owner: with the word sc_helper it is told of the beginning
// and of the end, and with or without of what reboot(2) was called for.

// helperTime is how long it may take.
const helperTime = 30 * time.Second

func (c *Ctr) helper(context.Context) (string, error) {
	return c.get(func() string { return fs.Words(c.spec.helper...) })
}

func (c *Ctr) clearHelper(context.Context) error {
	return c.change(func(s *spec) error { s.helper = nil; return nil })
}

func (c *Ctr) setHelper(_ context.Context, line string) error {
	words, err := ctl.Words(line)
	if err != nil {
		return err
	}
	return c.change(func(s *spec) error { s.helper = words; return nil })
}

// help runs the helper: CMD WHAT XID. It is none where nobody has said one.
func (c *Ctr) help(ctx context.Context, what string) error {
	c.mu.Lock()
	args, xid := c.spec.helper, fmt.Sprint(c.xid)
	c.mu.Unlock()
	if len(args) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	if err := c.runHelper(ctx, append(args[:len(args):len(args)], what, xid), "VS_CMD="+what); err != nil {
		return fmt.Errorf("helper %s: %w", what, err)
	}
	return nil
}

func (c *Ctr) runHelper(ctx context.Context, args []string, env ...string) error {
	parked, err := ns.Park(ctx, ns.Opt{Cred: &c.owner})
	if err != nil {
		return err
	}
	p, err := ns.Open(parked.Pid)
	if err != nil {
		parked.End()
		return err
	}
	defer p.Close()
	keeper := c.set.Processes.Keeper
	if keeper == nil {
		if err := ns.Reap(p); err != nil {
			parked.End()
			return err
		}
	} else { // it is the parent, and who ends it if this program dies
		name := "helper " + c.id + " " + fmt.Sprint(p.ID())
		if err := keeper.Hold(name, p, true, nil); err != nil {
			parked.End()
			return err
		}
		defer keeper.Drop(name)
	}
	if err := parked.Exec(ctx, args, append(env, defaultPath)); err != nil {
		parked.End()
		return err
	}
	parked.Close()
	exit, err := ns.Wait(ctx, p)
	if err != nil {
		p.Signal(9) // it had its time
		return err
	}
	if code, ok := exit.Code(); ok && code != 0 {
		return fmt.Errorf("status %d", code)
	}
	return nil
}

// helps is help where nobody waits for what comes of it.
func (c *Ctr) helps(what string) error {
	err := c.help(context.Background(), what)
	if err != nil {
		c.set.Log.Warn("helper", "ctr", c.Name(), "error", err)
	}
	return err
}

// told tells the helper of the end of a run: of what reboot(2) asked for, and with sc_helper that it is over.
func (c *Ctr) told(exit ns.Exit) {
	if what := rebooted(exit); what != "none" {
		c.helps(what)
	}
	if c.flagged(scHelper) {
		c.helps("shutdown")
	}
}
