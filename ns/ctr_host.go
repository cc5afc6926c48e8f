package ns

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// A hostRoot is what of the host's root file system a container gets.
type hostRoot struct {
	masks []hostMask
	top   []topName // the names in /, but those of emptyDirs
}

// A topName is a name in the host's /.
type topName struct {
	name string
	link string // where it leads; "" for a directory
	how  topHow
}

type topHow uint8

const (
	topLayer topHow = iota // its own, under a layer
	topBind                // its own, read-only, with what is mounted in it
	topEmpty
)

// hide puts into the upper directory what hides the host's private files: whiteouts, and
// opaque directories where one is to be empty. The container may replace them, as any of its
// files, but not take them away: the lower file does not come back.
func (r *rootPlan) hide(p *Plan) {
	for _, m := range r.host.masks {
		r.hideOne(p, m)
	}
}

func (r *rootPlan) hideOne(p *Plan, m hostMask) {
	name := "up" + m.path
	switch m.kind {
	case maskParent:
		p.mkdir(name, m.mode)
		if m.uid != 0 || m.gid != 0 {
			p.Do(fmt.Sprintf("chown %q", name), unix.SYS_FCHOWNAT, unix.AT_FDCWD, name, m.uid, m.gid, 0).Try()
		}
	case maskEmpty:
		p.mkdir(name, m.mode)
		p.Do(fmt.Sprintf("setxattr %q", name), unix.SYS_SETXATTR, name, "trusted.overlay.opaque", "y", 1, 0)
	case maskAbsent:
		p.Do(fmt.Sprintf("mknod %q", name), unix.SYS_MKNODAT, unix.AT_FDCWD, name, unix.S_IFCHR, 0)
	}
}

// without says of each name in / how a user namespace has it. There what is mounted below a directory
// is locked to it: no layer can lie over the two, and one cannot be had without the other. A directory that has
// something mounted in it is empty, therefore, but for those that the container cannot do without.
func (h *hostRoot) without(below mountPoints) *hostRoot {
	c := &hostRoot{masks: h.masks}
	for _, n := range h.top {
		if n.link == "" {
			switch dir := "/" + n.name; {
			case strings.ContainsAny(n.name, `,:\`): // they part the options of an overlay
				n.how = topEmpty
			case n.name != "etc" && n.name != "usr": // without these two no program runs
				if below.under(dir) != "" || slices.Contains(below, dir) {
					n.how = topEmpty
				}
			case below.under(dir) != "":
				n.how = topBind
			}
		}
		c.top = append(c.top, n)
	}
	return c
}

// hostByName makes the host's root of its directories, a layer for each: an overlay of / itself is refused
// in a user namespace, because something is always mounted below it. Files in / are left out.
func (r *rootPlan) hostByName(p *Plan, t *mountTree) {
	t.root = p.copyOf(t.scratch, "root", unix.MOUNT_ATTR_NODEV)
	p.Do("allow programs and their set-user-ID bits", unix.SYS_MOUNT_SETATTR, t.root, "", unix.AT_EMPTY_PATH,
		[]any{0, unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC, 0, 0}, 32)
	p.attach(t.root, unix.AT_FDCWD, "root", "/")
	t.parts = []*Step{t.root}
	for _, d := range emptyDirs {
		p.mkdir("root"+d.path, d.mode)
	}
	for _, n := range r.host.top {
		to := "root/" + n.name
		if n.link != "" {
			p.Do(fmt.Sprintf("symlink %q", n.name), unix.SYS_SYMLINKAT, n.link, unix.AT_FDCWD, to)
			continue
		}
		p.mkdir(to, 0755)
		switch n.how {
		case topBind:
			m := p.source("/"+n.name, unix.AT_RECURSIVE)
			p.Do(fmt.Sprintf("mount_setattr %q", n.name), unix.SYS_MOUNT_SETATTR, m, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE,
				[]any{unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV, 0, 0, 0}, 32)
			p.attach(m, unix.AT_FDCWD, to, "/"+n.name)
		case topLayer:
			p.mkdir("up/"+n.name, 0755)
			p.mkdir("work/"+n.name, 0755)
			for _, m := range r.host.masks {
				if strings.HasPrefix(m.path, "/"+n.name+"/") {
					r.hideOne(p, m)
				}
			}
			if n.name == "etc" {
				r.netFiles(p, "up/etc/")
			}
			t.parts = append(t.parts, r.overlay(p, "/"+n.name, "up/"+n.name, "work/"+n.name, to))
		}
	}
}

// mountPoints are where something is mounted.
type mountPoints []string

func readMounts() (mountPoints, error) {
	text, err := readFile("/proc/thread-self/mountinfo", maxMounts)
	if err != nil {
		return nil, err
	}
	infos, err := mountinfo.GetMountsFromReader(bytes.NewReader(text), nil)
	if err != nil {
		return nil, err
	}
	var at mountPoints
	for _, m := range infos {
		at = append(at, m.Mountpoint)
	}
	return at, nil
}

// under gives one that is below dir.
func (at mountPoints) under(dir string) string {
	for _, m := range at {
		if m != dir && strings.HasPrefix(m, strings.TrimSuffix(dir, "/")+"/") {
			return m
		}
	}
	return ""
}
