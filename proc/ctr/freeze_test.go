package ctr

import (
	"runtime"
	"syscall"
	"testing"

	"ctrfs/fs"
)

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

// A verb of a process in the container, or of one that enters it, that is under way when pause comes is done before it, and none
// begins meanwhile: stopped in the middle it would wait until somebody says resume.
func TestPauseWaits(t *testing.T) {
	s := newSession(t)
	s.into("p", isRunning)
	c, err := s.set.find("p")
	if err != nil {
		t.Fatal(err)
	}
	for what, begin := range map[string]func() (func(), error){
		"inside": c.awake,
		"join": func() (func(), error) {
			first, done, err := s.set.First(s.Ctx, "p")
			if err == nil {
				first.Close()
			}
			return done, err
		},
	} {
		done, err := begin()
		if err != nil {
			t.Fatal(err)
		}
		paused := make(chan error)
		go func() { paused <- s.Echo("p/ctl", "pause") }()
		for err == nil && c.now() == isRunning && s.Ctx.Err() == nil {
			var end func()
			if end, err = begin(); err == nil {
				end()
				runtime.Gosched()
			}
		}
		c.mu.Lock()
		if c.state != isRunning || c.busy != 1 || err == nil || err.Error() != "container is paused" {
			t.Errorf("%s: %s with %d verbs under way, %v", what, c.state, c.busy, err)
		}
		c.mu.Unlock()
		done()
		if err := <-paused; err != nil || c.now() != isPaused {
			t.Errorf("%s: %v, %s", what, err, c.now())
		}
		s.Write("p/ctl", "resume")
		if end, err := begin(); err != nil {
			t.Errorf("%s: %v", what, err)
		} else {
			end()
		}
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
