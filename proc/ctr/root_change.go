package ctr

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
)

// dirent reads an entry as getdents64(2) gives it, and gives what follows it.
func dirent(b []byte) (e fs.Entry, rest []byte, err error) {
	const head = 19 // d_ino, d_off, d_reclen, d_type
	if len(b) < head {
		return e, nil, unix.EIO
	}
	n := int(binary.NativeEndian.Uint16(b[16:]))
	if n < head || n > len(b) {
		return e, nil, unix.EIO
	}
	name, _, _ := bytes.Cut(b[head:n], []byte{0})
	return fs.Entry{
		Name: string(name),
		Qid:  binary.NativeEndian.Uint64(b),
		Next: binary.NativeEndian.Uint64(b[8:]),
		Type: fs.FromUnix(uint32(b[18]) << 12).Type(), // see readdir(3)
	}, b[n:], nil
}

// set changes attributes of the file that path names, which is fd's, as who runs this thread.
func set(fd int, path string, c fs.Change) error {
	if c.Size != nil {
		if err := unix.Ftruncate(fd, int64(*c.Size)); err != nil {
			return err
		}
	}
	if c.Uid != nil || c.Gid != nil {
		uid, gid := -1, -1
		if c.Uid != nil {
			uid = int(*c.Uid)
		}
		if c.Gid != nil {
			gid = int(*c.Gid)
		}
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	if c.Mode != nil { // after the owner, whose change takes set-user-id bits away
		if err := unix.Fchmodat(unix.AT_FDCWD, path, fs.Unix(*c.Mode)&07777, 0); err != nil {
			return err
		}
	}
	if c.Atime == nil && c.Mtime == nil {
		return nil
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{timespec(c.Atime), timespec(c.Mtime)}, 0)
}

func timespec(t *time.Time) unix.Timespec {
	switch {
	case t == nil:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case t.IsZero():
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return unix.NsecToTimespec(t.UnixNano())
}

func (n *inRoot) Set(ctx context.Context, c fs.Change) error {
	err := n.with(ctx, false, 0, func(fd int) error {
		if c.Size == nil {
			return set(fd, self(fd), c)
		}
		if err := regular(fd); err != nil {
			return err
		}
		w, err := reopen(fd, unix.O_WRONLY)
		if err != nil {
			return err
		}
		defer unix.Close(w)
		return set(w, self(w), c)
	})
	return n.resized(c, err)
}

// resized notes a size that the client has set and so knows.
func (n *inRoot) resized(c fs.Change, err error) error {
	if err == nil && c.Size != nil {
		n.said.Store(*c.Size)
	}
	return err
}

func (h *inRootHandle) Set(ctx context.Context, c fs.Change) error {
	if err := h.there(); err != nil {
		return err
	}
	return h.resized(c, h.use(ctx, h.made, func(int) error { return set(h.fd, self(h.fd), c) }))
}

func (n *inRootDir) Mkdir(ctx context.Context, name string, perm fs.FileMode) (fs.Node, error) {
	err := n.with(ctx, true, unix.O_DIRECTORY, func(fd int) error {
		if err := unix.Mkdirat(fd, name, fs.Unix(perm)&01777); err != nil {
			return err
		}
		made, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(made)
		return unmask(made, perm)
	})
	return n.below(name, fs.ModeDir), err
}

// unmask gives what was just made the permissions that this program's umask took away.
func unmask(fd int, perm fs.FileMode) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&0777 == uint32(perm.Perm()) {
		return err
	}
	return set(fd, self(fd), fs.Change{Mode: &perm})
}

func (n *inRootDir) Symlink(ctx context.Context, name, target string) (fs.Node, error) {
	err := n.with(ctx, true, unix.O_DIRECTORY, func(fd int) error { return unix.Symlinkat(target, fd, name) })
	return n.below(name, fs.FromUnix(unix.S_IFLNK)), err
}

// Create makes a regular file and opens it, with the permissions said, whatever this program's umask.
func (n *inRootDir) Create(ctx context.Context, name string, perm fs.FileMode, how fs.How) (fs.Node, fs.Handle, error) {
	flags := map[fs.How]int{fs.Read: unix.O_RDONLY, fs.Write: unix.O_WRONLY, fs.Read | fs.Write: unix.O_RDWR}[how&^fs.Trunc]
	node := n.below(name, 0).(*inRootFile)
	h, err := node.open(ctx, true, func() (fd int, err error) {
		err = n.with(ctx, true, unix.O_DIRECTORY, func(dir int) error {
			fd, err = unix.Openat(dir, name, flags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, fs.Unix(perm)&07777)
			if err != nil {
				return err
			}
			if err = unmask(fd, perm); err != nil {
				unix.Close(fd)
			}
			return err
		})
		return fd, err
	})
	if err != nil {
		return nil, nil, err
	}
	return node, h, nil
}

// Remove takes away what is no directory, or an empty one.
func (n *inRootDir) Remove(ctx context.Context, name string) error {
	return n.with(ctx, false, unix.O_DIRECTORY, func(fd int) error {
		err := unix.Unlinkat(fd, name, 0)
		if err == unix.EISDIR {
			err = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
		}
		return err
	})
}

func (n *inRootDir) Rename(ctx context.Context, from, to string) error {
	return n.Move(ctx, from, n, to)
}

// Move moves within one container.
func (n *inRootDir) Move(ctx context.Context, from string, dir fs.Node, to string) error {
	var other *inRootDir
	switch d := dir.(type) {
	case *inRootDir:
		other = d
	case *rootTop:
		other = &d.inRootDir
	}
	if other == nil || other.c != n.c {
		return unix.EXDEV
	}
	return n.use(ctx, false, func(root int) error {
		how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: underRoot}
		a, err := unix.Openat2(root, n.path, how)
		if err != nil {
			return err
		}
		defer unix.Close(a)
		b, err := unix.Openat2(root, other.path, how)
		if err != nil {
			return err
		}
		defer unix.Close(b)
		return unix.Renameat(a, from, b, to)
	})
}
