package proc

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"ctrfs/fs"
	"ctrfs/ns"
)

// ipc gives the parked process another kind of standard input and output.
func (p *Proc) ipc(ctx context.Context, args []string) error {
	return p.use(ctx, "ipc", func(parked *ns.Parked) error {
		stdio, err := makeStdio(args[0], p.job.account)
		if err != nil {
			return err
		}
		return p.redirect(stdio, parked.Redirect(ctx, stdio.Child()))
	})
}

// redirect puts stdio, which the parked process has got unless err says otherwise, in place of what it had.
func (p *Proc) redirect(stdio *Stdio, err error) error {
	if err != nil {
		stdio.Close()
		return err
	}
	ps, j := p.space.Processes, p.job
	ps.mu.Lock()
	old := j.stdio
	j.stdio = stdio
	ps.mu.Unlock()
	stdio.Parked(func() { ps.settle(j) })
	old.Close()
	return ps.keep(j)
}

// tty gives the parked process a terminal of its own.
func (p *Proc) tty(ctx context.Context, args []string) error {
	size, err := TerminalSize(args)
	if err != nil {
		return err
	}
	return p.use(ctx, "tty", func(parked *ns.Parked) error { return p.terminal(ctx, parked, size) })
}

// TerminalSize reads what may stand after the verb tty: columns and rows, 80 and 24 if nothing does.
func TerminalSize(args []string) (ns.Winsize, error) {
	switch len(args) {
	case 0:
		return ns.Winsize{Cols: 80, Rows: 24}, nil
	case 1:
		return ns.Winsize{}, fmt.Errorf("tty: columns and no rows: %q", args[0])
	}
	size, err := parseSize(args)
	if err != nil {
		return size, fmt.Errorf("tty: %w", err)
	}
	return size, nil
}

// Terminal gives a pinned job, which is not Ready yet, a terminal of its own.
func (j *Job) Terminal(ctx context.Context, size ns.Winsize) error {
	p := &Proc{Process: j.proc, job: j, space: j.space}
	return p.terminal(ctx, j.parked, size)
}

func (p *Proc) terminal(ctx context.Context, parked *ns.Parked, size ns.Winsize) error {
	root, err := os.Open(fmt.Sprintf("/proc/%d/root", parked.Pid)) // it cannot end: we have it
	if err != nil {
		return err
	}
	defer root.Close()
	uid, _ := p.Owner()
	stdio, err := newTerminal(root, uid, size, p.job.account)
	if err != nil {
		return err
	}
	return p.redirect(stdio, p.lead(ctx, parked, stdio))
}

// lead makes the parked process the leader of a session with the terminal. The first process of a container is one already,
// and its terminal is the console of the container.
func (p *Proc) lead(ctx context.Context, parked *ns.Parked, stdio *Stdio) error {
	st, err := p.Process.Stat()
	if err != nil {
		return err
	}
	if st.Session == p.Pid() {
		if err := parked.Terminal(ctx, stdio.child[0], 0); err != nil || !p.job.pinned {
			return err
		}
		return parked.Console(ctx, stdio.child[0])
	}
	user := p.job.cred()
	opt := ns.Opt{}
	if os.Geteuid() == 0 {
		opt.Cred = &user
	}
	other, err := p.space.Park(ctx, opt)
	if err != nil {
		return err
	}
	defer other.End()
	group := other.Pid
	if p.space.Inside != nil {
		if group, err = p.space.insideOf(group); err != nil {
			return err
		}
	}
	return parked.Terminal(ctx, stdio.child[0], group)
}

// insideOf is the number that the space gives to a process of the host's number.
func (s *Space) insideOf(pid int) (int, error) {
	o, err := ns.Open(pid)
	if err != nil {
		return 0, err
	}
	defer o.Close()
	return s.Inside(o), nil
}

// parseSize reads columns and rows.
func parseSize(words []string) (ns.Winsize, error) {
	if len(words) != 2 {
		return ns.Winsize{}, fmt.Errorf("not COLS ROWS: %q", words)
	}
	cols, err := strconv.ParseUint(words[0], 10, 16)
	rows, e := strconv.ParseUint(words[1], 10, 16)
	if err != nil || e != nil {
		return ns.Winsize{}, fmt.Errorf("not COLS ROWS: %q", fs.Words(words...))
	}
	return ns.Winsize{Cols: uint16(cols), Rows: uint16(rows)}, nil
}

// Terminal says whether it is one.
func (s *Stdio) Terminal() bool { return s.tty != nil }

// Winsize is the size of the terminal, `COLS ROWS`.
func (s *Stdio) Winsize() (string, error) {
	if s.tty == nil {
		return "", errNoTTY
	}
	size, err := ns.GetWinsize(s.tty)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d %d\n", size.Cols, size.Rows), nil
}

// Resize sets the size of the terminal.
func (s *Stdio) Resize(words []string) error {
	if s.tty == nil {
		return errNoTTY
	}
	size, err := parseSize(words)
	if err != nil {
		return fmt.Errorf("winsize: %w", err)
	}
	return ns.SetWinsize(s.tty, size)
}
