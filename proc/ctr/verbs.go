package ctr

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/ns"
)

// The messages of ctl.
var verbs = ctl.Table[*Ctr]{
	ctl.Verb("create", (*Ctr).create),
	ctl.Verb("start", (*Ctr).start),
	ctl.Verb("exec CMD [ARG...]", (*Ctr).exec),
	ctl.Verb("stop [SECONDS]", (*Ctr).stop),
	ctl.Verb("kill [SIG [PID]]", (*Ctr).kill),
	ctl.Verb("killall", func(c *Ctr, ctx context.Context, args []string) error {
		if !c.flagged(stateAdmin) {
			return errSealed
		}
		return c.killall(ctx, args)
	}),
	ctl.Verb("pause", (*Ctr).pause),
	ctl.Verb("resume", (*Ctr).resume),
	ctl.Verb("restart", (*Ctr).restart),
	ctl.Verb("checkpoint DIR [WORD...]", (*Ctr).checkpoint),
	ctl.Verb("restore DIR [WORD...]", (*Ctr).restore),
	ctl.Verb("delete", (*Ctr).delete),
	ctl.Verb("rename NEW", func(c *Ctr, _ context.Context, args []string) error { return c.rename(args[0]) }),
	ctl.Verb("closeio", (*Ctr).closeio),
	ctl.Verb("tty [COLS ROWS]", (*Ctr).tty),
	ctl.Verb("resize COLS ROWS", (*Ctr).resize),
	ctl.Verb("killonclose", (*Ctr).killonclose),
	ctl.Verb("args CMD [ARG...]", (*Ctr).setArgs),
	ctl.Verb("bcaps WORD...", func(c *Ctr, ctx context.Context, args []string) error {
		return c.setBcaps(ctx, strings.Join(args, " "))
	}),
	ctl.Verb("bundle DIR", said((*Ctr).setBundle)),
	ctl.Verb("ccaps WORD...", func(c *Ctr, ctx context.Context, args []string) error {
		return c.setCcaps(ctx, strings.Join(args, " "))
	}),
	ctl.Verb("cwd DIR", said((*Ctr).setCwd)),
	ctl.Verb("domainname NAME", said((*Ctr).setDomainname)),
	ctl.Verb("env NAME=VALUE", said((*Ctr).addEnv)),
	ctl.Verb("flags WORD...", func(c *Ctr, ctx context.Context, args []string) error {
		return c.setFlags(ctx, strings.Join(args, " "))
	}),
	ctl.Verb("helper CMD [ARG...]", said((*Ctr).setHelper)),
	ctl.Verb("hostname NAME", said((*Ctr).setHostname)),
	ctl.Verb("labels KEY VALUE", said((*Ctr).addLabel)),
	ctl.Verb("limits WORD VALUE...", said((*Ctr).setLimit)),
	ctl.Verb("mounts mount TYPE SOURCE TARGET [OPTIONS]", said((*Ctr).addMount)),
	ctl.Verb("nsgrp KIND FROM", said((*Ctr).setNsgrp)),
	ctl.Verb("rootfs WORD...", said((*Ctr).setRootfs)),
	ctl.Verb("runtime NAME", said((*Ctr).setRuntime)),
	ctl.Verb("uname FIELD VALUE", said((*Ctr).setUname)),
	ctl.Verb("user U[:G[,G...]]", said((*Ctr).setUser)),
	ctl.Verb("xid N", said((*Ctr).setXid)),
}

// said makes a verb of a file: its arguments are a line that is written there.
func said(write func(*Ctr, context.Context, string) error) func(*Ctr, context.Context, []string) error {
	return func(c *Ctr, ctx context.Context, args []string) error { return write(c, ctx, ctl.Quote(args...)) }
}

// setArgs is the line that `>` writes to args.
func (c *Ctr) setArgs(_ context.Context, args []string) error {
	return c.change(func(s *spec) error { s.args = args; return nil })
}

// take gets the turn to change the container's state, if that is one of those in which the verb may.
func (c *Ctr) take(ctx context.Context, verb string, in ...state) (release func(), err error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	release = func() { <-c.turn }
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone:
		release()
		return nil, errNoCtr
	case !c.spec.flagged(stateAdmin) && verb != "kill" && verb != "delete":
		release()
		return nil, errSealed
	}
	for _, s := range in {
		if c.state == s {
			return release, nil
		}
	}
	release()
	return nil, fmt.Errorf("cannot %s a %s container", verb, c.state)
}

func (c *Ctr) create(ctx context.Context, _ []string) error {
	release, err := c.take(ctx, "create", isNew, isStopped)
	if err != nil {
		return err
	}
	defer release()
	if err := c.configured(); err != nil {
		return err
	}
	return c.park(ctx)
}

func (c *Ctr) start(ctx context.Context, _ []string) error {
	release, err := c.take(ctx, "start", isNew, isCreated, isStopped)
	if err != nil {
		return err
	}
	defer release()
	if err := c.configured(); err != nil {
		return err
	}
	return c.launch(ctx)
}

// exec sets args and starts.
func (c *Ctr) exec(ctx context.Context, args []string) error {
	release, err := c.take(ctx, "start", isNew, isCreated, isStopped)
	if err != nil {
		if c.now() == isRunning {
			return errors.New("container is running: use proc/clone")
		}
		return err
	}
	defer release()
	if err := c.configured(); err != nil {
		return err
	}
	c.setArgs(ctx, args)
	return c.launch(ctx)
}

