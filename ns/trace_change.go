package ns

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// stop stops what must not run meanwhile: the thread that makes the calls; all, where each must make some. Threads that
// appear are stopped too: when none but stopped ones are there, none can.
func (t *tracer) stop() error {
	if err := t.halt(t.lead); err != nil {
		return err
	}
	if t.sharer != nil {
		if err := t.halt(t.sharer); err != nil {
			return err
		}
	}
	if t.m.alone() == "" && len(t.m.kinds()) == 0 {
		return nil
	}
	if n, err := t.count(); err != nil || n == 1 {
		return err
	}
	for {
		tids, err := t.tasks()
		if err != nil {
			return err
		}
		tids = slices.DeleteFunc(tids, func(tid int) bool { return t.threads[tid] != nil })
		if len(tids) == 0 {
			return nil
		}
		if verb := t.m.alone(); verb != "" {
			return refusal(unix.EBUSY, "%s: process has %d threads", verb, len(tids)+1)
		}
		for _, tid := range tids {
			if err := t.seize([]int{tid}); err != nil {
				if st, e := t.stat(tid); e == nil && st.State != 'Z' && st.State != 'X' {
					return err
				}
				continue // it has ended
			}
			if err := unix.Access(t.p.path("task/"+strconv.Itoa(tid)), unix.F_OK); err != nil { // another's number
				return t.p.verify("task", err)
			}
			t.threads[tid].look()
			if err := ptrace(unix.PTRACE_INTERRUPT, tid, 0, 0); err != nil && err != unix.ESRCH {
				return err
			}
		}
		for _, tid := range tids {
			if th := t.threads[tid]; th != nil {
				switch err := th.settle(); {
				case err == ErrExited:
					t.forget(tid)
				case err != nil:
					return err
				}
			}
		}
	}
}

// count gives the number of the process's threads, ended ones among them.
func (t *tracer) count() (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(t.taskDir, &st); err != nil {
		return 0, t.p.verify("task", err)
	}
	return int(st.Nlink) - 2, nil
}

func (t *tracer) forget(tid int) {
	delete(t.threads, tid)
	t.order = slices.DeleteFunc(t.order, func(o int) bool { return o == tid })
}

func (t *tracer) halt(th *tracee) error {
	th.look()
	if err := th.ptrace(unix.PTRACE_INTERRUPT, 0, 0); err != nil {
		return gone(err)
	}
	return th.settle()
}

// take looks at what of th must be put back. System call filters are suspended while it is traced; where that is not possible, and
// there is one, nobody knows what it would do.
func (t *tracer) take(th *tracee) error {
	if err := th.ptrace(unix.PTRACE_SETOPTIONS, 0, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_SUSPEND_SECCOMP); err != nil {
		if st, e := t.status(th.tid); e != nil || st.Seccomp != 0 {
			return refusal(unix.EPERM, "process has a system call filter, which the server may not suspend: %v", err)
		}
	}
	if th != t.lead && th != t.sharer {
		th.mem = t.lead.mem
	} else if th.mem == nil {
		var err error
		if th.mem, err = openMemory(th.tid); err != nil {
			return t.p.verify("mem", err)
		}
	}
	return th.take()
}

// change does it and looks whether it is done; if not, it is undone.
func (t *tracer) change() error {
	old, err := t.m.snapshot(t.lead.tid)
	if err != nil {
		return t.p.verify("ns", err)
	}
	// What was opened for this is closed by the end of the program: nothing delays the release.
	if t.sharer == nil && t.m.ForkFD && len(t.m.FDs) > 0 { // it may have made a child since it was looked for
		if children, err := t.p.Children(); err == nil {
			for _, pid := range children {
				if kcmp(t.lead.tid, pid, "fd") {
					if err := t.share(pid); err != nil {
						return err
					}
					if err := t.halt(t.sharer); err != nil {
						return err
					}
					break
				}
			}
		}
	}
	threads, err := t.count()
	if err != nil {
		return err
	}
	all := []*tracee{t.lead}
	for _, tid := range t.order {
		if th := t.threads[tid]; th != t.lead {
			all = append(all, th)
		}
	}
	if t.sharer != nil {
		all = append(all, t.sharer)
	}
	for _, th := range all {
		if err := t.take(th); err != nil {
			return err
		}
	}
	if !t.changing.CompareAndSwap(false, true) { // who gave up is about to end this process
		select {}
	}
	defer t.letGo()
	plan := new(Plan)
	t.m.plan(plan, old.carrier(t.lead.tid, threads))
	err = t.carry(t.lead, plan)
	if err == nil {
		err = t.follow()
	}
	if err == nil {
		err = t.closeOld()
	}
	if err == nil {
		err = t.m.mapUser(t.lead.tid)
	}
	if err == nil {
		err = t.verify(old)
	}
	if err == nil || errors.Is(err, ErrExited) {
		return err
	}
	for _, tid := range t.order {
		t.undo(old, t.threads[tid])
	}
	return old.stays(err, t.order...)
}

