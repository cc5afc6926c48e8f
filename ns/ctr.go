package ns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// CtrFlags are the namespaces that a container has as a rule.
const CtrFlags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// Spec says what a container is. Opt.Flags are its namespaces, NEWNS and NEWPID always among
// them; with NEWUSER the maps are needed. What is not said is not given: no capability, no
// filter, no mount but its own proc, sys and dev.
type Spec struct {
	Opt
	Join           []Namespace // those of Flags that are not new; with NEWUSER only what belongs to the kept user namespace
	UidMap, GidMap string      // lines of /proc/PID/uid_map, see user_namespaces(7)

	Hostname, Domainname string // with NEWUTS

	Boot time.Duration // added to the time since boot, by a time namespace; 0: there is none

	Root     Root
	Mounts   []Mount
	ReadOnly bool // the root, not what is mounted in it

	Caps       CapSet            // the bounding set of all in the container, and what its root has
	NoNewPrivs bool              // see prctl(2)
	Filter     []unix.SockFilter // of system calls, see seccomp(2); nil: none
	// Heard, if not nil, gets what Filter is listened to by, before the program runs; see NewListener.
	Heard func(*os.File) error
	User  Cred   // who its program runs as, in the container's numbers
	Cwd   string // where; "" is where it waits

	probe func(*Plan) // for the benchmark that times the steps
}

// A Namespace is one that is there already.
type Namespace struct {
	Kind string // see Kinds
	File *os.File
}

// join enters the namespaces that are there already. Of those build is to do nothing.
func (s *Spec) join(p *Plan) {
	for _, n := range s.Join {
		fd := p.Send(int(n.File.Fd()))
		p.Do("setns "+n.Kind, unix.SYS_SETNS, fd, kindFlag(n.Kind))
		p.Do("close", unix.SYS_CLOSE, fd)
		s.Flags &^= kindFlag(n.Kind)
	}
}

// Create makes a container of one process, which waits: its pid 1. Nothing of the user's has
// run. Its mounts are in its own mount namespace only, and go with its last process; so does its
// scratch layer, unless s.Root.Scratch keeps it.
//
// Without root, with NEWUSER, it has what the kernel allows an ordinary user: his own uid alone.
func Create(ctx context.Context, s Spec) (*Parked, error) {
	s.Flags |= unix.CLONE_NEWNS | unix.CLONE_NEWPID
	root, err := s.plan(ctx)
	if err != nil {
		return nil, err
	}
	// The clone has no other namespaces yet: a cgroup namespace begins where its process is when it is made, and a thread of
	// ours waits for the clone, though somebody else may keep a network namespace waiting.
	o := s.Opt
	o.Flags &= unix.CLONE_NEWPID
	if root.user {
		o.Flags = 0
	}
	p, err := o.start(ctx)
	if err != nil {
		return nil, err
	}
	plan := &Plan{}
	if root.user {
		if err := p.makeUserNS(ctx, &s); err != nil {
			p.End()
			return nil, err
		}
	} else {
		plan.begin(&s.Opt)
		s.join(plan)
		if root.void == nil {
			plan.Do("unshare", unix.SYS_UNSHARE, s.Flags&^unix.CLONE_NEWPID)
		}
	}
	s.build(plan, root)
	if s.probe != nil {
		s.probe(plan)
	}
	err = p.Run(ctx, plan)
	s.Root.Scratch.keep(plan.given)
	runtime.KeepAlive(s)
	if err != nil {
		if root.kept && plan.given == nil {
			err = errors.Join(err, p.save(ctx, s.Root.Scratch, plan, root, err))
		}
		p.End()
		return nil, err
	}
	if s.Boot != 0 {
		if err := p.setBoot(ctx, s.Boot); err != nil {
			p.End()
			return nil, err
		}
	}
	p.Finish(s)
	return p, nil
}

// save sees to the scratch layer that p was given and has not given back when its plan failed. Mounted, it goes with p: it is
// given back now. What went with a process that was killed before it could give it back cannot be mounted again.
func (p *Parked) save(ctx context.Context, s *Scratch, failed *Plan, root *rootPlan, why error) (err error) {
	at, later := failed.failed(root.back)
	lost := at && errors.Is(why, unix.EINVAL)
	if later {
		plan := &Plan{}
		plan.giveRoot(root.root.Result())
		err = p.Run(ctx, plan)
		s.keep(plan.given)
		lost = plan.given == nil
	}
	if lost {
		s.Close()
		err = errors.Join(err, errors.New("scratch layer is lost"))
	}
	return err
}

