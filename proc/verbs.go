package proc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/ns"
)

// The messages of ctl.
var verbs = ctl.Table[*Proc]{
	ctl.Verb("kill [SIG]", (*Proc).kill),
	ctl.Verb("signal SIG", (*Proc).kill),
	ctl.Verb("stop", (*Proc).stop),
	ctl.Verb("start", (*Proc).cont),
	ctl.Verb("killgrp [SIG]", (*Proc).killgrp),
	ctl.Verb("exceptions propagate|notifyleader", (*Proc).exceptions),
	ctl.Verb("closeio", (*Proc).closeio),
	ctl.Flags("newfd|forkfd|newns|forkns|newenv|forkenv|newpgrp|nodevs [FD...]", (*Proc).pctl),
	ctl.Verb("rfork LETTERS", (*Proc).rfork),
	ctl.Verb("unshare KIND...", (*Proc).unshare),
	ctl.Verb("join N|CTR [WORD...]", (*Proc).join),
	ctl.Verb("close FD...", (*Proc).closefd),
	ctl.Verb("closefiles", (*Proc).closefiles),
	ctl.Verb("private", (*Proc).private),
	ctl.Verb("nice N", (*Proc).nice),
	ctl.Verb("pri N", (*Proc).pri),
	ctl.Verb("wired CPU...", (*Proc).wired),
	ctl.Verb("limit NAME SOFT [HARD]", (*Proc).limit),
	ctl.Verb("dir DIR", (*Proc).dir),
	ctl.Verb("env NAME=VALUE", (*Proc).addEnv),
	ctl.Verb("user U[:G[,G...]]", (*Proc).become),
	ctl.Verb("umask M", (*Proc).umask),
	ctl.Verb("cap WORD...", (*Proc).bound),
	ctl.Verb("oom N", (*Proc).oom),
	ctl.Verb("ipc pipe|socket|none", (*Proc).ipc),
	ctl.Verb("tty [COLS ROWS]", (*Proc).tty),
	ctl.Verb("label LABEL", (*Proc).setLabel),
	ctl.Verb("killonclose", (*Proc).killonclose),
	ctl.Verb("nowait", (*Proc).nowait),
	ctl.Verb("exec [CMD [ARG...]]", (*Proc).exec),
}

func (p *Proc) kill(ctx context.Context, args []string) error {
	sig := unix.SIGKILL
	if len(args) > 0 {
		var err error
		if sig, err = ns.ParseSignal(args[0]); err != nil {
			return fmt.Errorf("kill: %w", err)
		}
	}
	return p.signal(ctx, sig)
}

func (p *Proc) stop(ctx context.Context, _ []string) error { return p.signal(ctx, unix.SIGSTOP) }
func (p *Proc) cont(ctx context.Context, _ []string) error { return p.signal(ctx, unix.SIGCONT) }

// signal sends a signal as the client, so that the kernel decides whether he may.
func (p *Proc) signal(ctx context.Context, sig unix.Signal) error {
	return ns.SignalAs(cred(ctx), p.Process, sig)
}

func (p *Proc) closeio(context.Context, []string) error {
	if p.job == nil {
		return fmt.Errorf("closeio: %w", errNotOurs)
	}
	p.job.Stdio().In.End()
	return nil
}

var (
	errNotOurs = fs.Err(unix.EINVAL, "process was not started here")
	errRunning = fs.Err(unix.EBUSY, "process is running")
)

// change does something to a process that is parked, with the lock.
func (p *Proc) change(verb string, f func(j *Job)) error {
	if p.job == nil {
		return fmt.Errorf("%s: %w", verb, errRunning)
	}
	mu := &p.space.Processes.mu
	mu.Lock()
	if p.job.parked == nil {
		mu.Unlock()
		return fmt.Errorf("%s: %w", verb, errRunning)
	}
	f(p.job)
	mu.Unlock()
	return p.job.note()
}

// use has the stub of a process that is parked for itself while f runs.
func (p *Proc) use(ctx context.Context, verb string, f func(*ns.Parked) error) error {
	return p.hold(ctx, verb, func() error {
		if f := p.space.Awake; f != nil {
			done, err := f()
			if err != nil {
				return fmt.Errorf("%s: %w", verb, err)
			}
			defer done()
		}
		var parked *ns.Parked
		if err := p.change(verb, func(j *Job) { parked = j.parked }); err != nil {
			return err
		}
		// If this program dies now nobody could say what the process has done.
		if err := p.job.setBusy(true); err != nil {
			return err
		}
		return cmp.Or(f(parked), p.job.setBusy(false))
	})
}

