package fs

import (
	"context"
	"syscall"
)

// Access says whether the client of ctx may do with a file what how says, by its owner, group and mode.
func Access(ctx context.Context, st Stat, how How) error {
	var want FileMode
	if how&Read != 0 {
		want |= 4
	}
	if how&(Write|Trunc) != 0 {
		want |= 2
	}
	return allow(ClientOf(ctx), st, want)
}

func allow(c *Client, st Stat, want FileMode) error {
	perm := st.Mode.Perm()
	switch {
	case c.None && want&2 != 0:
		return ErrPerm
	case c.Root():
		return nil
	case !c.None && c.Uid == st.Uid:
		perm >>= 6
	case c.In(st.Gid):
		perm >>= 3
	}
	if want&^perm != 0 {
		return ErrPerm
	}
	return nil
}

// Look walks from a directory as the client of ctx.
func Look(ctx context.Context, n Node, name string) (Node, error) {
	d, ok := n.(Dir)
	if !ok {
		return nil, ErrNotDir
	}
	if err := check(ctx, d, 1); err != nil {
		return nil, err
	}
	return d.Walk(ctx, name)
}

// Enter opens a file as the client of ctx.
func Enter(ctx context.Context, n Node, how How) (Handle, error) {
	f, ok := n.(File)
	if !ok {
		return nil, ErrIsDir
	}
	st, err := f.Stat(ctx)
	if err != nil {
		return nil, err
	}
	if err := Access(ctx, st, how); err != nil {
		return nil, err
	}
	h, err := f.Open(ctx, how)
	if err != nil {
		return nil, err
	}
	if how&Trunc != 0 {
		if err := Empty(ctx, h); err != nil {
			h.Close(ctx)
			return nil, err
		}
	}
	return h, nil
}

// Empty truncates a handle or, for a client that may write it, a node; what has no text of its own to lose ignores that.
func Empty(ctx context.Context, x any) error {
	if n, ok := x.(Node); ok {
		if err := check(ctx, n, 2); err != nil {
			return err
		}
	}
	if t, ok := x.(Truncater); ok {
		return t.Truncate(ctx)
	}
	return nil
}

// Set changes attributes of a node as the client of ctx, through h if that is not nil: what he has opened for writing there.
// Of files that are made when they are read it is their being emptied; a change of times, which none of them keeps, is
// for who may write them to ask for.
func Set(ctx context.Context, n Node, h Handle, c Change) error {
	var x any = n
	if h != nil {
		x = h
	}
	if s, ok := x.(Setter); ok {
		if ClientOf(ctx).None {
			return ErrPerm
		}
		return s.Set(ctx, c)
	}
	_, dir := n.(Dir)
	switch {
	case c.Mode != nil || c.Uid != nil || c.Gid != nil:
		return Err(syscall.EPERM, "wstat prohibited")
	case c.Size != nil && *c.Size != 0:
		return Err(syscall.EPERM, "only support truncation to zero length")
	case c.Size != nil && dir:
		return ErrIsDir
	case c.Size != nil:
		return Empty(ctx, x)
	case h != nil:
		return nil
	}
	return check(ctx, n, 2)
}

// Contents lists a directory as the client of ctx.
func Contents(ctx context.Context, n Node) ([]Entry, error) {
	d, ok := n.(Dir)
	if !ok {
		return nil, ErrNotDir
	}
	if err := check(ctx, d, 4); err != nil {
		return nil, err
	}
	return d.List(ctx)
}

// Make makes a directory in n as the client of ctx.
func Make(ctx context.Context, n Node, name string, perm FileMode) (Node, error) {
	if err := check(ctx, n, 2|1); err != nil {
		return nil, err
	}
	m, ok := n.(Maker)
	if !ok {
		return nil, ErrPerm
	}
	return m.Mkdir(ctx, name, perm)
}

// Pages opens a directory as the client of ctx; nil if it is one that is listed at once.
func Pages(ctx context.Context, n Node) (Lister, error) {
	p, ok := n.(Pager)
	if !ok {
		return nil, nil
	}
	if err := check(ctx, n, 4); err != nil {
		return nil, err
	}
	return p.Pages(ctx)
}

// Symlink makes a symbolic link in n as the client of ctx.
func Symlink(ctx context.Context, n Node, name, target string) (Node, error) {
	if err := check(ctx, n, 2|1); err != nil {
		return nil, err
	}
	l, ok := n.(Linker)
	if !ok {
		return nil, Err(syscall.EPERM, "Operation not permitted")
	}
	return l.Symlink(ctx, name, target)
}

// Create makes a file in n, and opens it, as the client of ctx.
func Create(ctx context.Context, n Node, name string, perm FileMode, how How) (Node, Handle, error) {
	if err := check(ctx, n, 2|1); err != nil {
		return nil, nil, err
	}
	c, ok := n.(Creator)
	if !ok {
		return nil, nil, Err(syscall.EPERM, "Operation not permitted")
	}
	return c.Create(ctx, name, perm, how)
}

// Delete removes a name of directory n as the client of ctx. Who may is the directory's to say: the owner of a
// container removes it though /ctr is root's.
func Delete(ctx context.Context, n Node, name string) error {
	r, ok := n.(Remover)
	if !ok || ClientOf(ctx).None {
		return ErrPerm
	}
	return r.Remove(ctx, name)
}

// Move gives another name to something in directory n as the client of ctx, in directory to if that is not nil; who may is
// the directory's to say.
func Move(ctx context.Context, n Node, from string, to Node, name string) error {
	if ClientOf(ctx).None {
		return ErrPerm
	}
	if to != nil {
		m, ok := n.(Mover)
		if !ok {
			return Err(syscall.EXDEV, "rename to another directory")
		}
		return m.Move(ctx, from, to, name)
	}
	r, ok := n.(Renamer)
	if !ok {
		return ErrPerm
	}
	return r.Rename(ctx, from, name)
}

func check(ctx context.Context, n Node, want FileMode) error {
	st, err := n.Stat(ctx)
	if err != nil {
		return err
	}
	return allow(ClientOf(ctx), st, want)
}
