package main

import (
	"os"
	"strings"
	"testing"
)

// What flags and uname say of a container goes on whatever its servers die of, and none of its calls is lost.
func TestServerKilledWords(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "needs root: to make containers")
	}
	s := survive(t)
	if err := s.do(func(c *caller) error { return c.mkdir("ctr/w") }); err != nil {
		t.Fatal(err)
	}
	s.echo("ctr/w/uname", "release 4.0\n")
	s.echo("ctr/w/flags", "virt_load persistent virt_uptime\n")
	s.echo("ctr/w/helper", "/bin/true\n")
	s.echo("ctr/w/ctl", `exec /bin/sh -c 'echo ready; i=0; while [ $i -lt 500 ]; do uname -r; i=$((i+1)); done | uniq -c; cut -c1-2 /proc/loadavg'`)
	if r, err := s.record("ctr/w/stdout"); err != nil || r != "ready\n" {
		t.Fatal(r, err)
	}
	flags := s.cat("ctr/w/flags")
	for range 5 {
		s.d.kill()
		if got := s.cat("ctr/w/flags"); got != flags {
			t.Errorf("flags %q, were %q", got, flags)
		}
	}
	if out := strings.Fields(s.output("ctr/w/stdout")); len(out) != 4 || out[1] != "500" || out[2] != "4.0" {
		t.Errorf("%q", out)
	}
	if got := s.cat("ctr/w/helper"); got != "/bin/true\n" {
		t.Errorf("helper %q", got)
	}
	net := s.cat("ctr/w/nsgrp") // without a process
	s.d.kill()
	if got := s.cat("ctr/w/nsgrp"); got != net || !strings.Contains(got, "\nnet 4") {
		t.Errorf("name spaces %q, were %q", got, net)
	}
	s.echo("ctr/w/flags", "~persistent\n")
	id := s.cat("ctr/w/id")
	if err := s.do(func(c *caller) error { return c.rmdir("ctr/w") }); err != nil {
		t.Error(err)
	}
	s.ends(strings.TrimSpace(id))
}
