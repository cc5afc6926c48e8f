package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"ctrfs/fs"
	"ctrfs/fs/styx"
)

// counting is what a shell that counts says.
func counting(n int) (script, said string) {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, "line", i)
	}
	return fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done", n), b.String()
}

// ended gives the record of a job, and its output, as the last who asks for them.
func (c *caller) ended(dir string) (record, output string, err error) {
	err = c.on(dir+"/wait", func(f styx.Fid) error {
		err := c.open(f, styx.ORead)
		if err == nil {
			var b []byte
			b, err = c.readAt(f, 0)
			record = string(b)
		}
		if err == nil {
			output, err = c.drain(dir + "/stdout")
		}
		return err
	})
	return record, output, err
}

// What was started goes on when the server is killed, whoever kills it however often: the next one has its output to the
// byte, its end and its record, also of what ended while there was none.
func TestServerKilled(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0600); err != nil {
		t.Fatal(err)
	}
	s := survive(t)
	much, muchSaid := counting(20000)
	some, someSaid := counting(5000)
	c := s.dial()
	for _, text := range []string{
		"label prints\nexec sh -c '" + much + "; exit 3'\n",
		"label tty\ntty\nexec sh -c 'stty -onlcr; " + some + "; exit 4'\n",
		"label socket\nipc socket\nexec sh -c '" + some + "; exit 5'\n",
		"label waits\nexec sh -c 'read x <" + fifo + "; exit 6'\n",
		"label child\nkillonclose\nexec sleep 1000\n",
		"label reads\nexec sh -c 'read x; read y; echo $x $y; read z || echo end'\n",
		"label talks\nipc socket\nexec sh -c 'read x; read y; echo $x $y; read z || echo end'\n",
		"label unused\nexec sh -c 'read x || echo end'\n",
		"", // parked
	} {
		if err := c.clone("proc/clone", text); err != nil {
			t.Fatal(text, err)
		}
	}
	for _, label := range []string{"reads", "talks"} { // and it is not closed
		f, _, err := c.walk("proc/" + label + "/stdin")
		if err == nil {
			err = c.open(f, styx.OWrite)
		}
		if err == nil {
			err = c.write(f, "one\n")
		}
		if err != nil {
			t.Fatal(label, err)
		}
	}
	before := seq(s)
	for range 5 {
		s.d.kill()
		s.cat("version") // the next one is there
	}
	for _, label := range []string{"reads", "talks"} {
		s.echo("proc/"+label+"/stdin", "two\n")
	}
	s.d.kill()
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	for _, test := range []struct {
		label, status, output string
	}{
		{"prints", "'exit: 3'", muchSaid},
		{"tty", "'exit: 4'", someSaid},
		{"socket", "'exit: 5'", someSaid},
		{"waits", "'exit: 6'", ""},
		{"child", "'signal: KILL'", ""},
		{"reads", "''", "one two\nend\n"},
		{"talks", "''", "one two\nend\n"},
		{"unused", "''", "end\n"},
	} {
		var record, output string
		err := s.do(func(c *caller) (err error) { record, output, err = c.ended("proc/" + test.label); return err })
		if err != nil || !strings.HasSuffix(record, test.status+"\n") || strings.Contains(record, "-") {
			t.Errorf("%s: %q, %v", test.label, record, err)
		}
		if output != test.output {
			t.Errorf("%s: %d bytes of output, want %d", test.label, len(output), len(test.output))
		}
	}
	if after := seq(s); after <= before {
		t.Errorf("SEQ %d after %d", after, before)
	}
	s.ends()
}

// A trial is a program that a client starts while servers are killed: what it was told, and what became of it.
type trial struct {
	label  string
	code   int
	said   string // what it is to say
	begun  bool   // it was told that it runs
	record string // "": there is none
}

// try starts a program once, which runs script, by a clone, and asks about it until somebody answers.
func (s *survivor) try(dir, label, script, said string) (x trial) {
	s.t.Helper()
	x = trial{label: label, code: rand.IntN(200), said: said}
	err := s.once(func(c *caller) error {
		return c.clone(dir+"/clone", fmt.Sprintf("label %s\nexec /bin/sh -c '%s; exit %d'\n", label, script, x.code))
	})
	if x.begun = err == nil; err != nil && !lost(err) {
		s.t.Errorf("%s/%s: %v", dir, label, err)
		return x
	}
	var output string
	err = s.do(func(c *caller) error {
		record, said, err := c.ended(dir + "/" + label)
		if record != "" && len(said) >= len(output) { // it may be forgotten before the last message is answered
			x.record, output = record, said
		}
		return err
	})
	want := fmt.Sprintf("'exit: %d'\n", x.code)
	if x.code == 0 {
		want = "''\n"
	}
	switch whole := strings.HasSuffix(x.record, want) && output == said; {
	case whole:
	case x.begun:
		s.t.Errorf("%s/%s: %q and %.100q (%d bytes), %v, want %s", dir, label, x.record, output, len(output), err, want)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		s.t.Errorf("%s/%s, not answered: %v", dir, label, err)
	case x.record != "" && !strings.HasSuffix(x.record, "'signal: KILL'\n"):
		s.t.Errorf("%s/%s, not answered: %q and %.100q", dir, label, x.record, output)
	}
	return x
}

// Clients start programs all the time while the server is killed again and again: every program that they were told runs
// ends with its own status, once, and nothing is left.
func TestServerKilledAtRandom(t *testing.T) {
	s := survive(t)
	s.kill = newKiller(s.d, killings())
	var mu sync.Mutex // guards both
	begun, unanswered := 0, 0
	var clients sync.WaitGroup
	for who := range 4 {
		clients.Go(func() {
			for i := 0; !s.kill.done(); i++ {
				script, said := fmt.Sprintf("echo %d.%d", who, i), fmt.Sprintf("%d.%d\n", who, i)
				if rand.IntN(4) == 0 {
					script, said = counting(1000)
				}
				x := s.try("proc", fmt.Sprintf("j%d.%d", who, i), script, said)
				mu.Lock()
				if x.begun {
					begun++
				} else {
					unanswered++
				}
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	t.Logf("%d servers killed; %d programs, all with their status and output; %d starts were not answered", s.kill.died, begun, unanswered)
	s.ends()
}
