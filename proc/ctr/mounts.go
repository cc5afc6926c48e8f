package ctr

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/ns"
)

// A mount is a line of mounts: `mount TYPE SOURCE TARGET [OPTIONS]`.
type mount struct {
	kind, source, target string
	options              string // with commas between, as in fstab(5)
}

// maxMounts is how many a container may ask for.
const maxMounts = 512

// mountAttrs are the options that are a mount's and not its file system's. See mount_setattr(2).
var mountAttrs = map[string]uint64{
	"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV, "noexec": unix.MOUNT_ATTR_NOEXEC,
	"noatime": unix.MOUNT_ATTR_NOATIME, "nodiratime": unix.MOUNT_ATTR_NODIRATIME, "nosymfollow": unix.MOUNT_ATTR_NOSYMFOLLOW,
	"rw": 0, "suid": 0, "exec": 0, "relatime": 0, "bind": 0, "rbind": 0, "private": 0, "rprivate": 0, // as it is anyway
}

func parseMount(line string) (m mount, err error) {
	words, err := ctl.Words(line)
	if err != nil {
		return m, err
	}
	if len(words) < 4 || len(words) > 5 || words[0] != "mount" {
		return m, fmt.Errorf("mounts: not `mount TYPE SOURCE TARGET [OPTIONS]`: %q", line)
	}
	m = mount{kind: words[1], source: words[2], target: words[3]}
	if len(words) == 5 {
		m.options = words[4]
	}
	return m, m.check()
}

func (m *mount) check() error {
	if !strings.HasPrefix(m.target, "/") {
		return fmt.Errorf("mounts: not an absolute path: %q", m.target)
	}
	if m.kind == "bind" && !strings.HasPrefix(m.source, "/") {
		return fmt.Errorf("mounts: not an absolute path: %q", m.source)
	}
	_, err := m.spec()
	return err
}

// spec is the mount for the kernel, without the source of a bind.
func (m *mount) spec() (s ns.Mount, err error) {
	s = ns.Mount{Target: m.target, Type: m.kind}
	if m.kind != "bind" {
		s.Data = []string{"source=" + m.source}
	}
	for o := range strings.SplitSeq(m.options, ",") {
		attr, ok := mountAttrs[o]
		switch {
		case o == "":
		case ok:
			s.Attr |= attr
		case o == "dev" || strings.HasSuffix(o, "shared") || strings.HasSuffix(o, "slave") || strings.HasSuffix(o, "unbindable"):
			return s, fs.Err(unix.EOPNOTSUPP, "mounts: %s: a container's mounts have no devices and are its own", o)
		case m.kind == "bind":
			return s, fmt.Errorf("mounts: no option of a bind: %q", o)
		default:
			s.Data = append(s.Data, o)
		}
	}
	return s, nil
}

func (c *Ctr) mounts(context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return "", errNoCtr
	}
	var b strings.Builder
	for _, m := range c.spec.mounts {
		words := []string{"mount", m.kind, m.source, m.target}
		if m.options != "" {
			words = append(words, m.options)
		}
		b.WriteString(fs.Words(words...) + "\n")
	}
	return b.String(), nil
}

// whileDown changes what is made when the container is created.
func (c *Ctr) whileDown(what string, f func(*spec) error) error {
	return c.change(func(s *spec) error {
		if c.state != isNew && c.state != isStopped {
			return fmt.Errorf("cannot change the %s of a %s container", what, c.state)
		}
		return f(s)
	})
}

func (c *Ctr) clearMounts(context.Context) error {
	return c.whileDown("mounts", func(s *spec) error { s.mounts = nil; return nil })
}

func (c *Ctr) addMount(_ context.Context, line string) error {
	m, err := parseMount(line)
	if err != nil {
		return err
	}
	return c.whileDown("mounts", func(s *spec) error {
		if len(s.mounts) == maxMounts {
			return fs.Err(unix.E2BIG, "mounts: more than %d", maxMounts)
		}
		s.mounts = append(slices.Clip(s.mounts), m)
		return nil
	})
}

// sources opens what is bound as the container's owner. The caller closes it.
func (c *Ctr) sources(mounts []mount) (list []ns.Mount, err error) {
	for _, m := range mounts {
		s, err := m.spec()
		if err == nil && m.kind == "bind" {
			var fd int
			if fd, err = ns.OpenAs(c.owner, m.source, unix.O_PATH|unix.O_CLOEXEC); err == nil {
				s.From = os.NewFile(uintptr(fd), m.source)
			} else {
				err = fmt.Errorf("mounts %q: %w", m.source, err)
			}
		}
		if err != nil {
			closeMounts(list)
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func closeMounts(list []ns.Mount) {
	for _, m := range list {
		if m.From != nil {
			m.From.Close()
		}
	}
}
