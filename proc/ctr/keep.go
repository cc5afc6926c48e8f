package ctr

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
	"ctrfs/proc"
	"ctrfs/proc/ctr/image"
)

// The keeper holds a text of each container, and its scratch layer, for the server that comes after this one. What it has to
// know is said before anybody is answered. A container that is found half made is what it was before.

// keptCtr is a container as the keeper has it.
type keptCtr struct {
	ID    string
	Qid   uint64
	Owner ns.Cred
	Made  time.Time
	Name  string
	Xid   uint32
	State state
	Spec  keptSpec
	Wrong string   `json:",omitempty"` // with the last config.json
	Forks uint64   `json:",omitempty"`
	Fresh bool     `json:",omitempty"` // nobody has said that he wants it
	Bound bool     `json:",omitempty"` // it is killed with the connection of who made it
	Run   *keptRun `json:",omitempty"`
	Files []string // of the scratch layer
}

// keptRun is the present run, or the last.
type keptRun struct {
	Job            string // "" if its first process could not be made
	Started, Ended time.Time
	Failed, Again  bool      `json:",omitempty"`
	Kill           time.Time // when it is killed, if it has not ended
	OOM            uint64    `json:",omitempty"`

	// What it is made of, and what enters it will be, whatever the next run is.
	Flags          uint64
	Caps           ns.CapSet
	NoNewPrivs     bool          `json:",omitempty"`
	UidMap, GidMap string        `json:",omitempty"`
	Boot           time.Duration `json:",omitempty"`
	Twist          ns.Twist      `json:",omitempty"`
	Asks           bool          `json:",omitempty"`
	Mounts         []uint64      `json:",omitempty"`
}

// keptSpec is a spec.
type keptSpec struct {
	Args, Env            []string
	Cwd, User            string
	Hostname, Domainname string
	Rootfs               []string
	Caps                 ns.CapSet
	Spaces               map[string]string
	Limits, Labels       [][2]string
	Mounts               [][4]string
	TTY                  *ns.Winsize
	NoNewPrivs, Readonly bool          `json:",omitempty"`
	OOM                  *int          `json:",omitempty"`
	Rlimits              []ns.Limit    `json:",omitempty"`
	Bundle               string        `json:",omitempty"`
	Runtime              string        `json:",omitempty"`
	Image                *image.Config `json:",omitempty"`
	Flags, Ccaps         uint64
	Names                map[string]string `json:",omitempty"`
	Helper               []string          `json:",omitempty"`
	Loop                 string            `json:",omitempty"`
}

func (s *spec) kept() keptSpec {
	k := keptSpec{
		Args: s.args, Env: s.env, Cwd: s.cwd, User: s.user, Hostname: s.hostname, Domainname: s.domainname,
		Rootfs: s.rootfs, Caps: s.caps, Spaces: s.spaces, TTY: s.tty,
		NoNewPrivs: s.noNewPrivs, Readonly: s.readonly, OOM: s.oom, Rlimits: s.rlimits, Bundle: s.bundle, Runtime: s.runtime, Image: s.image,
		Flags: s.flags, Ccaps: s.ccaps, Names: s.names, Helper: s.helper, Loop: s.loop,
	}
	for _, l := range s.limits {
		k.Limits = append(k.Limits, [2]string{l.word, l.value})
	}
	for _, l := range s.labels {
		k.Labels = append(k.Labels, [2]string{l.key, l.value})
	}
	for _, m := range s.mounts {
		k.Mounts = append(k.Mounts, [4]string{m.kind, m.source, m.target, m.options})
	}
	return k
}

func (k *keptSpec) spec() spec {
	s := spec{
		args: k.Args, env: k.Env, cwd: k.Cwd, user: k.User, hostname: k.Hostname, domainname: k.Domainname,
		rootfs: k.Rootfs, caps: k.Caps, spaces: k.Spaces, tty: k.TTY,
		noNewPrivs: k.NoNewPrivs, readonly: k.Readonly, oom: k.OOM, rlimits: k.Rlimits, bundle: k.Bundle, runtime: k.Runtime, image: k.Image,
		flags: k.Flags, ccaps: k.Ccaps, names: k.Names, helper: k.Helper, loop: k.Loop,
	}
	for _, l := range k.Limits {
		s.limits = append(s.limits, limit{l[0], l[1]})
	}
	for _, l := range k.Labels {
		s.labels = append(s.labels, label{l[0], l[1]})
	}
	for _, m := range k.Mounts {
		s.mounts = append(s.mounts, mount{m[0], m[1], m[2], m[3]})
	}
	return s
}

const ctrPrefix = "ctr "

