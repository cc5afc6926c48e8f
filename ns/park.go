package ns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Parked is a process that carries out plans until it executes a program.
type Parked struct {
	Pid   int // as the server counts
	Pidfd int // closed by Close

	ctl   *os.File      // our end of its ParkedCtl
	turn  chan struct{} // holds a token: who has it may run a plan, and use what follows
	child bool          // the server is its parent
	last  *Plan         // what is still to be done before its program runs
	heard func(*os.File) error
}

// ParkedCtl is the descriptor by which a parked process is told what to do. Its program has it no more.
const ParkedCtl = 3

// Opt says how a process is parked. The zero Opt makes one of the server's own user, in the
// server's namespaces, with /dev/null as standard input, output and error.
type Opt struct {
	Stdio   [3]*os.File
	Cred    *Cred
	Flags   uint64 // CLONE_NEW*, but NEWUSER: execve of the stub would drop the capabilities in it
	Cgroup  *Group // that it is in before it does anything
	Sibling bool   // a child of the server's parent (CLONE_PARENT), which then is the one to wait for it
	PidNS   int    // if not 0, a pidfd: be born in that process's pid namespace
	State   string // directory for the stub where memfds may not be executed (vm.memfd_noexec=2)

	unguarded bool // without the first step, for the test that shows what it is for
}

// Park makes a process that waits. It shares nothing with the server: its memory is its own,
// its descriptors are Stdio's, signals have their default effect, it has no controlling
// terminal, none of the server's keys, the usual limit of descriptors, and a process group of
// its own. Until its program runs nobody but root sees its /proc files or traces it. It ends
// with status 127 when p is closed or the server dies.
func Park(ctx context.Context, o Opt) (*Parked, error) {
	p, err := o.start(ctx)
	if err != nil {
		return nil, err
	}
	plan := &Plan{}
	plan.begin(&o)
	plan.Do("setpgid", unix.SYS_SETPGID, 0, 0)
	if o.Cred != nil {
		plan.Become(*o.Cred)
	}
	err = p.Run(ctx, plan)
	runtime.KeepAlive(o.Stdio)
	if err != nil {
		p.End()
		return nil, err
	}
	return p, nil
}

// Socket is our end of what the process waits at. Who has it too keeps the process from ending with this program.
func (p *Parked) Socket() *os.File { return p.ctl }

// Unpark takes a process over that waits at a socket, and carries out no plan.
func Unpark(p *Process, socket *os.File) (*Parked, error) {
	fd, err := p.Dup()
	if err != nil {
		return nil, err
	}
	parked := &Parked{Pid: p.Pid(), Pidfd: fd, ctl: socket, turn: make(chan struct{}, 1)}
	parked.turn <- struct{}{}
	return parked, nil
}

// begin is how every process begins.
func (p *Plan) begin(o *Opt) {
	if !o.unguarded {
		p.guard()
	}
	for i, f := range o.Stdio {
		fd := hatch.null
		if f != nil {
			fd = int(f.Fd())
		}
		// The first descriptors that it receives: their numbers are 0, 1 and 2.
		p.Do(fmt.Sprintf("descriptor %d", i), unix.SYS_FCNTL, p.Send(fd), unix.F_SETFD, 0)
	}
	p.clean()
}