// undo brings one thread back.
func (t *tracer) undo(old *snapshot, th *tracee) {
	back := new(Plan)
	if !old.undo(back, th.tid) {
		return
	}
	if th != t.lead {
		// Who is in the process group is the process.
		back.steps = slices.DeleteFunc(back.steps, func(s *Step) bool { return s.nr == unix.SYS_SETPGID })
	}
	t.carry(th, back) // what it could not do is told
}

// follow takes the other threads to the namespaces that the first one has now.
func (t *tracer) follow() error {
	if len(t.order) == 1 {
		return nil
	}
	plan := new(Plan)
	for _, k := range t.m.kinds() {
		fd, err := openFile(t.path(t.lead.tid, "ns/"+k), unix.O_RDONLY)
		if err != nil {
			return fmt.Errorf("ns/%s: %w", k, err)
		}
		defer unix.Close(fd)
		n, err := t.give(t.lead, fd)
		if err != nil {
			return err
		}
		plan.Do("setns "+k, unix.SYS_SETNS, n, kindFlag(k))
	}
	for _, tid := range t.order {
		th := t.threads[tid]
		if th == t.lead {
			continue
		}
		if err := t.carry(th, plan); err != nil {
			return err
		}
	}
	return nil
}

// closeOld closes forkfd's descriptors in the table that the process has left.
func (t *tracer) closeOld() error {
	if t.sharer == nil {
		return nil
	}
	for _, fd := range t.m.FDs {
		if _, err := t.call(t.sharer, unix.SYS_CLOSE, uint64(fd)); err != nil { // EBADF: it was not open
			return fmt.Errorf("forkfd: the old table: %w", err)
		}
	}
	return nil
}

// verify looks whether the process is what the message says.
func (t *tracer) verify(old *snapshot) error {
	not := func(what string) error { return fmt.Errorf("%s: not done, though Linux says so", what) }
	for _, tid := range t.order {
		for i, k := range old.kinds {
			ino, err := nsInode(tid, k)
			if err != nil {
				return fmt.Errorf("ns/%s: %w", k, err)
			}
			want := uint64(0)
			if j := t.m.Join; j != nil {
				if n := slices.Index(j.Kinds, k); n >= 0 {
					var st unix.Stat_t
					if err := unix.Fstat(int(j.files[n].Fd()), &st); err != nil {
						return err
					}
					want = st.Ino
				}
			}
			if want == 0 && ino == old.inodes[i] || want != 0 && ino != want {
				return not(k + " namespace")
			}
		}
	}
	if t.m.NewNS {
		text, err := readFile(t.path(t.lead.tid, "mountinfo"), maxMounts)
		if err != nil || bytes.Count(text, []byte("\n")) != 1 {
			return not("newns")
		}
	}
	if t.m.NewPgrp {
		if pgrp, err := unix.Getpgid(t.p.pid); err != nil || pgrp != t.p.pid {
			return not("newpgrp")
		}
	}
	if t.m.NewFD || len(t.m.Close) > 0 {
		unix.Seek(t.fds, 0, unix.SEEK_SET)
		fds, err := numbersIn(t.fds)
		if err != nil {
			return fmt.Errorf("fd: %w", err)
		}
		for _, fd := range fds {
			if !slices.Contains(t.given, fd) && (t.m.NewFD && !slices.Contains(t.m.FDs, fd) || slices.Contains(t.m.Close, fd)) {
				return not(fmt.Sprintf("close of descriptor %d", fd))
			}
		}
	}
	if t.sharer != nil && kcmp(t.lead.tid, t.sharer.tid, "fd") {
		return not("forkfd")
	}
	return nil
}

// release lets everything go on.
func (t *tracer) release() error {
	errs := gone(t.leave())
	threads := []*tracee{t.sharer}
	for _, tid := range t.order {
		threads = append(threads, t.threads[tid])
	}
	for _, th := range threads {
		if th == nil {
			continue
		}
		if th.mem != nil && th.mem.dirty > 0 && (th == t.lead || th == t.sharer) {
			th.mem.clear(th.mem.dirty)
		}
		if err := th.release(); err != nil && err != ErrExited {
			errs = errors.Join(errs, err)
		}
	}
	t.stopped = time.Since(t.began)
	if errs == ErrExited { // there is nobody to go on
		return nil
	}
	return errs
}
