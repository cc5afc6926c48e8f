package ctr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
	"ctrfs/proc"
	"ctrfs/proc/ctr/oci"
)

// A run is one life of a container, from its creation to the end of its last process.
type run struct {
	job   *proc.Job     // its first process; nil if it could not be made
	group *ns.Group     // nil where this program may not make one: then only the pid name space holds it together
	oci   *oci.Runtime  // that makes and ends it; nil: we do
	id    string        // by which that knows it
	spec  ns.Spec       // what it is made of
	done  chan struct{} // closed when it is over and what follows is set

	started time.Time // guarded by Ctr.mu; zero: its program was never started
	ended   time.Time
	exit    ns.Exit
	failed  bool      // its program could not be started
	again   bool      // another is to follow it
	killed  time.Time // when it will be, if it has not ended; zero: not
	oom     oomWatch
	covers  map[string]*os.File // the files of proc that are written here
	tended  bool
	mounts  map[uint64]bool // that it has made by ccaps

	twist   ns.Twist
	asks    bool        // somebody hears its calls
	helping atomic.Bool // the helper runs because of reboot(2)
}

// failedCode is the status of a container whose program could not be started, as OCI runtimes have it.
const failedCode = 128

// park makes the container's name spaces, cgroup and root, and parks its first process. Who calls has the turn.
func (c *Ctr) park(ctx context.Context) error {
	c.mu.Lock()
	s, group := c.spec, c.group
	c.mu.Unlock()
	if s.runtime != "" {
		if file := s.ours(); file != "" {
			return fs.Err(unix.EOPNOTSUPP, "%s: the runtime %q makes the container, and has no such words", file, s.runtime)
		}
		return c.parkBy(ctx, s, "", nil)
	}
	group, err := c.fresh(ctx, group)
	if err != nil {
		return err
	}
	r := &run{group: group, done: make(chan struct{})}
	kills := r.oomKills()
	if err := c.clone(ctx, r, s); err != nil {
		if r.oomKills() > kills {
			err = fs.Err(unix.ENOMEM, "memory.max: too little to make the container")
		}
		if group != nil {
			group.Kill() // it is empty, unless the failure came late
			err = errors.Join(err, c.ungroup(context.WithoutCancel(ctx), group))
		}
		return err
	}
	c.mu.Lock()
	c.group = group
	c.mu.Unlock()
	c.begin(r, isCreated)
	c.watchOOM(r)
	c.set.ran(1)
	go c.watch(r)
	err = c.lend(ctx, r)
	if err == nil && s.flagged(persistent) {
		err = c.keepSpaces(r)
	}
	if err != nil {
		r.job.Process().Signal(unix.SIGKILL)
	}
	r.job.Ready()
	if err != nil {
		<-r.done
	}
	return err
}

// begin makes r the container's run in place of the one before.
func (c *Ctr) begin(r *run, s state) {
	c.mu.Lock()
	old := c.run
	c.load.add(0, time.Now())
	c.run, c.state = r, s
	if s == isCreated {
		c.spec.flags &^= stateInit
	}
	close(c.next)
	c.next = make(chan struct{})
	c.mu.Unlock()
	if err := c.saveWith(c.scratch.Files()); err != nil { // before what was there is dropped
		c.set.Log.Error("save", "ctr", c.Name(), "error", err)
	}
	if old != nil && old.job != nil {
		old.job.Unpin()
	}
}

