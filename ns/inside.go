package ns

import (
	"context"

	"golang.org/x/sys/unix"
)

// SeenInside asks the kernel whether root of the user namespace of the process first may look into p, with every
// capability that there is in there: fs.ErrPermission if not. The one who asks is a process for only that, for no thread of
// this one can enter a user namespace.
func SeenInside(ctx context.Context, p, first *Process) error {
	users, err := first.OpenNamespace("user")
	if err != nil {
		return err
	}
	defer users.Close()
	stub, err := new(Opt).start(ctx)
	if err != nil {
		return err
	}
	defer stub.End()
	plan := new(Plan)
	plan.guard()
	plan.Do("setns user", unix.SYS_SETNS, plan.Send(int(users.Fd())), unix.CLONE_NEWUSER)
	plan.Do("environ", unix.SYS_OPENAT, unix.AT_FDCWD, p.path("environ"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return p.verify("environ", stub.Run(ctx, plan))
}
