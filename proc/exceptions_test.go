package proc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// A gang is a process group of another parent's making: its leader is a shell that is told what to do.
type gang struct {
	*session
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	n   string
}

func (s *session) gang(uid uint32) *gang {
	s.T.Helper()
	g := &gang{session: s, cmd: exec.Command("/bin/sh")}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	g.cmd.Dir = "/"
	in, err := g.cmd.StdinPipe()
	if err != nil {
		s.T.Fatal(err)
	}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		s.T.Fatal(err)
	}
	g.in, g.out = in, bufio.NewReader(out)
	if err := g.cmd.Start(); err != nil {
		s.T.Fatal(err)
	}
	g.n = strconv.Itoa(g.cmd.Process.Pid)
	s.T.Cleanup(func() {
		unix.Kill(-g.cmd.Process.Pid, unix.SIGKILL)
		in.Close()
		g.cmd.Wait()
	})
	g.do("exec 2>/dev/null; ulimit -c 0")
	return g
}

func (g *gang) do(format string, arg ...any) { fmt.Fprintf(g.in, format+"\n", arg...) }

// ask is do for what says a number.
func (g *gang) ask(format string, arg ...any) *ns.Process {
	g.T.Helper()
	g.do(format, arg...)
	line, err := g.out.ReadString('\n')
	pid, e := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || e != nil {
		g.T.Fatalf("%s: %q, %v", format, line, err)
	}
	return g.find(pid)
}

func (g *gang) find(pid int) *ns.Process {
	g.T.Helper()
	p, err := ns.Open(pid)
	if err != nil {
		g.T.Fatal(err)
	}
	g.T.Cleanup(func() { p.Close() })
	return p
}

func (g *gang) ended(p *ns.Process, how string) {
	g.T.Helper()
	e, err := ns.Wait(g.Ctx, p)
	if err != nil || e.String() != how {
		g.T.Errorf("process %d: %q, %v; not %q", p.Pid(), e, err, how)
	}
}

// quiet waits until no group has a mode and the watch is gone, as it must by the ends alone.
func quiet(t *testing.T, s *session) {
	t.Helper()
	for s.Ctx.Err() == nil {
		groups.mu.Lock()
		n, w := len(groups.modes), groups.watch
		groups.mu.Unlock()
		if n == 0 && w == nil {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d groups are left", len(groups.modes))
}

func bpfDescriptors(t *testing.T) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.Contains(to, "bpf") {
			n++
		}
	}
	return n
}

// exceptional is a session where there is what exceptions needs, and that checks that nothing is left of it.
func exceptional(t *testing.T) *session {
	t.Helper()
	s := newSession(t, 0)
	w, err := ns.WatchGroups()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("needs BPF with BTF: " + err.Error())
	}
	w.Close()
	if _, err := w.Next(); err == nil {
		t.Error("next of a closed watch")
	}
	t.Cleanup(func() {
		quiet(t, s)
		for bpfDescriptors(t) > 0 && s.Ctx.Err() == nil { // the reader is on its way out
			runtime.Gosched()
		}
		if n := bpfDescriptors(t); n != 0 {
			t.Errorf("%d descriptors of bpf are left", n)
		}
	})
	return s
}

func TestExceptionsPropagate(t *testing.T) {
	s := exceptional(t)
	g := s.gang(0)
	s.Write(g.n+"/ctl", "exceptions propagate\n")
	member := g.ask("sleep 1000 & echo $!")
	grand := g.ask("sh -c '(sleep 1000 & echo $!)'")
	left := g.ask("perl -e '$| = 1; setpgrp; print \"$$\\n\"; sleep 1000' &")
	other := g.ask("setsid sh -c 'echo $$; exec sleep 1000' &")
	defer left.Signal(unix.SIGKILL)
	defer other.Signal(unix.SIGKILL)

	// No exceptions: an exit, and the ends of those that have left, also after a fork without exec.
	g.do("sh -c 'exit 3'; exit3=$?; perl -e 'setpgrp; kill SEGV => $$'; perl -e 'unless (fork) { setpgrp; kill SEGV => $$ } wait'")
	gone := g.ask("setsid sh -c 'echo $$; exec sleep 1000' &")
	gone.Signal(unix.SIGKILL)
	g.ended(gone, "signal: KILL")
	if !g.ask("echo $$").Alive() || !member.Alive() || !grand.Alive() {
		t.Fatal("what is no exception has ended a member")
	}
	// A grandchild's end, whoever its parent is.
	victim := g.ask("sh -c '(sleep 1000 & echo $!)'")
	victim.Signal(unix.SIGSEGV)
	g.ended(victim, "signal: SEGV")
	g.ended(member, "signal: SEGV")
	g.ended(grand, "signal: SEGV")
	g.ended(g.find(g.cmd.Process.Pid), "signal: SEGV")
	if !left.Alive() || !other.Alive() {
		t.Error("a process that has left the group was not spared")
	}
}

