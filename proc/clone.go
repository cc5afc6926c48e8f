package proc

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// clone is the file that makes a process when it is opened.
type clone struct {
	*Space
	qid uint64
}

func (c *clone) Stat(context.Context) (fs.Stat, error) {
	return fs.Stat{Name: "clone", Qid: c.qid, Mode: c.Clone, Uid: c.Uid, Gid: c.Gid, Time: time.Now()}, nil
}

// Open parks a process of the client's. The handle is its ctl.
func (c *clone) Open(ctx context.Context, _ fs.How) (fs.Handle, error) {
	client := fs.ClientOf(ctx)
	if client.None {
		return nil, fs.ErrPerm
	}
	stdio, err := NewStdio(client.Account)
	if err != nil {
		return nil, err
	}
	user := cred(ctx)
	opt := ns.Opt{Stdio: stdio.Child()}
	if me := os.Geteuid(); me == 0 {
		opt.Cred = &user
	} else if user.Uid != uint32(me) {
		stdio.Close()
		return nil, fs.ErrPerm // only root can make processes of others
	}
	parked, err := c.Park(ctx, opt)
	if err != nil {
		stdio.Close()
		return nil, err
	}
	j, err := c.Start(parked, stdio, user, nil)
	if err != nil {
		return nil, err
	}
	c.Processes.mu.Lock()
	j.held = true
	c.Processes.mu.Unlock()
	o := &opener{Proc: Proc{Process: j.proc, job: j, space: c.Space}}
	return fs.NewCtl(o.self, o.do, o.unclone), nil
}

// An opener is a process as the file that opening clone gave controls it.
type opener struct {
	Proc
	mu      sync.Mutex // guards refused
	refused error      // what the last message but exec was answered
}

// do carries out a message. A program is not executed after a message that was refused: a shell writes each line of its
// printf by itself, goes on after an error, and would run the program in the wrong directory or as the wrong user.
func (o *opener) do(ctx context.Context, msg string) error {
	o.mu.Lock()
	refused := o.refused
	o.mu.Unlock()
	words := strings.Fields(msg)
	exec := len(words) > 0 && strings.EqualFold(words[0], "exec")
	if exec && refused != nil {
		return fmt.Errorf("exec: after what was refused: %w", refused)
	}
	err := verbs.Do(&o.Proc, ctx, msg)
	if !exec {
		o.mu.Lock()
		o.refused = err
		o.mu.Unlock()
	}
	return err
}

// defaultPath is the whole environment that a process begins with.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Start makes a process that was parked in the space with stdio a job of the user's; both are the job's from then on,
// also when it fails. The caller holds the job. With began, which is called when its program runs, the job is pinned: its
// record stays until Unpin, whoever started it tells of its life, and until Ready nobody can make it a program.
func (s *Space) Start(parked *ns.Parked, stdio *Stdio, user ns.Cred, began func()) (*Job, error) {
	j := &Job{
		space: s, stdio: stdio, account: stdio.account, owner: user.Uid, pinned: began != nil, began: began,
		turn: make(chan struct{}, 1), parked: parked, user: user, env: []string{defaultPath}, users: 1, over: make(chan struct{}),
		busy: began != nil,
	}
	if j.pinned {
		j.turn <- struct{}{}
	}
	err := s.enlist(j, parked.Pidfd)
	if err != nil {
		parked.End()
		stdio.Close()
		return nil, err
	}
	stdio.Parked(func() { s.Processes.settle(j) })
	if !j.pinned {
		s.Processes.tell(j, "create")
	}
	go s.Processes.watch(j)
	return j, nil
}

// enlist finds out the job's numbers and makes it known.
func (s *Space) enlist(j *Job, pidfd int) error {
	fd, err := unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if j.proc, err = ns.FromFD(fd); err != nil {
		return err
	}
	j.inside = j.proc.Pid()
	if s.Inside != nil {
		j.inside = s.Inside(j.proc)
	}
	if s.Processes.Keeper == nil {
		if err = ns.Reap(j.proc); err == unix.ECHILD && j.parked == nil { // another is its parent
			err = nil
		}
	} else {
		err = s.Processes.keep(j)
	}
	if err == nil {
		err = s.Processes.add(j)
	}
	if err != nil {
		s.Processes.Keeper.Drop(j.name)
		j.proc.Close()
	}
	return err
}

// unclone is the close of the clone file: what has not begun a program is gone, and what is to end with the file is killed.
func (p *Proc) unclone(context.Context) error {
	ps, j := p.space.Processes, p.job
	defer ps.leave(j)
	j.Stdio().In.EndUnused()
	ps.mu.Lock()
	j.held = false
	parked, kill := j.parked != nil, j.parked != nil || j.killed
	ps.mu.Unlock()
	if !kill {
		return nil
	}
	j.proc.Signal(unix.SIGKILL) // fails only where it has ended
	// Until it is gone its number is still taken. One that the kernel holds is not waited for.
	select {
	case <-j.over:
	case <-time.After(time.Second):
	}
	if parked {
		ps.forget(j)
	}
	return nil
}
