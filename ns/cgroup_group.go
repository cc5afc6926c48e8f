package ns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Group is a control group of ours: in version 2 always, in version 1's
// hierarchies only where a limit asked for it, because entering one of those
// costs a process up to 13 ms.
//
// A group whose processes were killed takes no new ones: kernels up to 6.18 at
// least kill whatever is later cloned into a group that was ever killed. Remove
// it and make another; the name may be the same.
type Group struct {
	cgroups *Cgroups
	name    string // of the directory
	path    string // the group as /proc/PID/cgroup has it, in the hierarchy of its life
	dir     *os.File

	mu     sync.Mutex              // guards what follows
	v1     map[*hierarchy]*os.File // where limits are; not the hierarchy of its life
	killed bool
	closed bool
	waits  map[*os.File]struct{} // cgroup.events, of those who wait there
}

// ErrKilled is given by a group that takes no more processes.
var ErrKilled = errors.New("cgroup was killed")

// killedAttr marks the directory of a killed group for later servers.
const killedAttr = "user.ctrfs.killed"

// The groups that a process inside may make: room for a systemd, an end to
// nests that would have to be removed one by one.
const (
	maxDepth  = 32
	maxNested = 4096
)

// MakeGroup makes a new group. The error is fs.ErrExist where there is one, and
// fs.ErrPermission where none may be made.
func (c *Cgroups) MakeGroup(name string) (*Group, error) {
	life, file, err := c.named(name)
	if err != nil {
		return nil, err
	}
	dir, err := life.make(c.base, file)
	if err != nil {
		return nil, fmt.Errorf("make cgroup %q: %w", name, err)
	}
	g, err := c.open(life, file)
	if err == nil && life == c.v2 {
		err = errors.Join(write(g.dir, "cgroup.max.depth", strconv.Itoa(maxDepth)),
			write(g.dir, "cgroup.max.descendants", strconv.Itoa(maxNested)))
	}
	if err != nil {
		unix.Rmdir(dir)
		return nil, fmt.Errorf("make cgroup %q: %w", name, err)
	}
	return g, nil
}

// Sweep removes a group, which others have made, from every hierarchy, if nobody is in it.
func (c *Cgroups) Sweep(group string) {
	for _, h := range slices.Concat([]*hierarchy{c.v2}, c.v1, c.rest) {
		if h == nil {
			continue
		}
		if dir, ok := h.dir(group); ok {
			unix.Rmdir(dir) // fails where there is none, as it should be
		}
	}
}

// OpenGroup finds a group that an earlier server made.
func (c *Cgroups) OpenGroup(name string) (*Group, error) {
	life, file, err := c.named(name)
	if err != nil {
		return nil, err
	}
	if life.parent == "" { // none may be made, so none was
		return nil, fmt.Errorf("open cgroup %q: %w", name, fs.ErrNotExist)
	}
	g, err := c.open(life, file)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %q: %w", name, err)
	}
	for _, h := range c.v1 {
		if h == life || h.parent == "" {
			continue
		}
		if dir, err := os.Open(filepath.Join(h.parent, c.base, file)); err == nil {
			g.v1[h] = dir
		} else if !errors.Is(err, fs.ErrNotExist) {
			g.Close()
			return nil, fmt.Errorf("open cgroup %q: %w", name, err)
		}
	}
	return g, nil
}

// named gives what a group of that name needs. Its directory must not look like
// a file of the kernel in the directory above (cgroup.procs, memory.max): such
// names get a leading "_", as systemd does it.
func (c *Cgroups) named(name string) (*hierarchy, string, error) {
	life := c.life()
	if life == nil {
		return nil, "", fmt.Errorf("make cgroup %q: no hierarchy for it is mounted: %w", name, fs.ErrPermission)
	}
	if name == "" || strings.ContainsAny(name, "/\n\x00") || len(name) > 254 {
		return nil, "", fmt.Errorf("bad cgroup name: %q", name)
	}
	if name[0] == '_' || strings.Contains(name, ".") {
		name = "_" + name
	}
	return life, name, nil
}

func (c *Cgroups) open(life *hierarchy, file string) (*Group, error) {
	path := filepath.Join(life.parent, c.base, file)
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	g := &Group{cgroups: c, name: file, path: life.group(path), dir: dir, v1: make(map[*hierarchy]*os.File), waits: make(map[*os.File]struct{})}
	g.killed = at(dir, func(fd int) error {
		_, err := unix.Fgetxattr(fd, killedAttr, nil)
		return err
	}) == nil
	return g, nil
}

// Close forgets the group, which stays. What is under way ends as for a group that is gone.
func (g *Group) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, dir := range g.v1 {
		dir.Close()
	}
	clear(g.v1)
	g.closed = true
	for f := range g.waits {
		f.SetReadDeadline(time.Unix(1, 0))
	}
	return g.dir.Close()
}

// Path is the group as /proc/PID/cgroup has it.
func (g *Group) Path() string { return g.path }

// Dir is the directory for CLONE_INTO_CGROUP, nil where only version 1 is
// mounted. The error is ErrKilled for a group that would kill the clone. It
// belongs to the group. A process so made still has to Enter.
func (g *Group) Dir() (*os.File, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.killed:
		return nil, ErrKilled
	case g.cgroups.v2 == nil:
		return nil, nil
	}
	return g.dir, nil
}

