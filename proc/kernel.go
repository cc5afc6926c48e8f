package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/ns"
)

// look calls f with the identity for which the kernel is asked what it tells of the process. That is the client's, but for
// two, which it hides from those whose they are. A parked process is not dumpable, so that nobody takes it over; it has
// nothing yet but what its user gave it, so to him, who by its mode has opened the file, this program tells it. And what
// runs in a user namespace that was made for a container is not its owner's for the kernel: he sees what root in there sees.
func (p *Proc) look(ctx context.Context, f func(ns.Cred) error) error {
	own := ns.Cred{Uid: uint32(os.Geteuid())}
	if err := p.hold(ctx, "look", func() error { return f(own) }); !errors.Is(err, errRunning) {
		return err
	}
	err := f(cred(ctx))
	if errors.Is(err, fs.ErrPerm) && p.space.Look != nil && p.space.Look(ctx, p.Process) == nil {
		return f(own)
	}
	return err
}

// path is the text of a file that tells a path.
func (p *Proc) path(ctx context.Context, get func(ns.Cred) (string, error)) (path string, err error) {
	if err := p.look(ctx, func(c ns.Cred) (err error) {
		path, err = get(c)
		return err
	}); err != nil {
		return "", err
	}
	return fs.Quote(path) + "\n", nil
}

// fd is the current directory, then a line in proc(3)'s form for each open descriptor.
func (p *Proc) fd(ctx context.Context) (string, error) {
	var cwd string
	var fds []ns.FD
	if err := p.look(ctx, func(c ns.Cred) (err error) {
		if cwd, err = p.Process.Cwd(c); err == nil {
			fds, err = p.Process.FDs(c)
		}
		if p.isParked() {
			fds = slices.DeleteFunc(fds, func(fd ns.FD) bool { return fd.N == ns.ParkedCtl })
		}
		return err
	}); err != nil {
		return "", err
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
	var cwd string
	var mounts [][]string
	if err := p.look(ctx, func(c ns.Cred) (err error) {
		if cwd, err = p.Process.Cwd(c); err == nil {
			mounts, err = p.Process.Mounts(c)
		}
		return err
	}); err != nil {
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
	if err := p.look(ctx, func(c ns.Cred) error {
		_, err := p.Process.Root(c)
		return err
	}); err != nil && !errors.Is(err, fs.ErrNotExist) {
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
