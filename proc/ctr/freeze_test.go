package ctr

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"ctrfs/fs"
)

// into makes a container that is in the state.
func (s *session) into(name string, want state) {
	s.T.Helper()
	s.Mkdir(name)
	s.Write(name+"/args", "/bin/sleep 1000")
	for _, verb := range map[state][]string{
		isNew:     {},
		isCreated: {"create"},
		isRunning: {"start"},
		isPaused:  {"start", "pause"},
		isStopped: {"start", "kill"},
	}[want] {
		s.Write(name+"/ctl", verb)
	}
	if want == isStopped {
		s.Read(name + "/wait")
	}
	if got := state(s.do("status", name)); got != want {
		s.T.Fatalf("%s, not %s", got, want)
	}
}

// The table of the contract: what each verb makes of each state, and which it refuses.
func TestStates(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	const no, gone, ends = "no", "gone", "ends"
	states := []state{isNew, isCreated, isRunning, isPaused, isStopped}
	for _, row := range []struct {
		verb string
		then [5]string // in the order of states
	}{
		{"create", [5]string{"created", no, no, no, "created"}},
		{"start", [5]string{"running", "running", no, no, "running"}},
		{"exec /bin/sleep 1000", [5]string{"running", "running", no, no, "running"}},
		{"stop", [5]string{no, ends, ends, ends, "stopped"}},
		{"kill", [5]string{no, ends, ends, ends, "stopped"}},
		{"kill TERM 0", [5]string{no, ends, "running", "paused", "stopped"}},
		{"kill KILL 0", [5]string{no, ends, ends, ends, "stopped"}},
		{"killall", [5]string{"new", ends, ends, ends, "stopped"}},
		{"pause", [5]string{no, no, "paused", no, no}},
		{"resume", [5]string{no, no, no, "running", no}},
		{"delete", [5]string{gone, gone, no, no, gone}},
	} {
		for i, from := range states {
			name := fmt.Sprintf("%s-%d", strings.ReplaceAll(strings.ReplaceAll(row.verb, " ", "-"), "/", "-"), i)
			s.into(name, from)
			err := s.Echo(name+"/ctl", row.verb)
			word, _, _ := strings.Cut(row.verb, " ")
			switch want := row.then[i]; want {
			case no:
				if word == "exec" {
					word = "start"
				}
				text := fmt.Sprintf("cannot %s a %s container", word, from)
				if row.verb == "exec /bin/sleep 1000" && from == isRunning {
					text = "container is running: use proc/clone"
				}
				if err == nil || err.Error() != text {
					t.Errorf("%s a %s one: %v, want %s", row.verb, from, err, text)
				}
				if got := s.do("status", name); got != string(from) {
					t.Errorf("%s a %s one: refused, and %s", row.verb, from, got)
				}
			default:
				if err != nil {
					t.Errorf("%s a %s one: %v", row.verb, from, err)
				}
				if want == ends {
					s.Read(name + "/wait")
					want = string(isStopped)
				}
				if want == gone {
					want = noSuch
				}
				if got := s.do("status", name); got != want {
					t.Errorf("%s a %s one: %s, want %s", row.verb, from, got, want)
				}
			}
			s.end(name)
		}
	}
	check()
}

// A run that ended while it was paused, by nobody's verb, leaves nothing behind that stops the next.
func TestEndPaused(t *testing.T) {
	s := newSession(t)
	s.into("p", isPaused)
	group := s.set.names["p"].run.group
	if frozen, err := group.Frozen(); !frozen || err != nil {
		t.Errorf("paused, and frozen: %v, %v", frozen, err)
	}
	s.set.names["p"].run.job.Process().Signal(syscall.SIGKILL)
	s.Read("p/wait")
	s.Write("p/ctl", "exec /bin/echo on")
	if got := s.Read("p/stdout"); got != "on\n" {
		t.Errorf("stdout %q", got)
	}
	s.Read("p/wait")
	s.Rmdir("p")
}

// Of several restarts comes one run, and none where a stop or a kill comes after them.
func TestRestart(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	s.Mkdir("r")
	c := s.set.names["r"]
	// It ends when its input says so, and not before.
	s.Write("r/args", `/bin/sh -c 'trap : TERM; echo up; while ! read x; do :; done; exit 3'`)
	for _, last := range []string{"restart", "stop 1000", "kill"} {
		s.Write("r/ctl", "start")
		in, err := s.Open("r/stdin", fs.Write)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Open("r/stdout", fs.Read)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := out.Read(s.Ctx, 0, 100); string(b) != "up\n" { // so the trap is set
			t.Fatalf("%q, %v", b, err)
		}
		out.Close(s.Ctx)
		run := c.run
		for _, verb := range []string{"restart", "restart", last} {
			s.Write("r/ctl", verb)
		}
		in.Write(s.Ctx, 0, []byte("x\n")) // fails where it was killed
		in.Close(s.Ctx)
		<-run.done
		c.rerun(run) // or another has done it
		next, now := c.run, c.now()
		if again := next != run && now == isRunning; again != (last == "restart") {
			t.Errorf("%s: %s, another run: %v", last, now, next != run)
		}
		if c.rerun(run); c.run != next {
			t.Errorf("%s: a third run", last)
		}
		s.Write("r/ctl", "killall")
		s.Read("r/wait")
	}
	s.Rmdir("r")
	check()
}

// A verb of a process in the container that is under way when pause comes is done before it, and none begins meanwhile: stopped in the
// middle it would wait until somebody says resume.
func TestPauseWaits(t *testing.T) {
	s := newSession(t)
	s.into("p", isRunning)
	c, err := s.set.find("p")
	if err != nil {
		t.Fatal(err)
	}
	done, err := c.awake()
	if err != nil {
		t.Fatal(err)
	}
	paused := make(chan error)
	go func() { paused <- s.Echo("p/ctl", "pause") }()
	for err == nil && s.Ctx.Err() == nil {
		var end func()
		if end, err = c.awake(); err == nil {
			end()
			runtime.Gosched()
		}
	}
	if got := c.now(); got != isRunning || err == nil || err.Error() != "container is paused" {
		t.Errorf("%s, %v", got, err)
	}
	done()
	if err := <-paused; err != nil || c.now() != isPaused {
		t.Errorf("%v, %s", err, c.now())
	}
	s.Write("p/ctl", "resume")
	if end, err := c.awake(); err != nil {
		t.Error(err)
	} else {
		end()
	}
	s.end("p")
}

// What ends a container is the last word also when the run that restart ended is over and the next has not begun.
func TestEndBetweenRuns(t *testing.T) {
	s := newSession(t)
	for _, verb := range []string{"stop", "kill", "kill KILL 0", "killall"} {
		s.into("r", isStopped)
		c, err := s.set.find("r")
		if err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		c.run.again = true
		c.mu.Unlock()
		s.Write("r/ctl", verb)
		c.rerun(c.run)
		if got := c.now(); got != isStopped {
			t.Errorf("after %s: %s", verb, got)
		}
		s.end("r")
	}
}
