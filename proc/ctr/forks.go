package ctr

import (
	"errors"
	"sync"
	"sync/atomic"

	"ctrfs/ns"
)

// forkCount counts the forks in containers. It begins with the first container that runs.
type forkCount struct {
	once  sync.Once
	forks atomic.Pointer[ns.Forks] // nil: this kernel does not let us, or not yet
}

var errNoForks = errors.New("forks are not counted")

// begin begins to count in a new group.
func (f *forkCount) begin(cs *Containers, group *ns.Group) {
	f.once.Do(func() {
		forks, err := cs.Cgroups.CountForks()
		if err != nil {
			cs.Log.Info("stat has no nr_forks", "error", err)
			return
		}
		f.forks.Store(forks)
	})
	if forks := f.forks.Load(); forks != nil {
		if err := forks.Add(group); err != nil {
			cs.Log.Warn("count forks", "cgroup", group.Path(), "error", err)
		}
	}
}

// count is how many there were in the group, which may be nil.
func (f *forkCount) count(group *ns.Group) (uint64, error) {
	forks := f.forks.Load()
	switch {
	case forks == nil:
		return 0, errNoForks
	case group == nil:
		return 0, nil
	}
	return forks.Count(group)
}

// end ends the counting in a group, and gives what it came to.
func (f *forkCount) end(group *ns.Group) uint64 {
	n, err := f.count(group)
	if err == nil {
		f.forks.Load().Remove(group)
	}
	return n
}

func (f *forkCount) close() {
	if forks := f.forks.Load(); forks != nil {
		forks.Close()
	}
}
