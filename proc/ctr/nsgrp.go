package ctr

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/ns"
)

// A space is a kind of name space.
type space struct {
	kind string
	flag uint64
	from string
}

// spaces are the name spaces of a container and where they can be from, beside `new`. What holds it together is always its own.
var spaces = []space{
	{"cgroup", unix.CLONE_NEWCGROUP, "host"},
	{"ipc", unix.CLONE_NEWIPC, "host, a container, or a path"},
	{"mnt", unix.CLONE_NEWNS, ""},
	{"net", unix.CLONE_NEWNET, "host, a container, or a path"},
	{"pid", unix.CLONE_NEWPID, ""},
	{"user", unix.CLONE_NEWUSER, "host"},
	{"uts", unix.CLONE_NEWUTS, "host, a container, or a path"},
}

// from says where a name space of a kind is from: `new`, `host`, a path, or a container.
func (s *spec) from(kind string) string {
	if f := s.spaces[kind]; f != "" {
		return f
	}
	if kind == "user" {
		return "host"
	}
	return "new"
}

// nsgrp is `KIND INODE FROM` a line.
func (c *Ctr) nsgrp(context.Context) (string, error) {
	c.mu.Lock()
	s, gone := c.spec, c.gone
	c.mu.Unlock()
	if gone {
		return "", errNoCtr
	}
	var b strings.Builder
	for _, k := range spaces {
		inode := "-"
		c.mu.Lock()
		for _, n := range c.spaces { // kept without processes
			var st unix.Stat_t
			if n.Kind == k.kind && unix.Fstat(int(n.File.Fd()), &st) == nil {
				inode = fmt.Sprint(st.Ino)
			}
		}
		c.mu.Unlock()
		if r, err := c.current(); err == nil {
			if n, err := r.job.Process().Namespace(k.kind); err == nil {
				inode = fmt.Sprint(n)
			}
		}
		b.WriteString(fs.Words(k.kind, inode, s.from(k.kind)) + "\n")
	}
	return b.String(), nil
}

// setNsgrp says where a name space is from, `KIND FROM`. Those of the host and of others are for the containers of who runs the
// server: another could do with his only what the kernel would not let him do outside.
func (c *Ctr) setNsgrp(_ context.Context, line string) error {
	words, err := ctl.Words(line)
	if err != nil {
		return err
	}
	if len(words) != 2 {
		return fmt.Errorf("nsgrp: not KIND FROM: %q", line)
	}
	kind, from := words[0], words[1]
	if err := c.checkSpace(kind, from); err != nil {
		return fmt.Errorf("nsgrp: %w", err)
	}
	return c.whileNew("name spaces", func(s *spec) error {
		next := *s
		next.spaces = maps.Clone(s.spaces)
		if next.spaces == nil {
			next.spaces = map[string]string{}
		}
		next.spaces[kind] = from
		if err := next.checkSpaces(); err != nil {
			return fmt.Errorf("nsgrp: %w", err)
		}
		s.spaces = next.spaces
		return nil
	})
}

// checkSpace is whether the container's name space of a kind may be from there.
func (c *Ctr) checkSpace(kind, from string) error {
	may := "none"
	for _, k := range spaces {
		if k.kind == kind {
			may = k.from
		}
	}
	path := strings.HasPrefix(from, "/")
	switch {
	case may == "none":
		return fmt.Errorf("no such kind of name space: %q", kind)
	case from == "new":
	case may == "", may == "host" && from != "host":
		return fs.Err(unix.EOPNOTSUPP, "%s: a container has its own", kind)
	case c.owner.Uid != 0:
		return fmt.Errorf("%s %q: %w", kind, from, fs.ErrPerm)
	case from != "host" && !path:
		if _, err := c.set.find(from); err != nil {
			return fmt.Errorf("no such container: %q", from)
		}
	}
	return nil
}

// checkSpaces is whether name spaces can be from where they are to be together.
func (s *spec) checkSpaces() error {
	if s.spaces["user"] != "new" {
		return nil
	}
	for kind, from := range s.spaces {
		if from != "new" && from != "host" || from == "host" && kind != "user" {
			return fs.Err(unix.EOPNOTSUPP, "%s %q: it has no right to that in a user name space of its own", kind, from)
		}
	}
	return nil
}

// enterSpaces says in a container's plan which name spaces it has. The caller closes those that are joined.
func (c *Ctr) enterSpaces(s *spec, to *ns.Spec) error {
	for _, k := range spaces {
		from := s.from(k.kind)
		switch {
		case from == "new":
			to.Flags |= k.flag
			continue
		case from == "host":
			to.Flags &^= k.flag
			continue
		}
		f, err := c.openSpace(k.kind, from)
		if err != nil {
			return fmt.Errorf("nsgrp: %s %q: %w", k.kind, from, err)
		}
		to.Join = append(to.Join, ns.Namespace{Kind: k.kind, File: f})
	}
	if s.from("uts") != "new" {
		to.Hostname, to.Domainname = "", ""
	}
	return nil
}

// openSpace opens the name space of a kind that a path leads to, or that another container has.
func (c *Ctr) openSpace(kind, from string) (*os.File, error) {
	if !strings.HasPrefix(from, "/") {
		other, err := c.set.find(from)
		if err != nil {
			return nil, err
		}
		r, err := other.current()
		if err == nil {
			err = other.closed()
		}
		if err != nil {
			return nil, err
		}
		return r.job.Process().OpenNamespace(kind)
	}
	fd, err := ns.OpenAs(c.owner, from, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), from), nil
}

func closeSpaces(list []ns.Namespace) {
	for _, n := range list {
		n.File.Close()
	}
}
