package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"ctrfs/fs"
)

// A resident is a container that one client looks after while servers are killed.
type resident struct {
	*survivor
	name  string
	count *tally
	n     int             // of its programs
	said  map[string]bool // in its output: true must be there, false may
	last  string          // the record of its run before
}

// A tally is what was done, all told, of each kind.
type tally struct {
	mu  sync.Mutex // guards what follows
	n   map[string]int
	ids []string
}

func (c *tally) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[what]++
}

// lives is what a resident runs: it ends as it is told by its input, or with 7 by TERM.
const lives = `/bin/sh -c 'trap "exit 7" TERM; echo ready; read n; exit $n'`

func (r *resident) dir() string { return "ctr/" + r.name }

// verb does a verb until the state is one that it leads to, but no more often than it is not answered. It says whether it was.
func (r *resident) verb(text string, to ...string) (answered bool) {
	for {
		err := r.once(func(c *caller) error { return c.echo(r.dir()+"/ctl", text) })
		state := r.state(r.name)
		if err == nil {
			answered = true
		}
		if slices.Contains(to, state) {
			return answered
		}
		if err == nil || !lost(err) {
			r.t.Errorf("%s: %s: %v, but it is %s", r.name, text, err, state)
			return answered
		}
	}
}

func (r *resident) exists() bool {
	err := r.do(func(c *caller) error { _, _, err := c.walk(r.dir()); return err })
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(refused(err), syscall.ENOENT) {
		r.t.Errorf("%s: %v", r.name, err)
	}
	return err == nil
}

// refused is the number of an error that a server has answered.
func refused(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return r.errno
	}
	return nil
}

// make makes the container.
func (r *resident) make() {
	for !r.exists() {
		r.once(func(c *caller) error { return c.mkdir(r.dir()) })
	}
	id := r.cat(r.dir() + "/id")
	r.count.mu.Lock()
	r.count.ids = append(r.count.ids, id)
	r.count.mu.Unlock()
	r.last = ""
	r.echo(r.dir()+"/args", lives+"\n")
	if got := r.cat(r.dir() + "/args"); !strings.Contains(got, "echo ready") {
		r.t.Errorf("%s: args %q", r.name, got)
	}
	if rand.IntN(2) == 0 {
		r.verb("create", "created", "stopped") // as it may be found killed
		r.count.add("creates")
	}
	r.start()
}

// start makes it run.
func (r *resident) start() {
	for {
		answered := r.verb("start", "running", "stopped")
		if r.state(r.name) == "running" {
			break
		}
		// One that was not answered may be found killed, or as it was.
		record, err := r.record(r.dir() + "/wait")
		if answered || err != nil || !strings.Contains(record, "'signal: KILL'") && record != r.last {
			r.t.Errorf("%s: it does not run: answered %v, %q, %v", r.name, answered, record, err)
			return
		}
	}
	if first, err := r.record(r.dir() + "/stdout"); err != nil || !strings.HasPrefix(first, "ready\n") {
		r.t.Errorf("%s: %q, %v", r.name, first, err)
	}
	r.said = map[string]bool{"ready": true}
	r.count.add("runs")
}

// exec runs a program in it, which says something here and there.
func (r *resident) exec() {
	r.n++
	label := fmt.Sprintf("%s.%d", r.name, r.n)
	script, said := "echo "+label, label+"\n"
	if rand.IntN(4) == 0 {
		script, said = counting(300)
	}
	x := r.try(r.dir()+"/proc", label, script+"; echo "+label+" >/proc/1/fd/1", said)
	r.said[label] = x.begun
	if r.count.add("execs"); !x.begun {
		r.count.add("execs not answered")
	}
}

// pause pauses it, and lets it go on.
func (r *resident) pause() {
	r.verb("pause", "paused")
	err := r.do(func(c *caller) error { return c.clone(r.dir()+"/proc/clone", "exec /bin/true") })
	if refused(err) != syscall.EINVAL {
		r.t.Errorf("%s: a program in a paused container: %v", r.name, err)
	}
	r.count.add("pauses")
	if rand.IntN(4) == 0 {
		r.end() // straight
		r.start()
		return
	}
	r.verb("resume", "running")
}

