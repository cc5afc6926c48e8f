package ns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// Exec executes a program; argv[0] without a slash is looked for in the PATH of env, in the
// process's root, as execvp(3) does but for scripts without a `#!` line. When it returns nil
// the program has started. After an error of execve the process still waits, though already
// with the user and limits of its program.
func (p *Parked) Exec(ctx context.Context, argv, env []string) error {
	if len(argv) == 0 || argv[0] == "" {
		return fmt.Errorf("exec: %w", unix.ENOENT)
	}
	for _, e := range env {
		if strings.IndexByte(e, '=') < 1 {
			return fmt.Errorf("environment %q: %w", e, unix.EINVAL)
		}
	}
	if err := p.listen(ctx); err != nil {
		return err
	}
	select {
	case <-p.turn:
		defer func() { p.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	plan := &Plan{}
	if p.last != nil {
		plan.steps, plan.files = append(plan.steps, p.last.steps...), p.last.files
	}
	before := len(plan.steps)
	args, vars := plan.share(argv), plan.share(env)
	for _, path := range candidates(argv[0], env) {
		plan.Do(fmt.Sprintf("exec %q", path), unix.SYS_EXECVE, path, args, vars).Try()
	}
	if err := p.send(ctx, plan); err != nil {
		return err
	}
	switch err := p.await(ctx, func() error { return p.receive(plan) }); {
	case err == io.EOF:
		return nil
	case err != nil:
		return err
	}
	p.last = nil
	return execErr(argv[0], plan.steps[before:])
}

// candidates gives the paths that may be meant by name.
func candidates(name string, env []string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	path := "/bin:/usr/bin" // confstr(_CS_PATH), for an environment without PATH
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var c []string
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			dir = "."
		}
		c = append(c, dir+"/"+name)
	}
	return c
}

// execErr gives the one error of several tries that tells most: what was found and could not be
// executed, else what may not be, else that there is none.
func execErr(name string, tries []*Step) error {
	worst := fmt.Errorf("exec %q: %w", name, unix.ENOENT)
	for _, s := range tries {
		switch err := s.Err(); {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		case errors.Is(err, unix.EACCES):
			worst = err
		default:
			return err
		}
	}
	return worst
}
