package proc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/ns"
)

// fd is the current directory, then a line in proc(3)'s form for each open descriptor.
func (p *Proc) fd(ctx context.Context) (string, error) {
	cwd, err := p.Process.Cwd(cred(ctx))
	if err != nil {
		return "", err
	}
	parked := p.isParked()
	fds, err := p.Process.FDs(cred(ctx))
	if parked && !p.isParked() { // its program has begun meanwhile
		parked = false
		fds, err = p.Process.FDs(cred(ctx))
	}
	if err != nil {
		return "", err
	}
	if parked {
		fds = slices.DeleteFunc(fds, func(fd ns.FD) bool { return fd.N == ns.ParkedCtl })
	}
	var b strings.Builder
	b.WriteString(fs.Quote(cwd) + "\n")
	for _, fd := range fds {
		b.WriteString(fs.Words(fd.Words()...) + "\n")
	}
	return b.String(), nil
}

func (p *Proc) hostname(context.Context) (string, error) {
	name, err := ns.Hostname(p.Process)
	if err != nil {
		return "", err
	}
	return fs.Quote(name) + "\n", nil
}

// limits is `name soft hard` a line.
func (p *Proc) limits(context.Context) (string, error) {
	limits, err := p.Process.Limits()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, l := range limits {
		b.WriteString(fs.Words(l.Name, limit(l.Soft), limit(l.Hard)) + "\n")
	}
	return b.String(), nil
}

func limit(n uint64) string {
	if n == ns.Unlimited {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

// setLimit takes `name soft [hard]`; the hard limit stays if it is not named.
func (p *Proc) setLimit(ctx context.Context, line string) error {
	words, err := ctl.Words(line)
	if err != nil {
		return err
	}
	if len(words) != 2 && len(words) != 3 {
		return fmt.Errorf("limits: not NAME SOFT [HARD]: %q", line)
	}
	l := ns.Limit{Name: words[0]}
	if l.Soft, err = ns.ParseLimit(words[1]); err != nil {
		return err
	}
	if len(words) == 3 {
		if l.Hard, err = ns.ParseLimit(words[2]); err != nil {
			return err
		}
		return p.Process.SetLimit(ctx, cred(ctx), l)
	}
	old, err := p.Process.Limits()
	if err != nil {
		return err
	}
	for _, o := range old {
		if strings.EqualFold(o.Name, l.Name) {
			l.Hard = o.Hard
		}
	}
	return p.Process.SetLimit(ctx, cred(ctx), l)
}

// ns is the mount table as namespace(6) lines.
func (p *Proc) ns(ctx context.Context) (string, error) {
	cwd, err := p.Process.Cwd(cred(ctx))
	if err != nil {
		return "", err
	}
	mounts, err := p.Process.Mounts(cred(ctx))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, words := range mounts {
		b.WriteString(fs.Words(words...) + "\n")
	}
	b.WriteString(fs.Words("cd", cwd) + "\n")
	return b.String(), nil
}

// nsgrp is `KIND INODE COUNT` a line. That the client may look into the process is asked of the kernel first; what the
// others share is found out with the server's rights.
func (p *Proc) nsgrp(ctx context.Context) (string, error) {
	if _, err := p.Process.Root(cred(ctx)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	shared, err := p.Process.Shares()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, s := range shared {
		fmt.Fprintf(&b, "%s %d %d\n", s.Kind, s.Inode, s.Count)
	}
	return b.String(), nil
}

// stopped blocks until the process is stopped or has ended, and gives its state.
func (p *Proc) stopped(ctx context.Context) (string, error) {
	account := fs.ClientOf(ctx).Account
	if err := account.Take(fs.Descriptors, 1); err != nil {
		return "", err
	}
	defer account.Give(fs.Descriptors, 1)
	stopped, err := ns.Stopped(ctx, p.Process)
	switch {
	case err != nil:
		return "", err
	case stopped:
		return "stopped\n", nil
	}
	return "exited\n", nil
}
