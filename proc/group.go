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

// signalGroup signals each process of the group but for the one that asks, as Inferno spares it.
func (p *Proc) signalGroup(ctx context.Context, sig unix.Signal) error {
	st, err := p.Process.Stat()
	if err != nil {
		return err
	}
	self, pgrp := fs.ClientOf(ctx).Pid, st.Pgrp
	return signalEach(cred(ctx), sig, func(m *ns.Process, st ns.Stat) bool { return m.Pid() != self && st.Pgrp == pgrp })
}

// signalEach signals each process that is meant by its pidfd and as c, until there is nobody whom it has not reached:
// what was forked meanwhile too. Only if it reaches nobody, the first error is its own.
func signalEach(c ns.Cred, sig unix.Signal, meant func(*ns.Process, ns.Stat) bool) error {
	var first error
	done, reached := map[uint64]bool{}, false
	for more := true; more; {
		more = false
		pids, err := ns.Pids(c)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			m, err := ns.Open(pid)
			if errors.Is(err, fs.ErrNotExist) {
				continue // ended meanwhile
			}
			if err != nil {
				return err
			}
			if st, err := m.Stat(); err == nil && st.State != 'Z' && !done[m.ID()] && meant(m, st) {
				done[m.ID()], more = true, true
				if err := ns.SignalAs(c, m, sig); err == nil {
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
