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

func (t *tracer) forget(tid int) {
	delete(t.threads, tid)
	t.order = slices.DeleteFunc(t.order, func(o int) bool { return o == tid })
}

func (t *tracer) halt(th *tracee) error {
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
	return th.take()
}

// change does it and looks whether it is done; if not, it is undone.
func (t *tracer) change() error {
	old, err := t.m.snapshot(t.lead.tid)
	if err != nil {
		return t.p.verify("ns", err)
	}
	defer old.close()
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
	threads, err := numbers(t.p.path("task"))
	if err != nil {
		return t.p.verify("task", err)
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
	for _, th := range all {
		if err := th.begin(); err != nil {
			return err
		}
	}
	defer t.letGo()
	plan := new(Plan)
	t.m.plan(plan, old.carrier(t.lead.tid, len(threads)))
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
		if _, err := t.sharer.call(unix.SYS_CLOSE, [6]uint64{uint64(fd)}); err != nil { // EBADF: it was not open
			return fmt.Errorf("forkfd: the old table: %w", err)
		}
	}
	return nil
}

// carry carries out a plan in the thread, as the stub would. Its memory is mapped for it; its descriptors are sent
// through a socket that the process makes.
func (t *tracer) carry(th *tracee, p *Plan) error {
	_, data, err := p.bytes(0, 1<<12)
	if err != nil {
		return err
	}
	if len(data) > 0 {
		if err := t.room(th, uint64(len(data))); err != nil {
			return err
		}
	}
	table, data, err := p.bytes(0, t.page)
	if err != nil {
		return err
	}
	if len(data) > 0 {
		if err := th.write(t.page, data); err != nil {
			return err
		}
	}
	files := p.files
	for i, s := range p.steps {
		e := table[i*entrySize:]
		var args [6]uint64
		for j := range args {
			args[j] = le.Uint64(e[entryArgs+8*j:])
		}
		var result int64
		if s.flags&stepLoad != 0 {
			n, err := t.give(th, files[0])
			if err != nil {
				return err
			}
			files, result = files[1:], int64(n)
		} else if result, err = th.call(s.nr, args); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		s.result = result
		if err := s.Err(); err != nil && s.flags&stepTry == 0 {
			return err
		} else if err != nil {
			continue
		}
		for _, at := range s.uses {
			if at < uint64(len(table)) {
				le.PutUint64(table[at:], uint64(result))
			} else if err := th.write(at, le.AppendUint64(nil, uint64(result))); err != nil {
				return err
			}
		}
	}
	return nil
}

// The memory in the process: data of plans, behind them what a message to it needs.
const messageRoom = 256

func (t *tracer) room(th *tracee, n uint64) error {
	n = (n + messageRoom + 4095) &^ 4095
	if n <= t.size {
		return nil
	}
	if err := t.unmap(th); err != nil {
		return err
	}
	at, err := th.call(unix.SYS_MMAP, [6]uint64{0, n, unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, ^uint64(0), 0})
	if err == nil && at < 0 && at > -4096 {
		err = unix.Errno(-at)
	}
	if err != nil {
		return fmt.Errorf("memory in the process: %w", err)
	}
	t.page, t.size = uint64(at), n
	return nil
}

func (t *tracer) unmap(th *tracee) error {
	if t.size == 0 {
		return nil
	}
	_, err := th.call(unix.SYS_MUNMAP, [6]uint64{t.page, t.size})
	t.page, t.size = 0, 0
	return err
}

// give gives the process a descriptor and returns its number there.
func (t *tracer) give(th *tracee, fd int) (int, error) {
	if err := t.room(th, 0); err != nil {
		return 0, err
	}
	at := t.page + t.size - messageRoom
	if len(t.given) == 0 {
		r, err := th.call(unix.SYS_SOCKETPAIR, [6]uint64{unix.AF_UNIX, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC, 0, at})
		if err == nil && r < 0 {
			err = unix.Errno(-r)
		}
		if err != nil {
			return 0, fmt.Errorf("socketpair: %w", err)
		}
		b := make([]byte, 8)
		if err := th.read(at, b); err != nil {
			return 0, err
		}
		t.socks = [2]int{int(le.Uint32(b)), int(le.Uint32(b[4:]))}
		t.given = append(t.given, t.socks[0], t.socks[1])
		if err := t.fetch(th, t.socks[0]); err != nil {
			return 0, err
		}
	}
	if err := unix.Sendmsg(t.sock, []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return 0, fmt.Errorf("send a descriptor: %w", err)
	}
	// struct msghdr, iovec, a byte, and room for one descriptor.
	var b bytes.Buffer
	for _, w := range []uint64{0, 0, at + 56, 1, at + 80, 24, 0, at + 72, 1, 0} {
		b.Write(le.AppendUint64(nil, w))
	}
	b.Write(make([]byte, 24))
	if err := th.write(at, b.Bytes()); err != nil {
		return 0, err
	}
	r, err := th.call(unix.SYS_RECVMSG, [6]uint64{uint64(t.socks[1]), at, unix.MSG_CMSG_CLOEXEC | unix.MSG_DONTWAIT})
	if err == nil && r < 0 {
		err = unix.Errno(-r)
	}
	if err != nil {
		return 0, fmt.Errorf("receive a descriptor: %w", err)
	}
	c := make([]byte, 24)
	if err := th.read(at+80, c); err != nil {
		return 0, err
	}
	if le.Uint64(c) < 20 { // its table is full
		return 0, fmt.Errorf("receive a descriptor: %w", unix.EMFILE)
	}
	n := int(int32(le.Uint32(c[16:])))
	t.given = append(t.given, n)
	return n, nil
}

// fetch gets the tracer's end of the pair.
func (t *tracer) fetch(th *tracee, n int) error {
	pidfd := t.p.fd
	if th.tid != t.p.pid { // the first thread may have ended, and with it what a pidfd of the process shows; since 6.9
		var err error
		if pidfd, err = unix.PidfdOpen(th.tid, unix.PIDFD_THREAD); err != nil {
			return fmt.Errorf("pidfd_open: %w", err)
		}
		defer unix.Close(pidfd)
	}
	var err error
	if t.sock, err = unix.PidfdGetfd(pidfd, n, 0); err != nil {
		return fmt.Errorf("pidfd_getfd: %w", err)
	}
	return nil
}

// letGo takes out of the process what was only for the tracer.
func (t *tracer) letGo() {
	for _, fd := range t.given {
		if _, err := t.lead.call(unix.SYS_CLOSE, [6]uint64{uint64(fd)}); err != nil { // EBADF: newfd was there first
			return
		}
	}
	t.unmap(t.lead)
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
		fds, err := numbers(t.path(t.lead.tid, "fd"))
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
	var errs error
	threads := []*tracee{t.sharer}
	for _, tid := range t.order {
		threads = append(threads, t.threads[tid])
	}
	for _, th := range threads {
		if th == nil {
			continue
		}
		if err := th.release(); err != nil && err != ErrExited { // it has ended, or was never stopped
			errs = errors.Join(errs, err)
		}
	}
	t.stopped = time.Since(t.began)
	return errs
}
