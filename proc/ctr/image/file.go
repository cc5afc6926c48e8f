package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// inRoot has links mean what they mean in the root: one of an earlier layer may be a directory's name in this.
const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// parent opens a directory by its name below the root, and makes what is not there.
func (u *unpacking) parent(dir string) (int, error) {
	how := &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: inRoot}
	fd, err := unix.Openat2(u.root, dir, how)
	if err != unix.ENOENT {
		return fd, err
	}
	up, err := u.parent(path.Dir(dir))
	if err != nil {
		return -1, err
	}
	defer unix.Close(up)
	if err := unix.Mkdirat(up, path.Base(dir), 0755); err != nil {
		return -1, err // a link that leads nowhere, if it exists
	}
	made, err := unix.Openat(up, path.Base(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := u.own(made, 0, 0); err != nil {
		unix.Close(made)
		return -1, err
	}
	return made, nil
}

// make makes the file of an entry, in place of one that is there.
func (u *unpacking) make(h *tar.Header, parent int, base, name string, text io.Reader) error {
	mode := uint32(h.Mode & 07777)
	if h.Typeflag != tar.TypeDir {
		if err := remove(parent, base, 0); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		err := unix.Mkdirat(parent, base, 0700)
		if err == unix.EEXIST {
			var st unix.Stat_t
			if err = unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
				if err = remove(parent, base, 0); err == nil {
					err = unix.Mkdirat(parent, base, 0700)
				}
			}
		}
		if err != nil {
			return err
		}
		u.times[name] = h.ModTime
	case tar.TypeReg:
		fd, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0600)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), base)
		defer f.Close()
		if _, err := io.Copy(f, text); err != nil {
			return err
		}
		return u.attributes(h, fd)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(h.Linkname, parent, base); err != nil {
			return err
		}
	case tar.TypeLink:
		to, err := clean(h.Linkname)
		if err != nil {
			return err
		}
		dir, err := unix.Openat2(u.root, path.Dir(to), &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: inRoot})
		if err != nil {
			return fmt.Errorf("link to %q: %w", h.Linkname, err)
		}
		defer unix.Close(dir)
		if err := unix.Linkat(dir, path.Base(to), parent, base, 0); err != nil {
			return fmt.Errorf("link to %q: %w", h.Linkname, err)
		}
		return nil
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo: // the root is mounted without devices
		kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
		if err := unix.Mknodat(parent, base, kind|mode, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))); err != nil {
			return err
		}
	default:
		return fmt.Errorf("unknown type %q", h.Typeflag)
	}
	fd, err := unix.Openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return u.attributes(h, fd)
}

// own makes a file belong to a user and a group of the image.
func (u *unpacking) own(fd, uid, gid int) error {
	to, group, ok := u.ids(uid, gid)
	if !ok {
		return fmt.Errorf("the container has no user %d or group %d", uid, gid)
	}
	return unix.Fchownat(fd, "", to, group, unix.AT_EMPTY_PATH)
}

const capability = "security.capability" // see capabilities(7)

// attributes sets what an entry says of a file, the mode after the owner, whose change takes bits from it.
func (u *unpacking) attributes(h *tar.Header, fd int) error {
	if err := u.own(fd, h.Uid, h.Gid); err != nil {
		return err
	}
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(unix.AT_FDCWD, self, uint32(h.Mode&07777), 0); err != nil {
			return err
		}
	}
	if caps := h.PAXRecords["SCHILY.xattr."+capability]; caps != "" && h.Typeflag == tar.TypeReg {
		if err := unix.Fsetxattr(fd, capability, []byte(caps), 0); err != nil {
			return fmt.Errorf("%s: %w", capability, err)
		}
	}
	return setTime(self, h.ModTime)
}

func setTime(name string, when time.Time) error {
	t := unix.NsecToTimespec(when.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{t, t}, 0)
}

// touch sets the time of a directory by its name; one that was taken away again has none.
func (u *unpacking) touch(name string, when time.Time) error {
	fd, err := unix.Openat2(u.root, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: inRoot})
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	return setTime("/proc/self/fd/"+strconv.Itoa(fd), when)
}

// remove takes away a file, or a directory and all below it. There may be none.
func remove(parent int, name string, depth int) error {
	err := unix.Unlinkat(parent, name, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR {
		return err
	}
	if depth > 2*MaxDepth { // a name may go on where a link led
		return errors.New("too deep")
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = each(fd, func(below string) error { return remove(fd, below, depth+1) })
	unix.Close(fd)
	if err != nil {
		return err
	}
	return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
}

// empty takes away what earlier layers have put into a directory.
func (u *unpacking) empty(fd int, dir string, depth int) error {
	if depth > 2*MaxDepth {
		return errors.New("too deep")
	}
	return each(fd, func(name string) error {
		at := path.Join(dir, name)
		if !u.added[at] {
			return remove(fd, name, 0)
		}
		below, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOTDIR || err == unix.ELOOP {
			return nil
		} else if err != nil {
			return err
		}
		defer unix.Close(below)
		return u.empty(below, at, depth+1)
	})
}

// each calls f with the names in a directory as they were at first.
func each(fd int, f func(name string) error) error {
	again, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(again), ".")
	names, err := d.Readdirnames(-1)
	d.Close()
	for _, name := range names {
		if err == nil && strings.Trim(name, ".") != "" || len(name) > 2 {
			err = f(name)
		}
	}
	return err
}
