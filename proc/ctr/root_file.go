package ctr

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
)

// inRootFile is a file that is no directory.
type inRootFile struct{ inRoot }

var (
	errSpecial = fs.Err(unix.EPERM, "not a regular file")
	errShorter = fs.Err(unix.EIO, "file has become shorter")
)

// reopen opens what fd stands for: that file itself, whatever its name leads to now. One that somebody in the container has a lease
// on is busy and not waited for.
func reopen(fd, flags int) (int, error) {
	opened, err := unix.Open(self(fd), flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	return opened, err
}

func self(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// regular says whether fd is a regular file.
func regular(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errSpecial
	}
	return nil
}

func (n *inRootFile) Open(ctx context.Context, how fs.How) (fs.Handle, error) {
	flags := map[fs.How]int{fs.Read: unix.O_RDONLY, fs.Write: unix.O_WRONLY, fs.Read | fs.Write: unix.O_RDWR}[how&^fs.Trunc]
	if how&fs.Trunc != 0 && flags == unix.O_RDONLY {
		flags = unix.O_RDWR
	}
	return n.open(ctx, false, func() (fd int, err error) {
		err = n.with(ctx, false, 0, func(path int) error {
			if err := regular(path); err != nil {
				return err
			}
			fd, err = reopen(path, flags)
			return err
		})
		return fd, err
	})
}

// open gives the handle of what f opens, if the client may have one more.
func (n *inRoot) open(ctx context.Context, made bool, f func() (int, error)) (*inRootHandle, error) {
	r, err := n.c.current()
	if err != nil {
		return nil, err
	}
	account := fs.ClientOf(ctx).Account
	if err := account.Take(fs.Descriptors, 1); err != nil {
		return nil, err
	}
	fd, err := f()
	if err != nil {
		account.Give(fs.Descriptors, 1)
		return nil, err
	}
	return &inRootHandle{n, made, r, fd, account}, nil
}

// inRootHandle is an open regular file.
type inRootHandle struct {
	*inRoot
	made    bool // it was made by opening it
	run     *run
	fd      int
	account *fs.Account
}

// there is whether the file system is still mounted.
func (h *inRootHandle) there() error {
	r, err := h.c.current()
	if err == nil && r != h.run {
		err = errNotRunning
	}
	return err
}

const readPiece = 64 << 10

// Read is never short where the client was told that there is more: what has become shorter is an error.
func (h *inRootHandle) Read(_ context.Context, off int64, n int) ([]byte, error) {
	if err := h.there(); err != nil {
		return nil, err
	}
	said := h.said.Load()
	if n > readPiece { // of what is not known to be longer
		n = int(min(int64(n), max(readPiece, int64(said)-off)))
	}
	b := make([]byte, n)
	got := 0
	for got < n {
		k, err := unix.Pread(h.fd, b[got:], off+int64(got))
		if err != nil && err != unix.EINTR {
			return nil, err
		}
		if k == 0 && err == nil {
			break
		}
		got += max(k, 0)
	}
	if got < n && uint64(off)+uint64(got) < said {
		return nil, errShorter
	}
	return b[:got], nil
}

func (h *inRootHandle) Write(_ context.Context, off int64, p []byte) (int, error) {
	if err := h.there(); err != nil {
		return 0, err
	}
	n := 0
	for n < len(p) {
		k, err := unix.Pwrite(h.fd, p[n:], off+int64(n))
		if err != nil && err != unix.EINTR {
			return n, err
		}
		n += max(k, 0)
	}
	return n, nil
}

func (h *inRootHandle) Truncate(ctx context.Context) error {
	return h.Set(ctx, fs.Change{Size: new(uint64)})
}

func (h *inRootHandle) Close(context.Context) error {
	defer h.account.Give(fs.Descriptors, 1)
	return unix.Close(h.fd)
}

// Pages opens the directory.
func (n *inRootDir) Pages(ctx context.Context) (fs.Lister, error) {
	h, err := n.open(ctx, false, func() (fd int, err error) {
		err = n.with(ctx, false, unix.O_DIRECTORY, func(path int) error {
			fd, err = reopen(path, unix.O_RDONLY|unix.O_DIRECTORY)
			return err
		})
		return fd, err
	})
	if err != nil {
		return nil, err
	}
	return &inRootPages{h: h}, nil
}

// inRootPages is an open directory. The places in it are the kernel's own, so nothing of it is kept.
type inRootPages struct {
	h  *inRootHandle
	mu sync.Mutex // guards the descriptor's place
}

func (p *inRootPages) Close() { p.h.Close(context.Background()) }

func (p *inRootPages) From(ctx context.Context, at uint64) (list []fs.Entry, err error) {
	if err := p.h.there(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	buf := make([]byte, 16<<10)
	n := 0
	if _, err = unix.Seek(p.h.fd, int64(at), unix.SEEK_SET); err == nil {
		n, err = unix.Getdents(p.h.fd, buf)
	}
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	err = p.h.use(ctx, false, func(int) error {
		for buf = buf[:n]; len(buf) > 0; {
			var e fs.Entry
			if e, buf, err = dirent(buf); err != nil {
				return err
			}
			// Who may list a directory may not always look at what is in it.
			if st, err := p.h.stat(p.h.fd, e.Name); err == nil {
				e.Qid, e.Type = st.Qid, st.Mode.Type()
			} else if errors.Is(err, unix.ENOENT) && len(buf) > 0 {
				continue
			}
			list = append(list, e)
		}
		return nil
	})
	return list, err
}