// kept is called with the lock.
func (c *Ctr) kept() keptCtr {
	k := keptCtr{
		ID: c.id, Qid: c.qid, Owner: c.owner, Made: c.made, Name: c.name, Xid: c.xid, State: c.state, Spec: c.spec.kept(),
		Forks: c.forks, Fresh: c.unwritten, Bound: c.bound, Files: c.files,
	}
	if c.refused != nil {
		k.Wrong = c.refused.Error()
	}
	if r := c.run; r != nil {
		k.Run = &keptRun{
			Started: r.started, Ended: r.ended, Failed: r.failed, Again: r.again, Kill: r.killed, OOM: r.oom.kills,
			Flags: r.spec.Flags, Caps: r.spec.Caps, NoNewPrivs: r.spec.NoNewPrivs, UidMap: r.spec.UidMap, GidMap: r.spec.GidMap,
			Boot: r.spec.Boot, Twist: r.twist, Asks: r.asks, Mounts: r.mountIDs(),
		}
		if r.job != nil {
			k.Run.Job = r.job.Name()
		}
	}
	return k
}

// save tells the keeper what is new, but nothing of a container that is gone.
func (c *Ctr) save() error { return c.saveWith(nil, nil) }

// saveWith gives it the scratch layer too.
func (c *Ctr) saveWith(root, user *os.File) error {
	keeper := c.set.Processes.Keeper
	if keeper == nil {
		return nil
	}
	c.saving.Lock()
	defer c.saving.Unlock()
	c.mu.Lock()
	var files []*os.File
	if root != nil {
		c.files, files = []string{"root"}, []*os.File{root}
		if user != nil {
			c.files, files = append(c.files, "user"), append(files, user)
		}
	}
	text, err := json.Marshal(c.kept()) // now: what is in it may change
	gone := c.gone
	c.mu.Unlock()
	if err != nil || gone {
		return err
	}
	return keeper.Hold(ctrPrefix+c.id, nil, false, json.RawMessage(text), files...)
}

// saved is save where nobody could be told of an error, which is that this program is about to end.
func (c *Ctr) saved() {
	if err := c.save(); err != nil {
		c.set.Log.Error("save", "ctr", c.Name(), "error", err)
	}
}

// unsave makes the keeper forget a container that is gone.
func (c *Ctr) unsave() {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.set.Processes.Keeper.Drop(ctrPrefix + c.id)
}

// Again takes over what the keeper holds of the containers that earlier servers made, and of the processes in and outside
// of them. Errors of single ones are logged.
func (cs *Containers) Again(accounts *fs.Accounts, machine *proc.Space) {
	all := map[string]*Ctr{}
	runs := map[string]*keptCtr{}
	for _, h := range cs.Processes.Keeper.Held() {
		if !strings.HasPrefix(h.Name, ctrPrefix) {
			continue
		}
		c, k, err := cs.again(h, accounts)
		if err != nil {
			cs.Log.Error("take up", "held", h.Name, "error", err)
			continue
		}
		all[c.id], runs[c.id] = c, k
	}
	pinned, err := cs.Processes.Again(accounts, func(id string) (*proc.Space, func()) {
		if id == "" {
			return machine, nil
		}
		c := all[id]
		if c == nil {
			return nil, nil
		}
		return c.space, func() {
			c.mu.Lock()
			r := c.run
			c.mu.Unlock()
			c.began(r)
		}
	})
	if err != nil {
		cs.Log.Error("take up", "error", err)
	}
	cs.takeSpaces(all)
	for id, c := range all {
		if err := c.goOn(runs[id], pinned[id]); err != nil {
			cs.Log.Error("take up", "ctr", c.Name(), "error", err)
		}
	}
	cs.hearAgain(all)
}

// again makes a container of what is held, without its run.
func (cs *Containers) again(h *ns.Held, accounts *fs.Accounts) (*Ctr, *keptCtr, error) {
	k := new(keptCtr)
	if err := json.Unmarshal(h.Text, k); err != nil {
		return nil, nil, err
	}
	if len(k.Files) != len(h.Files) {
		return nil, nil, errors.New("incomplete")
	}
	c := &Ctr{
		set: cs, id: k.ID, qid: k.Qid, owner: k.Owner, account: accounts.Of(k.Owner.Uid), made: k.Made,
		turn: make(chan struct{}, 1), next: make(chan struct{}), load: load{last: time.Now()},
		name: k.Name, xid: k.Xid, state: k.State, spec: k.Spec.spec(), forks: k.Forks, unwritten: k.Fresh, bound: k.Bound, files: k.Files,
	}
	if k.Wrong != "" {
		c.refused = errors.New(k.Wrong)
	}
	if c.account.Take(fs.Descriptors, filesEach) != nil { // it may not be too much now that it is there
		c.account = nil
	}
	var root, user *os.File
	for i, name := range k.Files {
		switch name {
		case "root":
			root = h.Files[i]
		case "user":
			user = h.Files[i]
		}
	}
	c.scratch.Restore(root, user)
	c.space = c.members()
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.begin()
	cs.names[c.name], cs.xids[c.xid], cs.ids[c.id] = c, c, c
	return c, k, nil
}

