package ctr

import (
	"context"
	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/proc"
	"fmt"
	"slices"
	"strings"
)

func (c *Ctr) args(context.Context) (string, error) {
	return c.get(func() string { return fs.Words(c.spec.args...) })
}

func (c *Ctr) clearArgs(context.Context) error {
	return c.change(func(s *spec) error { s.args = nil; return nil })
}

func (c *Ctr) addArgs(_ context.Context, line string) error {
	words, err := ctl.Words(line)
	if err != nil {
		return err
	}
	return c.change(func(s *spec) error {
		err := proc.Fits(s.args, words)
		if err == nil {
			s.args = append(s.args, words...)
		}
		return err
	})
}

func (c *Ctr) env(context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return "", errNoCtr
	}
	var b strings.Builder
	for _, v := range c.spec.env {
		b.WriteString(fs.Quote(v) + "\n")
	}
	return b.String(), nil
}

func (c *Ctr) clearEnv(context.Context) error {
	return c.change(func(s *spec) error { s.env = nil; return nil })
}

func (c *Ctr) addEnv(_ context.Context, line string) error {
	v, err := oneWord("env", line)
	if err != nil {
		return err
	}
	name, _, ok := strings.Cut(v, "=")
	if !ok || name == "" {
		return fmt.Errorf("env: not NAME=VALUE: %q", v)
	}
	return c.change(func(s *spec) error {
		if err := proc.Fits(s.env, []string{v}); err != nil {
			return err
		}
		s.env = append(slices.DeleteFunc(s.env, func(e string) bool { return strings.HasPrefix(e, name+"=") }), v)
		return nil
	})
}

func (c *Ctr) cwd(context.Context) (string, error) {
	return c.get(func() string { return fs.Quote(c.spec.cwd) })
}

func (c *Ctr) setCwd(_ context.Context, line string) error {
	dir, err := oneWord("cwd", line)
	if err == nil && !strings.HasPrefix(dir, "/") {
		err = fmt.Errorf("cwd: not an absolute path: %q", dir)
	}
	if err != nil {
		return err
	}
	return c.change(func(s *spec) error { s.cwd = dir; return nil })
}

func (c *Ctr) user(context.Context) (string, error) {
	return c.get(func() string {
		if c.spec.user == "" {
			return "0"
		}
		return fs.Quote(c.spec.user)
	})
}

func (c *Ctr) setUser(_ context.Context, line string) error {
	u, err := oneWord("user", line)
	if err != nil {
		return err
	}
	return c.change(func(s *spec) error { s.user = u; return nil })
}
