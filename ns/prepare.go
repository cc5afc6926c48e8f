package ns

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// do makes a parked process carry out what steps says.
func (p *Parked) do(ctx context.Context, steps func(*Plan)) error {
	plan := new(Plan)
	steps(plan)
	return p.Run(ctx, plan)
}

// Chdir changes the current directory of the parked process, opened as the process.
func (p *Parked) Chdir(ctx context.Context, dir string) error {
	return p.do(ctx, func(plan *Plan) { plan.Do(fmt.Sprintf("dir %q", dir), unix.SYS_CHDIR, dir) })
}

// Become changes its user and groups, which only root may.
func (p *Parked) Become(ctx context.Context, c Cred) error {
	return p.do(ctx, func(plan *Plan) { plan.Become(c) })
}

// Umask sets the bits that the files it makes do not get.
func (p *Parked) Umask(ctx context.Context, mask uint32) error {
	return p.do(ctx, func(plan *Plan) { plan.Do(fmt.Sprintf("umask %03o", mask), unix.SYS_UMASK, mask) })
}

// Bound leaves it no capability but those in caps, nor whatever it executes: see capabilities(7), bounding set. The
// stub keeps its own until then, so that it can still change its user.
func (p *Parked) Bound(ctx context.Context, caps CapSet) error {
	return p.do(ctx, func(plan *Plan) { plan.bound(caps) })
}

// OOM sets how willingly the kernel ends it when memory is short, -1000 to 1000: see proc_pid_oom_score_adj(5).
func (p *Parked) OOM(ctx context.Context, score int) error {
	const file = "/proc/self/oom_score_adj"
	text := strconv.Itoa(score)
	return p.do(ctx, func(plan *Plan) {
		f := plan.Do(fmt.Sprintf("open %q", file), unix.SYS_OPENAT, unix.AT_FDCWD, file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		plan.Do("oom "+text, unix.SYS_WRITE, f, []byte(text), len(text))
		plan.Do("close", unix.SYS_CLOSE, f)
	})
}

// Redirect gives it other descriptors 0, 1 and 2.
func (p *Parked) Redirect(ctx context.Context, stdio [3]*os.File) error {
	defer runtime.KeepAlive(stdio)
	return p.do(ctx, func(plan *Plan) { plan.redirect(stdio) })
}

func (p *Plan) redirect(stdio [3]*os.File) {
	for i, f := range stdio {
		fd := hatch.null
		if f != nil {
			fd = int(f.Fd())
		}
		s := p.Send(fd)
		p.Do(fmt.Sprintf("descriptor %d", i), unix.SYS_DUP3, s, i, 0)
		p.Do("close", unix.SYS_CLOSE, s)
	}
}

// Terminal makes tty its controlling terminal and descriptors 0, 1 and 2, and itself the leader of a session. A leader of
// a process group cannot become that: so it first joins the group of another, which was parked in the same place only
// for that.
func (p *Parked) Terminal(ctx context.Context, tty *os.File, group int) error {
	defer runtime.KeepAlive(tty)
	return p.do(ctx, func(plan *Plan) {
		if group != 0 {
			plan.Do(fmt.Sprintf("setpgid %d", group), unix.SYS_SETPGID, 0, group)
			plan.Do("setsid", unix.SYS_SETSID)
		} else { // it may have a terminal already, whose group, its own, hears of the end by HUP
			ignore := append([]byte{1}, make([]byte, 31)...)
			plan.Do("sigaction HUP", unix.SYS_RT_SIGACTION, int(unix.SIGHUP), ignore, 0, 8)
			plan.Do("ioctl TIOCNOTTY", unix.SYS_IOCTL, 0, unix.TIOCNOTTY, 0).Try()
			plan.Do("sigaction HUP", unix.SYS_RT_SIGACTION, int(unix.SIGHUP), make([]byte, 32), 0, 8)
		}
		plan.redirect([3]*os.File{tty, tty, tty})
		plan.Do("ioctl TIOCSCTTY", unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
	})
}

// Console makes tty, a terminal of the container whose first process it is, what is at /dev/console. Nothing of the user's has
// run, so /dev is as it was made. It is mounted by its descriptor: there is no name that could lead elsewhere.
func (p *Parked) Console(ctx context.Context, tty *os.File) error {
	defer runtime.KeepAlive(tty)
	return p.do(ctx, func(plan *Plan) {
		const name = "/dev/console"
		fd := plan.Send(int(tty.Fd()))
		m := plan.Do("open_tree of the terminal", unix.SYS_OPEN_TREE, fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
		plan.Do("mknod "+name, unix.SYS_MKNODAT, unix.AT_FDCWD, name, unix.S_IFREG|0600, 0).Try() // or there is one
		at := plan.open(unix.AT_FDCWD, name, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
		plan.attach(m, at, "", name)
		for _, s := range []*Step{fd, m, at} {
			plan.Do("close", unix.SYS_CLOSE, s)
		}
	})
}
