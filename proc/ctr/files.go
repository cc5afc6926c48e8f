package ctr

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/ns"
)

// The files of a container.
var files = share(fs.Table[*Ctr]{
	fs.Lines("args", 0644, (*Ctr).args, (*Ctr).clearArgs, (*Ctr).addArgs),
	fs.Value("bcaps", 0644, (*Ctr).bcaps, (*Ctr).setBcaps),
	fs.Value("bundle", 0644, (*Ctr).bundle, (*Ctr).setBundle),
	fs.Value("ccaps", 0644, (*Ctr).readCcaps, (*Ctr).setCcaps),
	fs.Text("cgroup", 0444, (*Ctr).cgroup),
	fs.Whole("config", 0600, (*Ctr).config, (*Ctr).setConfig),
	fs.Special("console", 0600, (*Ctr).openConsole).If((*Ctr).hasTTY),
	fs.Ctl("ctl", 0600, (*Ctr).self, verbs.Do),
	fs.Value("cwd", 0644, (*Ctr).cwd, (*Ctr).setCwd),
	fs.Value("domainname", 0644, (*Ctr).domainname, (*Ctr).setDomainname),
	fs.Text("engine", 0444, (*Ctr).engine),
	fs.Lines("env", 0600, (*Ctr).env, (*Ctr).clearEnv, (*Ctr).addEnv),
	fs.Special("events", 0444, (*Ctr).events),
	fs.Text("exitedat", 0444, (*Ctr).exitedat),
	fs.Text("exitstatus", 0444, (*Ctr).exitstatus),
	fs.Value("flags", 0644, (*Ctr).readFlags, (*Ctr).setFlags),
	fs.Lines("helper", 0600, (*Ctr).helper, (*Ctr).clearHelper, (*Ctr).setHelper),
	fs.Value("hostname", 0644, (*Ctr).hostname, (*Ctr).setHostname),
	fs.Text("id", 0444, (*Ctr).fullID),
	fs.Text("info", 0444, (*Ctr).info),
	fs.Lines("labels", 0640, (*Ctr).labels, (*Ctr).clearLabels, (*Ctr).addLabel),
	fs.Value("limits", 0644, (*Ctr).limits, (*Ctr).setLimit),
	fs.Lines("mounts", 0644, (*Ctr).mounts, (*Ctr).clearMounts, (*Ctr).addMount),
	fs.Value("nsgrp", 0644, (*Ctr).nsgrp, (*Ctr).setNsgrp),
	fs.Text("pid", 0444, (*Ctr).pid),
	fs.Sub("proc", (*Ctr).procs),
	fs.Sub("root", (*Ctr).rootDir),
	fs.Value("rootfs", 0644, (*Ctr).rootfs, (*Ctr).setRootfs),
	fs.Value("runtime", 0644, (*Ctr).runtime, (*Ctr).setRuntime),
	fs.Text("stat", 0444, (*Ctr).stat),
	fs.Text("stats", 0444, (*Ctr).stats),
	fs.Text("status", 0444, (*Ctr).status),
	fs.Special("stderr", 0400, (*Ctr).openStderr),
	fs.Special("stdin", 0200, (*Ctr).openStdin),
	fs.Special("stdout", 0400, (*Ctr).openStdout),
	fs.Value("uname", 0644, (*Ctr).uname, (*Ctr).setUname),
	fs.Value("user", 0644, (*Ctr).user, (*Ctr).setUser),
	fs.Answer("wait", 0444, (*Ctr).wait),
	fs.Value("winsize", 0600, (*Ctr).winsize, (*Ctr).setWinsize).If((*Ctr).hasTTY),
	fs.Value("xid", 0644, (*Ctr).number, (*Ctr).setXid),
})

// share gives the group the owner's rights in what is root's.
func share(t fs.Table[*Ctr]) fs.Table[*Ctr] {
	for i, r := range t {
		t[i] = r.Or(r.Mode|r.Mode&0700>>3, (*Ctr).shared)
	}
	return t
}

