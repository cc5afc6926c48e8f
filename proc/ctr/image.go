package ctr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
	"ctrfs/proc"
	"ctrfs/proc/ctr/image"
)

// mayUnpack says whether the container can have an image's root: it lies in memory that is counted to nobody's limits, and making a
// file system takes root.
func (c *Ctr) mayUnpack() error {
	if os.Geteuid() != 0 || c.owner.Uid != 0 {
		return fmt.Errorf("an image, which takes memory that is not limited, is for root's containers: %w", fs.ErrPerm)
	}
	return nil
}

// isImage says whether what its owner finds there is a file, so an archive, or a directory that says it is an OCI layout.
func (c *Ctr) isImage(name string) bool {
	kind := func(name string) uint32 {
		fd, err := ns.OpenAs(c.owner, name, unix.O_PATH|unix.O_CLOEXEC)
		if err != nil {
			return 0
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		unix.Fstat(fd, &st)
		return st.Mode & unix.S_IFMT
	}
	return path.IsAbs(name) && (kind(name) == unix.S_IFREG || kind(path.Join(name, "oci-layout")) == unix.S_IFREG)
}

// unpack makes the container's scratch layer of its image, and notes what that says about running it. The image is opened as the
// container's owner.
func (c *Ctr) unpack(ctx context.Context, s *spec) error {
	if err := c.mayUnpack(); err != nil {
		return err
	}
	ids, err := c.imageIDs(s)
	if err != nil {
		return err
	}
	name, ref := s.rootfs[1], ""
	if len(s.rootfs) > 2 {
		ref = s.rootfs[2]
	}
	fd, err := ns.OpenAs(c.owner, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY)
	if err != nil {
		return fmt.Errorf("image %q: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	src, err := c.source(f)
	if err != nil {
		return fmt.Errorf("image %q: %w", name, err)
	}
	var said *image.Config
	err = c.scratch.Fill(image.MaxBytes, func(root *os.File) error {
		if said, err = image.Unpack(ctx, src, ref, int(root.Fd()), ids); err != nil {
			return err
		}
		if err := checkImage(said); err != nil {
			return err
		}
		// What a container mounts there, and where it begins, need not be in the image.
		for _, dir := range []string{"proc", "sys", "dev"} {
			if err := unix.Mkdirat(int(root.Fd()), dir, 0755); err != nil && err != unix.EEXIST {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("image %q: %w", name, err)
	}
	labels := map[string]bool{}
	for _, l := range s.labels {
		labels[l.key] = true
	}
	more := slices.Clone(s.labels)
	for key, value := range said.Labels {
		if !labels[key] {
			more = append(more, label{key, value})
		}
	}
	slices.SortFunc(more[len(s.labels):], func(a, b label) int { return strings.Compare(a.key, b.key) })
	said.Labels = nil
	return c.change(func(now *spec) error { now.image, now.labels = said, more; return nil })
}

// source is the image's files: a directory's or an archive's.
func (c *Ctr) source(f *os.File) (image.Source, error) {
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case st.IsDir():
		return image.Dir{Root: f, As: func(do func() error) error { return ns.As(c.owner, do) }}, nil
	case st.Mode().IsRegular():
		return image.Archive(f)
	}
	return nil, errors.New("neither a directory nor an archive")
}

// checkImage refuses what an image cannot mean.
func checkImage(c *image.Config) error {
	n := 0
	for _, v := range c.Env { // `NAME` alone must not become the server's variable (CVE-2026-57231)
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return fmt.Errorf("its Env is not NAME=VALUE: %.256q", v)
		}
	}
	for key, value := range c.Labels {
		if n += len(key) + len(value); key == "" || n > maxLabels {
			return errors.New("its labels are too long, or one is called nothing")
		}
	}
	if c.WorkingDir != "" && !path.IsAbs(c.WorkingDir) {
		return fmt.Errorf("its WorkingDir is not an absolute path: %.256q", c.WorkingDir)
	}
	return errors.Join(proc.Fits(c.Entrypoint, c.Cmd), proc.Fits(nil, c.Env))
}

// imageIDs says which numbers the users of an image have here.
func (c *Ctr) imageIDs(s *spec) (image.IDs, error) {
	if s.from("user") != "new" {
		return func(uid, gid int) (int, int, bool) { return uid, gid, true }, nil
	}
	uids, gids, err := mappings(c.owner)
	if err != nil {
		return nil, err
	}
	return func(uid, gid int) (int, int, bool) {
		u, ok := mapped(uids, uid)
		g, also := mapped(gids, gid)
		return u, g, ok && also
	}, nil
}

// mapped is the number outside of one inside.
func mapped(list []oci.LinuxIDMapping, id int) (int, bool) {
	for _, m := range list {
		if n := id - int(m.ContainerID); n >= 0 && n < int(m.Size) {
			return int(m.HostID) + n, true
		}
	}
	return 0, false
}

// withImage is the spec with what the image says where nobody has said anything.
func (s spec) withImage() spec {
	i := s.image
	if i == nil {
		return s
	}
	if len(s.args) == 0 {
		s.args = slices.Concat(i.Entrypoint, i.Cmd)
	}
	if s.user == "" {
		s.user = i.User
	}
	if s.cwd == "/" && i.WorkingDir != "" {
		s.cwd = i.WorkingDir
	}
	said := slices.Clone(s.env)
	if slices.ContainsFunc(i.Env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		said = slices.DeleteFunc(said, func(v string) bool { return v == defaultPath }) // which nobody has said
	}
	s.env = slices.DeleteFunc(slices.Clone(i.Env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.ContainsFunc(said, func(o string) bool { return strings.HasPrefix(o, name+"=") })
	})
	s.env = append(s.env, said...)
	return s
}
