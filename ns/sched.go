package ns

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// threads does f to every thread of the process as c; to those that appear meanwhile too.
func (p *Process) threads(c Cred, what string, f func(tid int) error) error {
	if err := p.Check(); err != nil {
		return err
	}
	done := make(map[int]bool)
	for more := true; more; {
		more = false
		tids, err := numbers(p.path("task"))
		if err != nil {
			return p.verify("task", err)
		}
		for _, tid := range tids {
			if done[tid] {
				continue
			}
			done[tid], more = true, true
			err := As(c, func() error { return f(tid) })
			if err != nil && !errors.Is(err, unix.ESRCH) {
				if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
					err = fs.ErrPermission
				}
				return fmt.Errorf("%s: %w", what, err)
			}
		}
	}
	return p.Check()
}

// SetNice sets the niceness of every thread of the process, -20 to 19, as c. See setpriority(2).
func (p *Process) SetNice(c Cred, nice int) error {
	return p.threads(c, "nice", func(tid int) error { return unix.Setpriority(unix.PRIO_PROCESS, tid, nice) })
}

// SetCPUs binds every thread of the process to the processors, as c. See sched_setaffinity(2).
func (p *Process) SetCPUs(c Cred, cpus []int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
		if !set.IsSet(cpu) {
			return fmt.Errorf("no such processor: %d", cpu)
		}
	}
	err := p.threads(c, "wired", func(tid int) error { return unix.SchedSetaffinity(tid, &set) })
	if errors.Is(err, unix.EINVAL) {
		return errors.New("wired: none of these processors may be used")
	}
	return err
}
