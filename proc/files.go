package proc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/ns"
)

// The files of a process.
var files = fs.Table[*Proc]{
	fs.Lines("args", 0444, (*Proc).args, (*Proc).clearArgs, (*Proc).addArgs).Or(0644, (*Proc).isParked),
	fs.Whole("config", 0600, (*Proc).config, (*Proc).setConfig).If((*Proc).isParked),
	fs.Ctl("ctl", 0600, (*Proc).self, verbs.Do),
	fs.Text("ctr", 0444, (*Proc).ctr),
	fs.Text("cwd", 0400, (*Proc).cwd),
	fs.Special("data", 0600, (*Proc).openData).If((*Proc).isOurs),
	fs.Lines("env", 0400, (*Proc).env, (*Proc).clearEnv, (*Proc).addEnvLine).Or(0600, (*Proc).isParked),
	fs.Text("exception", 0444, (*Proc).exception),
	fs.Text("exe", 0400, (*Proc).exe),
	fs.Text("exitstatus", 0444, (*Proc).exitstatus),
	fs.Text("fd", 0400, (*Proc).fd),
	fs.Text("hostname", 0444, (*Proc).hostname),
	fs.Value("limits", 0644, (*Proc).limits, (*Proc).setLimit),
	fs.Value("note", 0200, (*Proc).unreadable, (*Proc).note),
	fs.Text("noteid", 0444, (*Proc).noteid),
	fs.Value("notepg", 0200, (*Proc).unreadable, (*Proc).notepg),
	fs.Text("ns", 0400, (*Proc).ns),
	fs.Text("nsgrp", 0400, (*Proc).nsgrp),
	fs.Text("pgrp", 0444, (*Proc).noteid),
	fs.Text("root", 0400, (*Proc).root),
	fs.Text("status", 0444, (*Proc).status),
	fs.Special("stderr", 0400, (*Proc).openStderr).If((*Proc).isOurs),
	fs.Special("stdin", 0200, (*Proc).openStdin).If((*Proc).isOurs),
	fs.Special("stdout", 0400, (*Proc).openStdout).If((*Proc).isOurs),
	fs.Answer("stopped", 0400, (*Proc).stopped),
	fs.Value("winsize", 0600, (*Proc).winsize, (*Proc).setWinsize).If((*Proc).hasTTY),
	fs.Watched("wait", 0444, (*Proc).watch, (*Proc).wait),
}

// Files are the names of the files of a process, Verbs the usage of each message of its ctl: the manual is held to them.
func Files() []string { return files.Names() }
func Verbs() []string { return verbs.Usages() }

func (p *Proc) isOurs() bool { return p.job != nil }

func (p *Proc) isParked() bool {
	if p.job == nil {
		return false
	}
	p.space.Processes.mu.Lock()
	defer p.space.Processes.mu.Unlock()
	return p.job.parked != nil
}

// check says whether the process has a number still.
func (p *Proc) check() error { return p.Process.Check() }

func (p *Proc) args(ctx context.Context) (string, error) {
	if fs.ClientOf(ctx).None {
		return "", fs.ErrPerm // what a program was called with is not for the network
	}
	if p.isParked() {
		p.space.Processes.mu.Lock()
		defer p.space.Processes.mu.Unlock()
		return fs.Words(p.job.args...) + "\n", nil
	}
	args, err := p.Process.Args()
	if err != nil {
		return "", err
	}
	return fs.Words(args...) + "\n", nil
}

func (p *Proc) clearArgs(context.Context) error {
	return p.change("args", func(j *Job) { j.args = nil })
}

func (p *Proc) addArgs(_ context.Context, line string) error {
	words, err := ctl.Words(line)
	if err != nil {
		return err
	}
	var long error
	err = p.change("args", func(j *Job) {
		if long = Fits(j.args, words); long == nil {
			j.args = append(j.args, words...)
		}
	})
	return cmp.Or(err, long)
}

// self is the process's number, as its tree counts.
func (p *Proc) self(ctx context.Context) (string, error) {
	if err := p.check(); err != nil {
		return "", err
	}
	n := strconv.Itoa(p.number())
	if fs.ClientOf(ctx).Bare {
		return n, nil
	}
	return n + "\n", nil
}

func (p *Proc) container(ctx context.Context) (name string, xid uint32) {
	if f := p.space.Processes.Ctr; f != nil {
		return f(ctx, p.Process)
	}
	return "", 0
}

