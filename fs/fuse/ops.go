package fuse

import (
	"bytes"
	"cmp"
	"context"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"ctrfs/fs"
)

// The requests, by their numbers in linux/fuse.h.
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opSetattr     = 4
	opReadlink    = 5
	opSymlink     = 6
	opMknod       = 8
	opMkdir       = 9
	opUnlink      = 10
	opRmdir       = 11
	opRename      = 12
	opLink        = 13
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opStatfs      = 17
	opRelease     = 18
	opInit        = 26
	opOpendir     = 27
	opReaddir     = 28
	opReleasedir  = 29
	opAccess      = 34
	opCreate      = 35
	opInterrupt   = 36
	opDestroy     = 38
	opBatchForget = 42
)

// What is not here is ENOSYS. The kernel remembers that for flush, fsync, extended attributes, poll, lseek, fallocate,
// copy_file_range and the renames with flags, and does without.
var ops = map[uint32]func(*request) ([]byte, error){
	opLookup:     lookup,
	opGetattr:    getattr,
	opSetattr:    setattr,
	opReadlink:   readlink,
	opSymlink:    symlink,
	opMknod:      refuse,
	opMkdir:      mkdir,
	opUnlink:     remove,
	opRmdir:      remove,
	opRename:     rename,
	opLink:       refuse,
	opOpen:       open,
	opRead:       read,
	opWrite:      write,
	opStatfs:     statfs,
	opRelease:    release,
	opInit:       hello,
	opOpendir:    opendir,
	opReaddir:    readdir,
	opReleasedir: release,
	opAccess:     access,
	opCreate:     create,
	opDestroy:    func(*request) ([]byte, error) { return nil, nil },
}

// hello agrees on the protocol. Without PARALLEL_DIROPS one look-up that waits holds up its directory; without
// ATOMIC_O_TRUNC a `>` takes the file's lock, which a write that waits has.
func hello(r *request) ([]byte, error) {
	const major, minor = 7, 31
	in, _ := arg[fuse.InitIn](r)
	if in.Major != major || in.Minor < 28 {
		return nil, syscall.EPROTO
	}
	return raw(&fuse.InitOut{
		Major: major, Minor: min(in.Minor, minor),
		MaxReadAhead: in.MaxReadAhead,
		Flags:        in.Flags & (fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_BIG_WRITES | fuse.CAP_PARALLEL_DIROPS | fuse.CAP_MAX_PAGES),
		// Releases are sent in the background; one that waits is not to keep the others back.
		MaxBackground: 1 << 15, CongestionThreshold: 1 << 15,
		MaxWrite: maxWrite, MaxPages: uint16(maxWrite / unix.Getpagesize()),
		TimeGran: 1,
	}), nil
}

// attr puts a file in the kernel's words. A directory has one link, which tells find(1) nothing about its
// subdirectories; with two it would look for none.
func attr(st fs.Stat) fuse.Attr {
	atime, ctime := cmp.Or(st.Atime, st.Time), cmp.Or(st.Ctime, st.Time)
	return fuse.Attr{
		Ino: st.Qid, Size: st.Length, Blocks: (st.Length + 511) / 512, Blksize: 4096,
		Atime: uint64(atime.Unix()), Atimensec: uint32(atime.Nanosecond()),
		Mtime: uint64(st.Time.Unix()), Mtimensec: uint32(st.Time.Nanosecond()),
		Ctime: uint64(ctime.Unix()), Ctimensec: uint32(ctime.Nanosecond()),
		Mode: fs.Unix(st.Mode), Nlink: 1, Owner: fuse.Owner{Uid: st.Uid, Gid: st.Gid},
	}
}

// name is the string that begins b, and what follows it.
func name(b []byte) (string, []byte) {
	s, rest, _ := bytes.Cut(b, []byte{0})
	return string(s), rest
}

// entry tells the kernel of a name. Nothing of it may be kept: the time-outs are 0.
func (r *request) entry(dir *node, called string, is fs.Node) ([]byte, error) {
	st, err := is.Stat(r.ctx)
	if err != nil {
		return nil, err
	}
	return raw(&fuse.EntryOut{NodeId: r.m.learn(dir, called, is, st), Attr: attr(st)}), nil
}

func lookup(r *request) ([]byte, error) {
	_, b := arg[fuse.InHeader](r)
	called, _ := name(b)
	r.client()
	dir, n := r.m.node(r.NodeId)
	n, err := fs.Look(r.ctx, n, called)
	if err != nil {
		return nil, err
	}
	return r.entry(dir, called, n)
}

func getattr(r *request) ([]byte, error) {
	r.client()
	n, is := r.m.node(r.NodeId)
	st, err := is.Stat(r.ctx)
	if err != nil {
		var open bool
		if st, open = r.m.remembered(n); !open {
			return nil, err
		}
	}
	return raw(&fuse.AttrOut{Attr: attr(st)}), nil
}

