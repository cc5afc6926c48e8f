package ctr

import (
	"fmt"
	"strings"
	"testing"

	"ctrfs/fs"
)

// say does what a row of the table is about: a verb of ctl, or what is done to the files beside it.
func (s *session) say(name, verb string) error {
	switch verb {
	case "rmdir":
		return fs.Delete(s.Ctx, s.Root, name)
	case "clone":
		h, err := s.Open(name+"/proc/clone", fs.Read|fs.Write)
		if err == nil {
			err = h.Close(s.Ctx)
		}
		return err
	}
	return s.Echo(name+"/ctl", verb)
}

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
		{"clone", [5]string{no, "created", "running", no, no}},
		{"limits pids.max 100", [5]string{"new", "created", "running", "paused", "stopped"}},
		{"rename other", [5]string{"new", "created", "running", "paused", "stopped"}},
		{"delete", [5]string{gone, gone, no, no, gone}},
		{"rmdir", [5]string{gone, gone, no, no, gone}},
	} {
		for i, from := range states {
			name := fmt.Sprintf("%s-%d", strings.ReplaceAll(strings.ReplaceAll(row.verb, " ", "-"), "/", "-"), i)
			s.into(name, from)
			err := s.say(name, row.verb)
			word, _, _ := strings.Cut(row.verb, " ")
			if word == "rename" {
				name = "other"
			}
			switch want := row.then[i]; want {
			case no:
				word = strings.NewReplacer("exec", "start", "rmdir", "delete", "clone", "clone in").Replace(word)
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