func (p *Proc) ctr(ctx context.Context) (string, error) {
	if err := p.check(); err != nil {
		return "", err
	}
	name, _ := p.container(ctx)
	if name == "" {
		return "\n", nil
	}
	return fs.Quote(name) + "\n", nil
}

func (p *Proc) cwd(ctx context.Context) (string, error)  { return p.path(ctx, p.Process.Cwd) }
func (p *Proc) exe(ctx context.Context) (string, error)  { return p.path(ctx, p.Process.Exe) }
func (p *Proc) root(ctx context.Context) (string, error) { return p.path(ctx, p.Process.Root) }

func (p *Proc) openData(_ context.Context, how fs.How) (fs.Handle, error) {
	return p.job.Stdio().Data(how)
}

func (p *Proc) openStdin(context.Context, fs.How) (fs.Handle, error) { return p.job.Stdio().In.Open() }

func (p *Proc) openStdout(context.Context, fs.How) (fs.Handle, error) {
	return p.job.Stdio().Out.Open(false), nil
}

func (p *Proc) openStderr(context.Context, fs.How) (fs.Handle, error) {
	return p.job.Stdio().Err.Open(false), nil
}

func (p *Proc) env(ctx context.Context) (string, error) {
	var vars []string
	if p.isParked() {
		p.space.Processes.mu.Lock()
		vars = append(vars, p.job.env...)
		p.space.Processes.mu.Unlock()
	} else {
		if err := p.look(ctx, func(c ns.Cred) (err error) {
			vars, err = p.Process.Environ(c)
			return err
		}); err != nil {
			return "", err
		}
	}
	var b strings.Builder
	for _, v := range vars {
		b.WriteString(fs.Quote(v) + "\n")
	}
	return b.String(), nil
}

func (p *Proc) clearEnv(context.Context) error { return p.change("env", func(j *Job) { j.env = nil }) }

func (p *Proc) addEnvLine(ctx context.Context, line string) error {
	words, err := ctl.Words(line)
	if err == nil && len(words) != 1 {
		err = fmt.Errorf("env: not one NAME=VALUE: %q", line)
	}
	if err != nil {
		return err
	}
	return p.addEnv(ctx, words)
}

// exception is the signal that ended the process.
func (p *Proc) exception(context.Context) (string, error) {
	if exit, ok := ns.Exited(p.Process); ok {
		if exit.Known && exit.Status.Signaled() {
			return ns.SignalName(exit.Status.Signal()) + "\n", nil
		}
		return "\n", nil
	}
	st, err := p.Process.Stat()
	if err != nil {
		return "", err
	}
	if st.State == 'T' {
		return "-\n", nil // the kernel tells which signal it was to the parent alone
	}
	return "\n", nil
}

func (p *Proc) exitstatus(context.Context) (string, error) {
	exit, ok := ns.Exited(p.Process)
	if !ok {
		if err := p.check(); err != nil {
			return "", err
		}
		return "", errors.New("process has not ended")
	}
	return code(exit) + "\n", nil
}

// code is an end as a number, `-` where nobody knows it.
func code(exit ns.Exit) string {
	if n, ok := exit.Code(); ok {
		return strconv.Itoa(n)
	}
	return "-"
}

// unreadable is the text of a file that is only written.
func (p *Proc) unreadable(context.Context) (string, error) { return "", fs.ErrPerm }

func (p *Proc) note(ctx context.Context, line string) error {
	sig, err := ns.ParseNote(strings.TrimSpace(line))
	if err != nil {
		return err
	}
	return p.signal(ctx, sig)
}

// watch notes the end of the process while wait is open.
func (p *Proc) watch() (func(), error) { return ns.Watch(p.Process) }

// wait blocks until the process has ended and gives its record; see await(2).
func (p *Proc) wait(ctx context.Context) (string, error) {
	if err := ns.Await(ctx, p.Process); err != nil {
		return "", err
	}
	if p.job != nil {
		select {
		case <-p.job.over: // its record is made, and goes when nobody needs it more
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return p.record(), nil
}

// record is await(2)'s.
func (p *Proc) record() string {
	exit, _ := ns.Exited(p.Process)
	n := p.number()
	if p.job != nil {
		p.space.Processes.mu.Lock()
		p.job.waited = true
		p.space.Processes.mu.Unlock()
	}
	return fs.Words(exit.Record(n)...) + "\n"
}
