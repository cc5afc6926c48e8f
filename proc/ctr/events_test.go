package ctr

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"ctrfs/fs"
)

// An event is a line of events in its words.
type event struct {
	seq        int
	topic, pid string
}

// eventsUntil reads what is open until there is an event of the topic.
func (s *session) eventsUntil(h fs.Handle, topic string) (all []event) {
	s.T.Helper()
	for text := ""; ; {
		b, err := h.Read(s.Ctx, int64(len(text)), 8192)
		if err != nil {
			s.T.Fatalf("events: %v after\n%s", err, text)
		}
		text += string(b)
		all = nil
		for line := range strings.Lines(text) {
			var e event
			words := strings.Fields(line)
			fmt.Sscan(words[1], &e.seq)
			e.topic = words[2]
			for _, w := range words[3:] {
				if pid, ok := strings.CutPrefix(w, "pid="); ok {
					e.pid = pid
				}
			}
			if all = append(all, e); e.topic == topic && strings.HasSuffix(line, "\n") {
				return all
			}
		}
	}
}

// The end of each that was cloned inside is told once, and before that of the first process, however all of them end.
func TestExits(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	rounds := 30
	if testing.Short() {
		rounds = 6
	}
	for round := range rounds {
		s.Mkdir("e")
		h, err := s.Open("e/events", fs.Read)
		if err != nil {
			t.Fatal(err)
		}
		s.Write("e/ctl", "exec /bin/sh -c 'read x'")
		var open []fs.Handle
		for n := range 9 {
			in := s.clone("e")
			if open = append(open, in); n%3 < 2 { // the others are parked at the end
				s.Say(in, []string{"exec /bin/true", "exec /bin/sleep 1000"}[n%3])
			}
		}
		s.Write("e/ctl", []string{"closeio", "kill KILL 0", "kill"}[round%3])
		s.Read("e/wait")
		for _, in := range open {
			in.Close(s.Ctx)
		}
		s.Rmdir("e")
		events := s.eventsUntil(h, "delete")
		h.Close(s.Ctx)
		ends := map[string]int{}
		first, last := "", ""
		for i, e := range events {
			if i > 0 && e.seq <= events[i-1].seq && e.topic != "ready" {
				t.Errorf("%d after %d: %s", e.seq, events[i-1].seq, e.topic)
			}
			switch {
			case e.topic == "start" && first == "":
				first = e.pid
			case e.topic == "exit":
				ends[e.pid]++
				last = e.pid
			}
		}
		if first == "" || last != first {
			t.Errorf("the last to end is %q, the first process %q", last, first)
		}
		for _, e := range events {
			if ends[e.pid] != 1 && slices.Contains([]string{"create", "start", "exit"}, e.topic) && e.pid != "" {
				t.Errorf("process %s has ended %d times", e.pid, ends[e.pid])
			}
		}
	}
	check()
}
