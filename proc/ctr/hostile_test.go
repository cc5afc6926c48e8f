package ctr

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"ctrfs/fs"
)

// A container that forks as fast as it can, and ignores what it can, ends by each of the verbs for that, and nothing is left.
func TestForkStorm(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	for _, verb := range []string{"kill", "kill KILL 0", "killall", "stop 0"} {
		s.Mkdir("storm")
		if err := s.Echo("storm/limits", "pids.max 48\n"); err != nil {
			t.Fatal(err)
		}
		s.Write("storm/ctl", `exec /bin/sh -c 'trap "" TERM INT HUP; f() { f & f & wait; }; while :; do f 2>/dev/null; done'`)
		for n := 0; n < 24; {
			pids, err := s.set.names["storm"].pids(s.Ctx)
			if err != nil {
				t.Fatalf("%v, status %q", err, s.Read("storm/status"))
			}
			n = len(pids)
		}
		s.Write("storm/ctl", verb)
		if got := s.Read("storm/wait"); !strings.Contains(got, "'signal: KILL' exit_code=9 ") {
			t.Errorf("%s: %q", verb, got)
		}
		if pids, err := s.set.names["storm"].pids(s.Ctx); err != nil || len(pids) != 0 {
			t.Errorf("%s: processes %v, %v", verb, pids, err)
		}
		s.Rmdir("storm")
	}
	check()
}

// The root of a container does not end the machine.
func TestReboot(t *testing.T) {
	busyboxText(t)
	s := newSession(t)
	for _, call := range []string{"reboot", "halt", "poweroff"} {
		s.Mkdir("r")
		s.Write("r/ctl", "exec busybox "+call+" -f")
		if got := s.Read("r/wait"); !strings.HasSuffix(got, " 'exit: 1' exit_code=256 reboot=none\n") {
			t.Errorf("%s: %q, %q", call, got, s.Read("r/stderr"))
		}
		s.Rmdir("r")
	}
}

// Threads of a process, of which Go ends none that it does not have to.
func threads(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A hundred lives of containers and of processes in them, in all ways in which they begin and end and fail to, leave nothing:
// after as many before them there is no thread more either.
func TestLives(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	lives := []func(){
		func() { // all is well
			s.Write("l/ctl", "exec /bin/sh -c 'echo x'")
			s.Read("l/wait")
		},
		func() { // created, never started
			s.Write("l/args", "true\n")
			s.Write("l/ctl", "create")
		},
		func() {}, // new
		func() { // no such program, or directory, or user, or root
			for _, file := range []string{"args /none", "cwd /none", "user none", "rootfs /none"} {
				name, value, _ := strings.Cut(file, " ")
				if name != "rootfs" {
					s.Write("l/args", "/bin/true\n")
				}
				if err := s.Echo("l/"+name, value+"\n"); err != nil && name != "rootfs" {
					t.Fatal(err)
				}
				if err := s.Echo("l/ctl", "start"); err == nil {
					t.Fatalf("%s: started", file)
				}
			}
		},
		func() { // killed while others are inside, of which some fail
			s.Write("l/ctl", "exec /bin/sleep 1000")
			for _, msg := range []string{"nowait\nexec /bin/sleep 1000", "exec /none", "user none", "dir /none\nexec /bin/true", "nowait\nexec /bin/true"} {
				h := s.clone("l")
				h.Write(s.Ctx, 0, []byte(msg))
				h.Close(s.Ctx)
			}
			s.Write("l/ctl", "kill KILL 0")
			s.Read("l/wait")
		},
		func() { // it ends by itself while one is parked inside
			s.Write("l/ctl", "exec /bin/sh -c 'read x'")
			h := s.clone("l")
			s.Write("l/ctl", "closeio")
			s.Read("l/wait")
			h.Close(s.Ctx)
		},
		func() { // asked to stop, which it does
			s.Write("l/ctl", `exec /bin/sh -c 'trap "exit 3" TERM; echo; while :; do sleep 0.01; done'`)
			out, err := s.Open("l/stdout", fs.Read)
			if err != nil {
				t.Fatal(err)
			}
			out.Read(s.Ctx, 0, 1)
			out.Close(s.Ctx)
			s.Write("l/ctl", "stop 100")
			s.Read("l/wait")
		},
	}
	before := 0
	for round := range 2 {
		for i := range 15 * len(lives) {
			s.Mkdir("l")
			lives[i%len(lives)]()
			s.Rmdir("l")
		}
		if round == 0 {
			before = threads(t)
		}
	}
	if after := threads(t); after > before+10 { // Go makes some when the machine is busy
		t.Errorf("%d threads, %d before", after, before)
	}
	check()
}

// A thousand who enter a container, one after the other and some at once, leave nothing in it or here.
func TestManyEnter(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	s.Mkdir("m")
	s.Write("m/ctl", "exec /bin/sleep 1000")
	n := 1000
	if testing.Short() {
		n = 100
	}
	for i := range n {
		h := s.clone("m")
		s.Say(h, fmt.Sprintf("label e%d\nexec /bin/true", i))
		s.Read(fmt.Sprintf("m/proc/e%d/wait", i))
		s.Read(fmt.Sprintf("m/proc/e%d/stdout", i))
		h.Close(s.Ctx)
	}
	if pids, err := s.set.names["m"].pids(s.Ctx); err != nil || len(pids) != 1 {
		t.Errorf("processes %v, %v", pids, err)
	}
	s.Write("m/ctl", "kill")
	s.Read("m/wait")
	s.Rmdir("m")
	check()
}
