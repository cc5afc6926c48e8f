package ns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Pctl changes the process as m says, for c: as ptrace(2) would let c do it to the process. The calls are made by the
// process itself, which a tracer stops for well under a millisecond as a rule: see Tracer, which must be what this
// program begins with. The process goes on as if nothing had been: a call that it was in is made again or goes on, and
// signals wait. When Pctl returns nil the change has been seen in /proc.
//
// Refused beforehand is, with the reason, what cannot be stopped or understood: 32-bit and frozen processes, those that
// are traced, wait in the kernel for a vfork, have ended, or may do more than this one; and, for a process of several
// threads, what would part them. After another error nothing is changed but what the error says stays. If ctx ends, the
// change is made nevertheless or not at all.
func (p *Process) Pctl(ctx context.Context, c Cred, m Pctl) error {
	_, err := p.pctl(ctx, c, m)
	return err
}

// pctl also says how long the process was stopped.
func (p *Process) pctl(ctx context.Context, c Cred, m Pctl) (stopped time.Duration, err error) {
	if err := m.Check(); err != nil {
		return 0, err
	}
	if !m.inside() { // all else asks the kernel whether c may
		if err := p.mayTrace(c); err != nil {
			return 0, err
		}
	}
	end, err := m.outside(p)
	if err == nil && m.inside() {
		stopped, err = p.trace(ctx, c, &m)
	}
	end(err == nil)
	return stopped, err
}

