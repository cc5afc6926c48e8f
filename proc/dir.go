package proc

import (
	"context"
	"strconv"
	"time"

	"ctrfs/fs"
	"ctrfs/ns"
)

// Dir is the directory of the space's processes. Qid numbers it, and 128 more its clone.
func (s *Space) Dir(name string, qid uint64) fs.Dir { return &dir{s, name, qid} }

type dir struct {
	*Space
	name string
	qid  uint64
}

func (d *dir) Stat(context.Context) (fs.Stat, error) {
	return fs.Stat{Name: d.name, Qid: d.qid, Mode: fs.ModeDir | 0555, Uid: d.Uid, Gid: d.Gid, Time: time.Now()}, nil
}

// Walk finds clone, a process by its number, and one of the client's own by its label.
func (d *dir) Walk(ctx context.Context, name string) (fs.Node, error) {
	if name == "clone" {
		return &clone{d.Space, d.qid + 128}, nil
	}
	get := func(ctx context.Context) (*Proc, error) { return d.labelled(ctx, name) }
	if n, err := strconv.Atoi(name); err == nil {
		if strconv.Itoa(n) != name {
			return nil, fs.ErrNotExist // 01 is nobody's name
		}
		get = func(ctx context.Context) (*Proc, error) { return d.find(ctx, n) }
	}
	p, err := get(ctx)
	if err != nil {
		return nil, err
	}
	defer p.Release()
	return files.Dir(strconv.Itoa(p.number()), 0555, get), nil
}

func (d *dir) List(ctx context.Context) ([]fs.Entry, error) {
	pids, err := d.Pids(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]fs.Entry, 0, len(pids)+1)
	list = append(list, fs.Entry{Name: "clone", Qid: d.qid + 128})
	seen := make(map[int]bool, len(pids))
	add := func(x *Proc) {
		defer x.Release()
		if n := x.number(); n != 0 && !seen[n] {
			seen[n] = true
			list = append(list, fs.Entry{Name: strconv.Itoa(n), Qid: x.Qid(), Type: fs.ModeDir})
		}
	}
	for _, pid := range pids {
		if p, err := ns.Open(pid); err == nil { // else it has ended meanwhile
			add(&Proc{Process: p, space: d.Space})
		}
	}
	for _, j := range d.Processes.records(d.Space) {
		add(&Proc{Process: j.proc, job: j, space: d.Space})
	}
	return list, nil
}

// Remove ends the record of a process that has ended.
func (d *dir) Remove(ctx context.Context, name string) error {
	n, err := strconv.Atoi(name)
	if err != nil || strconv.Itoa(n) != name {
		return fs.ErrNotExist
	}
	p, err := d.find(ctx, n)
	if err != nil {
		return err
	}
	defer p.Release()
	c := fs.ClientOf(ctx)
	if uid, _ := p.Owner(); !c.Root() && c.Uid != uid {
		return fs.ErrPerm
	}
	if _, ended := ns.Exited(p.Process); p.job == nil || !ended {
		return fs.ErrInUse
	}
	d.Processes.forget(p.job)
	return nil
}