// guard hides the process from ptrace and from /proc until execve. It is the first step: a
// process on its way into a container is seized by the container's root otherwise.
func (p *Plan) guard() {
	p.Do("prctl PR_SET_DUMPABLE", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// clean takes away what a clone has of the server.
func (p *Plan) clean() {
	p.Do("close-on-exec", unix.SYS_FCNTL, ParkedCtl, unix.F_SETFD, unix.FD_CLOEXEC)
	p.Do("chdir \"/\"", unix.SYS_CHDIR, "/")
	p.Do("umask", unix.SYS_UMASK, 022)
	p.Do("prctl PR_SET_NAME", unix.SYS_PRCTL, unix.PR_SET_NAME, "parked", 0, 0, 0)
	// CLONE_CLEAR_SIGHAND resets the signals that are caught and leaves the ignored ones.
	for _, sig := range hatch.ignored {
		p.Do(fmt.Sprintf("sigaction %d", sig), unix.SYS_RT_SIGACTION, sig, make([]byte, 32), 0, 8)
	}
	p.Do("sigprocmask", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, make([]byte, 8), 0, 8)
	if hatch.tty { // one who can open the server's terminal can type into it (TIOCSTI)
		tty := p.Do("open \"/dev/tty\"", unix.SYS_OPENAT, unix.AT_FDCWD, "/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		p.Do("ioctl TIOCNOTTY", unix.SYS_IOCTL, tty, unix.TIOCNOTTY, 0)
		p.Do("close", unix.SYS_CLOSE, tty)
	}
	// Go raises the soft limit to the hard one; select(2) and old programs want 1024.
	hard := hatch.nofile
	p.Do("prlimit RLIMIT_NOFILE", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, []any{min(1024, hard), hard}, 0)
	if hatch.oomAdj < 0 { // raising it again needs no privilege
		f := p.Do("open \"/proc/self/oom_score_adj\"", unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		p.Do("write \"/proc/self/oom_score_adj\"", unix.SYS_WRITE, f, []byte("0"), 1)
		p.Do("close", unix.SYS_CLOSE, f)
	}
	// ENOSYS in a kernel without keys.
	p.Do("keyctl JOIN_SESSION_KEYRING", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0).Try()
}

// Become changes the user. From uid 0 to another the kernel takes all capabilities away.
func (p *Plan) Become(c Cred) {
	groups := make([]byte, 0, 4*len(c.Groups))
	for _, g := range c.Groups {
		groups = le.AppendUint32(groups, g)
	}
	p.Do("setgroups", unix.SYS_SETGROUPS, len(c.Groups), groups)
	p.setIDs(c)
}

func (p *Plan) setIDs(c Cred) {
	p.Do(fmt.Sprintf("setresgid %d", c.Gid), unix.SYS_SETRESGID, c.Gid, c.Gid, c.Gid)
	p.Do(fmt.Sprintf("setresuid %d", c.Uid), unix.SYS_SETRESUID, c.Uid, c.Uid, c.Uid)
}

// Run carries out the plan and gives the error of the step that failed; the process still waits
// then, with what the steps before it did. If ctx ends before the plan does the process is
// killed: nobody could say how far it got.
func (p *Parked) Run(ctx context.Context, plan *Plan) error {
	return p.run(ctx, plan, func() error { return p.receive(plan) })
}

// run sends the plan and calls answered, which receives the answers.
func (p *Parked) run(ctx context.Context, plan *Plan, answered func() error) error {
	select {
	case <-p.turn:
		defer func() { p.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := p.send(ctx, plan); err != nil {
		return err
	}
	return p.await(ctx, answered)
}

// await calls f, which waits at ctl, and ends it with ctx.
func (p *Parked) await(ctx context.Context, f func() error) error {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		unix.PidfdSendSignal(p.Pidfd, unix.SIGKILL, nil, 0)
		p.ctl.SetReadDeadline(time.Unix(1, 0))
		close(fired)
	})
	err := f()
	if !stop() {
		<-fired
		return ctx.Err()
	}
	return err
}

// send sends the plan and its descriptors, as one message. What does not fit goes ahead in a memfd.
func (p *Parked) send(ctx context.Context, plan *Plan) error {
	if len(plan.files) > stubMaxFDs {
		return errTooManyFiles
	}
	table, data, err := plan.bytes(stubTable, 0)
	if err != nil {
		return err
	}
	if len(table)+len(data) > stubRoom {
		if len(table) > stubRoom {
			return errPlanTooLong
		}
		if table, data, err = plan.bytes(stubTable, stubData); err != nil {
			return err
		}
		if err := p.sendData(ctx, data); err != nil {
			return err
		}
		data = nil
	}
	return p.sendmsg(append(table, data...), plan.files)
}

func (p *Parked) sendData(ctx context.Context, data []byte) error {
	if len(data) > stubMaxData {
		return unix.E2BIG
	}
	f, err := Memfd("data")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	plan := &Plan{}
	m := plan.Send(int(f.Fd()))
	plan.Do("read the plan", unix.SYS_PREAD64, m, uint64(stubData), len(data), 0)
	plan.Do("close", unix.SYS_CLOSE, m)
	table, rest, err := plan.bytes(stubTable, 0)
	if err != nil {
		return err
	}
	if err := p.sendmsg(append(table, rest...), plan.files); err != nil {
		return err
	}
	return p.await(ctx, func() error { return p.receive(plan) })
}

func (p *Parked) sendmsg(b []byte, files []int) error {
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	c, err := p.ctl.SyscallConn()
	if err != nil {
		return ErrExited
	}
	if e := c.Write(func(fd uintptr) bool {
		err = unix.Sendmsg(int(fd), b, rights, nil, unix.MSG_NOSIGNAL)
		return err != unix.EAGAIN
	}); e != nil {
		return ErrExited
	}
	if err == unix.EPIPE || err == unix.ECONNRESET {
		return ErrExited
	}
	return err
}

// receive reads an answer, and what the plan gives ahead of it; io.EOF means that the process took the
// plan and is the stub no more.
func (p *Parked) receive(plan *Plan) error {
	table := make([]byte, entrySize*(len(plan.steps)+1))
	n, fd, err := p.recvmsg(table)
	if err == nil && n == giftSize {
		plan.given = os.NewFile(uintptr(fd), "given")
		n, _, err = p.recvmsg(table)
	}
	switch {
	case errors.Is(err, unix.ECONNRESET): // it ended without having read the plan
		return ErrExited
	case err != nil:
		return err
	}
	return plan.take(table[:n])
}

// giftSize is the size of the message that has a descriptor, which no answer has.
const giftSize = 1

// give sends a descriptor of the process's ahead of the answer, for Plan.given.
func (p *Plan) give(fd *Step) {
	const rights = unix.SOL_SOCKET | unix.SCM_RIGHTS<<32
	p.Do("give a descriptor", unix.SYS_SENDMSG, ParkedCtl,
		[]any{0, 0, []any{"x", giftSize}, 1, []any{uint64(unix.SizeofCmsghdr + 4), uint64(rights), fd}, unix.CmsgSpace(4), 0}, 0)
}

// recvmsg reads a message, and the one descriptor that may come with it.
func (p *Parked) recvmsg(b []byte) (n, fd int, err error) {
	fd = -1
	c, err := p.ctl.SyscallConn()
	if err != nil {
		return 0, -1, err
	}
	var oob [24]byte // unix.CmsgSpace(4)
	nb := 0
	if e := c.Read(func(s uintptr) bool {
		n, nb, _, _, err = unix.Recvmsg(int(s), b, oob[:], unix.MSG_CMSG_CLOEXEC)
		return err != unix.EAGAIN
	}); e != nil {
		return 0, -1, e
	}
	if err == nil && nb == len(oob) {
		fd = int(int32(le.Uint32(oob[unix.SizeofCmsghdr:])))
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	return n, fd, err
}

// Close lets go of the process: what is still parked ends, what runs a program goes on. It waits
// for nobody: the exit of a child of the server's is still to be read.
func (p *Parked) Close() error {
	if p.Pidfd < 0 {
		return os.ErrClosed
	}
	p.ctl.Close()
	unix.Close(p.Pidfd)
	p.Pidfd = -1
	return nil
}

// End kills the process and closes it. If it is the server's child somebody will wait for it:
// End does not, for a tracer in a container can keep it from being gone.
func (p *Parked) End() error {
	if p.Pidfd < 0 {
		return os.ErrClosed
	}
	unix.PidfdSendSignal(p.Pidfd, unix.SIGKILL, nil, 0)
	if !p.child {
		return p.Close()
	}
	// It takes no descriptor to have it reaped: there may be none left, which is why it is ended.
	p.ctl.Close()
	if proc, err := newProcess(p.Pid, p.Pidfd); err == nil { // else it was waited for already
		Reap(proc)
		proc.Close()
	}
	p.Pidfd = -1
	return nil
}

// waitEnd waits for a child that has called exit.
func waitEnd(pidfd int) {
	for unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED|unix.WALL, nil) == unix.EINTR {
	}
}

var _ io.Closer = (*Parked)(nil)
