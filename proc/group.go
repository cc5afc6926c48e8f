package proc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// noteid is the process group.
func (p *Proc) noteid(context.Context) (string, error) {
	st, err := p.Process.Stat()
	if err != nil {
		return "", err
	}
	return strconv.Itoa(st.Pgrp) + "\n", nil
}

// notepg sends a note to the process's group.
func (p *Proc) notepg(ctx context.Context, line string) error {
	sig, err := ns.ParseNote(strings.TrimSpace(line))
	if err != nil {
		return err
	}
	return p.signalGroup(ctx, sig)
}

// killgrp sends a signal to the process's group, which those groups that members have made are not.
func (p *Proc) killgrp(ctx context.Context, args []string) error {
	sig := unix.SIGKILL
	if len(args) > 0 {
		var err error
		if sig, err = ns.ParseSignal(args[0]); err != nil {
			return fmt.Errorf("killgrp: %w", err)
		}
	}
	return p.signalGroup(ctx, sig)
}

// signalGroup signals each process of the group by its pidfd and as the client, but for the one that asks, as Inferno spares
// it, until there is nobody whom it has not reached: members that were forked meanwhile too. Only if it reaches nobody,
// the first error is its own.
func (p *Proc) signalGroup(ctx context.Context, sig unix.Signal) error {
	st, err := p.Process.Stat()
	if err != nil {
		return err
	}
	self := fs.ClientOf(ctx).Pid
	var first error
	done, reached := map[uint64]bool{}, false
	for more := true; more; {
		more = false
		pids, err := ns.Pids(cred(ctx))
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if pid == self {
				continue
			}
			m, err := ns.Open(pid)
			if err != nil {
				continue // ended meanwhile
			}
			if s, err := m.Stat(); err == nil && s.Pgrp == st.Pgrp && s.State != 'Z' && !done[m.ID()] {
				done[m.ID()], more = true, true
				if err := ns.SignalAs(cred(ctx), m, sig); err == nil {
					reached = true
				} else if first == nil && !errors.Is(err, ns.ErrExited) {
					first = err
				}
			}
			m.Close()
		}
	}
	if !reached {
		return first
	}
	return nil
}
