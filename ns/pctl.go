package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Pctl says how a process is to be changed: what Inferno's pctl(2) can do to a process, and what Linux adds. It is one
// message: checked whole before anything is done, and done or, as far as Linux can, undone whole. What is undone most
// easily is done first, so the order is: control group, devices, name spaces, group, descriptors; the outcome is that
// of Inferno's order.
type Pctl struct {
	NewFD  bool  // a new descriptor table with only FDs, those of them that are open. It beats ForkFD
	ForkFD bool  // a new table, a copy; FDs are closed in the old one, for those who still have it
	FDs    []int // used by the two
	Close  []int // descriptors to close: EBADF for one that is not open

	NewNS  bool // a name space whose root is the current directory, nothing else mounted. It beats ForkNS
	ForkNS bool // a copy of the name space; what is mounted later on either side, the other does not see

	NewPgrp bool // a process group of its own; nothing to do for who leads one
	NoDevs  bool // see NoDevs

	Unshare []string // kinds of namespace to have new: see Kinds. Of pid and time the children are the first in them
	Join    *Join    // of another process
	Private bool     // nobody but root reads its memory, until it executes another program
	Reaper  bool     // orphans below it become its children: PR_SET_CHILD_SUBREAPER
}

// Kinds are the names of the kinds of namespace.
func Kinds() []string { return slices.Clone(nsKinds) }

// kindFlag gives the CLONE_NEW flag of a kind, 0 if there is none.
func kindFlag(kind string) uint64 {
	switch kind {
	case "cgroup":
		return unix.CLONE_NEWCGROUP
	case "ipc":
		return unix.CLONE_NEWIPC
	case "mnt":
		return unix.CLONE_NEWNS
	case "net":
		return unix.CLONE_NEWNET
	case "pid":
		return unix.CLONE_NEWPID
	case "time":
		return unix.CLONE_NEWTIME
	case "user":
		return unix.CLONE_NEWUSER
	case "uts":
		return unix.CLONE_NEWUTS
	}
	return 0
}

// A Join is the namespaces, root and control groups of a process, for another one to enter.
type Join struct {
	Kinds   []string // in the order of files
	files   []*os.File
	root    *os.File // with mnt
	cgroups []*os.File
}

