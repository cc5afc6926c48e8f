package ns

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// The void is a mount namespace with one mount, of an empty directory that nobody can change. A container's mounts are made
// in a copy of it, each over the root of the one below, as Linux does it with its rootfs: what a root is mounted over
// cannot be seen from it, by no chdir, chroot or setns, so the host's mounts need not be there to be unmounted again. That would
// wait for a grace period of RCU, and what is mounted on the host be copied for each container. It needs Linux 6.15, where what
// is mounted nowhere can be a layer and be copied.
var void = struct {
	turn  chan struct{} // holds a token: who has it may use what follows
	asked bool
	ns    *os.File // nil: the kernel cannot do it
}{turn: make(chan struct{}, 1)}

func init() { void.turn <- struct{}{} }

func voidNS(ctx context.Context, state string) (*os.File, error) {
	select {
	case <-void.turn:
		defer func() { void.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if void.asked {
		return void.ns, nil
	}
	o := Opt{State: state}
	p, err := o.start(ctx)
	if err != nil {
		return nil, err
	}
	defer p.End()
	plan := &Plan{}
	plan.begin(&o)
	plan.Do("unshare", unix.SYS_UNSHARE, unix.CLONE_NEWNS)
	plan.Do("make mounts private", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)
	ns := plan.Do("open \"/proc/self/ns/mnt\"", unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	m := plan.newFS("tmpfs", plainAttr|unix.MOUNT_ATTR_RDONLY, "mode=0555")
	can := plan.Do("open_tree of the void", unix.SYS_OPEN_TREE, m, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	plan.attach(m, unix.AT_FDCWD, "/proc", "the void")
	plan.Do("fchdir", unix.SYS_FCHDIR, m)
	plan.pivot()
	plan.give(ns)
	err = p.Run(ctx, plan)
	if errors.Is(can.Err(), unix.EINVAL) {
		err = nil
	}
	if err == nil {
		void.asked, void.ns = true, plan.given
	}
	return void.ns, err
}

// enterVoid goes into a void of the container's own, and the other namespaces.
func (r *rootPlan) enterVoid(p *Plan, t *mountTree) {
	p.Do("setns mnt", unix.SYS_SETNS, p.Send(int(r.void.Fd())), unix.CLONE_NEWNS)
	p.Do("unshare", unix.SYS_UNSHARE, r.spec.Flags&^unix.CLONE_NEWPID)
	p.attach(t.scratch, unix.AT_FDCWD, "/", "the scratch tmpfs")
}

// layersInVoid is layers for a root that is made before there is a place for it.
func (r *rootPlan) layersInVoid(p *Plan, t *mountTree, lower []*Step) {
	p.mkdir("up", 0755)
	p.mkdir("work", 0755)
	p.mkdir("up/etc", 0755)
	if r.host == nil {
		r.netFiles(p, "up/etc/")
		t.root = p.overlay(lower, "up", "work")
	} else {
		r.hide(p)
		r.netFiles(p, "up/etc/")
		t.root = p.overlay([]*Step{p.find("/")}, "up", "work")
	}
	if r.usr && r.host != nil {
		p.mkdir("usr", 0755)
		p.mkdir("usrwork", 0755)
		p.attach(p.overlay([]*Step{p.find("/usr")}, "usr", "usrwork"), t.root, "usr", "/usr")
	}
	if r.spec.Root.Scratch != nil {
		p.give(t.root)
		r.placeCopy(p, t, t.root)
	} else {
		r.place(p, t)
	}
	t.parts = []*Step{t.root}
	if r.usr && r.host != nil {
		t.parts = append(t.parts, p.open(t.root, "usr", unix.O_PATH|unix.O_DIRECTORY, 0))
	}
}

// placeCopy mounts a copy of a root that was never mounted itself: such a one may be copied in any mount namespace, and stays as it
// is, whoever is killed before the container is made.
func (r *rootPlan) placeCopy(p *Plan, t *mountTree, root *Step) {
	t.root = p.Do("open_tree of the root", unix.SYS_OPEN_TREE, root, "",
		unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH)
	r.place(p, t)
}

// overlay makes a file system of directories that are open, the uppermost first.
func (p *Plan) overlay(lower []*Step, up, work string) *Step {
	f := p.Do("fsopen overlay", unix.SYS_FSOPEN, "overlay", unix.FSOPEN_CLOEXEC)
	for _, l := range lower {
		p.Do("overlay of a directory", unix.SYS_FSCONFIG, f, unix.FSCONFIG_SET_FD, "lowerdir+", 0, l)
	}
	p.Do("overlay option upperdir", unix.SYS_FSCONFIG, f, unix.FSCONFIG_SET_STRING, "upperdir", up, 0)
	p.Do("overlay option workdir", unix.SYS_FSCONFIG, f, unix.FSCONFIG_SET_STRING, "workdir", work, 0)
	return p.mountFS(f, "overlay", unix.MOUNT_ATTR_NODEV)
}

// pivot makes the current directory, where something is mounted, the root, and leaves nothing of the old one.
func (p *Plan) pivot() {
	p.Do("pivot_root", unix.SYS_PIVOT_ROOT, ".", ".")
	// "." is what lies on top of the new root now: the old one.
	p.Do("umount the old root", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
}
