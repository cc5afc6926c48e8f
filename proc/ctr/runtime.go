package ctr

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
	"ctrfs/proc"
	"ctrfs/proc/ctr/oci"
)

// A container that has a runtime is made, run and ended by the command line of that. It has a group that the runtime makes; to
// the rest of this package it is one without.

func (c *Ctr) runtime(context.Context) (string, error) {
	return c.get(func() string { return fs.Words(strings.Fields(c.spec.runtime)...) })
}

// setRuntime takes a name that a runtime may have, of a runtime, of root a path too.
func (c *Ctr) setRuntime(ctx context.Context, line string) error {
	name, err := oneWord("runtime", line)
	if err != nil {
		return err
	}
	path := filepath.IsAbs(name)
	program := c.set.program(name)
	switch {
	case path && !fs.ClientOf(ctx).Root():
		return fmt.Errorf("runtime %q: %w", name, fs.ErrPerm)
	case !path && program == name && !slices.Contains(oci.Names, name):
		return fmt.Errorf("no such runtime: %q", name)
	case c.owner.Uid != 0 || os.Geteuid() != 0:
		return fs.Err(unix.EOPNOTSUPP, "runtime: only for root's containers")
	}
	if _, err := exec.LookPath(program); err != nil {
		var e *os.PathError
		if err = errors.Unwrap(err); errors.As(err, &e) {
			err = e.Err
		}
		return fmt.Errorf("runtime %q: %w", name, err)
	}
	return c.whileNew("runtime", func(s *spec) error { s.runtime = name; return nil })
}

// program is that of a runtime, by the name that the configuration has for it or its own.
func (cs *Containers) program(runtime string) string {
	return cmp.Or(cs.config().Runtimes[runtime], runtime)
}

// by gives the runtime; nil: there is none.
func (c *Ctr) by(s *spec) *oci.Runtime {
	if s.runtime == "" {
		return nil
	}
	return &oci.Runtime{Path: c.set.program(s.runtime), Root: filepath.Join(c.set.State, "runtime", filepath.Base(s.runtime))}
}

// bundleDir is the bundle from which the runtime makes the container.
func (c *Ctr) bundleDir() string { return filepath.Join(c.set.State, "bundle", c.id) }

