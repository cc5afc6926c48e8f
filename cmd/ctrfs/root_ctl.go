package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"ctrfs/fs"
)

// A control is the root's ctl as somebody has it open.
type control struct {
	*server
	then atomic.Pointer[string] // what is to follow the server's end, which begins when it is closed; nil: it does not
}

func (s *server) control(context.Context, fs.How) (fs.Handle, error) {
	c := &control{server: s}
	do := func(ctx context.Context, msg string) error { return rootVerbs.Do(c, ctx, msg) }
	return fs.NewCtl(c.state, do, c.closed), nil
}

func (c *control) state(context.Context) (string, error) {
	trace := "off"
	if c.tracing.Load() {
		trace = "on"
	}
	return "log " + strings.ToLower(c.level.Level().String()) + "\ntrace " + trace + "\n", nil
}

// traces makes every message be printed on standard error, or not.
func (s *server) traces(on bool) {
	s.tracing.Store(on)
	if on {
		s.srv.Trace(os.Stderr)
	} else {
		s.srv.Trace(nil)
	}
}

func (c *control) trace(_ context.Context, args []string) error {
	c.traces(args[0] == "on")
	return nil
}

func (c *control) log(_ context.Context, args []string) error {
	var l slog.Level
	if err := l.UnmarshalText([]byte(args[0])); err != nil {
		return err
	}
	c.level.Set(l)
	return nil
}

func (c *control) follow(next string) error {
	c.then.Store(&next)
	return nil
}

// quit ends server and keeper. Where nothing outlives the keeper the containers end before.
func (c *control) quit(context.Context, []string) error {
	if c.processes.Keeper.Lasts() {
		return c.follow("quit")
	}
	return c.follow("")
}

// reload has the next server take the configuration as it is now, if that is right.
func (c *control) reload(context.Context, []string) error {
	_, text, err := c.options.readConf()
	if err == nil {
		err = holdConf(c.processes.Keeper, text)
	}
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	return c.follow("reload")
}

// trialTime is how long a program may take that only shows its version.
const trialTime = 10 * time.Second

// upgrade makes the keeper the program that has its name now, if that runs and knows the flags that this one was given and the
// words of the configuration, which it is shown as it is now.
func (c *control) upgrade(ctx context.Context, _ []string) error {
	if !c.processes.Keeper.Lasts() {
		return errors.New("upgrade: nothing here outlives the keeper: no XDG_RUNTIME_DIR")
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	_, text, err := c.options.confText()
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	conf, err := confMemory(text)
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	defer conf.Close()
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	trial := exec.CommandContext(ctx, exe, append(slices.Clone(c.args), "-c", "/proc/self/fd/3", "-V")...)
	trial.ExtraFiles = []*os.File{conf}
	if out, err := trial.CombinedOutput(); err != nil {
		if said, _, _ := bytes.Cut(out, []byte("\n")); len(said) > 0 {
			return fmt.Errorf("upgrade: %q: %s: %w", exe, said, err)
		}
		return fmt.Errorf("upgrade: %q: %w", exe, err)
	}
	if err := holdConf(c.processes.Keeper, text); err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	return c.follow("upgrade")
}

// closed ends the server only now, so that who has said so gets his answers.
func (c *control) closed(context.Context) error {
	if next := c.then.Load(); next != nil {
		c.end(*next)
	}
	return nil
}
