package ns

import (
	"fmt"
	"os"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A Mount is one more file system in a container. Its target is looked for in the container's
// root, links there meaning what they mean in it, and made if it is not there.
type Mount struct {
	Target string
	From   *os.File // bind this file or directory; nil: a new file system
	Type   string   // of a new one: tmpfs, proc, ...
	Data   []string // its options, `size=1m`
	Attr   uint64   // MOUNT_ATTR_*; MOUNT_ATTR_NODEV is added

	isFile bool // From is no directory
}

// A mountTree is a container's file system on its way: everything is mounted by descriptor.
type mountTree struct {
	scratch *Step // the tmpfs of the container, with the directories dev, nodes and empty
	root    *Step
	parts   []*Step // the mounts that root is made of, none if it was kept
	binds   []*Step // of Mounts, nil for what is none
	bare    bool    // the root may lack proc, sys and dev
	nodes   bool    // nodes has device files: not in a user namespace, where nobody can make any
}

// open opens a path below dir.
func (p *Plan) open(dir any, name string, flags, resolve int) *Step {
	return p.Do(fmt.Sprintf("open %q", name), unix.SYS_OPENAT2, dir, name, []any{flags | unix.O_CLOEXEC, 0, resolve}, 24)
}

// dir opens the directory name of the root, which must be one: through a link there the
// container's proc would be the host's directory that the image says.
func (t *mountTree) dir(p *Plan, name string) *Step {
	if t.bare {
		p.Do(fmt.Sprintf("mkdir %q", name), unix.SYS_MKDIRAT, t.root, name, 0755).Try()
	}
	return p.open(t.root, name, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
}

// newFS makes a file system, mounted nowhere.
func (p *Plan) newFS(kind string, attr uint64, options ...string) *Step {
	f := p.Do("fsopen "+kind, unix.SYS_FSOPEN, kind, unix.FSOPEN_CLOEXEC)
	for _, o := range options {
		if k, v, ok := strings.Cut(o, "="); ok {
			p.Do(fmt.Sprintf("%s option %q", kind, o), unix.SYS_FSCONFIG, f, unix.FSCONFIG_SET_STRING, k, v, 0)
		} else {
			p.Do(fmt.Sprintf("%s option %q", kind, o), unix.SYS_FSCONFIG, f, unix.FSCONFIG_SET_FLAG, k, 0, 0)
		}
	}
	return p.mountFS(f, kind, attr)
}

// mountFS makes the file system that f, which fsopen gave, was told of.
func (p *Plan) mountFS(f *Step, kind string, attr uint64) *Step {
	p.Do("make "+kind, unix.SYS_FSCONFIG, f, unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
	return p.Do("fsmount "+kind, unix.SYS_FSMOUNT, f, unix.FSMOUNT_CLOEXEC, attr)
}

// copyOf makes a mount of name in dir, mounted nowhere. attr is added to what the old one has.
func (p *Plan) copyOf(dir any, name string, attr uint64) *Step {
	m := p.Do(fmt.Sprintf("open_tree %q", name), unix.SYS_OPEN_TREE, dir, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if attr != 0 {
		p.setattr(fmt.Sprintf("mount_setattr %q", name), m, attr)
	}
	return m
}

func (p *Plan) setattr(what string, m *Step, attr uint64) {
	p.Do(what, unix.SYS_MOUNT_SETATTR, m, "", unix.AT_EMPTY_PATH, []any{attr, 0, unix.MS_PRIVATE, 0}, 32)
}

// attach mounts m on name in dir; on dir if the name is empty.
func (p *Plan) attach(m *Step, dir any, name, where string) *Step {
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH
	if name == "" {
		flags |= unix.MOVE_MOUNT_T_EMPTY_PATH
	}
	return p.Do(fmt.Sprintf("mount %q", where), unix.SYS_MOVE_MOUNT, m, "", dir, name, flags)
}

const plainAttr = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// What of /proc and /sys is not the container's own: Docker's lists.
var (
	procReadOnly = []string{"bus", "fs", "irq", "sys", "sysrq-trigger"}
	procMasked   = []string{"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats"}
	sysMasked    = []string{"firmware", "devices/virtual/powercap"}
)

// MaskedPaths are the files of proc and sysfs that no container reads, ReadonlyPaths those of proc that none writes; sysfs is
// all read-only. Devices are the device files that each has, and their numbers.
func MaskedPaths() []string   { return append(below("/proc/", procMasked), below("/sys/", sysMasked)...) }
func ReadonlyPaths() []string { return below("/proc/", procReadOnly) }

func Devices() map[string]uint64 {
	all := map[string]uint64{}
	for _, d := range devices {
		all["/dev/"+d.name] = unix.Mkdev(d.major, d.minor)
	}
	return all
}

func below(dir string, names []string) []string {
	paths := make([]string, 0, len(names))
	for _, n := range names {
		paths = append(paths, dir+n)
	}
	return paths
}

// A kernelFile is a name in proc or sysfs that this kernel has.
type kernelFile struct {
	name string
	dir  bool
}

// kernelFiles asks once which of the names there are: every proc and every sysfs has the same.
func kernelFiles(dir string, names []string) func() []kernelFile {
	return sync.OnceValue(func() (k []kernelFile) {
		for _, n := range names {
			if fi, err := os.Lstat(dir + n); err == nil {
				k = append(k, kernelFile{n, fi.IsDir()})
			}
		}
		return k
	})
}

var (
	procReadOnlyHere = kernelFiles("/proc/", procReadOnly)
	procMaskedHere   = kernelFiles("/proc/", procMasked)
	sysMaskedHere    = kernelFiles("/sys/", sysMasked)
	cgroupDirHere    = kernelFiles("/sys/", []string{"fs/cgroup"})
)

func (t *mountTree) proc(p *Plan) {
	m := p.newFS("proc", plainAttr)
	p.attach(m, t.dir(p, "proc"), "", "/proc")
	for _, f := range procReadOnlyHere() {
		p.attach(p.copyOf(m, f.name, unix.MOUNT_ATTR_RDONLY), m, f.name, "/proc/"+f.name)
	}
	t.mask(p, m, "/proc/", procMaskedHere())
}

func (t *mountTree) sys(p *Plan, s *Spec) {
	m := p.newFS("sysfs", plainAttr|unix.MOUNT_ATTR_RDONLY)
	p.attach(m, t.dir(p, "sys"), "", "/sys")
	t.mask(p, m, "/sys/", sysMaskedHere())
	if len(cgroupDirHere()) == 0 {
		return
	}
	if s.Flags&unix.CLONE_NEWCGROUP == 0 { // the host's whole tree
		t.mask(p, m, "/sys/", cgroupDirHere())
		return
	}
	p.attach(p.newFS("cgroup2", plainAttr|unix.MOUNT_ATTR_RDONLY), m, "fs/cgroup", "/sys/fs/cgroup")
}

// mask covers files by /dev/null and directories by an empty one.
func (t *mountTree) mask(p *Plan, m *Step, where string, files []kernelFile) {
	for _, f := range files {
		if f.dir {
			p.attach(p.copyOf(t.scratch, "empty", unix.MOUNT_ATTR_RDONLY), m, f.name, where+f.name)
		} else {
			p.attach(t.device(p, "null"), m, f.name, where+f.name)
		}
	}
}

var devices = []struct {
	name         string
	major, minor uint32
}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}

// device is a mount of one device file: of one of our own making, or of the host's, which the
// container cannot chmod.
func (t *mountTree) device(p *Plan, name string) *Step {
	if t.nodes {
		return p.copyOf(t.scratch, "nodes/"+name, 0)
	}
	return p.copyOf(unix.AT_FDCWD, "/dev/"+name, unix.MOUNT_ATTR_RDONLY)
}

// makeDev fills the scratch tmpfs, which is the current directory, with what dev needs.
func (t *mountTree) makeDev(p *Plan) {
	p.mkdir("empty", 0555)
	p.mkdir("nodes", 0755)
	p.mkdir("dev", 0755)
	p.mkdir("dev/pts", 0755)
	p.mkdir("dev/shm", 01777)
	p.mkdir("dev/mqueue", 01777)
	for _, l := range [][2]string{{"pts/ptmx", "ptmx"}, {"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}} {
		p.Do(fmt.Sprintf("symlink %q", l[1]), unix.SYS_SYMLINKAT, l[0], unix.AT_FDCWD, "dev/"+l[1])
	}
	for _, d := range devices {
		if t.nodes {
			p.Do(fmt.Sprintf("mknod %q", d.name), unix.SYS_MKNODAT, unix.AT_FDCWD, "nodes/"+d.name, unix.S_IFCHR|0666, unix.Mkdev(d.major, d.minor))
		}
		p.Do(fmt.Sprintf("mknod %q", "dev/"+d.name), unix.SYS_MKNODAT, unix.AT_FDCWD, "dev/"+d.name, unix.S_IFREG|0666, 0)
	}
}

// dev mounts the container's /dev. No device can be opened there, nor anywhere else in the
// container, for its root may have CAP_MKNOD: the few that can be are mounts of their own.
func (t *mountTree) dev(p *Plan) {
	m := p.copyOf(t.scratch, "dev", unix.MOUNT_ATTR_NODEV)
	p.attach(m, t.dir(p, "dev"), "", "/dev")
	for _, d := range devices {
		p.attach(t.device(p, d.name), m, d.name, "/dev/"+d.name)
	}
	options := []string{"newinstance", "ptmxmode=0666", "mode=0620"}
	if t.nodes {
		options = append(options, "gid=5") // tty; a user namespace may not map it
	}
	p.attach(p.newFS("devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, options...), m, "pts", "/dev/pts")
	p.attach(p.newFS("mqueue", plainAttr), m, "mqueue", "/dev/mqueue")
}

// user mounts what the container's maker asked for.
func (t *mountTree) user(p *Plan, m Mount, from *Step) {
	attr := m.Attr | unix.MOUNT_ATTR_NODEV
	if from != nil {
		p.Do(fmt.Sprintf("mount_setattr %q", m.Target), unix.SYS_MOUNT_SETATTR, from, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, []any{attr, 0, unix.MS_PRIVATE, 0}, 32)
	} else {
		from = p.newFS(m.Type, attr, m.Data...)
	}
	dir, to := t.root, t.root
	inRoot := unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	at := ""
	for _, name := range strings.Split(strings.Trim(path.Clean("/"+m.Target), "/"), "/") {
		at += "/" + name
		if m.isFile && at == path.Clean("/"+m.Target) {
			p.Do(fmt.Sprintf("mknod %q", at), unix.SYS_MKNODAT, dir, name, unix.S_IFREG|0644, 0).Try()
		} else {
			p.Do(fmt.Sprintf("mkdir %q", at), unix.SYS_MKDIRAT, dir, name, 0755).Try()
		}
		to = p.open(t.root, at, unix.O_PATH, inRoot)
		dir = to
	}
	p.attach(from, to, "", m.Target)
}
