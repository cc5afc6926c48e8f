package ns

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hatch is where processes start from: what all starts share, made by the first. So a program
// settles its signals, terminal and limits before it starts anything.
var hatch struct {
	mu      sync.Mutex // guards ready; held while the rest is made, which waits for nothing
	ready   bool
	stub    int      // the stub's file
	slots   chan int // low descriptors that are free, for the stub's end of a socket
	top     int      // the lowest descriptor above all of them
	null    int
	nofile  uint64 // hard limit
	oomAdj  int
	tty     bool  // there is a controlling terminal
	ignored []int // signals
}

// parallel is how many processes can be between clone and execve at the same time, which each
// costs a thread for a tenth of a millisecond.
const parallel = 4

func openHatch(state string) error {
	hatch.mu.Lock()
	defer hatch.mu.Unlock()
	if hatch.ready {
		return nil
	}
	stub, err := stubFile(state)
	if err != nil {
		return err
	}
	defer unix.Close(stub)
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open \"/dev/null\": %w", err)
	}
	var low [parallel + 1]int
	for i := range low {
		// Above the socket's number in the clone.
		if low[i], err = unix.FcntlInt(uintptr(stub), unix.F_DUPFD_CLOEXEC, ParkedCtl+1); err != nil {
			for _, fd := range low[:i] {
				unix.Close(fd)
			}
			unix.Close(null)
			return fmt.Errorf("dup: %w", err)
		}
		hatch.top = max(hatch.top, low[i]+1)
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("getrlimit: %w", err)
	}
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		fmt.Sscan(string(b), &hatch.oomAdj)
	}
	if fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err == nil {
		unix.Close(fd)
		hatch.tty = true
	}
	for sig := 1; sig <= 64; sig++ {
		var act [4]uint64 // handler, flags, restorer, mask
		if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&act)), 8, 0, 0); e == 0 && act[0] == 1 {
			hatch.ignored = append(hatch.ignored, sig)
		}
	}
	hatch.stub, hatch.null, hatch.nofile = low[0], null, lim.Max
	hatch.slots = make(chan int, parallel)
	for _, fd := range low[1:] {
		hatch.slots <- fd
	}
	hatch.ready = true
	return nil
}

type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize uint64
}

// start makes a clone and lets it execute the stub, with nothing open but a socket.
//
// The clone shares the server's memory, so it must not wait for anything, and the server's
// table of descriptors: a copy would cost what the server has open, so close_range copies no
// more than its beginning, where the stub and the socket are.
func (o *Opt) start(ctx context.Context) (*Parked, error) {
	if err := openHatch(o.State); err != nil {
		return nil, err
	}
	o.Sibling = o.Sibling || kept.Load()
	sp, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(sp[1])
	if err := unix.SetNonblock(sp[0], true); err != nil {
		unix.Close(sp[0])
		return nil, fmt.Errorf("fcntl: %w", err)
	}
	ctl := os.NewFile(uintptr(sp[0]), "parked")

	var slot int
	select {
	case slot = <-hatch.slots:
	case <-ctx.Done():
		ctl.Close()
		return nil, ctx.Err()
	}
	defer func() {
		unix.Dup3(hatch.stub, slot, unix.O_CLOEXEC)
		hatch.slots <- slot
	}()
	if err := unix.Dup3(sp[1], slot, unix.O_CLOEXEC); err != nil {
		ctl.Close()
		return nil, fmt.Errorf("dup3: %w", err)
	}

	plan := &Plan{}
	plan.Do("close_range", unix.SYS_CLOSE_RANGE, hatch.top, uint64(^uint32(0)), unix.CLOSE_RANGE_UNSHARE)
	plan.Do("dup3", unix.SYS_DUP3, slot, ParkedCtl, 0)
	plan.Do("close_range", unix.SYS_CLOSE_RANGE, 0, 2, 0)
	plan.Do("close_range", unix.SYS_CLOSE_RANGE, ParkedCtl+1, uint64(^uint32(0)), unix.CLOSE_RANGE_CLOEXEC)
	plan.Do("execve of the stub", unix.SYS_EXECVEAT, hatch.stub, "", []string{"parked"}, []string{}, unix.AT_EMPTY_PATH)
	pid, pidfd, err := o.clone(plan)
	if err != nil {
		ctl.Close()
		return nil, err
	}
	p := &Parked{Pid: pid, Pidfd: pidfd, ctl: ctl, turn: make(chan struct{}, 1), child: !o.Sibling}
	p.turn <- struct{}{}
	// It is not born in the cgroup: a thread of ours waits for each clone until it executes the stub, and in a group that is
	// frozen or throttled it would wait as long as the group's owner likes, and every garbage collection with it.
	if o.Cgroup != nil {
		if err := o.Cgroup.enter(pid, false); err != nil {
			p.End()
			return nil, err
		}
	}
	return p, nil
}

// clone makes a CLONE_VM child that carries out a plan whose last step ends its use of our memory.
func (o *Opt) clone(plan *Plan) (pid, pidfd int, err error) {
	table, data, err := plan.bytes(0, 0)
	if err != nil {
		return 0, -1, err
	}
	mem := make([]byte, len(table)+len(data))
	table, data, _ = plan.bytes(uint64(uintptr(unsafe.Pointer(&mem[0]))), 0)
	copy(mem[copy(mem, table):], data)

	fd := int32(-1)
	args := &cloneArgs{
		flags:      o.Flags | unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_FILES | unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND,
		exitSignal: uint64(unix.SIGCHLD),
		pidfd:      uint64(uintptr(unsafe.Pointer(&fd))),
	}
	if o.Sibling {
		args.flags |= unix.CLONE_PARENT
		args.exitSignal = 0 // it takes ours; anything else is EINVAL
	}
	unlock, err := enterPidNS(o.PidNS)
	if err != nil {
		return 0, -1, err
	}
	defer unlock()
	// A handler of the server's must not run in the clone.
	all, old := ^uint64(0), uint64(0)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	r := clone3(unsafe.Pointer(args), unsafe.Sizeof(*args), unsafe.Pointer(&mem[0]))
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	runtime.KeepAlive(mem)
	if r < 0 {
		return 0, -1, fmt.Errorf("clone3: %w", unix.Errno(-r))
	}
	// The child has executed the stub, or ended; its results are in our memory.
	plan.take(mem[:len(table)])
	for _, s := range plan.steps {
		if err := s.Err(); err != nil {
			if !o.Sibling {
				waitEnd(int(fd))
			}
			unix.Close(int(fd))
			return 0, -1, err
		}
	}
	return r, int(fd), nil
}

// enterPidNS locks the thread and makes the pid namespace of the process pidfd, if it is not 0,
// that of its next children. unlock undoes both; where it cannot, the thread ends with its
// goroutine, still locked.
func enterPidNS(pidfd int) (unlock func(), err error) {
	runtime.LockOSThread()
	if pidfd == 0 {
		return runtime.UnlockOSThread, nil
	}
	own, err := unix.Open("/proc/thread-self/ns/pid_for_children", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		if err = unix.Setns(pidfd, unix.CLONE_NEWPID); err == nil {
			return func() {
				if unix.Setns(own, unix.CLONE_NEWPID) == nil {
					runtime.UnlockOSThread()
				}
				unix.Close(own)
			}, nil
		}
		unix.Close(own)
	}
	runtime.UnlockOSThread()
	return nil, fmt.Errorf("setns pid: %w", err)
}