// build is the whole of a container between its clone and its parking.
func (s *Spec) build(plan *Plan, root *rootPlan) {
	plan.Do("umask", unix.SYS_UMASK, 0)
	if root.void == nil {
		plan.Do("make mounts private", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)
	}
	t := root.mount(plan)
	t.proc(plan)
	t.sys(plan, s)
	t.dev(plan)
	for i, m := range s.Mounts {
		t.user(plan, m, t.binds[i])
	}
	if s.ReadOnly {
		for _, m := range t.parts {
			plan.setattr("make the root read-only", m, unix.MOUNT_ATTR_RDONLY)
		}
	}
	plan.Do("fchdir", unix.SYS_FCHDIR, t.root)
	if root.void != nil {
		plan.Do("chroot", unix.SYS_CHROOT, ".")
	} else {
		plan.pivot()
	}
	plan.Do("chdir \"/\"", unix.SYS_CHDIR, "/")
	plan.Do("umask", unix.SYS_UMASK, 022)
	if s.Flags&unix.CLONE_NEWUTS != 0 {
		if s.Hostname != "" {
			plan.Do(fmt.Sprintf("sethostname %q", s.Hostname), unix.SYS_SETHOSTNAME, s.Hostname, len(s.Hostname))
		}
		plan.Do(fmt.Sprintf("setdomainname %q", s.Domainname), unix.SYS_SETDOMAINNAME, s.Domainname, len(s.Domainname))
	}
	if s.Flags&unix.CLONE_NEWNET != 0 {
		plan.loopback()
	}
	plan.Do("setsid", unix.SYS_SETSID)
	plan.bound(s.Caps)
	plan.Do("close_range", unix.SYS_CLOSE_RANGE, 4, uint64(^uint32(0)), 0)
}

// Enter makes a process that waits inside a running container: the one of the process pidfd,
// made of s, whose namespaces, root, cgroup, bounding set, no_new_privs and filter it gets. s.Stdio,
// s.User and s.Cwd are its own. The container's root cannot see into it before its program runs.
func Enter(ctx context.Context, pidfd int, s Spec) (*Parked, error) {
	o := s.Opt
	o.Flags, o.PidNS = 0, pidfd
	flags := s.Flags | unix.CLONE_NEWNS
	if s.Boot != 0 {
		flags |= unix.CLONE_NEWTIME
	}
	user := s.Flags&unix.CLONE_NEWUSER != 0
	// Without root it has the right to a pid namespace only when it is in the user namespace, and
	// that it enters by a child. That one is in all others already, so there is nothing to be seen in it.
	rootless := user && os.Geteuid() != 0
	if rootless {
		o.PidNS = 0
		flags |= unix.CLONE_NEWPID
		s.Opt.unguarded = true // setns wants the same right as looking into the first process has
	} else {
		flags &^= unix.CLONE_NEWPID
	}
	p, err := o.start(ctx)
	if err != nil {
		return nil, err
	}
	plan := &Plan{}
	plan.begin(&s.Opt)
	plan.Do("setns", unix.SYS_SETNS, plan.Send(pidfd), flags)
	if rootless {
		if err := p.split(ctx, plan); err != nil {
			p.End()
			return nil, err
		}
		plan = &Plan{}
	} else if user {
		plan.Become(Cred{})
	}
	plan.Do("setpgid", unix.SYS_SETPGID, 0, 0)
	plan.bound(s.Caps)
	plan.Do("close_range", unix.SYS_CLOSE_RANGE, 4, uint64(^uint32(0)), 0)
	err = p.Run(ctx, plan)
	runtime.KeepAlive(s)
	if err != nil {
		p.End()
		return nil, err
	}
	p.Finish(s)
	return p, nil
}