// Pctl changes the parked process. What its program's execve would undo is refused: private.
func (p *Parked) Pctl(ctx context.Context, m Pctl) error {
	if err := m.Check(); err != nil {
		return err
	}
	if m.Private {
		return fmt.Errorf("private: undone by exec: %w", unix.EINVAL)
	}
	if slices.Contains(m.Close, ParkedCtl) { // without it the process would end, and for its user it is not there
		return fmt.Errorf("close %d: %w", ParkedCtl, unix.EBADF)
	}
	fd, err := unix.FcntlInt(uintptr(p.Pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("dup: %w", err)
	}
	proc, err := FromFD(fd)
	if err != nil {
		return err
	}
	defer proc.Close()
	old, err := m.snapshot(p.Pid)
	if err != nil {
		return err
	}
	defer old.close()
	end, err := m.outside(proc)
	if err == nil && m.inside() {
		err = p.pctl(ctx, &m, old)
	}
	end(err == nil)
	return err
}

func (p *Parked) pctl(ctx context.Context, m *Pctl, old *snapshot) error {
	// Its table is its own already: nobody else has what forkfd would close.
	plan := new(Plan)
	m.plan(plan, old.carrier(p.Pid, 1, ParkedCtl))
	err := p.Run(ctx, plan)
	if err == nil {
		err = m.mapUser(p.Pid)
	}
	if ctx.Err() != nil { // it was killed
		return err
	}
	p.closeSent(ctx, plan)
	if err == nil {
		return nil
	}
	if back := new(Plan); old.undo(back, p.Pid) {
		p.Run(ctx, back)
		p.closeSent(ctx, back)
	}
	return old.stays(err, p.Pid)
}

// closeSent closes the descriptors that were sent with a plan: some of them were not used.
func (p *Parked) closeSent(ctx context.Context, sent *Plan) {
	plan := new(Plan)
	for _, s := range sent.steps {
		if s.flags&stepLoad != 0 && s.result > ParkedCtl {
			plan.Do("close", unix.SYS_CLOSE, s.Result()).Try() // EBADF: newfd has closed it
		}
	}
	if len(plan.steps) > 0 {
		p.Run(ctx, plan)
	}
}

// mayTrace asks whether ptrace would let c trace the process: opening mem asks the kernel the same question, of the ids
// that As takes and of no capability.
func (p *Process) mayTrace(c Cred) error {
	fd, err := OpenAs(c, p.path("mem"), unix.O_RDONLY)
	if err == nil {
		unix.Close(fd)
	}
	return p.verify("mem", err)
}

// outside does what the process need not do itself. end must be called, with whether all else was done too: if not, this
// is undone.
func (m *Pctl) outside(p *Process) (end func(done bool), err error) {
	var old []*os.File
	undo := func() {}
	end = func(done bool) {
		if !done {
			undo()
			enterCgroups(old, p)
		}
		for _, f := range old {
			f.Close()
		}
	}
	if m.Join != nil && len(m.Join.cgroups) > 0 {
		if old, err = openCgroups(Cred{Uid: uint32(os.Geteuid())}, p); err != nil {
			return end, err
		}
		if err := enterCgroups(m.Join.cgroups, p); err != nil {
			return end, err
		}
	}
	if m.NoDevs {
		back, err := NoDevs(p)
		if err != nil {
			return end, err
		}
		undo = back
	}
	return end, nil
}

// openCgroups opens the files that let a process into p's groups, as c.
func openCgroups(c Cred, p *Process) (files []*os.File, err error) {
	groups, err := FindCgroups("")
	if err != nil {
		return nil, err
	}
	in, err := p.Cgroups()
	if err != nil {
		return nil, err
	}
	for _, m := range in {
		for _, h := range slices.Concat([]*hierarchy{groups.v2}, groups.v1, groups.rest) {
			if h == nil || h.name != m.Hierarchy {
				continue
			}
			dir, ok := h.dir(m.Path)
			if !ok {
				continue
			}
			name := filepath.Join(dir, "cgroup.procs")
			fd, err := OpenAs(c, name, unix.O_WRONLY)
			if err != nil {
				for _, f := range files {
					f.Close()
				}
				return nil, fmt.Errorf("cgroup %q: %w", m.Path, err)
			}
			files = append(files, os.NewFile(uintptr(fd), name))
		}
	}
	return files, nil
}

// Follow moves p into the groups of another process.
func (p *Process) Follow(other *Process) error {
	files, err := openCgroups(Cred{Uid: uint32(os.Geteuid())}, other)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	return enterCgroups(files, p)
}

func enterCgroups(files []*os.File, p *Process) error {
	var errs error
	for _, f := range files {
		if _, err := f.WriteString(strconv.Itoa(p.pid)); err != nil {
			errs = errors.Join(errs, fmt.Errorf("enter cgroup: %w", err))
		}
	}
	return errors.Join(errs, p.Check())
}

// A traceJob is what a tracer is told, in its second argument. Its descriptors begin at 3: where it answers, the
// pidfd, the files of the Join, the root of the Join.
type traceJob struct {
	As   *Cred // nil: itself
	Pctl Pctl
}

type traceReply struct {
	Stopped time.Duration
	Err     string
	Errno   syscall.Errno // what the error is
}

// A tracedError is an error that came from the tracer.
type tracedError struct {
	text string
	is   error
}

func (e *tracedError) Error() string { return e.text }
func (e *tracedError) Unwrap() error { return e.is }

// trace lets a tracer of its own change the process, so that the end of this program leaves no process in the middle.
func (p *Process) trace(ctx context.Context, c Cred, m *Pctl) (time.Duration, error) {
	if !tracerReady {
		return 0, errors.New("this program has no tracer")
	}
	job := traceJob{Pctl: *m}
	if euid := uint32(os.Geteuid()); c.Uid != euid {
		if euid != 0 {
			return 0, fs.ErrPermission
		}
		job.As = &c
	}
	text, err := json.Marshal(job)
	if err != nil {
		return 0, err
	}
	pidfd, err := p.Dup()
	if err != nil {
		return 0, err
	}
	proc := os.NewFile(uintptr(pidfd), "pidfd")
	defer proc.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{tracerName, string(text)}
	cmd.Env = []string{"GOGC=off", "GOMAXPROCS=2", "GODEBUG=asyncpreemptoff=1"}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{w, proc}
	if m.Join != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, m.Join.files...)
		if m.Join.root != nil {
			cmd.ExtraFiles = append(cmd.ExtraFiles, m.Join.root)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no signal of our terminal or group reaches it
	err = cmd.Start()
	w.Close()
	if err != nil {
		return 0, fmt.Errorf("tracer: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	defer context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Unix(1, 0)) })()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(r); err != nil {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx) // it goes on to its end, and is waited for
		}
		return 0, err
	}
	if err := <-done; err != nil {
		return 0, fmt.Errorf("tracer: %w", err)
	}
	var reply traceReply
	if err := json.Unmarshal(answer.Bytes(), &reply); err != nil {
		return 0, fmt.Errorf("tracer: %w", err)
	}
	return reply.Stopped, reply.err()
}

// The words of errors that callers compare with.
func (r *traceReply) err() error {
	switch {
	case r.Err == "":
		return nil
	case r.Err == ErrExited.Error():
		return ErrExited
	case r.Err == fs.ErrPermission.Error():
		return fs.ErrPermission
	}
	e := &tracedError{text: r.Err, is: errors.ErrUnsupported}
	if r.Errno != 0 {
		e.is = r.Errno
	}
	return e
}
