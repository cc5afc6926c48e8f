package ns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Stopped waits until p is stopped (SIGSTOP and its like) or has ended; stopped says which. A stop by a tracer is
// none, nor is a frozen cgroup.
//
// No kernel tells the stop of another's child by a file. ptrace would: but the tracer then has every signal of
// the process pass through its hands, and keeps out debuggers and the tracer of our own verbs. So we
// ask the scheduler: a perf event of p's first thread on the tracepoint sched_switch, with the filter that it goes
// to sleep as stopped. The process and its tools notice nothing; it costs p well under a microsecond for
// each time that it leaves a processor while somebody waits, and us two pages. It needs CAP_PERFMON and a
// kernel with perf events and tracefs, which need not be mounted; see StopEvents.
func Stopped(ctx context.Context, p *Process) (stopped bool, err error) {
	w, err := watching.join(p, false)
	if err != nil {
		return false, err
	}
	defer watching.leave(w)
	// The event first, the state after it: no stop falls between.
	ev, err := stopEvent(p.pid)
	if err == ErrExited || err == nil && p.Check() != nil { // its first thread is gone: it can only end
		if err == nil {
			ev.close()
		}
		select {
		case <-w.done:
			return false, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
	if err != nil {
		return false, fmt.Errorf("stopped: %w", err)
	}
	defer ev.close()
	stop := make(chan struct{})
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		if ev.wait() {
			close(stop)
		}
	}()
	defer func() {
		ev.file.SetReadDeadline(time.Unix(1, 0))
		<-idle
	}()
	if st, err := p.Stat(); err == nil && st.State == 'T' {
		return true, nil
	}
	select {
	case <-stop:
		return true, nil
	case <-w.done:
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// StopEvents says what Stopped lacks here, an errors.ErrUnsupported; nil: nothing.
func StopEvents() error {
	ev, err := stopEvent(unix.Getpid())
	if err == nil {
		ev.close()
	}
	return err
}

func needs(what string, err error) error {
	return &tracedError{fmt.Sprintf("needs %s: %v", what, err), errors.ErrUnsupported}
}

// A perfEvent waits for the first time that something happens.
type perfEvent struct {
	file *os.File // in the runtime's own poller: poll of a perf event takes the news away, and an epoll within
	// an epoll polls twice
	ring []byte // the kernel says only through this that it has happened
}

func (e perfEvent) close() {
	unix.Munmap(e.ring)
	e.file.Close()
}

// wait reports whether it has happened; false: the deadline was set.
func (e perfEvent) wait() bool {
	raw, err := e.file.SyscallConn()
	if err != nil {
		return false
	}
	head := (*atomic.Uint64)(unsafe.Pointer(&e.ring[dataHead]))
	return raw.Read(func(uintptr) bool { return head.Load() != 0 }) == nil
}

// dataHead is the place of data_head in struct perf_event_mmap_page.
const dataHead = 1024

func stopEvent(pid int) (perfEvent, error) {
	id, err := switchID()
	if err != nil {
		return perfEvent{}, err
	}
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_TRACEPOINT, Size: unix.PERF_ATTR_SIZE_VER0, Config: id,
		Sample: 1, Wakeup: 1, // every event; tell of each
		Bits: unix.PerfBitDisabled,
	}
	fd, err := unix.PerfEventOpen(&attr, pid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	switch err {
	case nil:
	case unix.ESRCH:
		return perfEvent{}, ErrExited
	case unix.EACCES, unix.EPERM:
		return perfEvent{}, needs("the capability perfmon", err)
	case unix.ENOSYS:
		return perfEvent{}, needs("the kernel's perf events (CONFIG_PERF_EVENTS)", err)
	default:
		return perfEvent{}, fmt.Errorf("perf event: %w", err)
	}
	ring, err := armStop(fd)
	if err != nil {
		unix.Close(fd)
		return perfEvent{}, fmt.Errorf("perf event: %w", err)
	}
	return perfEvent{os.NewFile(uintptr(fd), "perf event"), ring}, nil
}

func armStop(fd int) (ring []byte, err error) {
	filter, err := unix.BytePtrFromString("prev_state == 4") // TASK_STOPPED, as the tracepoint prints it: T
	if err != nil {
		return nil, err
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PERF_EVENT_IOC_SET_FILTER, uintptr(unsafe.Pointer(filter))); errno != 0 {
		return nil, errno
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	ring, err = unix.Mmap(fd, 0, 2*unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
		unix.Munmap(ring)
		return nil, err
	}
	return ring, nil
}

// switchID is the number of the tracepoint sched_switch, read from a tracefs that is mounted nowhere.
var switchID = once(func() (uint64, error) {
	lacks := func(err error) (uint64, error) {
		if err == unix.EPERM {
			return 0, needs("the capability sys_admin, to read tracefs", err)
		}
		return 0, needs("the kernel's tracefs with its events (CONFIG_EVENT_TRACING)", err)
	}
	ctx, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return lacks(err)
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigCreate(ctx); err != nil {
		return lacks(err)
	}
	mnt, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return lacks(err)
	}
	defer unix.Close(mnt)
	fd, err := unix.Openat(mnt, "events/sched/sched_switch/id", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return lacks(err)
	}
	defer unix.Close(fd)
	text, err := readFD(fd, maxText)
	if err != nil {
		return lacks(err)
	}
	id, err := strconv.ParseUint(string(text[:max(0, len(text)-1)]), 10, 32)
	if err != nil {
		return lacks(err)
	}
	return id, nil
})