// makeUserNS gives a process that has just started a user namespace and makes it anew as pid 1 of
// the others: those of the clone would belong to the server's user namespace, and a pid namespace
// is entered by children only.
func (p *Parked) makeUserNS(ctx context.Context, s *Spec) error {
	plan := &Plan{}
	root := os.Geteuid() == 0
	// Guarded, /proc's files of it would be root's: that of the maps, and the one by which an ordinary
	// user enters later. He may look into all that is his anyway.
	s.Opt.unguarded = s.Opt.unguarded || !root
	plan.begin(&s.Opt)
	if old := s.Root.Scratch; old.full() && old.user != nil {
		plan.Do("setns user", unix.SYS_SETNS, plan.Send(int(old.user.Fd())), unix.CLONE_NEWUSER)
		if err := p.Run(ctx, plan); err != nil {
			return err
		}
	} else {
		plan.Do("unshare user", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
		if err := p.Run(ctx, plan); err != nil {
			return err
		}
		if err := p.mapIDs(s, root); err != nil {
			return err
		}
	}
	plan = &Plan{}
	if root {
		plan.guard()
		plan.Become(Cred{})
	}
	s.join(plan)
	plan.Do("unshare", unix.SYS_UNSHARE, s.Flags&^unix.CLONE_NEWUSER)
	return p.split(ctx, plan)
}

// mapIDs says which ids the user namespace that p is in has, and keeps it where the scratch layer is kept.
func (p *Parked) mapIDs(s *Spec, root bool) error {
	proc := "/proc/" + strconv.Itoa(p.Pid) + "/"
	files := [][2]string{{"uid_map", s.UidMap}, {"gid_map", s.GidMap}}
	if !root { // who may not call setgroups outside must not inside
		files = append([][2]string{{"setgroups", "deny"}}, files...)
	}
	for _, f := range files {
		if err := os.WriteFile(proc+f[0], []byte(f[1]), 0); err != nil {
			var e *fs.PathError
			errors.As(err, &e)
			return fmt.Errorf("%s %q: %w", f[0], f[1], e.Err)
		}
	}
	if s.Root.Scratch == nil {
		return nil
	}
	f, err := os.Open(proc + "ns/user")
	if err != nil {
		return err
	}
	if old := s.Root.Scratch.user; old != nil {
		old.Close()
	}
	s.Root.Scratch.user = f
	return nil
}

// split runs the plan and, in its place, goes on with a child of p's parent. The old process and
// the new one both answer: the new one waits, so that it cannot be gone before there is a pidfd of it.
func (p *Parked) split(ctx context.Context, plan *Plan) error {
	clone := plan.Do("clone3", unix.SYS_CLONE3, []any{unix.CLONE_PARENT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 88).Split()
	pid := 0
	if err := p.run(ctx, plan, func() error {
		for range 2 {
			if err := p.receive(plan); err != nil {
				return err
			}
			pid = max(pid, clone.Result())
		}
		return nil
	}); err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	if p.child {
		waitEnd(p.Pidfd)
	}
	unix.Close(p.Pidfd)
	p.Pid, p.Pidfd = pid, fd
	return nil
}

// atExec is what is left for the last moment: what it takes away, the steps before it need.
func (s *Spec) atExec() *Plan {
	p := &Plan{}
	if s.Cwd != "" {
		// /proc/self/fd/N would lead out of the root.
		d := p.open(unix.AT_FDCWD, s.Cwd, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_MAGICLINKS)
		p.Do(fmt.Sprintf("chdir %q", s.Cwd), unix.SYS_FCHDIR, d)
	}
	if s.NoNewPrivs {
		p.Do("prctl PR_SET_NO_NEW_PRIVS", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	if len(s.Filter) > 0 { // while it has CAP_SYS_ADMIN, which it needs without no_new_privs
		f := make([]byte, 0, 8*len(s.Filter))
		for _, i := range s.Filter {
			f = append(le.AppendUint16(f, i.Code), i.Jt, i.Jf)
			f = le.AppendUint32(f, i.K)
		}
		flags := 0
		if s.Heard != nil {
			flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		}
		listener := p.Do("seccomp", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, []any{len(s.Filter), f})
		if s.Heard != nil {
			p.give(listener)
			p.Do("close", unix.SYS_CLOSE, listener)
		}
	}
	if s.Flags&unix.CLONE_NEWUSER == 0 || os.Geteuid() == 0 || len(s.User.Groups) > 0 {
		p.Become(s.User)
	} else { // where setgroups is denied
		p.setIDs(s.User)
	}
	caps := s.Caps
	if s.User.Uid != 0 {
		caps = 0
	}
	// The kernel gives root at execve what its bounding set has; inheritable ones would be added.
	p.capset(caps)
	return p
}

// Finish says anew what is done when p's program runs: s is what it was created or entered with, but for User and Cwd.
func (p *Parked) Finish(s Spec) { p.last, p.heard = s.atExec(), s.Heard }

// bound takes what is not in caps out of the bounding set.
func (p *Plan) bound(caps CapSet) {
	for drop := KernelCaps() &^ caps; drop != 0; drop &= drop - 1 {
		c := bits.TrailingZeros64(uint64(drop))
		p.Do(fmt.Sprintf("drop capability %d", c), unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0)
	}
}

func (p *Plan) capset(caps CapSet) {
	header := le.AppendUint32(nil, unix.LINUX_CAPABILITY_VERSION_3)
	header = le.AppendUint32(header, 0)
	var data []byte
	for _, half := range []uint32{uint32(caps), uint32(caps >> 32)} {
		data = le.AppendUint32(data, half) // effective
		data = le.AppendUint32(data, half) // permitted
		data = le.AppendUint32(data, 0)    // inheritable
	}
	p.Do("capset", unix.SYS_CAPSET, header, data)
}

// loopback sets lo up. See netdevice(7).
func (p *Plan) loopback() {
	ifreq := make([]byte, 40)
	copy(ifreq, "lo")
	le.PutUint16(ifreq[16:], unix.IFF_UP)
	s := p.Do("socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	p.Do("set lo up", unix.SYS_IOCTL, s, unix.SIOCSIFFLAGS, ifreq)
}
