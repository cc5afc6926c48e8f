package ctr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
	"ctrfs/proc"
)

// members is the processes of the container, numbered as it numbers them.
func (c *Ctr) members() *proc.Space {
	uid, gid := c.Owner()
	mode := fs.FileMode(0600) // what is made inside has what the container has
	if c.shared() {
		mode = c.set.mode(mode)
	}
	return &proc.Space{
		Processes: c.set.Processes,
		Name:      c.Name,
		ID:        c.id,
		Pids:      c.pids,
		Park:      c.enter,
		Inside:    c.inside,
		Outside:   c.outside,
		All:       c.may,
		Become:    c.become,
		Awake:     c.awake,
		Look:      c.seen,
		Of:        c.qid,
		Uid:       uid,
		Gid:       gid,
		Clone:     mode,
	}
}

// seen says whether a client who is the container's owner may look into one of its processes: if root of its user namespace
// may. The kernel takes that for the server's, who has made it: one who owned it could enter it without what limits the
// container, and take away what is mounted over the host's secrets.
func (c *Ctr) seen(ctx context.Context, p *ns.Process) error {
	r, err := c.current()
	if err != nil {
		return err
	}
	if !c.may(fs.ClientOf(ctx)) || r.spec.Flags&unix.CLONE_NEWUSER == 0 {
		return fs.ErrPerm
	}
	return ns.SeenInside(ctx, p, r.job.Process())
}

// pids are the processes as the host counts.
func (c *Ctr) pids(context.Context) ([]int, error) {
	r, err := c.current()
	if err == errNotRunning {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.pids()
}

// pids are the processes of the run: of its group, or of its pid name space.
func (r *run) pids() (list []int, err error) {
	if r.group != nil {
		return r.group.Procs()
	}
	if r.hides() {
		return []int{r.job.Process().Pid()}, nil
	}
	space, err := r.job.Process().Namespace("pid")
	if err != nil {
		return nil, err
	}
	all, err := ns.Pids(ns.Cred{Uid: uint32(os.Geteuid())})
	if err != nil {
		return nil, err
	}
	for _, pid := range all {
		p, err := ns.Open(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue // ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		if n, err := p.Namespace("pid"); err == nil && n == space {
			list = append(list, pid)
		}
		p.Close()
	}
	return list, nil
}

// enter parks a process that has what the first one has.
func (c *Ctr) enter(ctx context.Context, o ns.Opt) (*ns.Parked, error) {
	r, done, err := c.open()
	if err != nil {
		return nil, err
	}
	defer done()
	pidfd, err := r.job.Process().Dup()
	if err != nil {
		return nil, err
	}
	defer unix.Close(pidfd)
	if r.hides() {
		return nil, fs.Err(unix.EOPNOTSUPP, "clone: %s hides the processes", r.oci.Name())
	}
	s := r.spec
	s.Stdio = o.Stdio
	s.User = ns.Cred{}
	if s.Flags&unix.CLONE_NEWUSER == 0 { // in one its owner is root
		s.User = *o.Cred
	}
	if s.Heard != nil {
		s.Heard = func(f *os.File) error { return c.hear(r, f) }
	}
	parked, err := ns.Enter(ctx, pidfd, s)
	if err == nil && r.oci != nil {
		err = r.follow(parked)
	}
	if err != nil || !c.flagged(infoUlimit) {
		return parked, err
	}
	if err := c.limitParked(ctx, parked); err != nil {
		parked.End()
		return nil, err
	}
	return parked, nil
}

// open gives the run to which a process can be added, until done is called.
func (c *Ctr) open() (r *run, done func(), err error) {
	if r, err = c.current(); err == nil {
		if err := c.closed(); err != nil {
			return nil, nil, err
		}
		if done, err = c.awake(); err == nil {
			return r, done, nil
		}
	}
	if s := c.now(); err != errNoCtr && s != isCreated && s != isRunning {
		err = fmt.Errorf("cannot clone in a %s container", s)
	}
	return nil, nil, err
}

// become makes a parked process that has entered run its program as user, in the container's numbers.
func (c *Ctr) become(parked *ns.Parked, user ns.Cred) error {
	r, err := c.current()
	if err != nil {
		return err
	}
	s := r.spec
	s.User = user
	parked.Finish(s)
	return nil
}

// inside is the number that the container gives to a process that is in it.
func (c *Ctr) inside(p *ns.Process) int {
	st, err := p.Status()
	if err != nil || len(st.NSPid) < 2 {
		return 0
	}
	return st.NSPid[1] // the container's name space lies right below the server's
}

// outside finds the process that the container gives a number.
func (c *Ctr) outside(ctx context.Context, n int) (int, error) {
	r, err := c.current()
	if err != nil {
		return 0, nil
	}
	if n == 1 {
		return r.job.Process().Pid(), nil
	}
	pids, err := r.pids()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		p, err := ns.Open(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue // ended meanwhile
		}
		if err != nil {
			return 0, err
		}
		in := c.inside(p)
		p.Close()
		if in == n {
			return pid, nil
		}
	}
	return 0, nil
}

