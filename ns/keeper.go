package ns

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// serverName is the first argument of this program when it was started by a keeper; the second is the descriptor of
// its socket.
const serverName = "ctrfs-server"

// A keeper is the parent of the server and, as the server clones with CLONE_PARENT, of all that it starts. It records
// how each of them ended before it reaps, holds what the server must not lose, and starts the next server when one has
// died. It knows nothing of what it holds.
type keeper struct {
	args   []string
	state  string        // where the holder is found, "": nowhere
	adj    string        // oom_score_adj of all but the keeper and the holder
	server atomic.Int64  // the server's pidfd, -1: there is none
	over   chan struct{} // closed when the holder is dismissed

	mu     sync.Mutex // guards what follows; an end is recorded and reaped in one step
	hands             // what is held
	sock   int        // to the server
	pid    int        // the server's
	holder int        // socket to the holder, -1: there is none
	ending bool       // it is to end
	byPid  map[int]*holding
	loose  map[int]*ending // of children that nothing is held of, or not yet
	order  []int           // their numbers, the oldest first
	up     bool            // a server has been able to do its work
	next   string          // what is to follow the end of the server, as that has said
}

// What is to follow the end of a server. What it has not foreseen is followed by another.
const (
	nextEnd     = "end"     // nothing: the keeper lets go of all
	nextQuit    = "quit"    // the end of the keeper, but what it holds is for another
	nextReload  = "reload"  // another server
	nextUpgrade = "upgrade" // another keeper in this process, of the program that has its name now, and its server
)

// looseMost is how many ends are kept of processes of which the server may still be about to say something.
const looseMost = 1024

// How long the keeper waits before it starts a server in place of one that ended soon after its own start.
const (
	firstDelay = 10 * time.Millisecond
	lastDelay  = time.Second
	soon       = 100 * time.Millisecond
)

// Keep makes this process the keeper of a server, which is this program with the same arguments: see Server. It returns,
// with the status to end with, when a server has ended in order or the first was never up. SIGTERM and SIGINT go to the
// server. State is the name of a socket in a directory of this user's alone, by which what outlives the keeper is found again;
// "": nothing does.
func Keep(state string) (status int) {
	runtime.LockOSThread() // who starts the server is the parent of all, and does not end
	k := &keeper{args: os.Args[1:], hands: hands{}, byPid: map[int]*holding{}, loose: map[int]*ending{}, over: make(chan struct{})}
	k.server.Store(-1)
	k.escapeOOM()
	// What programs of other people have started for the server, and left, is the keeper's child too.
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) // cannot fail
	if err := k.findHolder(state); err != nil {
		fmt.Fprintln(os.Stderr, "ctrfs: hold what runs:", err)
		return 1
	}
	end, stop := context.WithCancel(context.Background())
	defer stop()
	k.passSignals(stop)
	for delay := firstDelay; ; {
		began := time.Now()
		pid, drained, err := k.start()
		if err != nil {
			fmt.Fprintln(os.Stderr, "ctrfs: start the server:", err)
			return 1
		}
		ws := k.reapUntil(pid)
		<-drained // what it has said last counts too
		next := k.ended()
		switch {
		case next == nextEnd:
			k.dismiss()
			return exitStatus(ws)
		case next == nextQuit, end.Err() != nil, !k.up:
			return exitStatus(ws)
		case next == nextUpgrade:
			fmt.Fprintln(os.Stderr, "ctrfs: upgrade:", k.become())
			continue
		case next == nextReload:
			continue
		}
		fmt.Fprintf(os.Stderr, "ctrfs: the server has died (%s)\n", cmp.Or(Exit{Status: ws, Known: true}.String(), "exit: 0"))
		if time.Since(began) > soon || ws.Signal() == syscall.SIGKILL { // another's doing is no fault of its own
			delay = firstDelay
		}
		if !k.pause(end, delay) {
			return 1
		}
		delay = min(2*delay, lastDelay)
	}
}

// ended ends what is to end with the server, which has ended, and gives what is to follow.
func (k *keeper) ended() (next string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kill()
	if k.holder >= 0 {
		say(k.holder, message{Verb: "drop", Name: serverName})
	}
	return k.next
}

// exitStatus is the status to end with.
func exitStatus(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// escapeOOM makes this process the last that the kernel kills for want of memory, where it may, and notes what others are
// to have.
func (k *keeper) escapeOOM() {
	const file = "/proc/self/oom_score_adj"
	b, err := os.ReadFile(file)
	if err == nil && os.WriteFile(file, []byte("-1000"), 0) == nil {
		k.adj = strings.TrimSpace(string(b))
	}
}

// passSignals passes on what asks for the end, and calls stop: no other server is started then.
func (k *keeper) passSignals(stop func()) {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGHUP) // of the terminal that it was started from
	go func() {
		for sig := range c {
			stop()
			if fd := k.server.Load(); fd >= 0 {
				unix.PidfdSendSignal(int(fd), sig.(syscall.Signal), nil, 0) // fails only where it has ended
			}
		}
	}()
}