// Files are the names of the files of a container, Verbs the usage of each message of its ctl: the manual is held to them.
func Files() []string { return files.Names() }
func Verbs() []string { return verbs.Usages() }

// now is the container's state.
func (c *Ctr) now() state {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// get reads something of the container, if it is still there.
func (c *Ctr) get(f func() string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return "", errNoCtr
	}
	return f() + "\n", nil
}

// change changes what the next start will run.
func (c *Ctr) change(f func(*spec) error) error {
	c.mu.Lock()
	err := error(errNoCtr)
	switch {
	case c.gone:
	case !c.spec.flagged(stateAdmin):
		err = errSealed
	default:
		err = f(&c.spec)
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.save()
}

func (c *Ctr) self(context.Context) (string, error) {
	return c.get(func() string { return fs.Quote(c.name) })
}

func (c *Ctr) engine(context.Context) (string, error) { return c.get(func() string { return "ctrfs" }) }
func (c *Ctr) fullID(context.Context) (string, error) { return c.get(func() string { return c.id }) }

// oneWord reads a line of a single word.
func oneWord(file, line string) (string, error) {
	words, err := ctl.Words(line)
	if err == nil && len(words) != 1 {
		err = fmt.Errorf("%s: not one word: %q", file, line)
	}
	if err != nil {
		return "", err
	}
	return words[0], nil
}

func (c *Ctr) rootfs(context.Context) (string, error) {
	return c.get(func() string { return fs.Words(c.spec.rootfs...) })
}

// setRootfs takes `host`, a directory, `overlay` and directories, the uppermost first, or where an image is; `image` is said for
// those that do not look like one, and where there are several names in one.
func (c *Ctr) setRootfs(_ context.Context, line string) error {
	words, err := ctl.Words(line)
	if err != nil {
		return err
	}
	if err := checkRootfs(words); err != nil {
		return fmt.Errorf("rootfs: %w", err)
	}
	if len(words) == 1 && c.isImage(words[0]) {
		words = []string{"image", words[0]}
	}
	if words[0] == "image" {
		if err := c.mayUnpack(); err != nil {
			return fmt.Errorf("rootfs: %w", err)
		}
	}
	return c.whileNew("root", func(s *spec) error { s.rootfs, s.readonly = words, false; return nil })
}

func checkRootfs(words []string) error {
	dirs := words
	switch {
	case len(words) == 0:
		return errors.New("nothing said")
	case words[0] == "overlay" && len(words) > 1:
		dirs = words[1:]
	case words[0] == "image" && (len(words) == 2 || len(words) == 3):
		dirs = words[1:2]
	case len(words) > 1:
		return fmt.Errorf("not `host`, `DIR`, `overlay DIR...` or `image PATH [NAME]`: %q", fs.Words(words...))
	case words[0] == "host":
		dirs = nil
	}
	for _, d := range dirs {
		if !strings.HasPrefix(d, "/") {
			return fmt.Errorf("not an absolute path: %q", d)
		}
	}
	return nil
}

// current gives the run that goes on.
func (c *Ctr) current() (*run, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone:
		return nil, errNoCtr
	case c.state == isCreated, c.state == isRunning, c.state == isPaused:
		return c.run, nil
	}
	return nil, errNotRunning
}

func (c *Ctr) cgroup(context.Context) (string, error) {
	r, err := c.current()
	if err != nil {
		return "", err
	}
	groups, err := r.job.Process().Cgroups()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, g := range groups {
		b.WriteString(fs.Words(g.Hierarchy, g.Path) + "\n")
	}
	return b.String(), nil
}

// uts reads a name of the container's UTS name space now, or what it will be.
func (c *Ctr) uts(read func(*ns.Process) (string, error), later func(*spec) string) (string, error) {
	c.mu.Lock()
	s, gone, run := c.state, c.gone, c.run
	text := later(&c.spec)
	if c.spec.from("uts") != "new" {
		text = "-" // it will be another's
	}
	c.mu.Unlock()
	switch {
	case gone:
		return "", errNoCtr
	case s == isStopped:
		return "", errNotRunning
	case s != isNew && !run.hides():
		var err error
		if text, err = read(run.job.Process()); err != nil {
			return "", err
		}
	}
	return fs.Quote(text) + "\n", nil
}

