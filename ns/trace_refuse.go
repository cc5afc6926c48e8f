package ns

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// whyNot finds the reason for which a thread cannot be traced.
func (t *tracer) whyNot(tid int, err error) error {
	if err != unix.EPERM {
		return fmt.Errorf("trace %d: %w", tid, err)
	}
	if err := t.p.Check(); err != nil {
		return err
	}
	stat, e := t.stat(tid)
	st, e2 := t.status(tid)
	switch own := mine(); {
	case e != nil || e2 != nil || stat.State == 'Z' || stat.State == 'X':
		return ErrExited
	case st.TracerPid != 0:
		return refusal(unix.EBUSY, "process is traced by process %d", st.TracerPid)
	case st.RSS < 0:
		return errKernel
	case t.as == nil && st.CapPrm&^(uint64(own.caps[0].Permitted)|uint64(own.caps[1].Permitted)<<32) != 0:
		return refusal(unix.EPERM, "process has more capabilities than the server")
	}
	return fs.ErrPermission
}

// refuse looks for what would go wrong, before the process is stopped.
func (t *tracer) refuse(threads int) error {
	if verb := t.m.alone(); verb != "" && threads > 1 {
		return refusal(unix.EBUSY, "%s: process has %d threads", verb, threads)
	}
	st, err := t.status(t.lead.tid)
	if err != nil {
		return err
	}
	if t.m.NewPgrp {
		if sid, err := unix.Getsid(t.p.pid); err == nil && sid == t.p.pid {
			return refusal(unix.EPERM, "newpgrp: process leads a session")
		}
	}
	if err := t.m.needs(CapSet(st.CapEff)); err != nil {
		return err
	}
	if t.m.flags()&unix.CLONE_NEWUSER != 0 {
		its, e1 := nsInode(t.lead.tid, "user")
		ours, e2 := nsInode(unix.Getpid(), "user")
		if e1 != nil || e2 != nil || its != ours {
			return refusal(unix.EPERM, "unshare user: process is in another user namespace than the server, which then may not write the maps")
		}
	}
	if frozen(t.p) {
		return errFrozen
	}
	if t.p.exec32() {
		return err32
	}
	// One look may meet a process that waits for its disk.
	for range 200 {
		stat, err := t.stat(t.lead.tid)
		switch {
		case err != nil:
			return err
		case stat.State == 'Z' || stat.State == 'X':
			return ErrExited
		case stat.State != 'D':
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return refusal(unix.EBUSY, "process waits in the kernel (a vfork, a device) and cannot be stopped")
}

// exec32 reports whether the process's program is one of 32 bits, as far as its file tells. One that is not may still run
// such code: that is seen when it is stopped.
func (p *Process) exec32() bool {
	fd, err := openFile(p.path("exe"), unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var ident [5]byte // of an ELF header; the last one is its class
	n, err := unix.Pread(fd, ident[:], 0)
	return err == nil && n == len(ident) && ident == [5]byte{0x7f, 'E', 'L', 'F', 1}
}

// needs names the capability that the process lacks for what it is to do. It is the process's own that count: nobody can
// do it for it.
func (m *Pctl) needs(caps CapSet) error {
	need := CapSet(0)
	if flags := m.flags(); flags != 0 && flags&unix.CLONE_NEWUSER == 0 || m.Join != nil && len(m.Join.files) > 0 {
		need = 1 << unix.CAP_SYS_ADMIN
	}
	if m.Join != nil && slices.Contains(m.Join.Kinds, "mnt") {
		need |= 1 << unix.CAP_SYS_CHROOT
	}
	if lacks := need &^ caps; lacks != 0 {
		name := m.alone()
		if name == "" {
			name = m.unshareName()
		}
		return refusal(unix.EPERM, "%s: process has not the capability %v", name, lacks)
	}
	return nil
}

// frozen reports whether the process is frozen by a control group: it would neither stop nor run a call.
func frozen(p *Process) bool {
	c, err := FindCgroups("")
	if err != nil {
		return false
	}
	in, err := p.Cgroups()
	if err != nil {
		return false
	}
	for _, m := range in {
		h, file, thawed := c.v2, "cgroup.freeze", "0"
		if m.Hierarchy != Unified {
			h, file, thawed = c.with("freezer"), "freezer.state", "THAWED"
		}
		if h == nil || h.name != m.Hierarchy {
			continue
		}
		dir, ok := h.dir(m.Path)
		for ok && len(dir) > len(h.mount) {
			text, err := readFile(dir+"/"+file, maxText)
			if err == nil && strings.TrimSpace(string(text)) != thawed {
				return true
			}
			dir = dir[:strings.LastIndexByte(dir, '/')]
		}
	}
	return false
}

// findSharer looks for a process that has the same descriptors: where forkfd is to close some, and what makes newfd
// impossible for several threads.
func (t *tracer) findSharer(threads int) error {
	if !t.m.NewFD && !t.m.ForkFD || threads == 1 && (t.m.NewFD || len(t.m.FDs) == 0) {
		return nil
	}
	other, err := t.sharing("/proc")
	if err != nil || other == 0 {
		return err
	}
	if threads > 1 {
		return refusal(unix.EBUSY, "process has %d threads and shares its descriptors with process %d", threads, other)
	}
	return t.share(other)
}

// sharing gives the number of another process with the same descriptors, of those that dir lists.
func (t *tracer) sharing(dir string) (int, error) {
	pids, err := numbers(dir)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if pid != t.p.pid && kcmp(t.lead.tid, pid, "fd") {
			return pid, nil
		}
	}
	return 0, nil
}

// share makes the process of another number the sharer.
func (t *tracer) share(pid int) error {
	other := &tracer{as: t.as, threads: make(map[int]*tracee)}
	var err error
	if other.p, err = Open(pid); err != nil {
		return err
	}
	defer other.p.Close()
	if err := other.seize([]int{pid}); err != nil {
		return fmt.Errorf("forkfd: process %d, which shares the descriptors: %w", pid, err)
	}
	if t.as != nil {
		if err := other.p.mayTrace(*t.as); err != nil {
			return fmt.Errorf("forkfd: process %d, which shares the descriptors: %w", pid, err)
		}
	}
	t.sharer = other.threads[pid]
	if frozen(other.p) || !kcmp(t.lead.tid, pid, "fd") {
		return fmt.Errorf("forkfd: process %d, which shares the descriptors: %w", pid, errFrozen)
	}
	return nil
}
