package ns

import (
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Exit is how a process ended, as far as anybody knows.
type Exit struct {
	Status syscall.WaitStatus // see wait(2); only if Known
	Known  bool
	User   time.Duration // CPU time, with that of the children it waited for; -1 unknown
	Sys    time.Duration // likewise, in the kernel
	Real   time.Duration // from its start to its end, to 10 ms; -1 unknown
	At     time.Time     // when it ended; zero unknown
}

// unknownExit is an end of which nothing is known.
var unknownExit = Exit{User: -1, Sys: -1, Real: -1}

// Code is the end as shells number it: 0..255, or 128 and the signal. false: nobody knows it.
func (e Exit) Code() (int, bool) {
	switch {
	case !e.Known:
		return 0, false
	case e.Status.Signaled():
		return 128 + int(e.Status.Signal()), true
	}
	return e.Status.ExitStatus(), true
}

// String is the end in words: nothing for success, `exit: 3`, `signal: KILL`, `signal: SEGV (core dumped)`,
// or `unknown`.
func (e Exit) String() string {
	switch {
	case !e.Known:
		return "unknown"
	case e.Status.Signaled():
		s := "signal: " + SignalName(e.Status.Signal())
		if e.Status.CoreDump() {
			s += " (core dumped)"
		}
		return s
	case e.Status.ExitStatus() != 0:
		return "exit: " + strconv.Itoa(e.Status.ExitStatus())
	}
	return ""
}

// Record is the end as await(2) has it: pid, user, system and real time in ms, `-` where
// nobody knows, and the end in words.
func (e Exit) Record(pid int) []string {
	ms := func(d time.Duration) string {
		if d < 0 {
			return "-"
		}
		return strconv.FormatInt(d.Milliseconds(), 10)
	}
	return []string{strconv.Itoa(pid), ms(e.User), ms(e.Sys), ms(e.Real), e.String()}
}

// look finds out how w's process ended, after its pidfd became readable; hup: it was also reaped.
// false: not to be known (yet).
func (w *watch) look(hup bool) (Exit, bool) {
	if !hup {
		if e, ok := waited(w.fd); ok { // our own child
			return e, true
		}
		if e, ok := w.p.zombie(); ok {
			return e, true
		}
	}
	if !exitInfo() {
		return Exit{}, false
	}
	// It was reaped, or it is a zombie that we may not look into. Then this fails, and POLLHUP follows.
	info, err := fdInfo(w.fd, InfoExit)
	if err != nil || info.Mask&InfoExit == 0 {
		return Exit{}, false
	}
	e := unknownExit
	e.Status, e.Known = syscall.WaitStatus(info.ExitCode), true
	return e, true
}

// complete adds the times of which w has seen the end.
func (w *watch) complete(e Exit) Exit {
	if w.late {
		return e
	}
	e.At = time.Now()
	if w.start != 0 {
		var now unix.Timespec
		if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) == nil {
			e.Real = max(0, time.Duration(now.Nano())-ticks(w.start))
		}
	}
	return e
}

// ticks are hundredths of a second: USER_HZ is 100 wherever Go runs.
func ticks(n uint64) time.Duration { return time.Duration(n) * (time.Second / 100) }

// zombie reads the end of a process that was not reaped yet. The kernel shows the status only to those who may
// look into the process, and 0 to others.
func (p *Process) zombie() (Exit, bool) {
	st, err := p.Stat()
	if err != nil || st.State != 'Z' {
		return Exit{}, false
	}
	if st.ExitCode == 0 {
		// The user namespace is the one link that a zombie still has; the kernel shows it by the same rule.
		if _, err := readlink(p.path("ns/user")); p.verify("ns/user", err) != nil {
			return Exit{}, false
		}
	}
	return Exit{
		Status: syscall.WaitStatus(st.ExitCode), Known: true,
		User: ticks(st.Utime + st.Cutime), Sys: ticks(st.Stime + st.Cstime), Real: -1,
	}, true
}

// childInfo is siginfo_t as waitid(2) fills it on 64-bit machines.
type childInfo struct {
	signo, errno, code, _ int32
	pid, uid, status      int32
	_                     [100]byte
}

// wait asks for the end of a child. Only for ends: a wait that also takes stops would steal a tracer's.
// __WALL, because clone(2) can make children that do not signal their end.
func wait(fd, options int, ru *unix.Rusage) (childInfo, error) {
	for {
		var si childInfo
		err := unix.Waitid(unix.P_PIDFD, fd, (*unix.Siginfo)(unsafe.Pointer(&si)), unix.WEXITED|unix.WNOHANG|unix.WALL|options, ru)
		if err != unix.EINTR {
			return si, err
		}
	}
}

// ours reports whether the process is our child.
func ours(fd int) bool {
	_, err := wait(fd, unix.WNOWAIT, nil)
	return err == nil
}

// reap lets go of a child that has ended; false: it cannot yet, see held.
func reap(fd int) bool {
	si, err := wait(fd, 0, nil)
	return err != nil || si.pid != 0
}

// held reports whether a child has ended for others to see but not for its parent: a tracer has yet to let go of it.
func held(fd int) bool {
	si, err := wait(fd, unix.WNOWAIT, nil)
	return err == nil && si.pid == 0
}

// waited is the end of our own child, which stays a zombie.
func waited(fd int) (Exit, bool) {
	var ru unix.Rusage
	si, err := wait(fd, unix.WNOWAIT, &ru)
	if err != nil || si.pid == 0 { // si_pid 0: a tracer has yet to let go of it
		return Exit{}, false
	}
	e := Exit{User: time.Duration(ru.Utime.Nano()), Sys: time.Duration(ru.Stime.Nano()), Real: -1}
	e.Status, e.Known = waitStatus(si.code, si.status)
	return e, e.Known
}

// waitStatus makes a status as wait(2) has it of what siginfo_t has.
func waitStatus(code, status int32) (syscall.WaitStatus, bool) {
	switch code {
	case cldExited:
		return syscall.WaitStatus(status << 8), true
	case cldKilled:
		return syscall.WaitStatus(status), true
	case cldDumped:
		return syscall.WaitStatus(status | 0x80), true
	}
	return 0, false
}

// si_code of an ended child; x/sys has none.
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)