// clone makes the first process in the run's group.
func (c *Ctr) clone(ctx context.Context, r *run, s spec) (fail error) {
	root, err := c.root(s.rootfs)
	if err != nil {
		return err
	}
	defer closeRoot(root)
	root.Scratch = &c.scratch
	if s.rootfs[0] == "image" && !c.scratch.Full() {
		if err := c.unpack(ctx, &s); err != nil {
			return fmt.Errorf("rootfs: %w", err)
		}
		defer func() {
			if fail != nil {
				c.scratch.Close()
			}
		}()
	}
	mounts, err := c.sources(s.mounts)
	if err != nil {
		return err
	}
	defer closeMounts(mounts)
	stdio, err := proc.NewStdio(c.account)
	if err != nil {
		return err
	}
	r.asks = s.asks(c.set.config().RawICMP)
	r.twist = s.twist(r.asks)
	r.spec = ns.Spec{
		Opt:        ns.Opt{Stdio: stdio.Child(), Flags: ns.CtrFlags, Cgroup: r.group},
		Hostname:   s.hostname,
		Domainname: s.domainname,
		Root:       root,
		Mounts:     mounts,
		ReadOnly:   s.readonly,
		NoNewPrivs: s.noNewPrivs,
		Caps:       s.caps,
		Filter:     ns.DefaultFilter(s.caps, r.twist),
	}
	if r.asks {
		r.spec.Heard = func(f *os.File) error { return c.hear(r, f) }
	}
	if s.flagged(virtUptime) {
		if r.spec.Boot, err = c.sinceMade(); err != nil {
			stdio.Close()
			return err
		}
	}
	if err = c.enterSpaces(&s, &r.spec); err == nil {
		err = c.joinSpaces(&r.spec)
	}
	if err != nil {
		closeSpaces(r.spec.Join)
		stdio.Close()
		return err
	}
	defer closeSpaces(r.spec.Join)
	if r.spec.Flags&unix.CLONE_NEWUSER != 0 {
		if r.spec.UidMap, r.spec.GidMap, err = idMaps(c.owner); err != nil {
			stdio.Close()
			return err
		}
	}
	parked, err := ns.Create(ctx, r.spec)
	r.spec.Stdio, r.spec.Root, r.spec.Mounts, r.spec.Join = [3]*os.File{}, ns.Root{}, nil, nil
	if err != nil {
		stdio.Close()
		return err
	}
	r.job, err = c.space.Start(parked, stdio, c.owner, func() { c.began(r) })
	if err != nil {
		return err
	}
	if err = c.prepare(ctx, r, &s, parked); err != nil {
		r.job.Process().Signal(unix.SIGKILL)
		r.job.Ready()
		r.job.Unpin()
	}
	return err
}

// prepare gives the first process what it needs beside its container.
func (c *Ctr) prepare(ctx context.Context, r *run, s *spec, parked *ns.Parked) error {
	if s.oom != nil {
		if err := parked.OOM(ctx, *s.oom); err != nil {
			return err
		}
	}
	for _, l := range s.rlimits {
		if err := r.job.Process().SetLimit(ctx, c.owner, l); err != nil {
			return fmt.Errorf("limit %s: %w", l.Name, err)
		}
	}
	if s.tty == nil {
		return nil
	}
	return r.job.Terminal(ctx, *s.tty)
}

// root opens the directories that the container's root is made of, as its owner.
func (c *Ctr) root(words []string) (root ns.Root, err error) {
	open := func(dir string) *os.File {
		var fd int
		if err == nil {
			if fd, err = ns.OpenAs(c.owner, dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC); err == nil {
				return os.NewFile(uintptr(fd), dir)
			}
			err = fmt.Errorf("rootfs %q: %w", dir, err)
		}
		return nil
	}
	switch words[0] {
	case "host", "image":
	case "overlay":
		for _, dir := range words[1:] {
			if f := open(dir); f != nil {
				root.Lower = append(root.Lower, f)
			}
		}
	default:
		root.Dir = open(words[0])
	}
	if err != nil {
		closeRoot(root)
	}
	return root, err
}

func closeRoot(root ns.Root) {
	for _, f := range append(root.Lower, root.Dir) {
		if f != nil {
			f.Close()
		}
	}
}

