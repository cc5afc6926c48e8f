package proc

import (
	"context"
	"errors"
	"strconv"
	"sync"
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
		get = d.view(n)
	}
	p, err := get(ctx)
	if err != nil {
		return nil, err
	}
	defer p.Release()
	return files.Dir(strconv.Itoa(p.number()), 0555, get), nil
}

func (d *dir) List(ctx context.Context) ([]fs.Entry, error) {
	list := []fs.Entry{{Name: "clone", Qid: d.qid + 128}}
	seen := make(map[int]bool)
	err := d.each(ctx, func(p *Proc) {
		if n := p.number(); n != 0 && !seen[n] {
			seen[n] = true
			list = append(list, fs.Entry{Name: strconv.Itoa(n), Qid: p.Qid(), Type: fs.ModeDir})
		}
	})
	return list, err
}

// each calls f with each process that the client may see, those that live first.
func (s *Space) each(ctx context.Context, f func(*Proc)) error {
	pids, err := s.Pids(ctx)
	if err == nil && s.All != nil && !s.All(fs.ClientOf(ctx)) {
		pids, err = ns.Visible(cred(ctx), pids...)
	}
	if err != nil {
		return err
	}
	jobs := make(map[uint64]*Proc)
	for _, j := range s.Processes.records(s) {
		p := &Proc{Process: j.proc, job: j, space: s}
		defer p.Release()
		jobs[p.ID()] = p
	}
	for _, pid := range pids {
		p, err := ns.Open(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return err
		}
		if j := jobs[p.ID()]; j != nil {
			delete(jobs, p.ID())
			f(j)
		} else {
			f(&Proc{Process: p, space: s})
		}
		p.Close()
	}
	others := sync.OnceValue(func() bool { return shown(ctx, 1) })
	for _, p := range jobs {
		if p.his(ctx) || p.check() != nil && others() {
			f(p)
		}
	}
	return nil
}

// Remove ends the record of a process that has ended.
func (d *dir) Remove(ctx context.Context, name string) error {
	if name == "clone" {
		return fs.ErrPerm
	}
	n, err := strconv.Atoi(name)
	if err != nil || strconv.Itoa(n) != name {
		return fs.ErrNotExist
	}
	p, err := d.view(n)(ctx)
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
