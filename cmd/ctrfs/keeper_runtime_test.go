package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A container that a runtime has made is after the end of the server what it was, and how it ends is known exactly.
func TestServerKilledRuntime(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "needs root: to make containers")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		lacking(t, "needs runc")
	}
	s := survive(t)
	mounts := ""
	for _, dir := range []string{"/usr", "/bin", "/lib", "/lib64"} {
		if _, err := os.Stat(dir); err == nil {
			mounts += "mounts mount bind " + dir + " " + dir + " ro\n"
		}
	}
	names := []string{"created", "running", "paused"}
	for _, name := range names {
		if err := s.do(func(c *caller) error { return c.mkdir("ctr/" + name) }); err != nil {
			t.Fatal(name, err)
		}
		s.echo("ctr/"+name+"/ctl", "runtime runc\nrootfs "+t.TempDir()+"\n"+mounts+"args /bin/sh -c 'echo ready; read x; echo got $x; exit 5'")
		s.echo("ctr/"+name+"/ctl", "create")
	}
	for _, name := range names[1:] {
		s.echo("ctr/"+name+"/ctl", "start")
		if r, err := s.record("ctr/" + name + "/stdout"); err != nil || r != "ready\n" {
			t.Fatal(r, err)
		}
	}
	s.echo("ctr/paused/ctl", "pause")
	for range 2 {
		s.d.kill()
		s.cat("version")
	}
	for _, name := range names {
		if got := s.state(name); got != name {
			t.Errorf("%s is %s", name, got)
		}
	}
	s.echo("ctr/created/ctl", "start")
	s.echo("ctr/paused/ctl", "resume")
	for _, name := range names {
		s.echo("ctr/"+name+"/stdin", "word\n")
		if r, err := s.record("ctr/" + name + "/wait"); err != nil || !strings.Contains(r, " 'exit: 5' exit_code=1280 ") {
			t.Errorf("%s: %q, %v", name, r, err)
		}
		var out string
		err := s.do(func(c *caller) (err error) { out, err = c.drain("ctr/" + name + "/stdout"); return err })
		if err != nil || out != "ready\ngot word\n" {
			t.Errorf("%s: stdout %q, %v", name, out, err)
		}
		s.echo("ctr/"+name+"/ctl", "delete")
	}
}
