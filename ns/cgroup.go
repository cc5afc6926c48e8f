package ns

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Cgroups is the control groups that this process may make: where each
// hierarchy is mounted, which controllers it has, and below which of its groups
// ours go. See cgroups(7).
type Cgroups struct {
	base string       // the directory that holds our groups, in each hierarchy that has one
	v2   *hierarchy   // nil where version 2 is not mounted
	v1   []*hierarchy // those with controllers
	rest []*hierarchy // those of version 1 without, which have names: nothing of ours is made there
}

// A hierarchy is one tree of groups.
type hierarchy struct {
	name        string // "unified", or the controllers as /proc/PID/cgroup writes them
	controllers []string
	mount       string // the mount point
	root        string // the group that is seen at the mount point
	own         string // the directory of this process's own group, "" if it lies outside of the mount
	parent      string // the directory that our base goes in, "" if there is none
}

// Unified is the name of the version 2 hierarchy in a Membership.
const Unified = "unified"

// maxCgroupFile bounds a file of /proc or a group: cgroup.procs of a group with
// every pid that there can be has 32 MiB.
const maxCgroupFile = 64 << 20

// FindCgroups looks once at what there is. Groups go into a directory base: at
// the root of each hierarchy where this process is root, unless its own group
// was delegated to it (systemd's Delegate=yes, seen by the attribute that it
// sets) or belongs to its user: then inside that group. That nothing can be made
// is no error here but of MakeGroup.
func FindCgroups(base string) (*Cgroups, error) {
	text, err := readFile("/proc/self/cgroup", maxText)
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	own, err := parseMemberships(text)
	if err != nil {
		return nil, err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	c := &Cgroups{base: base}
	seen := make(map[string]bool)
	for _, m := range mounts {
		h := &hierarchy{name: Unified, mount: m.Mountpoint, root: m.Root}
		var self string
		if m.FSType == "cgroup" {
			i := slices.IndexFunc(own, func(o Membership) bool { return ofMount(o.Hierarchy, m.VFSOptions) })
			if i < 0 {
				continue
			}
			h.name, self = own[i].Hierarchy, own[i].Path
			h.controllers = strings.Split(h.name, ",")
		} else if i := slices.IndexFunc(own, func(o Membership) bool { return o.Hierarchy == Unified }); i >= 0 {
			self = own[i].Path
		}
		if seen[h.name] { // another mount of the same tree
			continue
		}
		seen[h.name] = true
		h.own, _ = h.dir(self)
		h.parent = h.place()
		switch {
		case m.FSType == "cgroup2":
			text, err := os.ReadFile(filepath.Join(cmp.Or(h.parent, h.mount), "cgroup.controllers"))
			if err != nil {
				return nil, fmt.Errorf("find cgroups: %w", err)
			}
			h.controllers = strings.Fields(string(text))
			c.v2 = h
		case !strings.HasPrefix(h.name, "name="):
			c.v1 = append(c.v1, h)
		default:
			c.rest = append(c.rest, h)
		}
	}
	return c, nil
}

// ofMount reports whether a mount with those options is the hierarchy with that
// name: the options hold the controllers, in another order perhaps.
func ofMount(name, options string) bool {
	have := strings.Split(options, ",")
	for word := range strings.SplitSeq(name, ",") {
		if !slices.Contains(have, word) {
			return false
		}
	}
	return true
}

// dir gives the directory of a group, which may lie outside of what is mounted.
func (h *hierarchy) dir(group string) (string, bool) {
	rel, ok := strings.CutPrefix(group+"/", strings.TrimSuffix(h.root, "/")+"/")
	if !ok || strings.HasPrefix(rel, "../") || strings.HasPrefix(group, "/..") {
		return "", false
	}
	return filepath.Join(h.mount, rel), true
}

// group is the inverse of dir.
func (h *hierarchy) group(dir string) string {
	return path.Join(h.root, strings.TrimPrefix(dir, h.mount))
}

// place finds the directory in which groups may be made.
func (h *hierarchy) place() string {
	// With DelegateSubgroup= this process is one below what was delegated.
	for _, dir := range []string{h.own, filepath.Dir(h.own)} {
		if h.own != "" && len(dir) > len(h.mount) && delegated(dir) {
			return dir
		}
	}
	switch {
	case os.Geteuid() == 0 && unix.Access(h.mount, unix.W_OK) == nil:
		return h.mount
	case h.own != "" && unix.Access(h.own, unix.W_OK) == nil &&
		unix.Access(filepath.Join(h.own, "cgroup.procs"), unix.W_OK) == nil:
		return h.own
	}
	return ""
}

func delegated(dir string) bool {
	for _, attr := range []string{"user.delegate", "trusted.delegate"} {
		var value [8]byte
		if n, err := unix.Getxattr(dir, attr, value[:]); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

// life is the hierarchy that every group of ours is in, for what it does with
// its processes as a whole: version 2, which needs no controller for that, else
// version 1's freezer.
func (c *Cgroups) life() *hierarchy {
	if c.v2 != nil {
		return c.v2
	}
	return c.with("freezer")
}

// with gives version 1's hierarchy that has the controller, nil if none has.
func (c *Cgroups) with(controller string) *hierarchy {
	if controller == "io" {
		controller = "blkio"
	}
	for _, h := range c.v1 {
		if slices.Contains(h.controllers, controller) {
			return h
		}
	}
	return nil
}

// make makes the directory of a new group, and before it the one that holds
// them all.
func (h *hierarchy) make(base, name string) (string, error) {
	if h.parent == "" {
		return "", fmt.Errorf("no cgroup may be made in %q: %w", h.mount, fs.ErrPermission)
	}
	holder := filepath.Join(h.parent, base)
	dir := filepath.Join(holder, name)
	for {
		err := os.Mkdir(holder, 0o755)
		if err == nil {
			err = h.prepare(holder)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		if err = os.Mkdir(dir, 0o755); err == nil {
			return dir, h.prepare(dir)
		} else if !errors.Is(err, fs.ErrNotExist) { // Close came between
			return "", err
		}
	}
}

// prepare gives a new group of version 1's cpuset what it needs before it takes
// processes: its parent's processors and memory.
func (h *hierarchy) prepare(dir string) error {
	if h.name == Unified || !slices.Contains(h.controllers, "cpuset") {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), text, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// enable makes version 2's controller available in our groups.
func (c *Cgroups) enable(controller string) error {
	for _, dir := range []string{c.v2.parent, filepath.Join(c.v2.parent, c.base)} {
		file := filepath.Join(dir, "cgroup.subtree_control")
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if slices.Contains(strings.Fields(string(text)), controller) {
			continue
		}
		if err = c.v2.vacate(dir, c.base); err == nil {
			err = os.WriteFile(file, []byte("+"+controller), 0)
		}
		if err != nil {
			return fmt.Errorf("enable cgroup controller %s: %w", controller, err)
		}
	}
	return nil
}

// vacate sees to it that a group has no processes itself, as one must that gives
// controllers to others (of some the kernel lets it, and makes it the root of
// threads, whose children take no processes). If it is this process's own, those
// of the service, this one among them, go into a leaf. The root of the whole tree
// may have some; it is the one group without a type.
func (h *hierarchy) vacate(dir, base string) error {
	if err := unix.Access(filepath.Join(dir, "cgroup.type"), unix.F_OK); err != nil {
		return nil
	}
	leaf := filepath.Join(dir, base+".server")
	for {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil || len(text) == 0 {
			return err
		}
		if dir != h.own || dir == h.mount { // not ours to move
			return fmt.Errorf("processes in %q: %w", dir, unix.EBUSY)
		}
		if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		for pid := range strings.FieldsSeq(string(text)) {
			err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(pid), 0)
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
}

// Close removes the directories that held our groups where none is left in them.
func (c *Cgroups) Close() {
	hierarchies := c.v1
	if c.v2 != nil {
		hierarchies = append([]*hierarchy{c.v2}, c.v1...)
	}
	for _, h := range hierarchies {
		if h.parent != "" {
			unix.Rmdir(filepath.Join(h.parent, c.base)) // EBUSY: groups are left; ENOENT: never made
		}
	}
}

// A Membership says in which group of a hierarchy a process is.
type Membership struct {
	Hierarchy string // Unified, or the controllers as /proc/PID/cgroup writes them ("cpu,cpuacct", "name=systemd")
	Path      string // from the root of the reader's cgroup namespace
}

// Cgroups gives the groups that the process is in.
func (p *Process) Cgroups() ([]Membership, error) {
	text, err := p.read("cgroup", maxText)
	if err != nil {
		return nil, err
	}
	return parseMemberships(text)
}

func parseMemberships(text []byte) ([]Membership, error) {
	var all []Membership
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			return nil, fmt.Errorf("not a line of a cgroup file: %q", line)
		}
		if f[1] == "" {
			f[1] = Unified
		}
		all = append(all, Membership{f[1], f[2]})
	}
	return all, nil
}
