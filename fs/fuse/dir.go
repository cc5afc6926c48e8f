package fuse

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"ctrfs/fs"
)

// A listing is what an open directory holds: as it was when it was opened or rewound, so that a place in it stays
// good whatever comes and goes meanwhile.
type listing struct {
	pages fs.Lister // gives it in pieces instead; nil: it is listed at once

	mu      sync.Mutex // guards what follows
	entries []fuse.DirEntry
	fresh   bool // nothing was read of it
}

func opendir(r *request) ([]byte, error) {
	c := r.client()
	n, is := r.m.node(r.NodeId)
	l := &listing{fresh: true}
	var err error
	if l.pages, err = fs.Pages(r.ctx, is); err == nil && l.pages == nil {
		l.entries, err = r.list(n, is)
	}
	if err != nil {
		return nil, r.fail(r.m.path(n, ""), err)
	}
	fh := r.m.open(n, &handle{listing: l, client: c})
	return raw(&fuse.OpenOut{Fh: fh}), nil
}

// list gives the entries of a directory, itself and the one above it first.
func (r *request) list(n *node, is fs.Node) ([]fuse.DirEntry, error) {
	found, err := fs.Contents(r.ctx, is)
	if err != nil {
		return nil, err
	}
	st, err := is.Stat(r.ctx)
	if err != nil {
		return nil, err
	}
	above := st
	r.m.mu.Lock()
	up := n.up
	if up != nil {
		is = up.is
	}
	r.m.mu.Unlock()
	if s, err := is.Stat(r.ctx); err == nil {
		above = s
	}
	entries := append(make([]fuse.DirEntry, 0, 2+len(found)),
		fuse.DirEntry{Name: ".", Ino: st.Qid, Mode: fs.Unix(fs.ModeDir), Off: 1},
		fuse.DirEntry{Name: "..", Ino: above.Qid, Mode: fs.Unix(fs.ModeDir), Off: 2})
	for i, e := range found {
		entries = append(entries, fuse.DirEntry{Name: e.Name, Ino: e.Qid, Mode: fs.Unix(e.Type), Off: uint64(i) + 3})
	}
	return entries, nil
}

func readdir(r *request) ([]byte, error) {
	in, _ := arg[fuse.ReadIn](r)
	h, err := r.handle(in.Fh)
	if err != nil {
		return nil, err
	}
	l := h.listing
	out := fuse.NewDirEntryList(make([]byte, min(in.Size, maxRead)), in.Offset)
	if l.pages != nil {
		if err := r.page(l.pages, in.Offset, out); err != nil {
			return nil, r.fail(r.m.path(h.node, ""), err)
		}
		return out.Bytes(), nil
	}
	l.mu.Lock()
	entries, rewound := l.entries, in.Offset == 0 && !l.fresh
	l.fresh = false
	l.mu.Unlock()
	if rewound {
		n, is := r.m.node(r.NodeId)
		if entries, err = r.list(n, is); err != nil {
			return nil, r.fail(r.m.path(n, ""), err)
		}
		l.mu.Lock()
		l.entries = entries
		l.mu.Unlock()
	}
	for _, e := range entries[min(in.Offset, uint64(len(entries))):] {
		if !out.AddDirEntry(e) {
			break
		}
	}
	return out.Bytes(), nil
}

// page fills out with the entries of a directory from a place on.
func (r *request) page(from fs.Lister, at uint64, out *fuse.DirEntryList) error {
	for {
		list, err := from.From(r.ctx, at)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, e := range list {
			if !out.AddDirEntry(fuse.DirEntry{Name: e.Name, Ino: e.Qid, Mode: fs.Unix(e.Type), Off: e.Next}) {
				return nil
			}
			at = e.Next
		}
	}
}
