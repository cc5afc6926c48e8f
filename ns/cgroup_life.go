package ns

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Kill ends every process of the group by SIGKILL, frozen ones too, whatever
// they fork meanwhile. It does not wait for their end: see WaitEmpty. The group
// then takes no more processes, also from a later server: see Group.
func (g *Group) Kill() error {
	g.mu.Lock()
	g.killed = true
	g.mu.Unlock()
	if g.cgroups.v2 == nil {
		return g.killAll("freezer.state", "FROZEN", "THAWED")
	}
	// The mark is there before the deed. No kernel with cgroup.kill lacks attributes.
	mark := func(fd int) error { return unix.Fsetxattr(fd, killedAttr, []byte("1"), 0) }
	if err := at(g.dir, mark); err != nil && err != unix.EOPNOTSUPP {
		return err
	}
	err := write(g.dir, "cgroup.kill", "1")
	if errors.Is(err, fs.ErrNotExist) { // before Linux 5.14
		return g.killAll("cgroup.freeze", "1", "0")
	}
	return err
}

// killAll kills the processes one by one, while they are frozen so that they
// fork no more. A freeze takes time; so the last round is one that finds nobody
// new. What version 1's freezer holds dies only when it is let go.
func (g *Group) killAll(file, freeze, thaw string) error {
	if err := write(g.dir, file, freeze); err != nil {
		return err
	}
	done := make(map[int]bool)
	for more := true; more; {
		more = false
		pids, err := g.Procs()
		if err != nil {
			return errors.Join(err, write(g.dir, file, thaw))
		}
		for _, pid := range pids {
			if !done[pid] {
				done[pid], more = true, true
				err = errors.Join(err, g.kill(pid))
			}
		}
		if err != nil {
			return errors.Join(err, write(g.dir, file, thaw))
		}
	}
	return write(g.dir, file, thaw)
}

// kill kills one process if it is, and not only was, in the group.
func (g *Group) kill(pid int) error {
	p, err := Open(pid)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	in, err := p.Cgroups()
	if errors.Is(err, ErrExited) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, m := range in {
		if m.Hierarchy == g.cgroups.life().name && (m.Path == g.path || strings.HasPrefix(m.Path, g.path+"/")) {
			p.Signal(syscall.SIGKILL)
		}
	}
	return nil
}

// Freeze stops every process of the group and returns when all have stopped. If
// ctx ends before that, the group is let go again.
func (g *Group) Freeze(ctx context.Context) error {
	err := g.setFrozen(ctx, true)
	if err != nil {
		err = errors.Join(err, g.setFrozen(context.WithoutCancel(ctx), false))
	}
	return err
}

// Thaw lets the processes of the group go on.
func (g *Group) Thaw(ctx context.Context) error { return g.setFrozen(ctx, false) }

func (g *Group) setFrozen(ctx context.Context, frozen bool) error {
	if g.cgroups.v2 == nil {
		return g.setFrozen1(ctx, frozen)
	}
	value := "0"
	if frozen {
		value = "1"
	}
	if err := write(g.dir, "cgroup.freeze", value); err != nil {
		return err
	}
	return g.await(ctx, "frozen", value)
}

// setFrozen1 is setFrozen by version 1's freezer, which looks at its tasks only
// when its state is read and tells nobody: it is asked again and again. It can
// also miss for ever a task that was just forked, or one that waits for a child
// that is frozen; so it is told again too, and at times all may go on a little.
func (g *Group) setFrozen1(ctx context.Context, frozen bool) error {
	state := "THAWED"
	if frozen {
		state = "FROZEN"
	}
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for n := 1; ; n++ {
		if n%50 == 0 {
			if err := write(g.dir, "freezer.state", "THAWED"); err != nil {
				return err
			}
		} else if err := write(g.dir, "freezer.state", state); err != nil {
			return err
		} else if now, err := read(g.dir, "freezer.state"); err != nil || now == state {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Frozen reports whether the whole group is stopped.
func (g *Group) Frozen() (bool, error) {
	if g.cgroups.v2 == nil {
		state, err := read(g.dir, "freezer.state")
		return state == "FROZEN", err
	}
	value, err := g.value("cgroup.events", "frozen")
	return value == "1", err
}

// Populated reports whether there is a process in the group or below it.
func (g *Group) Populated() (bool, error) {
	if g.cgroups.v2 == nil {
		pids, err := g.Procs()
		return len(pids) > 0, err
	}
	value, err := g.value("cgroup.events", "populated")
	return value == "1", err
}

// WaitEmpty returns when there is no process in the group and below it.
func (g *Group) WaitEmpty(ctx context.Context) error {
	if g.cgroups.v2 != nil {
		return g.await(ctx, "populated", "0")
	}
	return walk(g.dir, func(dir *os.File) error { return waitProcs(ctx, dir) })
}

// waitProcs waits for the processes of one group, by waiting for each.
func waitProcs(ctx context.Context, dir *os.File) error {
	for {
		pids, err := procs(dir)
		if err != nil || len(pids) == 0 {
			return err
		}
		p, err := Open(pids[0])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = Wait(ctx, p)
		p.Close()
		if ctx.Err() != nil {
			return err
		}
	}
}

// await waits until cgroup.events has that value.
func (g *Group) await(ctx context.Context, key, value string) error {
	return g.watch(ctx, "cgroup.events", func(text string) bool { return keyValue(text, key) == value })
}

// watch waits until the text of one of the group's files is as it should be. The kernel wakes
// pollers of such a file at each change; the runtime's poller is one, though it asks for
// reading only, because the file is always ready for that and the wake-up
// makes its edge. Nobody is woken by the removal of the group, not even by the
// change before it if that was less than 10 ms after another: Close does it.
func (g *Group) watch(ctx context.Context, file string, done func(text string) bool) error {
	f, err := openIn(g.dir, file, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	var failed error
	err = g.wait(ctx, f, func(fd uintptr) bool {
		var buf [512]byte
		n, err := unix.Pread(int(fd), buf[:], 0)
		failed = err
		return err != nil || done(string(buf[:n]))
	})
	return cmp.Or(failed, err)
}

// wait asks done each time that the kernel wakes readers of f, until it is satisfied, ctx ends or the group is closed.
func (g *Group) wait(ctx context.Context, f *os.File, done func(fd uintptr) bool) error {
	g.mu.Lock()
	closed := g.closed
	g.waits[f] = struct{}{}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.waits, f)
		g.mu.Unlock()
	}()
	if closed {
		return fs.ErrClosed
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })()
	err = conn.Read(done)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fs.ErrClosed
	}
	return err
}

// value gives the word after key in a file of `key value` lines, "" if there is
// no such line.
func (g *Group) value(file, key string) (string, error) {
	text, err := read(g.dir, file)
	return keyValue(text, key), err
}

func keyValue(text, key string) string {
	for line := range strings.Lines(text) {
		if k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); k == key {
			return v
		}
	}
	return ""
}
