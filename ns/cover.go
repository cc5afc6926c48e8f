package ns

import (
	"context"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// A Place is the mount namespace of a container that is there already.
type Place struct {
	First *Process
	User  bool // it has a user namespace of its own
}

// visit carries out steps in the place, with the server's rights, or those of the place's root where the server has none. before
// is done where the server is.
func (at Place) visit(ctx context.Context, before, steps func(*Plan)) (*Plan, error) {
	o := Opt{unguarded: os.Geteuid() != 0} // setns wants the same right as looking into the first process has
	p, err := o.start(ctx)
	if err != nil {
		return nil, err
	}
	defer p.End()
	plan := &Plan{}
	plan.begin(&o)
	if before != nil {
		before(plan)
	}
	return plan, at.First.use(func(pidfd int) error {
		if at.User && o.unguarded {
			plan.Do("setns user", unix.SYS_SETNS, plan.Send(pidfd), unix.CLONE_NEWUSER)
		}
		plan.Do("setns mnt", unix.SYS_SETNS, plan.Send(pidfd), unix.CLONE_NEWNS)
		steps(plan)
		return p.Run(ctx, plan)
	})
}

// Cover puts a file of ours, which cannot be written there, over one of the place's, in place of what we put there before, and
// gives it to be written here.
func Cover(ctx context.Context, at Place, name string) (*os.File, error) {
	fd, err := at.First.Dup()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	plan, err := at.visit(ctx, nil, func(p *Plan) {
		// A file has to be in a mount of one's own to be mounted elsewhere: that is made in a copy of the namespace, where nobody
		// sees it.
		p.Do("unshare mnt", unix.SYS_UNSHARE, unix.CLONE_NEWNS)
		p.Do("make mounts private", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)
		m := p.newFS("tmpfs", plainAttr, "mode=0755")
		p.attach(m, unix.AT_FDCWD, "/proc", "a tmpfs")
		file := p.Do("create a file", unix.SYS_OPENAT, m, "file", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0444)
		p.give(file)
		cover := p.copyOf(m, "file", plainAttr|unix.MOUNT_ATTR_RDONLY)
		p.Do("setns mnt", unix.SYS_SETNS, p.Send(fd), unix.CLONE_NEWNS)
		p.uncover(name).Try()
		to := p.open(unix.AT_FDCWD, name, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
		p.attach(cover, to, "", name)
	})
	if err != nil {
		if plan != nil && plan.given != nil {
			plan.given.Close()
		}
		return nil, err
	}
	return plan.given, nil
}

// Uncover takes away what Cover or LendDevice put there.
func Uncover(ctx context.Context, at Place, name string) error {
	_, err := at.visit(ctx, nil, func(p *Plan) { p.uncover(name) })
	return err
}

// uncover is umount(2) of a name that leads through no link: the container could have put one there that leads to a mask.
func (p *Plan) uncover(name string) *Step {
	p.Do("fchdir", unix.SYS_FCHDIR, p.open(unix.AT_FDCWD, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS))
	return p.Do("umount "+name, unix.SYS_UMOUNT2, path.Base(name), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
}

// LendDevice puts a device of the host's /dev into that of the place, where it can be opened.
func LendDevice(ctx context.Context, at Place, name string) error {
	var device *Step
	_, err := at.visit(ctx,
		func(p *Plan) {
			device = p.copyOf(unix.AT_FDCWD, "/dev/"+name, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
		},
		func(p *Plan) {
			to := "/dev/" + name
			if dir := path.Dir(to); dir != "/dev" {
				p.Do("mkdir "+dir, unix.SYS_MKDIRAT, unix.AT_FDCWD, dir, 0755).Try() // or there is one
			}
			p.Do("mknod "+to, unix.SYS_MKNODAT, unix.AT_FDCWD, to, unix.S_IFREG|0600, 0).Try() // likewise
			file := p.open(unix.AT_FDCWD, to, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
			p.attach(device, file, "", to)
		})
	return err
}
