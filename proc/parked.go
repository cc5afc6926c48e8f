package proc

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/ns"
)

var errNoTTY = fs.Err(unix.ENOTTY, "not a terminal")

func (p *Proc) hasTTY() bool { return p.job != nil && p.job.Stdio().Terminal() }

func (p *Proc) winsize(context.Context) (string, error) { return p.job.Stdio().Winsize() }

func (p *Proc) setWinsize(_ context.Context, line string) error {
	words, err := ctl.Words(line)
	if err != nil {
		return err
	}
	return p.job.Stdio().Resize(words)
}

func (p *Proc) umask(ctx context.Context, args []string) error {
	mask, err := strconv.ParseUint(args[0], 8, 32)
	if err != nil || mask > 0777 {
		return fmt.Errorf("umask: not an octal number of three digits: %q", args[0])
	}
	return p.use(ctx, "umask", func(parked *ns.Parked) error { return parked.Umask(ctx, uint32(mask)) })
}

// bound leaves the program no capability but those named; words with `~` are taken from all that there are.
func (p *Proc) bound(ctx context.Context, args []string) error {
	var caps ns.CapSet
	if strings.HasPrefix(args[0], "~") {
		caps = ns.KernelCaps()
	}
	for _, w := range args {
		name, take := strings.CutPrefix(w, "~")
		c, err := ns.ParseCap(name)
		if err != nil {
			return fmt.Errorf("cap: %w", err)
		}
		if take {
			caps &^= c
		} else {
			caps |= c
		}
	}
	return p.use(ctx, "cap", func(parked *ns.Parked) error { return parked.Bound(ctx, caps) })
}

func (p *Proc) oom(ctx context.Context, args []string) error {
	n, err := number(args[0], "oom", -1000, 1000)
	if err != nil {
		return err
	}
	return p.use(ctx, "oom", func(parked *ns.Parked) error { return parked.OOM(ctx, n) })
}

func number(word, verb string, least, most int) (int, error) {
	n, err := strconv.Atoi(word)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s: not a number from %d to %d: %q", verb, least, most, word)
	}
	return n, nil
}

func (p *Proc) limit(ctx context.Context, args []string) error {
	return p.setLimit(ctx, fs.Words(args...))
}

func (p *Proc) nice(ctx context.Context, args []string) error {
	n, err := number(args[0], "nice", -20, 19)
	if err != nil {
		return err
	}
	return p.Process.SetNice(cred(ctx), n)
}

// pri is Plan 9's: 0 to 19, higher is more, and 10 is what everybody has.
func (p *Proc) pri(ctx context.Context, args []string) error {
	n, err := number(args[0], "pri", 0, 19)
	if err != nil {
		return err
	}
	return p.Process.SetNice(cred(ctx), 10-n)
}

func (p *Proc) wired(ctx context.Context, args []string) error {
	var cpus []int
	for _, w := range args {
		n, err := number(w, "wired", 0, 1<<16)
		if err != nil {
			return err
		}
		cpus = append(cpus, n)
	}
	return p.Process.SetCPUs(cred(ctx), cpus)
}
