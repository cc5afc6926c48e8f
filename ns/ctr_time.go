package ns

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// setBoot gives p a time namespace. Its offsets are written here: where p has a user namespace and is guarded its file is not its
// own. It enters the namespace as its own child would, which one that has one thread can.
func (p *Parked) setBoot(ctx context.Context, d time.Duration) error {
	if err := p.do(ctx, func(plan *Plan) { plan.Do("unshare time", unix.SYS_UNSHARE, unix.CLONE_NEWTIME) }); err != nil {
		return err
	}
	text := fmt.Sprintf("boottime %d %d\n", int64(d/time.Second)-1, int64(d%time.Second+time.Second)) // nanoseconds are not negative
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/timens_offsets", p.Pid), []byte(text), 0); err != nil {
		return fmt.Errorf("time namespace: %w", err)
	}
	return p.do(ctx, func(plan *Plan) {
		t := plan.open(unix.AT_FDCWD, "/proc/self/ns/time_for_children", unix.O_RDONLY, 0)
		plan.Do("setns time", unix.SYS_SETNS, t, unix.CLONE_NEWTIME)
		plan.Do("close", unix.SYS_CLOSE, t)
	})
}
