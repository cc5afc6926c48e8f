// Package proc is processes as files: a directory for each process of the machine, or of a container, with what the
// kernel tells of it and a ctl file, and clone, which makes a new one.
package proc

import (
	"context"
	"sync"
	"sync/atomic"

	"ctrfs/fs"
	"ctrfs/ns"
)

// A Proc is a process in use: found by its number, held by a pidfd, so that what is asked of it is never answered by
// another that got its number.
type Proc struct {
	*ns.Process
	job   *Job   // if ctrfs started it
	space *Space // where it was found

	once     sync.Once // finds out what follows
	uid, gid uint32
}

// Processes is what is known of the processes of the machine beyond what the kernel tells: those that were started here.
type Processes struct {
	// Keeper, if not nil, is the parent of what is started here and holds it.
	Keeper *ns.Keeper
	// Feed hears of the processes that were started outside containers.
	Feed *fs.Feed
	// Ctr, if not nil, says in which container a process runs, and the container's number; "" for none, or none that the client
	// is to know of.
	Ctr func(context.Context, *ns.Process) (name string, xid uint32)
	// Open, if not nil, says whether what a process is in may be entered.
	Open func(*ns.Process) error

	// First, if not nil, gives the first process of a container, for the client to enter what it is in, which stays as it is
	// until done is called.
	First func(ctx context.Context, name string) (first *ns.Process, done func(), err error)

	mu     sync.Mutex // guards what follows, and the fields of each job that say so
	jobs   map[*Job]struct{}
	byPid  map[int]*Job   // the newest, as the host counts
	parked map[uint32]int // how many a user has
}

// A Space is a set of processes that can be made bigger: the machine's, or a container's.
type Space struct {
	Processes *Processes
	// Pids gives the numbers of its processes as the host counts; of the machine's those that the client of ctx may see.
	Pids func(ctx context.Context) ([]int, error)
	// Park makes a process in it.
	Park func(ctx context.Context, o ns.Opt) (*ns.Parked, error)
	// Name gives the name of the container, "" for the machine.
	Name func() string
	// ID is the container's, "" for the machine.
	ID string
	// Inside, if not nil, turns a host's number of a process into the container's and back; 0: not in it.
	Inside  func(p *ns.Process) int
	Outside func(ctx context.Context, n int) (int, error)
	// Of is the qid of the container, for those who hear of its events.
	Of uint64
	// Uid and Gid own the directory and clone.
	Uid, Gid uint32
	// Clone is the mode of clone.
	Clone fs.FileMode
	// All, if not nil, says whether a client sees all its processes, whatever /proc would show him.
	All func(*fs.Client) bool
	// Become, if not nil, makes a parked process run its program as a user whom the space's own database has. The files of
	// the process stay its maker's: the space's numbers of users may be other people's here.
	Become func(parked *ns.Parked, user ns.Cred) error
	// Awake, if not nil, lets one of its processes carry out something until done is called, or says why none does now.
	Awake func() (done func(), err error)

	// Look, if not nil, says whether the client may see of one of its processes what the kernel hides from him.
	Look func(ctx context.Context, p *ns.Process) error

	untold int           // guarded by Processes.mu: its jobs whose end was not told yet
	quiet  chan struct{} // likewise: closed when there is none; made by who waits
}

// Machine is the processes of the machine, from where this program stands.
func (ps *Processes) Machine() *Space {
	return &Space{
		Processes: ps,
		Pids:      func(ctx context.Context) ([]int, error) { return ns.Pids(cred(ctx)) },
		Park:      ns.Park,
		Name:      func() string { return "" },
		Clone:     0666,
	}
}

// cred is the client of ctx as the kernel knows users.
func cred(ctx context.Context) ns.Cred {
	c := fs.ClientOf(ctx)
	if c.None {
		return ns.Cred{Uid: nobody, Gid: nobody}
	}
	return ns.Cred{Uid: c.Uid, Gid: c.Gid, Groups: c.Groups}
}

// nobody is the user of whom nothing is known, as Linux's overflowuid.
const nobody = 65534

