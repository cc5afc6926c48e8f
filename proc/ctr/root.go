package ctr

import (
	"context"
	"hash/maphash"
	"os"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// The file system of a container, seen from the host. Whoever is in the container may change it at any moment and in any way, so a
// name is looked for anew at each use, from the root that its first process has, by openat2 in that root and through
// no link at all, as the client: what was a directory when he walked there and is a link now is an error. Nothing
// but regular files and directories is ever opened, and nothing waits for anybody in the container.

// inRoot is a name in it.
type inRoot struct {
	c    *Ctr
	path string         // from its root, "." that itself
	said *atomic.Uint64 // its length, as it was last told
}

// underRoot has openat2 look for names.
const underRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS

// rootDir is the directory root, in which only the container's owner gets anywhere.
func (c *Ctr) rootDir(_ context.Context, qid uint64) (fs.Dir, error) {
	return &rootTop{inRootDir{inRoot{c, ".", new(atomic.Uint64)}}, qid}, nil
}

type rootTop struct {
	inRootDir
	qid uint64
}

func (n *rootTop) Stat(context.Context) (fs.Stat, error) {
	uid, gid := n.c.Owner()
	mode := fs.FileMode(0700)
	if n.c.shared() {
		mode = 0770
	}
	return fs.Stat{Name: "root", Qid: n.qid, Mode: fs.ModeDir | mode, Uid: uid, Gid: gid, Time: time.Now()}, nil
}

// use calls f as the client with the root of the run that goes on. Where nothing of this server's root belongs to anybody
// in the container, what root makes is the container's owner's, who is root there.
func (n *inRoot) use(ctx context.Context, makes bool, f func(root int) error) error {
	r, err := n.c.current()
	if err != nil {
		return err
	}
	root, err := r.job.Process().OpenRoot()
	if err != nil {
		return err
	}
	defer root.Close()
	client := fs.ClientOf(ctx)
	who := ns.Cred{Uid: client.Uid, Gid: client.Gid, Groups: client.Groups}
	if makes && client.Root() && r.spec.Flags&unix.CLONE_NEWUSER != 0 {
		who = n.c.owner
	}
	return ns.As(who, func() error { return f(int(root.Fd())) })
}

// with calls f with what the name stands for, not opened.
func (n *inRoot) with(ctx context.Context, makes bool, flags uint64, f func(fd int) error) error {
	return n.use(ctx, makes, func(root int) error {
		fd, err := unix.Openat2(root, n.path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC | flags, Resolve: underRoot})
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return f(fd)
	})
}

func (n *inRoot) Stat(ctx context.Context) (st fs.Stat, err error) {
	err = n.with(ctx, false, 0, func(fd int) error {
		st, err = n.stat(fd, "")
		return err
	})
	st.Name = path.Base(n.path)
	n.said.Store(st.Length)
	return st, err
}

// stat describes the file called so in the directory fd, or fd if there is no name. Not said is which device one is: who mounts
// the tree without nodev would open the host's.
func (n *inRoot) stat(fd int, name string) (fs.Stat, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, name, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return fs.Stat{}, err
	}
	s := fs.Stat{
		Qid: n.qid(&st), Mode: fs.FromUnix(uint32(st.Mode)), Uid: st.Uid, Gid: st.Gid,
		Time: moment(st.Mtime), Atime: moment(st.Atime), Ctime: moment(st.Ctime),
	}
	if t := s.Mode.Type(); t == 0 && !made(fd, name, &st) || t == os.ModeSymlink {
		s.Length = st.Size
	}
	return s, nil
}

// made says whether a file is made when it is read, though it has a length: sysfs gives every file a page.
func made(fd int, name string, st *unix.Statx_t) bool {
	if st.Size != uint64(os.Getpagesize()) || st.Blocks != 0 {
		return false
	}
	var of unix.Statfs_t
	return name == "" && unix.Fstatfs(fd, &of) == nil && of.Type == unix.SYSFS_MAGIC
}

func moment(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

var qidSeed = maphash.MakeSeed()

// qid is unlike the numbers of all other files of the tree, and another for a file that has the inode of one that is gone: that was
// made at another time, which before Linux 6.13 is told by the tick only.
func (n *inRoot) qid(st *unix.Statx_t) uint64 {
	return 3<<62 | maphash.Comparable(qidSeed, struct {
		ctr          uint64
		major, minor uint32
		inode        uint64
		made         unix.StatxTimestamp
	}{n.c.qid, st.Dev_major, st.Dev_minor, st.Ino, st.Btime})>>2
}

// below gives the node of a name in the directory n, which is of the type said.
func (n *inRoot) below(name string, mode fs.FileMode) fs.Node {
	at := inRoot{n.c, path.Join(n.path, name), new(atomic.Uint64)}
	switch mode.Type() {
	case os.ModeDir:
		return &inRootDir{at}
	case os.ModeSymlink:
		return &inRootLink{inRootFile{at}}
	}
	return &inRootFile{at}
}

// inRootDir is a directory.
type inRootDir struct{ inRoot }

func (n *inRootDir) Walk(ctx context.Context, name string) (to fs.Node, err error) {
	err = n.with(ctx, false, unix.O_DIRECTORY, func(fd int) error {
		st, err := n.stat(fd, name)
		to = n.below(name, st.Mode)
		return err
	})
	if err != nil {
		return nil, err
	}
	return to, nil
}

// maxEntries bounds what is listed at once; who serves the tree asks for pieces.
const maxEntries = 1 << 16

func (n *inRootDir) List(ctx context.Context) (list []fs.Entry, err error) {
	l, err := n.Pages(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	for at := uint64(0); ; {
		some, err := l.From(ctx, at)
		if err != nil || len(some) == 0 {
			return list, err
		}
		if len(list) > maxEntries {
			return nil, unix.E2BIG
		}
		for _, e := range some {
			if at = e.Next; strings.Trim(e.Name, ".") != "" || len(e.Name) > 2 {
				list = append(list, e)
			}
		}
	}
}

// inRootLink is a symbolic link; opened, as 9P2000 does, it is a file that holds its target.
type inRootLink struct{ inRootFile }

func (n *inRootLink) Readlink(ctx context.Context) (target string, err error) {
	err = n.with(ctx, false, 0, func(fd int) error {
		buf := make([]byte, unix.PathMax)
		k, err := unix.Readlinkat(fd, "", buf)
		if err == nil {
			target = string(buf[:k])
		}
		return err
	})
	return target, err
}

func (n *inRootLink) Open(ctx context.Context, how fs.How) (fs.Handle, error) {
	if how != fs.Read {
		return nil, fs.ErrPerm
	}
	return fs.NewText(n.Readlink), nil
}

// Set is refused: the mode of root is not that of the container's /.
func (n *rootTop) Set(context.Context, fs.Change) error {
	return fs.Err(unix.EPERM, "wstat prohibited")
}
