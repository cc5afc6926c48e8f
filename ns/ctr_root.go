package ns

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Root says where a container's file system comes from: Dir, or Lower under a scratch layer,
// uppermost first, or, if neither is given, the host's root under a scratch layer that hides
// what is private to the host. What is mounted below them is not in the container.
type Root struct {
	Dir     *os.File
	Lower   []*os.File
	Scratch *Scratch // keeps the scratch layer for the next container; nil: it goes with this one
}

// A rootPlan is what is found out about a container's root before its process builds it. Its sources
// are names: the process, in whose mount namespace a descriptor of the server's is of no use, opens
// them, with the rights of the container's maker.
type rootPlan struct {
	spec  *Spec
	kept  bool  // there is a scratch layer from before
	back  *Step // mounts it
	root  *Step // is open there
	user  bool  // in a user namespace
	lower []string
	usr   bool // the host's /usr is a file system of its own
	host  *hostRoot
	binds []string // of Mounts, "" for what is none
	void  *os.File // the mount namespace that it begins in; nil: a copy of the server's
}

func (s *Spec) plan(ctx context.Context) (*rootPlan, error) {
	r := &rootPlan{spec: s, user: s.Flags&unix.CLONE_NEWUSER != 0, kept: s.Root.Scratch.full()}
	dirs := s.Root.Lower
	if s.Root.Dir != nil {
		dirs = []*os.File{s.Root.Dir}
	}
	if r.kept {
		dirs = nil
	}
	var below mountPoints
	var err error
	if r.user { // where what is mounted below cannot be left out: it is locked
		if below, err = readMounts(); err != nil {
			return nil, err
		}
	}
	for _, d := range dirs {
		name, err := nameOf(d)
		if err != nil {
			return nil, err
		}
		if at := below.under(name); at != "" {
			return nil, fmt.Errorf("root %q: %q is mounted below it, which in a user namespace cannot be left out", d.Name(), at)
		}
		r.lower = append(r.lower, name)
	}
	if !r.user {
		if r.void, err = voidNS(ctx, s.State); err != nil {
			return nil, err
		}
	}
	if len(dirs) == 0 && !r.kept {
		if r.host, err = lookAtHost(ctx); err != nil {
			return nil, err
		}
		if r.user {
			r.host = r.host.without(below)
		}
		var root, usr unix.Stat_t
		if unix.Stat("/", &root) == nil && unix.Stat("/usr", &usr) == nil {
			r.usr = root.Dev != usr.Dev
		}
	}
	s.Mounts = slices.Clone(s.Mounts)
	for i, m := range s.Mounts {
		name := ""
		if m.From != nil {
			if fi, err := m.From.Stat(); err == nil {
				s.Mounts[i].isFile = !fi.IsDir()
			}
			if name, err = nameOf(m.From); err != nil {
				return nil, err
			}
		}
		r.binds = append(r.binds, name)
	}
	return r, nil
}

// nameOf gives the path by which f is found.
func nameOf(f *os.File) (string, error) {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return "", fmt.Errorf("%q: %w", f.Name(), os.ErrClosed)
	}
	is, err := f.Stat()
	if err != nil {
		return "", err
	}
	if found, err := os.Lstat(name); err != nil || !os.SameFile(is, found) {
		return "", fmt.Errorf("%q: %w", f.Name(), os.ErrNotExist)
	}
	return name, nil
}

