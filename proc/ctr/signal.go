package ctr

import (
	"context"
	"ctrfs/fs"
	"ctrfs/ns"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// kill ends all processes of the run.
func (r *run) kill() error {
	select {
	case <-r.done:
		return nil
	default:
	}
	if r.oci != nil {
		return r.killBy(context.Background())
	}
	if r.group != nil {
		// What is frozen by version 1 does not die of a signal.
		if frozen, err := r.group.Frozen(); frozen || err != nil {
			if err := r.group.Kill(); err == nil || !ended(r.job.Process()) { // else the group may be gone
				return err
			}
			return nil
		}
	}
	if err := r.job.Process().Signal(unix.SIGKILL); !errors.Is(err, ns.ErrExited) { // the end of a pid name space
		return err
	}
	return nil
}

// sealed is what is sent for a signal in a container that is sealed: to the first process only, and INT, as long as there are
// others, or KILL if it would not notice that.
func (r *run) sealed(sig unix.Signal, pid int) (unix.Signal, int, error) {
	p := r.job.Process()
	if pid != 1 && pid != p.Pid() {
		return sig, pid, errSealed
	}
	pids, err := r.pids()
	if err != nil {
		return sig, pid, err
	}
	st, err := p.Status()
	switch {
	case errors.Is(err, ns.ErrExited), len(pids) <= 1:
		return sig, 1, nil
	case err != nil:
		return sig, pid, err
	case (st.SigCgt|st.SigBlk)&(1<<(unix.SIGINT-1)) == 0:
		return unix.SIGKILL, 1, nil
	}
	return unix.SIGINT, 1, nil
}

// freezeTime is how long a signal to all waits until all are frozen.
const freezeTime = time.Second

// signal sends a signal to all processes of the run (pid 0), all but the first (-1), or to the one that has pid on the
// host. All are frozen meanwhile, unless they are paused, so that none forks away from it, where that can be done.
func (r *run) signal(ctx context.Context, sig unix.Signal, pid int, paused bool) error {
	switch {
	case r.oci == nil:
	case pid == 0:
		return r.oci.Kill(ctx, r.id, sig, true)
	case r.oci.Sandbox():
		return fs.Err(unix.EOPNOTSUPP, "kill: %s hides the processes", r.oci.Name())
	}
	if pid <= 0 && r.group != nil && !paused {
		// Who calls has the turn: a process that the kernel cannot stop must not keep others from killing it.
		brief, cancel := context.WithTimeout(ctx, freezeTime)
		err := r.group.Freeze(brief)
		cancel()
		if err == nil {
			defer r.group.Thaw(context.WithoutCancel(ctx))
		} else if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	pids, err := r.pids()
	if err != nil {
		return err
	}
	first := r.job.Process().Pid()
	found := false
	for _, n := range pids {
		if pid > 0 && n != pid || pid == -1 && n == first {
			continue
		}
		p, err := ns.Open(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // ended meanwhile
		}
		if err != nil {
			return err
		}
		in, err := r.has(p)
		if in && p.Signal(sig) == nil {
			found = true
		}
		p.Close()
		if err != nil && !errors.Is(err, ns.ErrExited) {
			return err
		}
	}
	if !found {
		return fs.Err(unix.ESRCH, "process not found")
	}
	return nil
}

// killAt ends the run after a time, if it has not ended by then.
func (r *run) killAt(wait time.Duration) {
	timer := time.AfterFunc(wait, func() { r.kill() }) // fails only where all has ended
	go func() {
		<-r.done
		timer.Stop()
	}()
}