// The leader hears of the exception, the others are killed; and of the end of those nobody hears.
func TestExceptionsNotifyLeader(t *testing.T) {
	s := exceptional(t)
	g := s.gang(0)
	s.Write(g.n+"/ctl", "exceptions propagate\n")
	s.Write(g.n+"/ctl", "EXCEPTIONS notifyleader\n") // in its place
	g.do("trap 'echo $$' USR1")
	member := g.ask("sh -c 'trap : USR1; echo $$; while :; do sleep 1000; done' &")
	g.do("sh -c 'kill -USR1 $$'")
	g.ended(member, "signal: KILL")
	quiet(t, s)
	leader := g.ask(":") // before which it is heard
	if leader.Pid() != g.cmd.Process.Pid || !leader.Alive() {
		t.Error("the leader has not heard of it")
	}
	member = g.ask("sleep 1000 & echo $!")
	g.do("sh -c 'kill -USR2 $$'") // the mode is gone
	if !g.ask("echo $$").Alive() || !member.Alive() {
		t.Error("it happened twice")
	}
}

// Who may not signal the leader has no say, and the signals are his who had: a member of another user is spared.
func TestExceptionsWho(t *testing.T) {
	s := exceptional(t)
	g := s.gang(0)
	member := g.ask("sleep 1000 & echo $!")
	user := g.ask("setpriv --reuid 1234 --regid 1234 --clear-groups sh -c 'echo $$; exec sleep 1000' &")
	if err := s.Echo(fmt.Sprint(member.Pid(), "/ctl"), "exceptions propagate\n"); err != fs.ErrPerm {
		t.Errorf("by way of a member: %v", err)
	}
	if err := s.Echo("1/ctl", "exceptions propagate\n"); err != fs.ErrPerm {
		t.Errorf("group 1: %v", err)
	}
	leader := &Proc{Process: g.find(g.cmd.Process.Pid)}
	if err := leader.exceptions(s.as(1234).Ctx, []string{"propagate"}); err != fs.ErrPerm {
		t.Errorf("group of another user: %v", err)
	}

	h := s.gang(1235)
	h.do("trap 'echo $$' HUP")
	s.as(1235).Write(h.n+"/ctl", "exceptions propagate\n")
	stranger := exec.Command("sleep", "1000")
	stranger.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: h.cmd.Process.Pid}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stranger.Process.Kill()
		stranger.Wait()
	}()
	own := h.ask("sleep 1000 & echo $!")
	h.do("sh -c 'kill -HUP $$'")
	h.ended(own, "signal: HUP")
	quiet(t, s)
	h.ask(":") // the leader has heard of it
	if !h.find(stranger.Process.Pid).Alive() || !user.Alive() {
		t.Error("a process of another user was signalled")
	}
}

// 100 groups in which a member is ended as soon as it was made and reaped at once, beside 100 that end by themselves.
func TestExceptionsAtOnce(t *testing.T) {
	s := exceptional(t)
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	for i := range rounds {
		g := s.gang(0)
		member := g.ask("sleep 1000 & echo $!")
		s.Write(g.n+"/ctl", "exceptions propagate\n")
		if i%2 == 0 {
			g.do("perl -e 'unless (fork) { kill SEGV => $$ } wait; sleep 1000'")
		} else {
			g.do("(kill -SEGV $(exec sh -c 'echo $PPID')); sleep 1000")
		}
		g.ended(member, "signal: SEGV")
		g.cmd.Wait()
	}
	for range 10 {
		g := s.gang(0)
		s.Write(g.n+"/ctl", "exceptions notifyleader\n")
		g.do("sh -c '(for i in 1 2 3 4 5 6 7 8 9; do sh -c \"exit 1\"; done) &'; exit 0")
		g.cmd.Wait()
	}
}

// A user has so many and no more; those in which nobody lives do not count.
func TestExceptionsLimit(t *testing.T) {
	s := exceptional(t)
	for range 2 {
		var all []*gang
		for range maxModes {
			g := s.gang(0)
			s.Write(g.n+"/ctl", "exceptions propagate\n")
			all = append(all, g)
		}
		if err := s.Echo(s.gang(0).n+"/ctl", "exceptions propagate\n"); err != fs.ErrNoFree {
			t.Errorf("one more: %v", err)
		}
		s.Write(all[0].n+"/ctl", "exceptions notifyleader\n") // another in its place is none more
		for _, g := range all {
			g.do("exit")
			g.cmd.Wait()
		}
		quiet(t, s)
	}
}

// A group is forgotten at the end of its only member, by that end alone.
func TestExceptionsForgotten(t *testing.T) {
	s := exceptional(t)
	for range 5 {
		h, n := s.clone()
		s.Say(h, "exceptions propagate\nexec /bin/sh -c 'read x; exit 1'\n")
		s.Write(n+"/ctl", "closeio\n")
		s.Read(n + "/wait")
		h.Close(s.Ctx)
		quiet(t, s)
	}
}
