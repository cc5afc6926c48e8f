package proc

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// groups are the process groups of the machine that have a mode of exceptions. They are the kernel's, whichever tree
// they were found in.
var groups exceptions

type exceptions struct {
	mu    sync.Mutex     // guards what follows
	watch *ns.GroupWatch // nil while nobody needs it
	last  uint64         // the last mark
	modes map[uint64]*mode
}

// A mode is what happens when a member of a group ends by a signal.
type mode struct {
	leader *ns.Process
	pgrp   int
	notify bool    // else propagate
	by     ns.Cred // who wants it, and sends the signals
}

// maxModes is how many a user has at once.
const maxModes = 64

// exceptions is what the verb of that name does in Inferno's prog(3).
func (p *Proc) exceptions(ctx context.Context, args []string) error {
	st, err := p.Process.Stat()
	if err != nil {
		return err
	}
	if st.Pgrp != p.Pid() || st.Pgrp <= 1 {
		return fs.ErrPerm
	}
	if err := p.signal(ctx, 0); err != nil {
		return err
	}
	fd, err := p.Process.Dup()
	if err != nil {
		return err
	}
	leader, err := ns.FromFD(fd)
	if err != nil {
		return err
	}
	if err := groups.set(&mode{leader, st.Pgrp, args[0] == "notifyleader", cred(ctx)}); err != nil {
		leader.Close()
		return err
	}
	return nil
}

// set gives a group a mode, in place of the one that it had.
func (x *exceptions) set(m *mode) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	old, users := uint64(0), 0
	for mark, o := range x.modes {
		if o.leader.ID() == m.leader.ID() {
			old = mark
		} else if o.by.Uid == m.by.Uid {
			users++
		}
	}
	if users >= maxModes {
		return fs.ErrNoFree
	}
	if x.watch == nil {
		w, err := ns.WatchGroups()
		if err != nil {
			return fmt.Errorf("exceptions: %w", err)
		}
		x.watch, x.modes = w, make(map[uint64]*mode)
		go x.listen(w)
	}
	defer x.rest()
	x.last++
	if err := x.watch.Add(m.leader, x.last); err != nil {
		if errors.Is(err, unix.E2BIG) {
			return fs.ErrNoFree
		}
		return fmt.Errorf("exceptions: %w", err)
	}
	if o := x.modes[old]; o != nil {
		delete(x.modes, old)
		o.leader.Close()
	}
	if !m.leader.Alive() { // perhaps untold
		x.watch.Remove(m.leader)
		return ns.ErrExited
	}
	x.modes[x.last] = m
	return nil
}

// rest ends the watch if nobody needs it. Called with the lock.
func (x *exceptions) rest() {
	if len(x.modes) == 0 && x.watch != nil {
		x.watch.Close()
		x.watch = nil
	}
}

// listen does what is to be done until w is closed.
func (x *exceptions) listen(w *ns.GroupWatch) {
	for {
		ends, err := w.Next()
		if err != nil {
			return
		}
		for _, e := range ends {
			if e.Signal != 0 {
				x.raise(e)
			}
		}
		x.prune(w)
	}
}

// raise sends what the mode of a group wants after a member's end. The mode is gone before the first signal, so that the
// ends that follow from it do nothing.
func (x *exceptions) raise(e ns.GroupEnd) {
	x.mu.Lock()
	m := x.modes[e.Mark]
	delete(x.modes, e.Mark)
	x.mu.Unlock()
	if m == nil {
		return
	}
	defer m.leader.Close()
	// Who may not signal a member any more, because it has another user, sends it nothing, and there is nobody to tell.
	if !m.notify {
		ns.SignalGroupAs(m.by, m.leader, e.Signal)
		return
	}
	signalEach(m.by, unix.SIGKILL, func(p *ns.Process, st ns.Stat) bool {
		return p.ID() != m.leader.ID() && st.Pgrp == m.pgrp && m.exists()
	})
	if st, err := m.leader.Stat(); err == nil && st.Pgrp == m.pgrp {
		ns.SignalAs(m.by, m.leader, e.Signal)
	}
}

// exists reports whether the group has members, also ended ones. If it has, its number is no other's, and what was seen
// in a group of that number before was in this one.
func (m *mode) exists() bool {
	return !errors.Is(ns.SignalGroupAs(ns.Cred{}, m.leader, 0), ns.ErrExited)
}

// prune forgets the groups in which nobody lives. It is called by who reads w.
func (x *exceptions) prune(w *ns.GroupWatch) {
	x.mu.Lock()
	doubtful := make(map[uint64]*mode)
	for mark, m := range x.modes {
		if st, err := m.leader.Stat(); err != nil || m.leader.Ending() || st.Pgrp != m.pgrp {
			doubtful[mark] = m
		}
	}
	x.mu.Unlock()
	if len(doubtful) > 0 {
		lives, err := livingGroups()
		if err != nil {
			return
		}
		for mark, m := range doubtful {
			if lives[m.pgrp] && m.exists() {
				delete(doubtful, mark)
			}
		}
	}
	// A member that ended while we looked may have left a child that we have not seen. Then we are soon here again.
	if w.Pending() {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for mark, m := range doubtful {
		if x.modes[mark] == m { // nobody has set another
			delete(x.modes, mark)
			w.Remove(m.leader)
			m.leader.Close()
		}
	}
	x.rest()
}

// livingGroups are the numbers of the groups that have a member that has not ended. It looks until it sees nobody new:
// who was on his way out may have left a child that was not there at the first look.
func livingGroups() (map[int]bool, error) {
	lives, seen := make(map[int]bool), make(map[uint64]bool)
	for more := true; more; {
		more = false
		pids, err := ns.Pids(ns.Cred{})
		if err != nil {
			return nil, err
		}
		for _, pid := range pids {
			p, err := ns.Open(pid)
			if err != nil {
				continue
			}
			if !seen[p.ID()] {
				seen[p.ID()], more = true, true
				if st, err := p.Stat(); err == nil && !p.Ending() {
					lives[st.Pgrp] = true
				}
			}
			p.Close()
		}
	}
	return lives, nil
}
