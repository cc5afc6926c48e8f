// Package oci makes, runs and ends containers by the command line that runc(8) has, and crun, runsc and others after it.
package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// A Runtime is a program that makes containers.
type Runtime struct {
	Path string // of the program, or a name that is looked for in PATH
	Root string // where it keeps what it knows of its containers, a directory or nothing yet
}

// Names are those by which a runtime may be called that is not said by its path.
var Names = []string{"runc", "crun", "runsc"}

// lacks are the commands that a runtime does not have.
var lacks = map[string][]string{"crun": {"events"}, "runsc": {"update"}}

// flags are what a runtime is told beside where its state and its log are. A container of runsc has a loopback and no more, as
// one has that ctrfs makes: its own network would want an interface of the host's.
var flags = map[string][]string{"runsc": {"--network", "none"}}

// Has says whether the runtime has a command.
func (r *Runtime) Has(command string) bool { return !slices.Contains(lacks[r.Name()], command) }

// Sandbox says whether the processes of a container are hidden in one of the host's.
func (r *Runtime) Sandbox() bool { return r.Name() == "runsc" }

// Name is what it is called.
func (r *Runtime) Name() string { return filepath.Base(r.Path) }

// What a runtime may take and say: all that it does is done by others, who may be slow or hostile.
const (
	callTime = time.Minute
	closing  = time.Second // after its end, for what it has started to let go of its output
	saidMost = 1 << 20
)

// call runs a command to its end and gives what it has said. Its input and output are stdio where there is one.
func (r *Runtime) call(ctx context.Context, stdio *[3]*os.File, input []byte, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	log, err := ns.Memfd("log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, r.Path, slices.Concat(
		[]string{"--root", r.Root, "--log", "/proc/self/fd/3", "--log-format", "json"}, flags[r.Name()], args)...)
	// It looks there for what it needs, criu(8) and iptables(8) of it, as this program has looked for it.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Dir = "/"
	cmd.WaitDelay = closing
	cmd.ExtraFiles = []*os.File{log}
	out, problem := &limited{}, &limited{}
	if stdio != nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio[0], stdio[1], stdio[2]
	} else {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), out, problem
	}
	err = cmd.Run()
	switch {
	case errors.Is(err, exec.ErrWaitDelay): // it has ended well, and what it started has its output
		err = nil
	case ctx.Err() != nil:
		err = fmt.Errorf("%s: %w", args[0], context.Cause(ctx))
	case err != nil:
		var ended *exec.ExitError
		if text := said(log, problem.String()); errors.As(err, &ended) && text != "" {
			err = errors.New(text)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.Name(), args[0], err)
	}
	return out.Bytes(), nil
}

// limited takes so much, and lets the rest go.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.Buffer.Write(p[:min(len(p), saidMost-l.Len())])
	return len(p), nil
}

// said is the last error in a log of JSON lines; without one, the last line of what was said to the standard error.
func said(log *os.File, problem string) (text string) {
	size, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	lines, _ := io.ReadAll(io.NewSectionReader(log, max(0, size-saidMost), saidMost))
	for line := range bytes.Lines(lines) {
		var e struct{ Level, Msg string }
		if json.Unmarshal(line, &e) == nil && (e.Level == "error" || e.Level == "fatal") {
			text = e.Msg
		}
	}
	if text == "" {
		all := strings.Split(strings.TrimSpace(problem), "\n")
		text = all[len(all)-1]
	}
	return fs.Clean(strings.Join(strings.Fields(text), " "))
}

// Create makes the container of a bundle, whose first process waits for Start and has stdio, or, where that is nil, a
// terminal of which the master is given. See the runtime specification, "Operations".
func (r *Runtime) Create(ctx context.Context, id, bundle string, stdio *[3]*os.File) (pid int, master *os.File, err error) {
	return r.make(ctx, id, bundle, stdio, "create")
}

// Restore makes the container of a bundle and goes on where a checkpoint in the directory image has stopped; words are more of
// the runtime's options, without their hyphens.
func (r *Runtime) Restore(ctx context.Context, id, bundle, image string, stdio *[3]*os.File, words []string) (pid int, master *os.File, err error) {
	pid, master, err = r.make(ctx, id, bundle, stdio, "restore", append(options(words), "--detach", "--image-path", image)...)
	return pid, master, criuSaid(err, image, "restore.log")
}

