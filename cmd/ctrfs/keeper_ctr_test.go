package main

import (
	"os"
	"strings"
	"testing"

	"ctrfs/fs/styx"
)

// A container is after the end of its server what it was: in every state, with its root, its limits, its outputs and its end.
func TestServerKilledContainers(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "needs root: to make containers")
	}
	s := survive(t)
	for _, name := range []string{"new", "created", "running", "paused", "stopped", "stopping", "talks"} {
		if err := s.do(func(c *caller) error { return c.mkdir("ctr/" + name) }); err != nil {
			t.Fatal(name, err)
		}
	}
	sleeps := "exec /bin/sh -c 'echo $$ >/tmp/pid; echo kept >/tmp/kept; trap \"exit 7\" TERM; echo ready; while :; do sleep 0.01; done'"
	s.echo("ctr/new/labels", "who me\n")
	s.echo("ctr/created/ctl", "create")
	s.echo("ctr/created/proc/1/ctl", "user 65534:65534")
	s.echo("ctr/running/ctl", sleeps)
	s.echo("ctr/paused/ctl", sleeps)
	for _, name := range []string{"running", "paused"} {
		if r, err := s.record("ctr/" + name + "/stdout"); err != nil || r != "ready\n" {
			t.Fatal(r, err)
		}
	}
	s.echo("ctr/paused/ctl", "pause")
	s.echo("ctr/stopped/ctl", "exec /bin/sh -c 'echo said; echo kept >/tmp/kept; exit 5'")
	if r, err := s.record("ctr/stopped/wait"); err != nil || !strings.Contains(r, "'exit: 5'") {
		t.Fatal(r, err)
	}
	s.echo("ctr/stopping/ctl", "exec /bin/sh -c 'trap : TERM; echo ready; while :; do sleep 0.01; done'")
	if r, err := s.record("ctr/stopping/stdout"); err != nil || r != "ready\n" {
		t.Fatal(r, err)
	}
	s.echo("ctr/stopping/ctl", "stop 1")
	script, said := counting(20000)
	s.echo("ctr/talks/ctl", "exec /bin/sh -c '"+script+"; read x; echo got $x; exit 3'")
	// Another is only asked for, and one is bound to its connection.
	c := s.dial()
	for _, text := range []string{"", "rename bound\nkillonclose\nexec /bin/sleep 1000"} {
		if err := c.clone("ctr/clone", text); err != nil {
			t.Fatal(text, err)
		}
	}
	var ids []string
	for _, name := range []string{"new", "created", "running", "paused", "stopped", "stopping", "talks", "bound"} {
		ids = append(ids, s.cat("ctr/"+name+"/id"))
	}
	pid := s.cat("ctr/running/pid")
	qid := func(name string) (q styx.Qid) {
		err := s.do(func(c *caller) (err error) { _, q, err = c.walk("ctr/" + name); return err })
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	was := qid("running")
	for range 3 {
		s.d.kill()
		s.cat("version")
	}
	var names []string
	if err := s.do(func(c *caller) (err error) { names, err = c.list("ctr"); return err }); err != nil {
		t.Fatal(err)
	}
	if len(names) != 9 { // and clone
		t.Errorf("%q", names)
	}
	for name, want := range map[string]string{"new": "new", "created": "created", "running": "running", "paused": "paused", "stopped": "stopped"} {
		if got := s.state(name); got != want {
			t.Errorf("%s is %s", name, got)
		}
	}
	if l := s.cat("ctr/new/labels"); l != "who me\n" {
		t.Errorf("labels %q", l)
	}
	if p := s.cat("ctr/running/pid"); p != pid || qid("running") != was {
		t.Errorf("another: pid %s %s", p, pid)
	}
	exec := func(name, cmd, want string) {
		t.Helper()
		var out string
		err := s.do(func(c *caller) error {
			err := c.clone("ctr/"+name+"/proc/clone", "label x\nexec "+cmd)
			if err == nil {
				out, err = c.drain("ctr/" + name + "/proc/x/stdout")
			}
			return err
		})
		if err != nil || out != want {
			t.Errorf("%s: %s: %q, %v", name, cmd, out, err)
		}
	}
	exec("running", "/bin/cat /tmp/kept /tmp/pid", "kept\n1\n")
	s.echo("ctr/paused/ctl", "resume")
	exec("paused", "/bin/cat /tmp/kept", "kept\n")
	// What runs ends with its own status; what waits runs as it would have.
	s.echo("ctr/created/proc/1/ctl", "exec /bin/sh -c 'grep CapBnd /proc/self/status; grep Seccomp: /proc/self/status; id -u; exit 4'")
	s.echo("ctr/running/ctl", "kill TERM")
	s.echo("ctr/paused/ctl", "killall")
	s.echo("ctr/talks/stdin", "something\n")
	for name, want := range map[string]string{"created": "'exit: 4'", "running": "'exit: 7'", "paused": "'signal: KILL'", "stopped": "'exit: 5'",
		"stopping": "'signal: KILL'", "bound": "'signal: KILL'", "talks": "'exit: 3'"} {
		if r, err := s.record("ctr/" + name + "/wait"); err != nil || !strings.Contains(r, want) {
			t.Errorf("%s: %q, %v", name, r, err)
		}
	}
	output := func(name string) string { return s.output("ctr/" + name + "/stdout") }
	if out := output("created"); out != "CapBnd:\t00000000a80425fb\nSeccomp:\t2\n65534\n" {
		t.Errorf("created had %q", out)
	}
	if out := output("stopped"); out != "said\n" {
		t.Errorf("stopped said %q", out)
	}
	if out := output("talks"); out != said+"got something\n" {
		t.Errorf("talks said %d bytes", len(out))
	}
	// The layer lasts from run to run.
	s.echo("ctr/stopped/ctl", "exec /bin/cat /tmp/kept")
	s.record("ctr/stopped/wait")
	if out := output("stopped"); out != "kept\n" {
		t.Errorf("stopped kept %q", out)
	}
	for _, name := range names {
		if name != "clone" {
			if err := s.do(func(c *caller) error { return c.rmdir("ctr/" + name) }); err != nil {
				t.Error(name, err)
			}
		}
	}
	c.conn.Close()
	s.ends(ids...)
}
