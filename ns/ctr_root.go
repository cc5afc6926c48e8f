package ns

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Root says where a container's file system comes from: Dir, or Lower under a scratch layer,
// uppermost first, or, if neither is given, the host's root under a scratch layer that hides
// what is private to the host. What is mounted below them is not in the container.
type Root struct {
	Dir     *os.File
	Lower   []*os.File
	Scratch *os.File // directory for the scratch layer, which outlives the container; nil: in memory, goes with it

	host string // for tests: in place of "/"
}

// openRoot is what Create opens for one container: mounts that are in no mount table.
type openRoot struct {
	spec  *Spec
	lower []int // of Dir or Lower; in a user namespace of the host too
	keep  int   // of Scratch; -1
	fresh bool  // the scratch layer is empty
	usr   bool  // the host's /usr is a file system of its own
	masks []hostMask
	binds []int // of Mounts, -1 for what is none
}

// cloneMount makes a mount of a directory that belongs to no mount namespace, so that another one can take it.
func cloneMount(f *os.File, flags uint) (int, error) {
	fd, err := unix.OpenTree(int(f.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|flags)
	if err != nil {
		return -1, fmt.Errorf("open_tree %q: %w", f.Name(), err)
	}
	return fd, nil
}

func (r *Root) open(ctx context.Context, s *Spec) (_ *openRoot, err error) {
	o := &openRoot{spec: s, keep: -1, fresh: true}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	if r.host == "" {
		r.host = "/"
	}
	dirs := r.Lower
	if r.Dir != nil {
		dirs = []*os.File{r.Dir}
	}
	for _, d := range dirs {
		fd, err := cloneMount(d, 0)
		if err != nil {
			return nil, err
		}
		o.lower = append(o.lower, fd)
	}
	if r.Scratch != nil {
		if o.keep, err = cloneMount(r.Scratch, 0); err != nil {
			return nil, err
		}
		var st unix.Stat_t
		o.fresh = unix.Fstatat(o.keep, "up", &st, unix.AT_SYMLINK_NOFOLLOW) != nil
	}
	if len(dirs) == 0 {
		var root, usr unix.Stat_t
		if unix.Stat(r.host, &root) == nil && unix.Stat(r.host+"/usr", &usr) == nil {
			o.usr = root.Dev != usr.Dev
		}
		if s.Flags&unix.CLONE_NEWUSER != 0 {
			// What is mounted below is locked there, and an overlay refuses such a mount. The files
			// keep their owners, whom the container does not know: its root reads what others may.
			for _, name := range []string{r.host, r.host + "/usr"} {
				d, err := os.Open(name)
				if err != nil {
					return nil, err
				}
				fd, err := cloneMount(d, 0)
				d.Close()
				if err != nil {
					return nil, err
				}
				o.lower = append(o.lower, fd)
			}
		}
		if o.fresh {
			if o.masks, err = hostMasks(ctx); err != nil {
				return nil, err
			}
		}
	}
	return o, nil
}

func (o *openRoot) bind(mounts []Mount) error {
	for _, m := range mounts {
		fd := -1
		if m.From != nil {
			var err error
			if fd, err = cloneMount(m.From, unix.AT_RECURSIVE); err != nil {
				return err
			}
		}
		o.binds = append(o.binds, fd)
	}
	return nil
}

func (o *openRoot) close() {
	for _, fd := range append(append(o.lower, o.keep), o.binds...) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// mount mounts the scratch tmpfs over the host's /proc, a directory that every host has, and the root in it.
func (o *openRoot) mount(p *Plan) *mountTree {
	s := o.spec
	user := s.Flags&unix.CLONE_NEWUSER != 0
	t := &mountTree{nodes: !user, bare: len(o.lower) > 0}
	t.scratch = p.newFS("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "mode=0755")
	p.attach(t.scratch, unix.AT_FDCWD, "/proc", "the scratch tmpfs")
	p.Do("fchdir", unix.SYS_FCHDIR, t.scratch)
	mkdir := func(name string, mode uint32) {
		p.Do(fmt.Sprintf("mkdir %q", name), unix.SYS_MKDIRAT, unix.AT_FDCWD, name, mode)
	}
	mkdir("root", 0755)
	t.makeDev(p)

	if s.Root.Dir != nil {
		t.root = p.Send(o.lower[0])
		p.setattr("mount_setattr of the root", t.root, unix.MOUNT_ATTR_NODEV)
		p.attach(t.root, unix.AT_FDCWD, "root", "/")
		return t
	}
	layer := ""
	if o.keep >= 0 {
		layer = "keep/"
		mkdir("keep", 0755)
		p.attach(p.Send(o.keep), unix.AT_FDCWD, "keep", "the scratch layer")
	}
	if o.fresh {
		mkdir(layer+"up", 0755)
		mkdir(layer+"work", 0755)
		if o.usr {
			mkdir(layer+"usr", 0755)
			mkdir(layer+"usrwork", 0755)
		}
		mkdir(layer+"up/etc", 0755)
		o.hide(p, layer+"up", user)
		o.netFiles(p, layer+"up/etc/")
	}
	var lower []string
	for i, fd := range o.lower {
		name := fmt.Sprintf("lower%d", i)
		mkdir(name, 0755)
		p.attach(p.Send(fd), unix.AT_FDCWD, name, name)
		lower = append(lower, name)
	}
	usr := s.Root.host + "/usr"
	switch {
	case len(lower) == 0:
		lower = []string{s.Root.host}
	case len(s.Root.Lower) == 0:
		lower, usr = lower[:1], lower[1]
	}
	overlay := func(lower, up, work, to string) *Step {
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, layer+up, layer+work)
		if user {
			options += ",userxattr"
		}
		p.Do("mount overlay of "+lower, unix.SYS_MOUNT, "overlay", to, "overlay", unix.MS_NODEV, options)
		return p.open(unix.AT_FDCWD, to, unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	t.root = overlay(strings.Join(lower, ":"), "up", "work", "root")
	if o.usr {
		overlay(usr, "usr", "usrwork", "root/usr")
	}
	return t
}

// hide puts into the upper directory what hides the host's private files: whiteouts, and
// opaque directories where one is to be empty. The container may replace them, as any of its
// files, but not take them away: the lower file does not come back.
func (o *openRoot) hide(p *Plan, up string, user bool) {
	opaque := "trusted.overlay.opaque"
	if user {
		opaque = "user.overlay.opaque"
	}
	for _, m := range o.masks {
		name := up + m.path
		switch m.kind {
		case maskParent:
			p.Do(fmt.Sprintf("mkdir %q", name), unix.SYS_MKDIRAT, unix.AT_FDCWD, name, m.mode)
			if m.uid != 0 || m.gid != 0 {
				p.Do(fmt.Sprintf("chown %q", name), unix.SYS_FCHOWNAT, unix.AT_FDCWD, name, m.uid, m.gid, 0).Try()
			}
		case maskEmpty:
			p.Do(fmt.Sprintf("mkdir %q", name), unix.SYS_MKDIRAT, unix.AT_FDCWD, name, m.mode)
			p.Do(fmt.Sprintf("setxattr %q", name), unix.SYS_SETXATTR, name, opaque, "y", 1, 0)
		case maskAbsent:
			p.Do(fmt.Sprintf("mknod %q", name), unix.SYS_MKNODAT, unix.AT_FDCWD, name, unix.S_IFCHR, 0)
		}
	}
}

// netFiles writes the files that a user expects to speak of the container, not of the host or
// of the image.
func (o *openRoot) netFiles(p *Plan, etc string) {
	s := o.spec
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	write := func(name, text string) {
		f := p.Do(fmt.Sprintf("create %q", name), unix.SYS_OPENAT, unix.AT_FDCWD, etc+name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0644)
		p.Do(fmt.Sprintf("write %q", name), unix.SYS_WRITE, f, []byte(text), len(text))
	}
	if s.Hostname != "" {
		hosts += "127.0.1.1\t" + s.Hostname + "\n"
		write("hostname", s.Hostname+"\n")
	}
	write("hosts", hosts)
	// The host's is a link into /run as often as not, which is empty here.
	if text, err := readSmall("/etc/resolv.conf"); err == nil {
		write("resolv.conf", text)
	}
}