// end ends it in one of the ways that there are, and looks at its status and its output.
func (r *resident) end() {
	code := rand.IntN(100)
	how, want := "killall", "'signal: KILL'"
	switch rand.IntN(5) {
	case 0:
		how, want = "stop", "'exit: 7'"
	case 1:
		how, want = "kill KILL", "'signal: KILL'"
	case 2:
		how, want = "kill TERM", "'exit: 7'"
	case 3:
		how, want = "stdin", fmt.Sprintf("'exit: %d'", code)
		if code == 0 {
			want = " '' "
		}
	}
	if r.state(r.name) == "paused" && (how == "stdin" || how == "kill TERM") { // which would wait for resume
		how, want = "stop", "'exit: 7'"
	}
	for {
		err := r.once(func(c *caller) error {
			if how == "stdin" {
				return c.echo(r.dir()+"/stdin", fmt.Sprintln(code))
			}
			return c.echo(r.dir()+"/ctl", how)
		})
		if err == nil {
			break
		}
		if !lost(err) && how != "stdin" { // it may have been told before
			r.t.Errorf("%s: %s: %v", r.name, how, err)
			return
		} else if !lost(err) {
			break
		}
	}
	record, err := r.record(r.dir() + "/wait")
	if err != nil || !strings.Contains(record, want) {
		r.t.Errorf("%s: %s: %q, %v, want %s", r.name, how, record, err, want)
	}
	r.last = record
	if state := r.state(r.name); state != "stopped" {
		r.t.Errorf("%s: after its end it is %s", r.name, state)
	}
	for line := range strings.Lines(r.output(r.dir() + "/stdout")) {
		line = strings.TrimSuffix(line, "\n")
		if _, ok := r.said[line]; !ok {
			r.t.Errorf("%s: it said %q twice, or not at all", r.name, line)
		}
		delete(r.said, line)
	}
	for label, must := range r.said {
		if must {
			r.t.Errorf("%s: %q is lost", r.name, label)
		}
	}
	r.count.add("ends by " + how)
}

func (r *resident) remove() {
	for r.exists() {
		r.once(func(c *caller) error { return c.rmdir(r.dir()) })
	}
}

// Containers live, and are made, paused, stopped and removed, and run programs inside, while the server is killed at any
// moment of all that: whatever was answered is so, every status is right, no output is lost or doubled, and nothing is left or
// half made.
func TestServerKilledContainersAtRandom(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "needs root: to make containers")
	}
	s := survive(t)
	count := &tally{n: map[string]int{}}
	const clients = 4
	each := min(25, killings()/5) // 100 in all where it is for long
	var homes [clients][]*resident
	together := func(killed int, do func(who int)) {
		s.kill = newKiller(s.d, killed)
		var all sync.WaitGroup
		for who := range clients {
			all.Go(func() { do(who) })
		}
		all.Wait()
		s.died += s.kill.died
	}
	together(killings()/4, func(who int) {
		for i := range each {
			r := &resident{survivor: s, name: fmt.Sprintf("c%d.%d", who, i), count: count}
			r.make()
			homes[who] = append(homes[who], r)
		}
	})
	together(killings()-s.died, func(who int) {
		for !s.kill.done() && !t.Failed() {
			switch r := homes[who][rand.IntN(each)]; rand.IntN(10) {
			case 0:
				r.end()
				r.start()
			case 1:
				r.end()
				r.remove()
				r.make()
			case 2, 3:
				r.pause()
			default:
				r.exec()
			}
		}
	})
	together(0, func(who int) {
		for _, r := range homes[who] {
			r.end()
			r.remove()
		}
	})
	t.Logf("%d servers killed among %d containers: %v", s.died, clients*each, count.n)
	s.ends(count.ids...)
}