// OpenJoin opens p's namespaces of some kinds as c; no kinds are all that can be entered and that p does not share with
// this process. With cgroup its control groups are entered too, for which c must be allowed to write their files.
func OpenJoin(c Cred, p *Process, kinds []string, cgroup bool) (j *Join, err error) {
	j = new(Join)
	made := j // j is nil where an error is returned
	defer func() {
		if err != nil {
			made.Close()
		}
	}()
	all := len(kinds) == 0
	if all {
		kinds = []string{"cgroup", "ipc", "mnt", "net", "time", "uts"}
	}
	open := func(name string, flags int) (*os.File, error) {
		fd, err := OpenAs(c, p.path(name), flags)
		if err = p.verify(name, err); err != nil {
			if fd >= 0 {
				unix.Close(fd)
			}
			if err == fs.ErrPermission {
				err = fmt.Errorf("%s of process %d: %w", name, p.pid, err)
			}
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
	for _, kind := range kinds {
		switch {
		case kindFlag(kind) == 0:
			return nil, fmt.Errorf("no such kind of namespace: %q", kind)
		case kind == "pid" || kind == "user":
			return nil, fmt.Errorf("%s: Linux gives it to children only: %w", kind, errors.ErrUnsupported)
		}
		if all {
			its, err := p.Namespace(kind)
			if own, e := nsInode(unix.Getpid(), kind); e == nil && err == nil && own == its {
				continue
			}
		}
		f, err := open("ns/"+kind, unix.O_RDONLY)
		if all && errors.Is(err, fs.ErrNotExist) { // this kernel has no such kind
			continue
		}
		if err != nil {
			return nil, err
		}
		j.Kinds, j.files = append(j.Kinds, kind), append(j.files, f)
		if kind == "mnt" {
			if j.root, err = open("root", unix.O_PATH|unix.O_DIRECTORY); err != nil {
				return nil, err
			}
		}
	}
	if cgroup {
		j.cgroups, err = openCgroups(c, p)
	}
	return j, err
}

// Close closes what OpenJoin has opened.
func (j *Join) Close() error {
	for _, f := range append(append(j.files, j.root), j.cgroups...) {
		if f != nil {
			f.Close()
		}
	}
	return nil
}

// Check reports what cannot be meant, whoever the process is.
func (m *Pctl) Check() error {
	for _, k := range m.Unshare {
		if kindFlag(k) == 0 {
			return fmt.Errorf("unshare: no such kind of namespace: %q", k)
		}
		if m.Join != nil && slices.Contains(m.Join.Kinds, k) {
			return fmt.Errorf("unshare and join of %s: %w", k, unix.EINVAL)
		}
	}
	if m.Join != nil && slices.Contains(m.Join.Kinds, "mnt") && (m.NewNS || m.ForkNS) {
		return fmt.Errorf("join of mnt and a new name space: %w", unix.EINVAL)
	}
	for _, fd := range slices.Concat(m.FDs, m.Close) {
		if fd < 0 || fd > 1<<31-1 {
			return fmt.Errorf("no descriptor: %d", fd)
		}
	}
	if len(m.FDs)+len(m.Close) > maxPctlFDs {
		return fmt.Errorf("%d descriptors: %w", len(m.FDs)+len(m.Close), unix.E2BIG)
	}
	return nil
}

const maxPctlFDs = 512 // a plan of so many steps fits into the stub's room, and a message into an argument

// flags are the namespaces that are made new.
func (m *Pctl) flags() (flags uint64) {
	for _, k := range m.Unshare {
		flags |= kindFlag(k)
	}
	if m.NewNS || m.ForkNS {
		flags |= unix.CLONE_NEWNS
	}
	return flags
}

// kinds are the namespaces of the process itself that are another afterwards; of pid and time it is its children's.
func (m *Pctl) kinds() (kinds []string) {
	flags := m.flags()
	for _, k := range nsKinds {
		if k != "pid" && k != "time" && flags&kindFlag(k) != 0 || m.Join != nil && slices.Contains(m.Join.Kinds, k) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// inside reports whether there is anything that the process must do itself.
func (m *Pctl) inside() bool {
	return m.NewFD || m.ForkFD || len(m.Close) > 0 || m.NewPgrp || m.Private || m.Reaper || m.flags() != 0 ||
		m.Join != nil && len(m.Join.files) > 0
}

// alone is the verb that would part the threads of a process from their common name space or current directory, or that
// Linux refuses to several threads; "" if there is none.
func (m *Pctl) alone() string {
	switch {
	case m.NewNS:
		return "newns"
	case m.ForkNS:
		return "forkns"
	}
	for _, k := range m.Unshare {
		if slices.Contains([]string{"mnt", "user", "pid", "time"}, k) {
			return "unshare " + k
		}
	}
	if m.Join != nil {
		for _, k := range m.Join.Kinds {
			if k == "mnt" || k == "time" {
				return "join " + k
			}
		}
	}
	return ""
}

// A carrier is what a plan must know of the process that carries it out.
type carrier struct {
	threads int      // it has
	leader  bool     // it leads its process group
	keep    []int    // descriptors that its carrier needs
	own     *os.File // its mount namespace, if its root is no mount point
}

// plan appends the system calls to p: all that a process does itself, by whichever carrier.
func (m *Pctl) plan(p *Plan, c *carrier) {
	m.namespaces(p, c)
	if m.NewPgrp && !c.leader {
		p.Do("newpgrp", unix.SYS_SETPGID, 0, 0)
	}
	if m.Reaper {
		p.Do("set_reaper", unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	if m.Private {
		p.Do("private", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	for _, fd := range m.Close {
		p.Do(fmt.Sprintf("close %d", fd), unix.SYS_CLOSE, fd)
	}
	m.descriptors(p, c)
}

// descriptors: the threads of one process go on to share one table. Where others share it too the process must have a
// single thread.
func (m *Pctl) descriptors(p *Plan, c *carrier) {
	switch {
	case m.NewFD:
		keep := slices.Concat(m.FDs, c.keep)
		slices.Sort(keep)
		flags := 0
		if c.threads == 1 {
			flags = unix.CLOSE_RANGE_UNSHARE
		}
		from := 0
		for _, fd := range slices.Compact(keep) {
			if fd > from {
				p.Do("newfd", unix.SYS_CLOSE_RANGE, from, fd-1, flags)
				flags = 0
			}
			from = fd + 1
		}
		p.Do("newfd", unix.SYS_CLOSE_RANGE, from, uint64(^uint32(0)), flags)
	case m.ForkFD && c.threads == 1:
		p.Do("forkfd", unix.SYS_UNSHARE, unix.CLONE_FILES)
	}
}

func (m *Pctl) namespaces(p *Plan, c *carrier) {
	if m.Join != nil {
		m.Join.plan(p)
	}
	flags := m.flags()
	if flags == 0 {
		return
	}
	if m.NewNS && c.own != nil {
		// It was given its root by chroot: pivot_root wants a mount there. By entering its own name space it gets
		// back that one's root, keeping where it is.
		cwd := p.open(unix.AT_FDCWD, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
		p.Do("newns: unshare", unix.SYS_UNSHARE, unix.CLONE_FS)
		p.Do("newns: setns", unix.SYS_SETNS, p.Send(int(c.own.Fd())), unix.CLONE_NEWNS)
		p.Do("newns: fchdir", unix.SYS_FCHDIR, cwd)
		p.Do("close", unix.SYS_CLOSE, cwd)
	}
	p.Do(m.unshareName(), unix.SYS_UNSHARE, flags)
	if flags&unix.CLONE_NEWNS == 0 {
		return
	}
	p.Do("forkns: make mounts private", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)
	if !m.NewNS {
		return
	}
	// A mount of the current directory alone, without what is mounted below it, becomes the root.
	t := p.Do("newns: open_tree", unix.SYS_OPEN_TREE, unix.AT_FDCWD, ".", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	p.Do("newns: move_mount", unix.SYS_MOVE_MOUNT, t, "", unix.AT_FDCWD, ".", unix.MOVE_MOUNT_F_EMPTY_PATH)
	p.Do("newns: fchdir", unix.SYS_FCHDIR, t)
	p.Do("close", unix.SYS_CLOSE, t)
	p.Do("newns: pivot_root", unix.SYS_PIVOT_ROOT, ".", ".")
	p.Do("newns: umount", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	p.Do("newns: chdir", unix.SYS_CHDIR, "/")
}

// unshareName names the call that makes namespaces.
func (m *Pctl) unshareName() string {
	switch {
	case m.NewNS:
		return "newns: unshare"
	case m.ForkNS:
		return "forkns"
	}
	return "unshare " + strings.Join(m.Unshare, " ")
}

// plan enters the namespaces, that of the mounts last, for its root may lack what the others need.
func (j *Join) plan(p *Plan) {
	var mnt *os.File
	for i, k := range j.Kinds {
		if k == "mnt" {
			mnt = j.files[i]
			continue
		}
		p.Do("join "+k, unix.SYS_SETNS, p.Send(int(j.files[i].Fd())), kindFlag(k))
	}
	if mnt == nil {
		return
	}
	ns, root := p.Send(int(mnt.Fd())), p.Send(int(j.root.Fd()))
	p.Do("join mnt: unshare", unix.SYS_UNSHARE, unix.CLONE_FS) // who shares it with another process cannot go elsewhere
	p.Do("join mnt", unix.SYS_SETNS, ns, unix.CLONE_NEWNS)
	p.rootAt(root, nil)
}

// rootAt makes root the root directory and cwd the current one, or root where that is nil.
func (p *Plan) rootAt(root, cwd *Step) {
	p.Do("fchdir", unix.SYS_FCHDIR, root)
	p.Do("chroot", unix.SYS_CHROOT, ".")
	if cwd != nil {
		p.Do("fchdir", unix.SYS_FCHDIR, cwd)
	}
}