// stopTime is how long a container may take to end when it was asked to.
const stopTime = 10 * time.Second

// stop asks the first process to end, and kills all after a time. It answers when it has asked.
func (c *Ctr) stop(ctx context.Context, args []string) error {
	wait := stopTime
	if len(args) > 0 {
		n, err := strconv.ParseUint(args[0], 10, 31)
		if err != nil {
			return fmt.Errorf("stop: not a number of seconds: %q", args[0])
		}
		wait = time.Duration(n) * time.Second
	}
	release, err := c.take(ctx, "stop", isCreated, isRunning, isPaused, isStopped)
	if err != nil {
		return err
	}
	defer release()
	c.noMore()
	r, err := c.current()
	if err != nil {
		return nil // it has stopped
	}
	return c.end(ctx, r, wait)
}

// end asks the first process to end, lets it hear that if it is paused, and kills all after a time.
func (c *Ctr) end(ctx context.Context, r *run, wait time.Duration) error {
	c.tell("stop")
	p := r.job.Process()
	st, err := p.Status()
	term := uint64(1) << (unix.SIGTERM - 1)
	if err != nil || c.now() == isCreated || wait == 0 || (st.SigCgt|st.SigBlk)&term == 0 {
		// The first process of a pid name space gets no signal that it has not asked for, but KILL.
		return r.kill()
	}
	c.mu.Lock()
	r.killed = time.Now().Add(wait)
	c.mu.Unlock()
	if err := c.save(); err != nil {
		return err
	}
	if err := r.send(ctx, unix.SIGTERM); err != nil && !errors.Is(err, ns.ErrExited) {
		return err
	}
	if err := c.thaw(ctx); err != nil {
		return err
	}
	r.killAt(wait)
	return nil
}

// kill sends a signal: to the first process, to all (PID 0), to all but the first (-1), or to one by its number on the host.
func (c *Ctr) kill(ctx context.Context, args []string) error {
	sig, pid := unix.SIGKILL, 1
	var err error
	if len(args) > 0 {
		if sig, err = ns.ParseSignal(args[0]); err != nil {
			return fmt.Errorf("kill: %w", err)
		}
	}
	if len(args) > 1 {
		if pid, err = strconv.Atoi(args[1]); err != nil || pid < -1 {
			return fmt.Errorf("kill: not a process: %q", args[1])
		}
	}
	release, err := c.take(ctx, "kill", isCreated, isRunning, isPaused, isStopped)
	if err != nil {
		return err
	}
	defer release()
	r, err := c.current()
	if !c.flagged(stateAdmin) && err == nil {
		if sig, pid, err = r.sealed(sig, pid); err != nil {
			return err
		}
	}
	paused := c.now() == isPaused
	if sig == unix.SIGKILL && (pid == 0 || pid == 1) { // the end of the first is the end of all
		c.noMore()
		if paused {
			pid = 0
		}
	}
	if err == nil && pid == 1 && c.now() != isCreated {
		if err = r.send(ctx, sig); !errors.Is(err, ns.ErrExited) {
			return err
		}
	}
	switch {
	case err != nil && (sig == unix.SIGTERM || sig == unix.SIGKILL):
		return nil // it has stopped, or its end is being noted
	case err != nil:
		return fs.Err(unix.ESRCH, "process not found")
	case sig == unix.SIGKILL && pid == 0, c.now() == isCreated:
		return r.kill()
	}
	if err = r.signal(ctx, sig, pid, paused); err == nil && sig == unix.SIGKILL {
		err = c.thaw(ctx)
	}
	return err
}

func (c *Ctr) killall(ctx context.Context, _ []string) error {
	release, err := c.take(ctx, "kill", isNew, isCreated, isRunning, isPaused, isStopped)
	if err != nil {
		return err
	}
	defer release()
	c.noMore()
	if r, err := c.current(); err == nil {
		return r.kill()
	}
	return nil
}

// delete takes away a container that does not run.
func (c *Ctr) delete(ctx context.Context, _ []string) error {
	release, err := c.take(ctx, "delete", isNew, isCreated, isStopped)
	if err != nil {
		return err
	}
	defer release()
	c.mu.Lock()
	r := c.run
	c.mu.Unlock()
	if r != nil {
		if c.now() == isCreated {
			if err := r.kill(); err != nil {
				return err
			}
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := c.free(ctx); err != nil {
		return err
	}
	if r != nil && r.job != nil {
		r.job.Unpin()
	}
	c.space.Forget()
	c.forget()
	return nil
}

// killonclose lets the container live no longer than the file that opening clone gave is open.
func (c *Ctr) killonclose(context.Context, []string) error {
	c.mu.Lock()
	held := c.held
	if !c.spec.flagged(stateAdmin) {
		c.mu.Unlock()
		return errSealed
	}
	c.bound = c.bound || held
	c.mu.Unlock()
	if !held {
		return errors.New("killonclose: the file that opening clone gave is closed")
	}
	return c.save()
}

func (c *Ctr) closeio(context.Context, []string) error {
	r, err := c.current()
	if err != nil {
		return err
	}
	r.job.Stdio().In.End()
	return nil
}