// hold keeps a parked process one while f runs: nobody else lets it do anything.
func (p *Proc) hold(ctx context.Context, verb string, f func() error) error {
	if p.job == nil {
		return fmt.Errorf("%s: %w", verb, errRunning)
	}
	select {
	case p.job.turn <- struct{}{}:
		defer func() { <-p.job.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if !p.isParked() {
		return fmt.Errorf("%s: %w", verb, errRunning)
	}
	return f()
}

func (p *Proc) dir(ctx context.Context, args []string) error {
	return p.use(ctx, "dir", func(parked *ns.Parked) error { return parked.Chdir(ctx, args[0]) })
}

// become changes the user; the kernel lets only root do that.
func (p *Proc) become(ctx context.Context, args []string) error {
	return p.use(ctx, "user", func(parked *ns.Parked) error {
		root, err := os.Open(fmt.Sprintf("/proc/%d/root", parked.Pid)) // it cannot end: we have it
		if errors.Is(err, iofs.ErrPermission) {                        // without root: the stub is not dumpable
			return fmt.Errorf("user %q: %w", args[0], iofs.ErrPermission)
		}
		if err != nil {
			return err
		}
		defer root.Close()
		user, err := FindUser(root, args[0])
		if err != nil {
			return err
		}
		if f := p.space.Become; f != nil {
			if err := f(parked, user); err != nil {
				return err
			}
			return p.change("user", func(j *Job) { j.as = &user })
		}
		if err := parked.Become(ctx, user); err != nil {
			return fmt.Errorf("user %q: %w", args[0], err)
		}
		return p.change("user", func(j *Job) { j.user = user })
	})
}

func (p *Proc) addEnv(_ context.Context, args []string) error {
	name, _, ok := strings.Cut(args[0], "=")
	if !ok || name == "" {
		return fmt.Errorf("env: not NAME=VALUE: %q", args[0])
	}
	var long error
	err := p.change("env", func(j *Job) {
		if long = Fits(j.env, args[:1]); long == nil {
			j.setEnv(name, args[0])
		}
	})
	return cmp.Or(err, long)
}

// setEnv adds a variable in the place of one of the same name.
func (j *Job) setEnv(name, line string) {
	for i, e := range j.env {
		if strings.HasPrefix(e, name+"=") {
			j.env[i] = line
			return
		}
	}
	j.env = append(j.env, line)
}

// setLabel gives the process a name in the directory, which numbers and clone have already.
func (p *Proc) setLabel(_ context.Context, args []string) error {
	l := args[0]
	if _, err := strconv.Atoi(l); err == nil || l == "clone" {
		return fmt.Errorf("label: numbers and clone are taken: %q", l)
	}
	if l == "" || l == "." || l == ".." || len(l) > 255 || strings.ContainsAny(l, "/\x00") || !utf8.ValidString(l) {
		return fmt.Errorf("label: not a file name: %q", l)
	}
	return p.change("label", func(j *Job) { j.label = l })
}

func (p *Proc) killonclose(context.Context, []string) error {
	if p.job == nil {
		return fmt.Errorf("killonclose: %w", errNotOurs)
	}
	p.space.Processes.mu.Lock()
	if !p.job.held {
		p.space.Processes.mu.Unlock()
		return errors.New("killonclose: the file that opening clone gave is closed")
	}
	p.job.killed = true
	p.space.Processes.mu.Unlock()
	return p.job.note()
}

func (p *Proc) nowait(context.Context, []string) error {
	return p.change("nowait", func(j *Job) { j.nowait = true })
}

// exec answers when the program runs, or why it does not; then the process still waits.
func (p *Proc) exec(ctx context.Context, args []string) error {
	return p.run(ctx, func(*ns.Parked) ([]string, []string, error) {
		ps, j := p.space.Processes, p.job
		ps.mu.Lock()
		defer ps.mu.Unlock()
		if j.config != nil {
			return nil, nil, fmt.Errorf("exec: %w", j.config)
		}
		if len(args) == 0 {
			args = j.args
		}
		return args, append([]string(nil), j.env...), nil
	})
}

// run makes the parked process the program that what says.
func (p *Proc) run(ctx context.Context, what func(*ns.Parked) (args, env []string, err error)) error {
	err := p.use(ctx, "exec", func(parked *ns.Parked) error {
		ps, j := p.space.Processes, p.job
		args, env, err := what(parked)
		if err == nil && len(args) == 0 {
			err = errors.New("exec: no command")
		}
		if err == nil {
			err = parked.Exec(ctx, args, env)
		}
		if err != nil {
			return err
		}
		ps.mu.Lock()
		j.args, j.env = nil, nil // the kernel has them
		ps.unpark(j)
		ps.mu.Unlock()
		parked.Close()
		if j.pinned {
			j.began()
		} else {
			ps.tell(j, "start")
		}
		return nil
	})
	if errors.Is(err, errRunning) {
		return fs.ErrInUse
	}
	return err
}
