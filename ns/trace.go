package ns

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tracerName is the first argument of this program when it is a tracer.
const tracerName = "ctrfs-tracer"

var tracerReady bool

// Tracer is the first thing that a program does in whose processes' name Process.Pctl is called: started by Pctl as a
// tracer, it changes one process and does not return. A tracer is a process of its own so that nothing that happens to
// the server leaves a process stopped, or with registers that are not its own; only its own end by SIGKILL while it has
// one stopped does.
func Tracer() {
	tracerReady = true
	if len(os.Args) != 2 || os.Args[0] != tracerName {
		return
	}
	runtime.LockOSThread() // who traces is a thread
	debug.SetGCPercent(-1)
	signal.Ignore()
	stopped, err := serveTrace()
	answer(stopped, err)
}

// answer ends the tracer. The kernel then lets go of what it still traces.
func answer(stopped time.Duration, err error) {
	reply := traceReply{Stopped: stopped}
	if err != nil {
		var errno syscall.Errno
		reply.Err = err.Error()
		if errors.As(err, &errno) {
			reply.Errno = errno
		}
	}
	text, err := json.Marshal(reply)
	if err == nil {
		_, err = os.NewFile(3, "answer").Write(text) // EPIPE: nobody wants to know any more
	}
	if err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func serveTrace() (stopped time.Duration, err error) {
	var job traceJob
	if err := json.Unmarshal([]byte(os.Args[1]), &job); err != nil {
		return 0, err
	}
	for fd := 3; fd <= 4; fd++ {
		unix.CloseOnExec(fd)
	}
	p, err := FromFD(4)
	if err != nil {
		return 0, err
	}
	m := &job.Pctl
	if m.Join != nil {
		fd := uintptr(5)
		for _, k := range m.Join.Kinds {
			m.Join.files = append(m.Join.files, os.NewFile(fd, k))
			fd++
		}
		if slices.Contains(m.Join.Kinds, "mnt") {
			m.Join.root = os.NewFile(fd, "root")
		}
	}
	t := &tracer{p: p, as: job.As, m: m, threads: make(map[int]*tracee)}
	err = t.run()
	return t.stopped, err
}

// A tracer changes one process.
type tracer struct {
	p  *Process
	as *Cred
	m  *Pctl

	changing atomic.Bool // nothing was done to the process before; or it is too late to begin

	threads map[int]*tracee // that it traces
	order   []int
	lead    *tracee // that makes the calls
	inside  *tracee // that is at home
	sharer  *tracee // a thread of another process with the same descriptors
	began   time.Time
	stopped time.Duration
	taskDir int // descriptors of the process's task, and of the first thread's fd
	fds     int
	page    uint64 // memory in the process, of size bytes
	size    uint64
	socks   [2]int // a pair of sockets in the process, if ours is not -1
	sock    int
	given   []int // descriptors that it was given
}

var (
	err32     = refusal(unix.ENOSYS, "process runs 32-bit code")
	errFrozen = refusal(unix.EBUSY, "process is frozen")
	errKernel = refusal(unix.EPERM, "process is a kernel thread")
)

func refusal(errno unix.Errno, format string, args ...any) error {
	return &tracedError{fmt.Sprintf(format, args...), errno}
}

// path names a file of a thread: one of the process's, or the sharer.
func (t *tracer) path(tid int, name string) string { return "/proc/" + strconv.Itoa(tid) + "/" + name }

// tasks are the process's threads that have not ended.
func (t *tracer) tasks() ([]int, error) {
	all, err := numbers(t.p.path("task"))
	if err = t.p.verify("task", err); err != nil {
		return nil, err
	}
	if len(all) == 1 {
		return all, nil
	}
	live := all[:0]
	for _, tid := range all {
		if st, err := t.stat(tid); err == nil && st.State != 'Z' && st.State != 'X' {
			live = append(live, tid)
		}
	}
	if len(live) == 0 {
		return nil, ErrExited
	}
	return live, nil
}

func (t *tracer) stat(tid int) (Stat, error) {
	text, err := readFile(t.path(tid, "stat"), maxText)
	if err != nil {
		return Stat{}, t.p.verify("stat", err)
	}
	return parseStat(text)
}

func (t *tracer) status(tid int) (Status, error) {
	text, err := readFile(t.path(tid, "status"), 1<<20)
	if err != nil {
		return Status{}, t.p.verify("status", err)
	}
	return parseStatus(text)
}

// run is the whole life of a tracer. Whatever it returns, no thread is stopped by it any more.
func (t *tracer) run() error {
	tids, err := t.tasks()
	if err != nil {
		return err
	}
	if err := t.seize(tids[:1]); err != nil {
		return err
	}
	t.lead = t.threads[tids[0]]
	if err := t.p.Check(); err != nil { // the number is another's: it was not touched
		return err
	}
	if t.as != nil { // this thread's permitted capabilities were still its own when it asked
		if err := t.p.mayTrace(*t.as); err != nil {
			return err
		}
	}
	if err := t.refuse(len(tids)); err != nil {
		return err
	}
	if err := t.findSharer(len(tids)); err != nil {
		return err
	}
	// It may not stop, and its memory may be such that who reads it waits for the process itself (userfaultfd).
	time.AfterFunc(stopTime, func() {
		if t.changing.CompareAndSwap(false, true) {
			answer(0, refusal(unix.EBUSY, "process cannot be stopped"))
		}
	})
	t.hurry()
	if err := t.rehearse(); err != nil {
		return err
	}
	t.began = time.Now()
	err = t.stop()
	if err == nil {
		err = t.change()
	}
	return errors.Join(err, t.release())
}

// stopTime is how long a process may take to stop and be looked at.
const stopTime = 2 * time.Second

// seize begins to trace threads, with the client's ids, so that the kernel decides whether he may. From then on their
// process gains no right by execve that it did not have.
func (t *tracer) seize(tids []int) error {
	var back *own
	if t.as != nil {
		back = mine()
		if err := become(*t.as, t.as.Uid); err != nil {
			return err
		}
	}
	failed := 0
	var err error
	for _, tid := range tids {
		if err = ptrace(unix.PTRACE_SEIZE, tid, 0, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACEEXEC); err != nil {
			failed = tid
			break
		}
		t.threads[tid] = &tracee{tid: tid}
		t.order = append(t.order, tid)
	}
	if back != nil {
		// As the client this thread could be killed by him; but nothing is stopped yet that was not before.
		if err := back.restore(); err != nil {
			return err
		}
	}
	if err == unix.ESRCH {
		return ErrExited
	}
	if err != nil {
		return t.whyNot(failed, err)
	}
	return nil
}