// unbundle takes away what there is of an earlier run.
func (c *Ctr) unbundle(ctx context.Context, by *oci.Runtime) error {
	if _, err := os.Lstat(c.bundleDir()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := by.Delete(ctx, c.id); err != nil {
		return err
	}
	c.set.Cgroups.Sweep(ociGroup(c.id)) // crun leaves that of a container that it could not make
	return os.RemoveAll(c.bundleDir())
}

// parkBy makes the container by its runtime, with its first process waiting, or as a checkpoint has it.
func (c *Ctr) parkBy(ctx context.Context, s spec, image string, words []string) error {
	r := &run{oci: c.by(&s), id: c.id, done: make(chan struct{})}
	if err := c.cloneBy(ctx, r, s, image, words); err != nil {
		return err
	}
	c.begin(r, isCreated)
	c.set.ran(1)
	if image == "" {
		go c.watch(r)
		return nil
	}
	return r.job.During(func() error {
		c.tell("restore", "dir="+image)
		c.began(r)
		go c.watch(r)
		return nil
	})
}

// cloneBy makes the first process by the runtime of the run: anew, or of a checkpoint in a directory image.
func (c *Ctr) cloneBy(ctx context.Context, r *run, s spec, image string, words []string) (err error) {
	if err := c.unbundle(ctx, r.oci); err != nil {
		return err
	}
	r.spec = ns.Spec{Opt: ns.Opt{Flags: ns.CtrFlags}, NoNewPrivs: s.noNewPrivs, Caps: s.caps, Filter: ns.DefaultFilter(s.caps, 0)}
	defer func() {
		closeSpaces(r.spec.Join)
		r.spec.Join = nil
		if err != nil {
			err = errors.Join(err, c.unbundle(context.WithoutCancel(ctx), r.oci))
		}
	}()
	if err := c.enterSpaces(&s, &r.spec); err != nil {
		return err
	}
	config, err := c.forRuntime(&s, r.spec.Join)
	if err != nil {
		return err
	}
	text, err := json.Marshal(config)
	if err == nil {
		err = os.MkdirAll(c.set.State, 0755)
	}
	if err == nil {
		err = os.MkdirAll(c.bundleDir(), 0700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(c.bundleDir(), "config.json"), text, 0600)
	}
	if err != nil {
		return err
	}
	var stdio *proc.Stdio
	var ends *[3]*os.File
	if s.tty == nil {
		if stdio, err = proc.NewStdio(c.account); err != nil {
			return err
		}
		e := stdio.Child()
		ends = &e
	}
	var pid int
	var master *os.File
	if image == "" {
		pid, master, err = r.oci.Create(ctx, c.id, c.bundleDir(), ends)
	} else {
		pid, master, err = r.oci.Restore(ctx, c.id, c.bundleDir(), image, ends, words)
	}
	if err == nil && master != nil {
		stdio, err = proc.NewTerminal(master, *s.tty, c.account)
	}
	if err == nil {
		r.job, err = c.space.Adopt(pid, stdio, c.owner)
	} else if stdio != nil {
		stdio.Close()
	}
	return err
}

// startBy runs the program by the runtime. Changed meanwhile, it is made anew: a runtime makes a container for one program.
func (c *Ctr) startBy(ctx context.Context, r *run, s spec) (*run, error) {
	changed, err := c.changed(&s)
	if err != nil {
		return r, err
	}
	if changed {
		if err := r.kill(); err != nil {
			return r, err
		}
		<-r.done
		if err := c.park(ctx); err != nil {
			return r, err
		}
		c.mu.Lock()
		r = c.run
		c.mu.Unlock()
	}
	return r, r.job.During(func() error {
		err := r.oci.Start(ctx, c.id)
		if err == nil {
			c.began(r)
		}
		return err
	})
}

// changed says whether the bundle has another program than the container is to run.
func (c *Ctr) changed(s *spec) (bool, error) {
	config, err := c.forRuntime(s, nil)
	if err != nil {
		return false, err
	}
	now, err := json.Marshal(config.Process)
	if err != nil {
		return false, err
	}
	text, err := os.ReadFile(filepath.Join(c.bundleDir(), "config.json"))
	var then struct{ Process json.RawMessage }
	if err == nil {
		err = json.Unmarshal(text, &then)
	}
	return !bytes.Equal(now, then.Process), err
}

// killBy ends the run by the runtime. What version 1 of cgroups has frozen does not die before it goes on.
func (r *run) killBy(ctx context.Context) error {
	err := r.oci.Kill(ctx, r.id, unix.SIGKILL, false)
	if status, e := r.oci.State(ctx, r.id); e == nil && status == "paused" {
		err = errors.Join(err, r.oci.Resume(ctx, r.id))
	}
	p := r.job.Process()
	if ended(p) {
		return nil
	}
	if err != nil { // it is to end whatever the runtime thinks of it
		return p.Signal(unix.SIGKILL)
	}
	return nil
}

// hides says whether the processes are not among the host's.
func (r *run) hides() bool { return r.oci != nil && r.oci.Sandbox() }

// follow puts a process that has entered the container into the groups that the runtime has made, or ends it.
func (r *run) follow(parked *ns.Parked) error {
	p, err := ns.Open(parked.Pid)
	if err == nil {
		err = p.Follow(r.job.Process())
		p.Close()
	}
	if err != nil {
		parked.End()
	}
	return err
}

// send sends a signal to the first process.
func (r *run) send(ctx context.Context, sig unix.Signal) error {
	p := r.job.Process()
	if r.oci == nil {
		return p.Signal(sig)
	}
	err := r.oci.Kill(ctx, r.id, sig, false)
	if err != nil && ended(p) {
		return ns.ErrExited
	}
	return err
}

func (r *run) freeze(ctx context.Context) error {
	if r.oci != nil {
		return r.oci.Pause(ctx, r.id)
	}
	return r.group.Freeze(ctx)
}

func (r *run) thaw(ctx context.Context) error {
	if r.oci != nil {
		return r.oci.Resume(ctx, r.id)
	}
	return r.group.Thaw(ctx)
}

// agree makes the state what the runtime says, which may have been doing something when the last server died.
func (c *Ctr) agree(ctx context.Context, r *run) error {
	status, err := r.oci.State(ctx, c.id)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state(status) {
	case isRunning:
		if c.state = isRunning; r.started.IsZero() {
			r.started = time.Now()
		}
	case isPaused, isCreated:
		c.state = state(status)
	}
	return nil
}
