package fuse

import (
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"

	"ctrfs/fs"
)

// The requests that change names.

func mkdir(r *request) ([]byte, error) {
	in, b := arg[fuse.MkdirIn](r)
	called, _ := name(b)
	r.client()
	dir, n := r.m.node(r.NodeId)
	n, err := fs.Make(r.ctx, n, called, fs.FromUnix(in.Mode&07777))
	if err != nil {
		return nil, r.fail(r.m.path(dir, called), err)
	}
	r.m.unname(dir, called)
	return r.entry(dir, called, n)
}

func remove(r *request) ([]byte, error) {
	_, b := arg[fuse.InHeader](r)
	called, _ := name(b)
	r.client()
	dir, n := r.m.node(r.NodeId)
	if err := fs.Delete(r.ctx, n, called); err != nil {
		return nil, r.fail(r.m.path(dir, called), err)
	}
	r.m.unname(dir, called)
	return nil, nil
}

func rename(r *request) ([]byte, error) {
	in, b := arg[struct {
		fuse.InHeader
		Newdir uint64
	}](r)
	from, b := name(b)
	to, _ := name(b)
	r.client()
	dir, n := r.m.node(r.NodeId)
	toDir, where := dir, n
	var other fs.Node
	if in.Newdir != r.NodeId {
		toDir, where = r.m.node(in.Newdir)
		other = where
	}
	if err := fs.Move(r.ctx, n, from, other, to); err != nil {
		return nil, r.fail(r.m.path(dir, from), err)
	}
	is, err := fs.Look(r.ctx, where, to)
	if err != nil { // gone again, or not for him to see: the name is all that is known
		is = gone{}
	}
	r.m.rename(dir, from, toDir, to, is)
	return nil, nil
}

func symlink(r *request) ([]byte, error) {
	_, b := arg[fuse.InHeader](r)
	called, b := name(b)
	target, _ := name(b)
	r.client()
	dir, n := r.m.node(r.NodeId)
	n, err := fs.Symlink(r.ctx, n, called, target)
	if err != nil {
		return nil, r.fail(r.m.path(dir, called), err)
	}
	r.m.unname(dir, called)
	return r.entry(dir, called, n)
}

func readlink(r *request) ([]byte, error) {
	r.client()
	n, is := r.m.node(r.NodeId)
	l, ok := is.(fs.Link)
	if !ok {
		return nil, syscall.EINVAL
	}
	target, err := l.Readlink(r.ctx)
	if err != nil {
		return nil, r.fail(r.m.path(n, ""), err)
	}
	return []byte(target), nil
}

// create makes a file and opens it.
func create(r *request) ([]byte, error) {
	in, b := arg[fuse.CreateIn](r)
	called, _ := name(b)
	c := r.client()
	dir, n := r.m.node(r.NodeId)
	n, h, err := fs.Create(r.ctx, n, called, fs.FromUnix(in.Mode&07777), howOf(in.Flags)&^fs.Trunc)
	if err != nil {
		return nil, r.fail(r.m.path(dir, called), err)
	}
	r.m.unname(dir, called)
	entry, err := r.entry(dir, called, n)
	if err != nil {
		h.Close(r.ctx)
		return nil, err
	}
	is, _ := r.m.node((*fuse.EntryOut)(unsafe.Pointer(unsafe.SliceData(entry))).NodeId)
	fh := r.m.open(is, &handle{Handle: h, client: c})
	return append(entry, raw(&fuse.OpenOut{Fh: fh, OpenFlags: fuse.FOPEN_DIRECT_IO})...), nil
}

// refuse answers whoever wants to make a device, a pipe, or another name of a file.
func refuse(r *request) ([]byte, error) {
	var called string
	switch r.Opcode {
	case opMknod:
		_, b := arg[fuse.MknodIn](r)
		called, _ = name(b)
	case opLink:
		_, b := arg[fuse.LinkIn](r)
		called, _ = name(b)
	}
	r.client()
	dir, _ := r.m.node(r.NodeId)
	return nil, r.fail(r.m.path(dir, called), fs.ErrPerm)
}