// Enter moves a process into the group, in every hierarchy that the group is in
// and the process is not. It comes before anything the process does that limits
// are for: memory stays with the group that it was taken in.
func (g *Group) Enter(p *Process) error {
	in, err := p.Cgroups()
	if err != nil {
		return err
	}
	there := slices.Contains(in, Membership{g.cgroups.life().name, g.path})
	if err := g.enter(p.Pid(), there); err != nil {
		return err
	}
	return p.Check()
}

// enter is Enter for who has no other number while this goes on. It may be there, but for version 1's hierarchies.
func (g *Group) enter(pid int, there bool) error {
	g.mu.Lock()
	dirs := maps.Clone(g.v1)
	killed := g.killed
	g.mu.Unlock()
	if killed {
		return ErrKilled
	}
	if !there {
		if err := write(g.dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("enter cgroup: %w", err)
		}
	}
	for h, dir := range dirs {
		if err := write(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("enter cgroup: %s: %w", h.name, err)
		}
	}
	return nil
}

// Procs gives the pids of the processes in the group and in those that they
// made below it, as this process's pid namespace numbers them.
func (g *Group) Procs() ([]int, error) {
	var all []int
	err := walk(g.dir, func(dir *os.File) error {
		pids, err := procs(dir)
		all = append(all, pids...)
		return err
	})
	return all, err
}

func procs(dir *os.File) ([]int, error) {
	return pidsIn(dir, "cgroup.procs")
}

func pidsIn(dir *os.File, file string) ([]int, error) {
	text, err := read(dir, file)
	if err != nil {
		return nil, err
	}
	var pids []int
	for word := range strings.FieldsSeq(text) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		if pid != 0 { // 0: in a pid namespace that is not below ours
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Remove waits until the group is empty and removes it, with those below it,
// from all hierarchies, and closes it.
func (g *Group) Remove(ctx context.Context) error {
	if err := g.WaitEmpty(ctx); err != nil {
		return err
	}
	g.mu.Lock()
	v1 := maps.Clone(g.v1)
	g.mu.Unlock()
	for h, dir := range v1 {
		if err := h.remove(ctx, g, dir); err != nil {
			return err
		}
	}
	if err := g.cgroups.life().remove(ctx, g, g.dir); err != nil {
		return err
	}
	return g.Close()
}

// remove removes the group from one hierarchy. Whoever is in it there alone is
// waited for.
func (h *hierarchy) remove(ctx context.Context, g *Group, dir *os.File) error {
	err := walk(dir, func(d *os.File) error {
		if d == dir {
			return nil
		}
		if err := waitProcs(ctx, d); err != nil {
			return err
		}
		return unix.Rmdir(d.Name())
	})
	if err == nil {
		err = waitProcs(ctx, dir)
	}
	if err == nil {
		err = unix.Rmdir(dir.Name())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove cgroup %q: %s: %w", g.name, h.name, err)
	}
	return nil
}

// walk calls f for every group below dir, those deepest first, and for dir
// itself. What goes away meanwhile is passed over.
func walk(dir *os.File, f func(*os.File) error) error {
	left := 2 * maxNested
	return walkDown(dir, 2*maxDepth, &left, f)
}

func walkDown(dir *os.File, depth int, left *int, f func(*os.File) error) error {
	if *left--; depth == 0 || *left < 0 {
		return fmt.Errorf("cgroup %q: too many groups below it", dir.Name())
	}
	list, err := openIn(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err == nil {
		var entries []fs.DirEntry
		entries, err = list.ReadDir(-1)
		list.Close()
		for _, e := range entries {
			if !e.IsDir() {
				continue
			}
			below, err := openIn(dir, e.Name(), unix.O_RDONLY|unix.O_DIRECTORY)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			err = walkDown(below, depth-1, left, f)
			below.Close()
			if err != nil {
				return err
			}
		}
	}
	if err == nil {
		err = f(dir)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrClosed) {
		return nil // ENODEV: a file of a group that was removed
	}
	return err
}

// at calls f with the descriptor of a group's directory, which stays that one's until f returns though another closes
// the group meanwhile.
func at(dir *os.File, f func(fd int) error) error {
	conn, err := dir.SyscallConn()
	if err != nil {
		return err
	}
	if e := conn.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return fs.ErrClosed
	}
	return err
}

// openAt is openat(2) of a file of the group.
func openAt(dir *os.File, name string, flags int) (fd int, err error) {
	err = at(dir, func(d int) error {
		fd, err = unix.Openat(d, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		return err
	})
	return fd, err
}

// openIn opens a file of the group behind dir, which is that group and no later
// one of its name.
func openIn(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := openAt(dir, name, flags|unix.O_NONBLOCK)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name)), nil
}

// read gives the text of a file of the group, without the last newline.
func read(dir *os.File, name string) (string, error) {
	fd, err := openAt(dir, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	text, err := readFD(fd, maxCgroupFile)
	return strings.TrimSuffix(string(text), "\n"), err
}

// write writes a value into a file of the group.
func write(dir *os.File, name, value string) error {
	fd, err := openAt(dir, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value+"\n")) // a write of nothing would change nothing
	return err
}