// output opens an output of the last run.
func (c *Ctr) output(which func(*proc.Stdio) *fs.Log) (fs.Handle, error) {
	stdio, err := c.stdio()
	if err != nil {
		return nil, err
	}
	return which(stdio).Open(false), nil
}

func (c *Ctr) stdio() (*proc.Stdio, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone:
		return nil, errNoCtr
	case c.run == nil || c.run.job == nil:
		return nil, errNotRunning
	}
	return c.run.job.Stdio(), nil
}

func (c *Ctr) openStdout(context.Context, fs.How) (fs.Handle, error) {
	return c.output(func(s *proc.Stdio) *fs.Log { return s.Out })
}

func (c *Ctr) openStderr(context.Context, fs.How) (fs.Handle, error) {
	return c.output(func(s *proc.Stdio) *fs.Log { return s.Err })
}

func (c *Ctr) openStdin(context.Context, fs.How) (fs.Handle, error) {
	stdio, err := c.stdio()
	if err != nil {
		return nil, err
	}
	return stdio.In.Open()
}

// Present tells of the containers that are there.
func (cs *Containers) Present() (list []fs.Event) {
	for _, c := range cs.all() {
		list = append(list, c.present())
	}
	return list
}

func (c *Ctr) present() fs.Event {
	return c.event("present", "state="+string(c.now()))
}

// Of says in which container a process runs: in the one whose id is in the path of its cgroup. If that hides it, it tells its owner
// only.
func (cs *Containers) Of(ctx context.Context, p *ns.Process) (name string, xid uint32) {
	c := cs.of(p)
	if c == nil {
		return "", 0
	}
	his := c.may(fs.ClientOf(ctx))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spec.flagged(hideVinfo|infoHide) && !his {
		return "", 0
	}
	return c.name, c.xid
}

// Open says whether the process may be joined: what runs in no container of ours may, as far as the kernel lets the client.
func (cs *Containers) Open(p *ns.Process) error {
	if c := cs.of(p); c != nil {
		return c.closed()
	}
	return nil
}

func (cs *Containers) of(p *ns.Process) *Ctr {
	groups, err := p.Cgroups()
	if err != nil {
		return nil
	}
	for _, g := range groups {
		for part := range strings.SplitSeq(g.Path, "/") {
			cs.mu.Lock()
			c := cs.ids[part]
			cs.mu.Unlock()
			if c != nil {
				return c
			}
		}
	}
	return nil
}

// First is the first process of a container, for its owner to join: until done is called pause waits.
func (cs *Containers) First(ctx context.Context, name string) (first *ns.Process, done func(), err error) {
	c, err := cs.find(name)
	if err != nil {
		return nil, nil, fmt.Errorf("no such container: %q", name)
	}
	if !c.may(fs.ClientOf(ctx)) {
		return nil, nil, fmt.Errorf("container %q: %w", name, fs.ErrPerm)
	}
	if done, err = c.awake(); err != nil {
		return nil, nil, err
	}
	if first, err = c.first(); err != nil {
		done()
		return nil, nil, err
	}
	return first, done, nil
}

// first is the first process of its run.
func (c *Ctr) first() (*ns.Process, error) {
	r, err := c.current()
	if err == nil {
		err = c.closed()
	}
	if err != nil {
		return nil, err
	}
	fd, err := r.job.Process().Dup()
	if err != nil {
		return nil, err
	}
	return ns.FromFD(fd)
}

// has says whether the process is in the run's group, or pid name space.
func (r *run) has(p *ns.Process) (bool, error) {
	if r.group == nil {
		a, err := p.Namespace("pid")
		b, e := r.job.Process().Namespace("pid")
		return a == b && err == nil && e == nil, cmp.Or(err, e)
	}
	groups, err := p.Cgroups()
	if err != nil {
		return false, err
	}
	for _, g := range groups {
		if rest, ok := strings.CutPrefix(g.Path, r.group.Path()); ok && (rest == "" || rest[0] == '/') {
			return true, nil
		}
	}
	return false, nil
}
