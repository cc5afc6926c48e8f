package ns

import (
	"context"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountText is the longest string that mount(2) takes, the last byte included.
const mountText = 4096

// Path opens what a path of the caller's leads to, within the caller's root.
func (c *Call) Path(at uint64) (*os.File, error) {
	name, err := c.Text(at, mountText)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, unix.ENOENT
	}
	return c.Find(name)
}

// Find opens what a name leads to, within the caller's root.
func (c *Call) Find(name string) (*os.File, error) {
	if !strings.HasPrefix(name, "/") {
		dir, err := c.cwd()
		if err != nil {
			return nil, err
		}
		name = dir + "/" + name
	}
	root, err := c.Open("root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// cwd is the caller's directory as its root shows it.
func (c *Call) cwd() (string, error) {
	var text [2]string
	for i, name := range []string{"root", "cwd"} {
		fd, err := c.Open(name, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return "", err
		}
		text[i], err = readlink("/proc/self/fd/" + strconv.Itoa(fd))
		unix.Close(fd)
		if err != nil {
			return "", err
		}
	}
	dir, ok := strings.CutPrefix(text[1], strings.TrimSuffix(text[0], "/"))
	if !ok || dir != "" && dir[0] != '/' {
		return "", unix.ENOENT // it is outside
	}
	return dir, nil
}

// MountID is a number that no other mount of this boot has (6.8), or has at this time.
func MountID(f *os.File) (id uint64, root bool, err error) {
	const unique = 0x4000 // STATX_MNT_ID_UNIQUE
	var st unix.Statx_t
	err = control(f, func(fd int) error {
		return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unique|unix.STATX_MNT_ID, &st)
	})
	return st.Mnt_id, st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, err
}

// MountAttrs are the MOUNT_ATTRs of what f is on.
func MountAttrs(f *os.File) (attrs uint64, err error) {
	var st unix.Statfs_t
	if err := control(f, func(fd int) error { return unix.Fstatfs(fd, &st) }); err != nil {
		return 0, err
	}
	for flag, attr := range map[int64]uint64{
		unix.ST_RDONLY: unix.MOUNT_ATTR_RDONLY, unix.ST_NOSUID: unix.MOUNT_ATTR_NOSUID, unix.ST_NODEV: unix.MOUNT_ATTR_NODEV,
		unix.ST_NOEXEC: unix.MOUNT_ATTR_NOEXEC, unix.ST_NOATIME: unix.MOUNT_ATTR_NOATIME, unix.ST_NODIRATIME: unix.MOUNT_ATTR_NODIRATIME,
	} {
		if st.Flags&flag != 0 {
			attrs |= attr
		}
	}
	return attrs, nil
}

// Bind mounts a tree again, with whatever is mounted in it, and gives the new mount's number.
func (at Place) Bind(ctx context.Context, from, to *os.File, attrs uint64) (id uint64, err error) {
	return at.put(ctx, to, func(p *Plan) *Step {
		m := p.Do("open_tree", unix.SYS_OPEN_TREE, p.Send(int(from.Fd())), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
		p.Do("mount_setattr", unix.SYS_MOUNT_SETATTR, m, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, []any{attrs, 0, 0, 0}, 32)
		return m
	})
}

// Make mounts a new file system.
func (at Place) Make(ctx context.Context, kind string, to *os.File, attrs uint64, options ...string) (id uint64, err error) {
	return at.put(ctx, to, func(p *Plan) *Step { return p.newFS(kind, attrs, options...) })
}

// put mounts what made makes. Whose number it gives is that, whatever somebody has made of the names meanwhile.
func (at Place) put(ctx context.Context, to *os.File, made func(*Plan) *Step) (id uint64, err error) {
	plan, err := at.visit(ctx, nil, func(p *Plan) {
		m := made(p)
		p.attach(m, p.Send(int(to.Fd())), "", to.Name())
		p.give(m)
	})
	if plan != nil && plan.given != nil {
		defer plan.given.Close()
	}
	if err != nil {
		return 0, err
	}
	id, _, err = MountID(plan.given)
	return id, err
}

// Restrict adds attributes to a mount.
func (at Place) Restrict(ctx context.Context, to *os.File, attrs uint64) error {
	_, err := at.visit(ctx, nil, func(p *Plan) {
		p.Do("mount_setattr", unix.SYS_MOUNT_SETATTR, p.Send(int(to.Fd())), "", unix.AT_EMPTY_PATH, []any{attrs, 0, 0, 0}, 32)
	})
	return err
}

// Unmount takes a mount away, and what is mounted in it.
func (at Place) Unmount(ctx context.Context, from *os.File) error {
	const fd = 200 // a name for it that is known beforehand, in a proc where this process is found
	var self *Step
	_, err := at.visit(ctx,
		func(p *Plan) { self = p.open(unix.AT_FDCWD, "/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY, 0) },
		func(p *Plan) {
			p.Do("dup3", unix.SYS_DUP3, p.Send(int(from.Fd())), fd, unix.O_CLOEXEC)
			p.Do("fchdir", unix.SYS_FCHDIR, self)
			p.Do("umount", unix.SYS_UMOUNT2, strconv.Itoa(fd), unix.MNT_DETACH)
		})
	return err
}

// File gives what a descriptor of the caller's is.
func (c *Call) File(fd int) (*os.File, error) {
	p, err := c.Process()
	if err != nil {
		return nil, err
	}
	defer p.Close()
	own := -1
	if err := p.use(func(pidfd int) (err error) {
		own, err = unix.PidfdGetfd(pidfd, fd, 0)
		return err
	}); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(own), "descriptor"), nil
}

// SocketIn makes a socket in the network namespace of p.
func SocketIn(p *Process, domain, kind, protocol int) (fd int, err error) {
	err = p.inSpace("net", func() error {
		fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
		return err
	})
	return fd, err
}
