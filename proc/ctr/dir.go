package ctr

import (
	"context"
	"slices"
	"strings"
	"time"

	"ctrfs/fs"
)

// Dir is the directory of containers. Qid numbers it, and 128 more its clone.
func (cs *Containers) Dir(name string, qid uint64) fs.Dir { return &dir{cs, name, qid} }

type dir struct {
	*Containers
	name string
	qid  uint64
}

func (d *dir) Stat(context.Context) (fs.Stat, error) {
	mode := d.mode(0755)
	if d.config().Users {
		mode = fs.ModeSticky | 0777
	}
	return fs.Stat{Name: d.name, Qid: d.qid, Mode: fs.ModeDir | mode, Uid: d.Uid, Gid: d.Gid, Time: time.Now()}, nil
}

// mode is that of the owner's things: the group has his bits where it is his equal.
func (cs *Containers) mode(perm fs.FileMode) fs.FileMode {
	if cs.Shared {
		perm |= perm & 0700 >> 3
	}
	return perm
}

// Walk finds clone and containers. What is reached is the name: a container that was removed and made again is found
// by clients that hold the old directory.
func (d *dir) Walk(_ context.Context, name string) (fs.Node, error) {
	if name == "clone" {
		return &clone{d.Containers, d.qid + 128}, nil
	}
	c, err := d.find(name)
	if err != nil {
		return nil, err
	}
	return d.node(c), nil
}

// node is the directory of the container that is called as c now.
func (cs *Containers) node(c *Ctr) fs.Dir {
	name := c.Name()
	return files.Dir(name, 0755, func(context.Context) (*Ctr, error) {
		c.mu.Lock()
		gone := c.gone
		c.mu.Unlock()
		if !gone {
			return c, nil
		}
		if again, err := cs.find(name); err == nil {
			return again, nil
		}
		return nil, errNoCtr
	})
}

func (d *dir) List(context.Context) ([]fs.Entry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]fs.Entry, 0, len(d.names)+1)
	list = append(list, fs.Entry{Name: "clone", Qid: d.qid + 128})
	for name, c := range d.names {
		list = append(list, fs.Entry{Name: name, Qid: c.qid, Type: fs.ModeDir})
	}
	slices.SortFunc(list, func(a, b fs.Entry) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Mkdir makes a container.
func (d *dir) Mkdir(ctx context.Context, name string, _ fs.FileMode) (fs.Node, error) {
	c, err := d.make(ctx, name)
	if err != nil {
		return nil, err
	}
	return d.Containers.node(c), nil
}

// Remove deletes a container that does not run, for its owner.
func (d *dir) Remove(ctx context.Context, name string) error {
	c, err := d.owned(ctx, name)
	if err != nil {
		return err
	}
	return c.delete(ctx, nil)
}

// Rename gives a container another name, for its owner.
func (d *dir) Rename(ctx context.Context, from, to string) error {
	c, err := d.owned(ctx, from)
	if err != nil {
		return err
	}
	return c.rename(to)
}

func (d *dir) owned(ctx context.Context, name string) (*Ctr, error) {
	if name == "clone" {
		return nil, fs.ErrPerm
	}
	c, err := d.find(name)
	if err == nil && !c.may(fs.ClientOf(ctx)) {
		err = fs.ErrPerm
	}
	return c, err
}

// clone is the file that makes a container when it is opened.
type clone struct {
	*Containers
	qid uint64
}

func (n *clone) Stat(context.Context) (fs.Stat, error) {
	mode := n.mode(0600)
	if n.config().Users {
		mode = 0666
	}
	return fs.Stat{Name: "clone", Qid: n.qid, Mode: mode, Uid: n.Uid, Gid: n.Gid, Time: time.Now()}, nil
}

// Open makes a container. The handle is its ctl; closed without a write, the container is gone.
func (n *clone) Open(ctx context.Context, _ fs.How) (fs.Handle, error) {
	c, err := n.make(ctx, "")
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.held, c.unwritten = true, true
	c.mu.Unlock()
	if err := c.save(); err != nil {
		return nil, err
	}
	return fs.NewCtl(
		c.self,
		func(ctx context.Context, msg string) error {
			err := verbs.Do(c, ctx, msg)
			if err == nil && c.wanted() {
				return c.save()
			}
			return err
		},
		func(ctx context.Context) error {
			c.mu.Lock()
			c.held = false
			bound, fresh := c.bound, c.unwritten
			c.mu.Unlock()
			if bound {
				return c.killall(ctx, nil)
			}
			if !fresh || c.now() != isNew {
				return nil // somebody wants it
			}
			return c.delete(ctx, nil)
		},
	), nil
}

// wanted notes that somebody wants what opening clone made; it says whether that is news.
func (c *Ctr) wanted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	news := c.unwritten
	c.unwritten = false
	return news
}
