package ns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// OOMKills gives how many processes of the group were killed because its memory
// was full. The error is fs.ErrNotExist where memory is not accounted.
func (g *Group) OOMKills() (uint64, error) {
	value, err := g.value("memory.events", "oom_kill")
	if dir := g.in("memory"); errors.Is(err, fs.ErrNotExist) && dir != nil {
		var text string
		text, err = read(dir, "memory.oom_control")
		value = keyValue(text, "oom_kill")
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(value, 10, 64)
}

// WaitOOM returns when there are more than seen such kills, and gives how many. The
// error is fs.ErrNotExist where memory is not accounted, fs.ErrClosed when the group is closed.
func (g *Group) WaitOOM(ctx context.Context, seen uint64) (n uint64, err error) {
	if dir := g.in("memory"); dir != nil {
		return g.waitOOM1(ctx, dir, seen)
	}
	var bad error
	err = g.watch(ctx, "memory.events", func(text string) bool {
		n, bad = strconv.ParseUint(keyValue(text, "oom_kill"), 10, 64)
		return bad != nil || n > seen
	})
	return n, errors.Join(bad, err)
}

// waitOOM1 is WaitOOM by version 1, which tells by an eventfd that memory is full, a
// moment before it has killed and counted. See Documentation/admin-guide/cgroup-v1/memory.rst.
func (g *Group) waitOOM1(ctx context.Context, dir *os.File, seen uint64) (n uint64, err error) {
	full, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return 0, err
	}
	f := os.NewFile(uintptr(full), "eventfd")
	defer f.Close() // which ends the telling
	of, err := openAt(dir, "memory.oom_control", unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	err = write(dir, "cgroup.event_control", fmt.Sprintf("%d %d", full, of))
	unix.Close(of)
	for pause := time.Duration(0); err == nil; {
		if n, err = g.OOMKills(); err != nil || n > seen {
			return n, err
		}
		if pause > 0 && pause < time.Second {
			select {
			case <-time.After(pause):
				pause *= 2
				continue
			case <-ctx.Done():
				return n, context.Cause(ctx)
			}
		}
		err = g.wait(ctx, f, func(fd uintptr) bool {
			var count [8]byte
			_, err := unix.Read(int(fd), count[:])
			return err != unix.EAGAIN
		})
		pause = time.Millisecond
	}
	return n, err
}