// The numbers of the files of a process: the 54 lower bits of the kernel's own number for it, and 8 for its files.
const (
	qidMask   = 1<<54 - 1
	qidInside = 1 << 62 // of a container's view, which differs from the machine's
)

// Qid is the number of the process's directory.
func (p *Proc) Qid() uint64 {
	q := (p.ID() & qidMask) << 8
	if p.space.Inside != nil {
		q |= qidInside
	}
	return q
}

// Owner is the process's user and group.
func (p *Proc) Owner() (uid, gid uint32) {
	p.once.Do(func() {
		if p.job != nil {
			user := p.job.cred()
			p.uid, p.gid = user.Uid, user.Gid
		} else if info, err := p.Info(ns.InfoCreds); err == nil && info.Mask&ns.InfoCreds != 0 {
			p.uid, p.gid = info.Euid, info.Egid
		} else if st, err := p.Status(); err == nil {
			p.uid, p.gid = st.Uid[1], st.Gid[1]
		}
	})
	return p.uid, p.gid
}

// Release lets the process go.
func (p *Proc) Release() {
	if p.job != nil {
		p.space.Processes.leave(p.job)
		return
	}
	p.Close()
}

// view finds the process that has number n for those who may see it. Who may see it once may as long as it is there: to ask the
// kernel costs more than all else.
func (s *Space) view(n int) func(context.Context) (*Proc, error) {
	type sight struct {
		id  uint64
		uid uint32
	}
	var last atomic.Pointer[sight]
	return func(ctx context.Context) (*Proc, error) {
		p, err := s.find(ctx, n)
		if err != nil {
			return nil, err
		}
		now := sight{p.ID(), fs.ClientOf(ctx).Uid}
		if l := last.Load(); l != nil && *l == now {
			return p, nil
		}
		if !p.seen(ctx) {
			p.Release()
			return nil, fs.ErrNotExist
		}
		last.Store(&now)
		return p, nil
	}
}

// seen says whether the client may see the process. What is gone he sees if the kernel shows him what is not his, as init.
func (p *Proc) seen(ctx context.Context) bool {
	if p.his(ctx) {
		return true
	}
	pid := p.Pid()
	if p.check() != nil {
		pid = 1
	}
	return shown(ctx, pid)
}

// his says whether the client sees the process whatever the kernel would show him: he has started it, or its container is his.
func (p *Proc) his(ctx context.Context) bool {
	c := fs.ClientOf(ctx)
	return p.job != nil && (c.Root() || !c.None && c.Uid == p.job.owner) || p.space.All != nil && p.space.All(c)
}

// shown says whether the kernel shows a process to the client.
func shown(ctx context.Context, pid int) bool {
	pids, err := ns.Visible(cred(ctx), pid)
	return err == nil && len(pids) > 0
}

// find gives the process that has number n in the space: what was started here, as long as its record is kept and the
// kernel has not given its number to another; else any.
func (s *Space) find(ctx context.Context, n int) (*Proc, error) {
	if n <= 0 {
		return nil, fs.ErrNotExist
	}
	j := s.Processes.numbered(s, n)
	pid := n
	if s.Outside != nil {
		var err error
		if pid, err = s.Outside(ctx, n); err != nil {
			if j != nil {
				s.Processes.leave(j)
			}
			return nil, err
		}
	}
	p, err := ns.Open(pid)
	if j != nil && (err != nil || p.ID() == j.proc.ID()) {
		if err == nil {
			p.Close()
		}
		return &Proc{Process: j.proc, job: j, space: s}, nil
	}
	if j != nil {
		s.Processes.leave(j)
	}
	if err != nil {
		return nil, err
	}
	return &Proc{Process: p, space: s}, nil
}

// number is how the space counts the process; 0 if it is not in it.
func (p *Proc) number() int {
	switch {
	case p.space.Inside == nil:
		return p.Pid()
	case p.job != nil && p.job.space == p.space:
		return p.job.inside
	}
	return p.space.Inside(p.Process)
}