// Checkpoint writes the container into the directory image.
func (r *Runtime) Checkpoint(ctx context.Context, id, image string, words []string) error {
	_, err := r.call(ctx, nil, nil, slices.Concat([]string{"checkpoint", "--image-path", image}, options(words), []string{id})...)
	return criuSaid(err, image, "dump.log")
}

// beside are complaints that tell no cause: criu goes on without more descriptors, and of a program that it has run it says only
// that it failed, before it says what for.
var beside = []string{"rlimit: ", "exited, status="}

// criuSaid adds to an error what criu(8) has complained of first in its log: what follows is what came of it.
func criuSaid(err error, image, name string) error {
	if err == nil {
		return nil
	}
	f, e := os.OpenFile(filepath.Join(image, name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if e != nil {
		return err
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, saidMost))
	for line := range strings.Lines(string(text)) {
		_, what, ok := strings.Cut(line, "Error (")
		_, why, _ := strings.Cut(what, "): ")
		if ok && !slices.ContainsFunc(beside, func(words string) bool { return strings.HasPrefix(why, words) }) {
			return fmt.Errorf("%w: criu: %s", err, fs.Clean(strings.TrimSpace("("+what)))
		}
	}
	return err
}

func options(words []string) (args []string) {
	for _, w := range words {
		args = append(args, "--"+w)
	}
	return args
}

// make makes the container by a command that takes a bundle.
func (r *Runtime) make(ctx context.Context, id, bundle string, stdio *[3]*os.File, command string, args ...string) (pid int, master *os.File, err error) {
	pidFile := filepath.Join(bundle, "pid")
	args = append([]string{command, "--bundle", bundle, "--pid-file", pidFile}, args...)
	var c *console
	if stdio == nil {
		if c, err = listen(bundle); err != nil {
			return 0, nil, err
		}
		defer c.Close()
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return 0, nil, err
		}
		defer null.Close()
		stdio = &[3]*os.File{null, null, null}
		args = append(args, "--console-socket", c.path)
	}
	os.Remove(pidFile)
	if _, err = r.call(ctx, stdio, nil, append(args, id)...); err != nil {
		return 0, nil, err
	}
	if c != nil {
		if master, err = c.master(); err != nil {
			return 0, nil, fmt.Errorf("%s %s: %w", r.Name(), command, err)
		}
	}
	text, err := os.ReadFile(pidFile)
	if err == nil {
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if err != nil && master != nil {
		master.Close()
	}
	return pid, master, err
}

// Start runs the program of a container that was created, Pause stops it where it stands, Resume lets it go on.
func (r *Runtime) Start(ctx context.Context, id string) error  { return r.do(ctx, "start", id) }
func (r *Runtime) Pause(ctx context.Context, id string) error  { return r.do(ctx, "pause", id) }
func (r *Runtime) Resume(ctx context.Context, id string) error { return r.do(ctx, "resume", id) }

// Kill sends a signal to the first process, or to all.
func (r *Runtime) Kill(ctx context.Context, id string, sig unix.Signal, all bool) error {
	args := []string{"kill", id, strconv.Itoa(int(sig))}
	if all {
		args = slices.Insert(args, 1, "--all")
	}
	return r.do(ctx, args...)
}

// Delete ends the container and all that the runtime has of it. One that is not there is no error.
func (r *Runtime) Delete(ctx context.Context, id string) error {
	err := r.do(ctx, "delete", "--force", id)
	if err != nil {
		if _, e := r.State(ctx, id); e != nil && ctx.Err() == nil {
			return nil
		}
	}
	return err
}

func (r *Runtime) do(ctx context.Context, args ...string) error {
	_, err := r.call(ctx, nil, nil, args...)
	return err
}

// Update sets resources, the object of that name in the runtime specification.
func (r *Runtime) Update(ctx context.Context, id string, resources any) error {
	text, err := json.Marshal(resources)
	if err == nil {
		_, err = r.call(ctx, nil, text, "update", "--resources", "/dev/stdin", id)
	}
	return err
}

// State is the status of the container in the specification's words: creating, created, running, stopped, and paused.
func (r *Runtime) State(ctx context.Context, id string) (status string, err error) {
	out, err := r.call(ctx, nil, nil, "state", id)
	var state struct{ Status string }
	if err == nil {
		err = json.Unmarshal(out, &state)
	}
	return state.Status, err
}
