package proc

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"ctrfs/ns"
)

// Adopt makes a process that another program has made, with stdio, a pinned job of the user's; see Start. Where there is a
// keeper it is that one's child, and the keeper waits for it.
func (s *Space) Adopt(pid int, stdio *Stdio, user ns.Cred) (j *Job, err error) {
	defer func() {
		if err != nil {
			stdio.Close()
		}
	}()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if s.Processes.Keeper != nil {
		p, err := ns.Open(pid)
		if err != nil {
			return nil, err
		}
		st, err := p.Stat()
		p.Close()
		if err != nil {
			return nil, err
		}
		if st.Ppid != os.Getppid() {
			return nil, fmt.Errorf("process %d: its parent is %d and not the keeper", pid, st.Ppid)
		}
	}
	j = &Job{
		space: s, stdio: stdio, account: stdio.account, owner: user.Uid, pinned: true, user: user, users: 1,
		turn: make(chan struct{}, 1), over: make(chan struct{}),
	}
	if err := s.enlist(j, fd); err != nil {
		return nil, err
	}
	stdio.Parked(func() { s.Processes.settle(j) })
	go s.Processes.watch(j)
	return j, nil
}

// During keeps the end of the job from being recorded before f has returned.
func (j *Job) During(f func() error) error {
	j.turn <- struct{}{}
	defer func() { <-j.turn }()
	return f()
}