// launch starts the program, making the container first if need be. A failure leaves the container stopped.
func (c *Ctr) launch(ctx context.Context) error {
	if c.now() != isCreated {
		if err := c.park(ctx); err != nil {
			r := &run{done: make(chan struct{}), failed: true, ended: time.Now()}
			close(r.done)
			c.begin(r, isStopped)
			return err
		}
	}
	c.mu.Lock()
	r, s := c.run, c.spec
	c.mu.Unlock()
	err := error(nil)
	if s.flagged(scHelper) && r.started.IsZero() {
		err = c.help(ctx, "startup")
	}
	if err == nil && r.oci != nil {
		r, err = c.startBy(ctx, r, s)
	} else if err == nil {
		err = r.exec(ctx, s.withImage())
	}
	switch {
	case err == nil:
		return nil
	case err == fs.ErrInUse: // somebody else has made it a program
		return fmt.Errorf("cannot start a %s container", c.now())
	}
	c.mu.Lock()
	r.failed = true
	c.mu.Unlock()
	r.kill()
	<-r.done
	return err
}

// began notes that the program runs, whoever started it: start, or exec in proc/1/ctl.
func (c *Ctr) began(r *run) {
	c.mu.Lock()
	r.started = time.Now()
	if c.state == isCreated { // it may have ended already
		c.state = isRunning
	}
	c.spec.flags &^= stateSetup
	c.mu.Unlock()
	c.saved()
	c.tell("start", "pid="+strconv.Itoa(r.job.Process().Pid()))
}

// exec makes the parked first process the program.
func (r *run) exec(ctx context.Context, s spec) error {
	return r.job.Exec(ctx, s.args, s.env, func(parked *ns.Parked) error {
		user := ns.Cred{}
		if s.user != "" {
			root, err := os.Open(fmt.Sprintf("/proc/%d/root", parked.Pid)) // it cannot end: we have it
			if err != nil {
				return err
			}
			defer root.Close()
			if user, err = proc.FindUser(root, s.user); err != nil {
				return err
			}
		}
		final := r.spec
		final.User, final.Cwd = user, s.cwd
		parked.Finish(final)
		return nil
	})
}

// watch waits for the end of the container: of its first process, and so of all in its pid name space.
func (c *Ctr) watch(r *run) {
	p := r.job.Process()
	exit, err := ns.Wait(context.Background(), p)
	if err != nil {
		exit = ns.Exit{User: -1, Sys: -1, Real: -1}
	}
	c.endOOM(r)
	c.told(exit)
	if r.group != nil {
		// All that it started ended before it: who is there still was put there from outside. A group that was ever
		// killed takes nobody any more; else it stays for the next run, with the memory that the scratch layer has.
		if there, err := r.group.Populated(); there || err != nil {
			r.group.Kill()
		}
		if _, err := r.group.Dir(); err != nil {
			if err := c.ungroup(context.Background(), r.group); err != nil {
				c.set.Log.Error("remove cgroup", "ctr", c.Name(), "error", err)
			}
		}
	}
	r.job.Over()
	c.space.Told()
	c.mu.Lock()
	r.exit, r.ended = exit, time.Now()
	if !exit.At.IsZero() {
		r.ended = exit.At
	}
	c.state = isStopped
	code := r.code()
	c.mu.Unlock()
	c.saved()
	c.tell("exit", "pid="+strconv.Itoa(p.Pid()), "status="+code)
	c.set.ran(-1)
	close(r.done)
}

// Close ends all containers and waits until nothing is left of them: without this program nobody would know of them.
func (cs *Containers) Close(ctx context.Context) error {
	all := cs.all()
	for _, c := range all {
		select {
		case c.turn <- struct{}{}: // no verb from now on
		case <-ctx.Done():
			return ctx.Err()
		}
		if r, err := c.current(); err == nil {
			r.kill() // it is waited for below
		}
	}
	var errs []error
	for _, c := range all {
		c.mu.Lock()
		r := c.run
		c.mu.Unlock()
		if r != nil {
			select {
			case <-r.done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := c.free(ctx); err != nil {
			errs = append(errs, fmt.Errorf("container %q: %w", c.Name(), err))
		}
		c.mu.Lock()
		c.gone = true
		c.mu.Unlock()
		<-c.turn // for a restart that waits for it
	}
	cs.forks.close()
	cs.Cgroups.Close()
	return errors.Join(errs...)
}