// start starts a server and gives it what is held. drained is closed when all that it has said was heard.
func (k *keeper) start() (pid int, drained <-chan struct{}, err error) {
	sp, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, err
	}
	defer unix.Close(sp[1])
	// By its own number: those below may be what the server was told to listen at.
	if _, err := unix.FcntlInt(uintptr(sp[1]), unix.F_SETFD, 0); err != nil {
		unix.Close(sp[0])
		return 0, nil, err
	}
	pidfd := -1
	argv := append([]string{serverName, strconv.Itoa(sp[1])}, k.args...)
	pid, err = syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{PidFD: &pidfd},
	})
	if err != nil {
		unix.Close(sp[0])
		return 0, nil, err
	}
	if k.adj != "" {
		os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(k.adj), 0) // fails only where it has ended
	}
	k.server.Store(int64(pidfd))
	k.mu.Lock()
	k.sock, k.pid, k.next = sp[0], pid, ""
	k.holdServer()
	k.give(k.sock)
	say(k.sock, message{Verb: "all", Lasts: k.holder >= 0})
	k.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.obey(sp[0])
	}()
	return pid, done, nil
}

// obey does what the server says, until it is dead and all was heard.
func (k *keeper) obey(sock int) {
	buf, oob := make([]byte, messageMost), make([]byte, unix.CmsgSpace(rightsMost*4))
	for {
		m, fds, ok := peek(sock, buf, oob) // if the keeper dies now the holder hears it
		k.mu.Lock()
		if !ok {
			unix.Close(sock)
			unix.Close(int(k.server.Swap(-1)))
			k.sock = -1
			k.mu.Unlock()
			return
		}
		k.hear(m, fds)
		k.mu.Unlock()
		consume(sock)
	}
}

// hear is called with the lock.
func (k *keeper) hear(m message, fds []int) {
	switch m.Verb {
	case "up":
		k.up = true
		return
	case nextEnd, nextQuit, nextReload, nextUpgrade:
		k.next = m.Verb
		return
	}
	if k.holder >= 0 {
		say(k.holder, m, fds...)
	}
	h := k.do(m, fds)
	switch {
	case h == nil:
	case m.Verb == "drop" && k.byPid[h.Pid] == h:
		delete(k.byPid, h.Pid)
	case m.Verb == "hold" && m.Pid != 0:
		k.parent(h)
	}
}

// parent looks whether the process of which something is held now has ended already. Called with the lock.
func (k *keeper) parent(h *holding) {
	k.byPid[h.Pid] = h
	switch e := k.loose[h.Pid]; {
	case e != nil && e.Start == h.Start:
		h.End = e
		delete(k.loose, h.Pid)
	case len(h.fds) > 0 && unix.PidfdSendSignal(h.fds[0], 0, nil, 0) == unix.ESRCH:
		h.End = &ending{Pid: h.Pid, Start: h.Start, Code: -1} // too long ago
	default:
		return
	}
	k.tell(h)
}

// reapUntil reaps all children until the one with the number pid has ended.
func (k *keeper) reapUntil(pid int) syscall.WaitStatus {
	for {
		if e := k.reap(0); e != nil && e.Pid == pid {
			return e.status()
		}
	}
}

// reap waits for a child that has ended, records that, and only then reaps it: who sees that it is gone finds the record.
func (k *keeper) reap(options int) *ending {
	var si childInfo
	var ru unix.Rusage
	err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&si)), unix.WEXITED|unix.WNOWAIT|unix.WALL|options, &ru)
	if err != nil || si.pid == 0 {
		return nil
	}
	e := &ending{Pid: int(si.pid), Code: si.code, Status: si.status, User: ru.Utime.Nano(), Sys: ru.Stime.Nano(), At: time.Now().UnixNano()}
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // cannot fail
	e.Boot = now.Nano()
	k.mu.Lock()
	defer k.mu.Unlock()
	// What is held is our child, and its number nobody else's before it is reaped.
	if h := k.byPid[e.Pid]; h != nil && h.End == nil {
		e.Start, h.End = h.Start, e
		k.tell(h)
	} else {
		k.keepLoose(e)
	}
	for unix.Waitid(unix.P_PID, e.Pid, nil, unix.WEXITED|unix.WNOHANG|unix.WALL, nil) == unix.EINTR {
	}
	return e
}

// keepLoose is called with the lock.
func (k *keeper) keepLoose(e *ending) {
	if text, err := readFile(fmt.Sprintf("/proc/%d/stat", e.Pid), maxText); err == nil {
		if st, err := parseStat(text); err == nil {
			e.Start = st.Start
		}
	}
	k.loose[e.Pid] = e
	if k.order = append(k.order, e.Pid); len(k.order) > looseMost {
		delete(k.loose, k.order[0])
		k.order = k.order[1:]
	}
}

// pause waits before the next start, and reaps. It reports whether there is to be one.
func (k *keeper) pause(end context.Context, delay time.Duration) bool {
	child := make(chan os.Signal, 1)
	signal.Notify(child, syscall.SIGCHLD)
	defer signal.Stop(child)
	over := time.After(delay)
	for {
		for k.reap(unix.WNOHANG) != nil {
		}
		select {
		case <-child:
		case <-over:
			return end.Err() == nil
		case <-end.Done():
			return false
		}
	}
}