// find opens what is at path, which is one that has no links.
func (p *Plan) find(path string) *Step {
	return p.open(unix.AT_FDCWD, path, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

// source makes a mount of what is at path, mounted nowhere. The path is one that has no links.
func (p *Plan) source(path string, flags int) *Step {
	f := p.find(path)
	return p.Do(fmt.Sprintf("open_tree %q", path), unix.SYS_OPEN_TREE, f, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|flags)
}

func (p *Plan) mkdir(name string, mode uint32) {
	p.Do(fmt.Sprintf("mkdir %q", name), unix.SYS_MKDIRAT, unix.AT_FDCWD, name, mode)
}

// mount mounts the scratch tmpfs over the host's /proc, a directory that every host has, and the root in it; in a void
// the one over its root, and the other over that.
func (r *rootPlan) mount(p *Plan) *mountTree {
	s := r.spec
	t := &mountTree{nodes: !r.user, bare: r.lower != nil || r.user}
	var lower []*Step
	for _, name := range r.lower {
		if r.void != nil && s.Root.Dir == nil {
			lower = append(lower, p.find(name))
		} else {
			lower = append(lower, p.source(name, 0))
		}
	}
	for _, name := range r.binds {
		var from *Step
		if name != "" {
			from = p.source(name, unix.AT_RECURSIVE)
		}
		t.binds = append(t.binds, from)
	}
	t.scratch = p.newFS("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "mode=0755")
	if r.void == nil {
		p.attach(t.scratch, unix.AT_FDCWD, "/proc", "the scratch tmpfs")
	}
	p.Do("fchdir", unix.SYS_FCHDIR, t.scratch)
	p.mkdir("root", 0755)
	t.makeDev(p)

	switch {
	case s.Root.Dir != nil:
		t.root = lower[0]
		p.setattr("mount_setattr of the root", t.root, unix.MOUNT_ATTR_NODEV)
		r.place(p, t)
		t.parts = []*Step{t.root}
		return t
	case r.kept && r.void != nil:
		r.placeCopy(p, t, p.Send(int(s.Root.Scratch.root.Fd())))
		return t
	case r.kept:
		t.root = p.Send(int(s.Root.Scratch.root.Fd()))
		r.back = r.place(p, t)
	case r.void != nil:
		r.layersInVoid(p, t, lower)
		return t
	default:
		r.layers(p, t, lower)
	}
	if s.Root.Scratch != nil {
		r.root = t.root
		p.giveRoot(t.root)
	}
	return t
}

// place mounts the root.
func (r *rootPlan) place(p *Plan, t *mountTree) *Step {
	at := "root"
	if r.void != nil {
		r.enterVoid(p, t)
		at = "/"
	}
	return p.attach(t.root, unix.AT_FDCWD, at, "/")
}

// giveRoot gives what is mounted at root, a descriptor.
func (p *Plan) giveRoot(root any) {
	p.give(p.Do("open_tree of the root", unix.SYS_OPEN_TREE, root, "",
		unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH))
}

// layers mounts a root that has a scratch layer, a new one.
func (r *rootPlan) layers(p *Plan, t *mountTree, lower []*Step) {
	p.mkdir("up", 0755)
	p.mkdir("work", 0755)
	var names []string
	for i, m := range lower {
		name := fmt.Sprintf("lower%d", i)
		p.mkdir(name, 0755)
		p.attach(m, unix.AT_FDCWD, name, name)
		names = append(names, name)
	}
	switch {
	case r.host == nil:
		p.mkdir("up/etc", 0755)
		r.netFiles(p, "up/etc/")
		t.root = r.overlay(p, strings.Join(names, ":"), "up", "work", "root")
		t.parts = []*Step{t.root}
	case r.user:
		r.hostByName(p, t)
	default:
		p.mkdir("up/etc", 0755)
		r.hide(p)
		r.netFiles(p, "up/etc/")
		t.root = r.overlay(p, "/", "up", "work", "root")
		t.parts = []*Step{t.root}
		if r.usr {
			p.mkdir("usr", 0755)
			p.mkdir("usrwork", 0755)
			t.parts = append(t.parts, r.overlay(p, "/usr", "usr", "usrwork", "root/usr"))
		}
	}
}

func (r *rootPlan) overlay(p *Plan, lower, up, work, to string) *Step {
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, up, work)
	if r.user {
		options += ",userxattr"
	}
	p.Do("mount overlay of "+lower, unix.SYS_MOUNT, "overlay", to, "overlay", unix.MS_NODEV, options)
	return p.open(unix.AT_FDCWD, to, unix.O_PATH|unix.O_DIRECTORY, 0)
}

// netFiles writes the files that a user expects to speak of the container, not of the host or
// of the image.
func (r *rootPlan) netFiles(p *Plan, etc string) {
	s := r.spec
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