// goOn finds the container's run again among the jobs that are held for it, and ends what is half made.
func (c *Ctr) goOn(k *keptCtr, jobs []*proc.Job) error {
	ctx := context.Background()
	group, err := c.set.Cgroups.OpenGroup(c.id)
	if err != nil { // its pid name space is what holds it together then
		group = nil
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPerm) {
			c.set.Log.Error("take up", "ctr", c.Name(), "error", err)
		}
	}
	var r *run
	if k.Run != nil {
		r = &run{
			group: group, done: make(chan struct{}), started: k.Run.Started, ended: k.Run.Ended,
			oci: c.by(&c.spec), id: c.id, failed: k.Run.Failed, again: k.Run.Again, killed: k.Run.Kill, exit: ns.Exit{User: -1, Sys: -1, Real: -1},
			twist: k.Run.Twist, asks: k.Run.Asks,
		}
		r.made(k.Run.Mounts...)
		r.oom.kills = k.Run.OOM
		r.spec = ns.Spec{
			Opt:    ns.Opt{Flags: k.Run.Flags, Cgroup: group},
			UidMap: k.Run.UidMap, GidMap: k.Run.GidMap, Caps: k.Run.Caps, NoNewPrivs: k.Run.NoNewPrivs, Filter: ns.DefaultFilter(k.Run.Caps, r.twist),
			Boot: k.Run.Boot,
		}
		if r.asks {
			r.spec.Heard = func(f *os.File) error { return c.hear(r, f) }
		}
	}
	for _, j := range jobs { // at most one more than it has: that of a run that was only begun, or of the last
		if r != nil && j.Name() == k.Run.Job {
			r.job = j
			continue
		}
		j.Process().Signal(unix.SIGKILL) // fails only where it has ended
		j.Over()
		j.Unpin()
	}
	if r != nil && r.job == nil {
		r.failed = true
	}
	alive := r != nil && r.job != nil && k.State != isNew && k.State != isStopped
	if r != nil && !alive {
		if r.job != nil {
			r.exit, _ = ns.Exited(r.job.Process())
		}
		close(r.done)
	}
	c.mu.Lock()
	c.group, c.run = group, r
	if !alive && c.state != isNew {
		c.state = isStopped
	}
	c.mu.Unlock()
	if group != nil {
		if err := c.tidy(ctx, group, alive); err != nil {
			return err
		}
	}
	if alive && r.oci != nil {
		if err := c.agree(ctx, r); err != nil {
			return err
		}
	}
	if alive {
		c.live(r)
	}
	switch {
	case c.bound:
		return c.killall(ctx, nil) // the connection is lost
	case c.unwritten && c.now() == isNew:
		return c.delete(ctx, nil) // likewise
	case r != nil && r.again:
		go c.rerun(r)
	}
	return nil
}

// tidy makes the group of a container what it should be.
func (c *Ctr) tidy(ctx context.Context, group *ns.Group, alive bool) error {
	if !alive {
		there, err := group.Populated()
		if err != nil {
			return err
		}
		if there { // of a run that was only begun
			if err := group.Kill(); err != nil {
				return err
			}
		}
		if _, err := group.Dir(); err != nil {
			return c.ungroup(ctx, group)
		}
	}
	c.set.forks.begin(c.set, group)
	frozen, err := group.Frozen()
	if err != nil {
		return err
	}
	c.mu.Lock()
	paused := alive && c.state == isPaused
	if paused && !frozen { // it was just resumed
		c.state = isRunning
	}
	c.mu.Unlock()
	if frozen && !paused { // it was just being paused, or a signal sent to all
		return group.Thaw(ctx)
	}
	return nil
}

// live goes on with a run.
func (c *Ctr) live(r *run) {
	r.job.Finish(func(user ns.Cred) ns.Spec {
		s := r.spec
		s.User = user
		return s
	})
	_, ended := ns.Exited(r.job.Process())
	c.mu.Lock()
	if c.state == isCreated && r.oci == nil && !r.job.Waits() && !ended { // its program had begun, and nobody was told yet
		c.state, r.started = isRunning, time.Now()
	}
	c.mu.Unlock()
	if !r.killed.IsZero() {
		r.killAt(time.Until(r.killed))
	}
	c.watchOOM(r)
	c.set.ran(1)
	go c.watch(r)
	if err := c.coverAll(context.Background(), r); err != nil && !ended {
		c.set.Log.Error("take up", "ctr", c.Name(), "error", err)
	}
}
