package ctr

import (
	"path/filepath"
	"strings"
	"testing"
)

// inAll gives the groups, in all hierarchies, in which the process of a container's number is.
func (s *session) inAll(name string) string {
	s.T.Helper()
	groups, err := s.set.names[name].run.job.Process().Cgroups()
	if err != nil {
		s.T.Fatal(err)
	}
	var b strings.Builder
	for _, g := range groups {
		if strings.Contains(g.Path, s.set.names[name].id) {
			b.WriteString(g.Hierarchy + " ")
		}
	}
	return b.String()
}

// Limits hold in the next run too, in a cgroup that is another after a kill, and go with the container.
func TestLimitsAgain(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	s.Mkdir("l")
	id := s.set.names["l"].id
	for _, l := range []string{"memory.max 24M", "memory.max 32M", "pids.max 20", "cpu.max 20000"} {
		s.Write("l/limits", l)
	}
	want := s.Read("l/limits")
	for _, l := range []string{"memory.max 33554432\n", "pids.max 20\n", "cpu.max 20000 100000\n"} {
		if !strings.Contains(want, l) {
			t.Errorf("limits %q without %q", want, l)
		}
	}
	in := ""
	for range 3 {
		s.Write("l/ctl", "exec /bin/sleep 1000")
		if got := s.inAll("l"); in != "" && got != in || got == "" {
			t.Errorf("in %q, before %q", got, in)
		} else {
			in = got
		}
		if got := s.Read("l/limits"); got != want {
			t.Errorf("limits %q, before %q", got, want)
		}
		h := s.clone("l")
		s.Say(h, "label g\nexec cat /proc/self/cgroup")
		if got := s.Read("l/proc/g/stdout"); strings.Contains(got, id) || strings.Contains(got, "..") {
			t.Errorf("seen from inside: %q", got)
		}
		s.Read("l/proc/g/wait")
		h.Close(s.Ctx)
		s.Write("l/ctl", "pause") // so that the group is killed, not only the first process
		s.Write("l/ctl", "killall")
		s.Read("l/wait")
	}
	s.Rmdir("l")
	for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/*/*/", "/sys/fs/cgroup/*/*/*/"} {
		if left, _ := filepath.Glob(pattern + id); left != nil {
			t.Errorf("left: %q", left)
		}
	}
	check()
}

// Of io.max there is one line for each device.
func TestSameLimit(t *testing.T) {
	for _, c := range []struct {
		a, b limit
		same bool
	}{
		{limit{"memory.max", "1"}, limit{"memory.max", "2"}, true},
		{limit{"memory.max", "1"}, limit{"memory.high", "1"}, false},
		{limit{"io.max", "8:0 rbps=1"}, limit{"io.max", "8:0 wbps=1"}, true},
		{limit{"io.max", "8:0 rbps=1"}, limit{"io.max", "8:00 rbps=1"}, false},
		{limit{"io.max", "8:0 rbps=1"}, limit{"io.max", "8:16 rbps=1"}, false},
	} {
		if c.a.same(c.b) != c.same || c.b.same(c.a) != c.same {
			t.Errorf("%v and %v the same: not %v", c.a, c.b, c.same)
		}
	}
}

// Memory that can do nothing refuses the start, and leaves nothing.
func TestNoMemory(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	s.Mkdir("l")
	s.Write("l/limits", "memory.max 4096")
	err := s.Echo("l/ctl", "exec /bin/true")
	if err == nil { // enough to make it
		s.Read("l/wait")
	} else if err.Error() != "memory.max: too little to make the container" {
		t.Error(err)
	}
	if code := s.Read("l/exitstatus"); code != "128\n" && code != "137\n" {
		t.Errorf("exitstatus %s", code)
	}
	s.Write("l/limits", "memory.max max")
	s.Write("l/ctl", "exec /bin/true")
	if code := s.Read("l/wait"); !strings.Contains(code, " '' ") {
		t.Errorf("wait %s", code)
	}
	s.Rmdir("l")
	check()
}