func setattr(r *request) ([]byte, error) {
	in, _ := arg[fuse.SetAttrIn](r)
	r.client()
	n, is := r.m.node(r.NodeId)
	var h fs.Handle
	if in.Valid&fuse.FATTR_FH != 0 {
		open, err := r.handle(in.Fh)
		if err != nil {
			return nil, err
		}
		h = open.Handle
	}
	var c fs.Change
	if in.Valid&fuse.FATTR_MODE != 0 {
		mode := fs.FromUnix(in.Mode & 07777)
		c.Mode = &mode
	}
	if in.Valid&fuse.FATTR_UID != 0 {
		c.Uid = &in.Uid
	}
	if in.Valid&fuse.FATTR_GID != 0 {
		c.Gid = &in.Gid
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		c.Size = &in.Size
	}
	when := func(asked, now uint32, sec uint64, nsec uint32) *time.Time {
		switch {
		case in.Valid&asked == 0:
			return nil
		case in.Valid&now != 0:
			return new(time.Time)
		}
		at := time.Unix(int64(sec), int64(nsec))
		return &at
	}
	c.Atime = when(fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec)
	c.Mtime = when(fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec)
	if err := fs.Set(r.ctx, is, h, c); err != nil {
		return nil, r.fail(r.m.path(n, ""), err)
	}
	return getattr(r)
}

func access(r *request) ([]byte, error) {
	in, _ := arg[fuse.AccessIn](r)
	r.client()
	_, is := r.m.node(r.NodeId)
	st, err := is.Stat(r.ctx)
	if err != nil {
		return nil, err
	}
	var how fs.How
	if in.Mask&unix.R_OK != 0 {
		how |= fs.Read
	}
	if in.Mask&unix.W_OK != 0 {
		how |= fs.Write
	}
	if err := fs.Access(r.ctx, st, how); err != nil || in.Mask&unix.X_OK == 0 {
		return nil, err
	}
	if st.Mode&0111 == 0 {
		return nil, fs.ErrPerm // for root too
	}
	st.Mode = st.Mode & 0111 << 2 // may it be searched, asked as if to read
	return nil, fs.Access(r.ctx, st, fs.Read)
}

// howOf says what the flags of open(2) ask for.
func howOf(flags uint32) fs.How {
	how := map[uint32]fs.How{
		syscall.O_RDONLY: fs.Read,
		syscall.O_WRONLY: fs.Write,
		syscall.O_RDWR:   fs.Read | fs.Write,
	}[flags&syscall.O_ACCMODE]
	if flags&syscall.O_TRUNC != 0 {
		how |= fs.Trunc
	}
	return how
}

func open(r *request) ([]byte, error) {
	in, _ := arg[fuse.OpenIn](r)
	c := r.client()
	n, is := r.m.node(r.NodeId)
	h, err := fs.Enter(r.ctx, is, howOf(in.Flags))
	if err != nil {
		return nil, r.fail(r.m.path(n, ""), err)
	}
	fh := r.m.open(n, &handle{Handle: h, client: c})
	return raw(&fuse.OpenOut{Fh: fh, OpenFlags: fuse.FOPEN_DIRECT_IO}), nil
}

func read(r *request) ([]byte, error) {
	in, _ := arg[fuse.ReadIn](r)
	h, err := r.handle(in.Fh)
	if err != nil || h.Handle == nil {
		return nil, syscall.EBADF
	}
	n := int(in.Size)
	if n >= maxRead {
		// Were it filled, the kernel would go on with the rest of its read(2), and that may block.
		n = maxRead - 1
	}
	b, err := h.Read(r.ctx, int64(in.Offset), n)
	if err != nil {
		return nil, r.fail(r.m.path(h.node, ""), err)
	}
	return b, nil
}

func write(r *request) ([]byte, error) {
	in, b := arg[fuse.WriteIn](r)
	h, err := r.handle(in.Fh)
	if err != nil || h.Handle == nil {
		return nil, syscall.EBADF
	}
	n, err := h.Write(r.ctx, int64(in.Offset), b[:min(len(b), int(in.Size))])
	if err != nil {
		r.fail(r.m.path(h.node, ""), err)
		if n == 0 {
			return nil, err
		}
	}
	return raw(&fuse.WriteOut{Size: uint32(n)}), nil
}

// release closes a file that no descriptor is left of. Nobody waits for its error: it is in /error only.
func release(r *request) ([]byte, error) {
	in, _ := arg[fuse.ReleaseIn](r)
	if h := r.m.release(in.Fh); h != nil {
		r.ctx = fs.WithClient(context.WithoutCancel(r.ctx), h.client)
		r.fail(r.m.path(h.node, ""), h.close(r.ctx))
	}
	return nil, nil
}

// close closes an open file in a context in which its opener asks.
func (h *handle) close(ctx context.Context) error {
	switch {
	case h.Handle != nil:
		return h.Handle.Close(ctx)
	case h.pages != nil:
		h.pages.Close()
	}
	return nil
}

func statfs(*request) ([]byte, error) {
	return raw(&fuse.StatfsOut{Bsize: 4096, Frsize: 4096, NameLen: 255}), nil
}