// setUTS sets a name of the container's UTS name space, or what it will be.
func (c *Ctr) setUTS(file, line string, write func(*ns.Process, string) error, later func(*spec, string)) error {
	name, err := oneWord(file, line)
	if err == nil && len(name) > nameMax {
		err = fmt.Errorf("%s: longer than %d bytes: %q", file, nameMax, name)
	}
	if err != nil {
		return err
	}
	if err := c.change(func(s *spec) error {
		if from := s.from("uts"); from != "new" {
			return fs.Err(unix.EPERM, "%s: it is that of %q", file, from)
		}
		return nil
	}); err != nil {
		return err
	}
	r, err := c.current()
	if err == nil && r.hides() {
		return fs.Err(unix.EOPNOTSUPP, "%s: %s hides it", file, r.oci.Name())
	}
	if err == nil {
		if err := write(r.job.Process(), name); err != nil {
			return err
		}
	} else if err != errNotRunning {
		return err
	}
	return c.change(func(s *spec) error { later(s, name); return nil })
}

func (c *Ctr) hostname(context.Context) (string, error) {
	return c.uts(ns.Hostname, func(s *spec) string { return s.hostname })
}

func (c *Ctr) setHostname(_ context.Context, line string) error {
	return c.setUTS("hostname", line, ns.SetHostname, func(s *spec, name string) { s.hostname = name })
}

func (c *Ctr) domainname(context.Context) (string, error) {
	return c.uts(ns.Domainname, func(s *spec) string { return s.domainname })
}

func (c *Ctr) setDomainname(_ context.Context, line string) error {
	return c.setUTS("domainname", line, ns.SetDomainname, func(s *spec, name string) { s.domainname = name })
}

func (c *Ctr) pid(context.Context) (string, error) {
	r, err := c.current()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d\n", r.job.Process().Pid()), nil
}

// info is libvserver's vx_info.
func (c *Ctr) info(context.Context) (string, error) {
	pid := 0
	if r, err := c.current(); err == nil {
		pid = r.job.Process().Pid()
	} else if err != errNotRunning {
		return "", err
	}
	return c.get(func() string { return fmt.Sprintf("xid %d\ninitpid %d", c.xid, pid) })
}

func (c *Ctr) procs(_ context.Context, qid uint64) (fs.Dir, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return nil, errNoCtr
	}
	return c.space.Dir("proc", qid), nil
}

func (c *Ctr) status(context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return "", errNoCtr
	}
	var b strings.Builder
	line := func(key, value string) { fmt.Fprintf(&b, "%s %s\n", key, value) }
	b.WriteString(string(c.state) + "\n")
	line("xid", fmt.Sprint(c.xid))
	line("created", fs.Time(c.made))
	if r := c.run; r != nil {
		line("started", fs.Time(r.started))
		if r.oom.kills > 0 {
			line("oom", fmt.Sprint(r.oom.kills))
		}
		if c.state == isStopped {
			line("exit", r.code())
			line("exitedat", fs.Time(r.ended))
		} else {
			line("pid", fmt.Sprint(r.job.Process().Pid()))
		}
	}
	return b.String(), nil
}

// last reads something of the run that has ended.
func (c *Ctr) last(f func(*run) string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone:
		return "", errNoCtr
	case c.state != isStopped:
		return "", fmt.Errorf("container has not ended: it is %s", c.state)
	}
	return f(c.run) + "\n", nil
}

func (c *Ctr) exitstatus(context.Context) (string, error) { return c.last((*run).code) }

func (c *Ctr) exitedat(context.Context) (string, error) {
	return c.last(func(r *run) string { return fs.Time(r.ended) })
}

func (c *Ctr) events(ctx context.Context, _ fs.How) (fs.Handle, error) {
	return c.set.Feed.Open(ctx,
		func(e fs.Event) bool { return e.Of == c.qid },
		func(context.Context) []fs.Event { return []fs.Event{c.present()} })
}
