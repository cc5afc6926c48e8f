package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ctrfs/ns"
)

// copyOf copies this program, so that it has a name of its own and another program can get that.
func copyOf(t *testing.T, to string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(to+".new", b, 0755)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// tellsReaped says whether the kernel tells how a process ended that somebody else has reaped.
func tellsReaped(t *testing.T) bool {
	cmd := exec.Command("/bin/cat")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	p, err := ns.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	in.Close()
	cmd.Wait()
	info, err := p.Info(ns.InfoExit)
	return err == nil && info.Mask&ns.InfoExit != 0
}

// What runs goes on when the server is replaced, when the keeper is, in its process or by another after its end, and when it
// is killed; what ended while there was none has its status, and what was to end with its connection has ended.
func TestKeeperEnds(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "needs root: to make containers")
	}
	for _, how := range []string{"reload", "upgrade", "quit", "kill"} {
		t.Run(how, func(t *testing.T) { keeperEnds(t, how) })
	}
}

func keeperEnds(t *testing.T, how string) {
	top := t.TempDir()
	program := filepath.Join(top, "ctrfs")
	fifos := []string{filepath.Join(top, "prints"), filepath.Join(top, "tty")}
	for _, fifo := range fifos {
		if err := syscall.Mkfifo(fifo, 0600); err != nil {
			t.Fatal(err)
		}
	}
	copyOf(t, program)
	s := &survivor{t: t, sock: filepath.Join(top, "sock")}
	begin := func() {
		cmd := role(t, "ctrfs", "-a", "unix!"+s.sock)
		cmd.Path = program
		s.d = launch(t, "listening", cmd)
		s.cat("version")
	}
	begin()
	s.files, s.overlays = s.count()
	state, err := (&options{addrs: []addr{{"unix", s.sock}}}).stateFile()
	if err != nil {
		t.Fatal(err)
	}

	much, said := counting(20000)
	for name, text := range map[string]string{
		"runs":    `exec /bin/sh -c 'trap "exit 7" TERM; echo ready; while :; do sleep 0.01; done'`,
		"ends":    `exec /bin/sh -c 'trap "exit 8" TERM; echo ready; while :; do sleep 0.01; done'`,
		"ended":   `exec /bin/sh -c 'echo said; exit 5'`,
		"created": `create`,
		"new":     `hostname me`,
	} {
		if err := s.do(func(c *caller) error { return c.mkdir("ctr/" + name) }); err != nil {
			t.Fatal(name, err)
		}
		s.echo("ctr/"+name+"/ctl", text)
	}
	for _, name := range []string{"runs", "ends"} {
		if r, err := s.record("ctr/" + name + "/stdout"); err != nil || r != "ready\n" {
			t.Fatal(r, err)
		}
	}
	s.record("ctr/ended/wait")
	c := s.dial()
	for _, text := range []string{
		"label prints\nexec sh -c 'read x <" + fifos[0] + "; " + much + "; exit 3'\n",
		"label tty\ntty\nexec sh -c 'stty -onlcr; read x <" + fifos[1] + "; " + much + "; exit 4'\n",
		"label early\nexec sh -c 'echo early; exit 6'\n",
		"label child\nkillonclose\nexec sleep 1000\n",
	} {
		if err := c.clone("proc/clone", text); err != nil {
			t.Fatal(text, err)
		}
	}
	if r, err := c.record("proc/early/wait"); err != nil || !strings.HasSuffix(r, "'exit: 6'\n") {
		t.Fatal(r, err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(s.cat("proc/child/ctl")))
	if err != nil {
		t.Fatal(err)
	}
	dying, err := ns.Open(child)
	if err != nil {
		t.Fatal(err)
	}
	defer dying.Close()
	pid := s.cat("ctr/runs/pid")
	ends, err := strconv.Atoi(strings.TrimSpace(s.cat("ctr/ends/pid")))
	if err != nil {
		t.Fatal(err)
	}
	ending, err := ns.Open(ends)
	if err != nil {
		t.Fatal(err)
	}
	defer ending.Close()
	wait := func(p *ns.Process) {
		t.Helper()
		ctx := t.Context()
		if err := ns.Await(ctx, p); err != nil {
			t.Fatal(err)
		}
	}

	keeper, before := s.d.Process.Pid, seq(s)
	meanwhile := func() { // while there is no keeper, or as good as none
		ending.Signal(syscall.SIGTERM)
		wait(ending)
		for _, fifo := range fifos {
			w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			w.Write([]byte("x\n"))
			w.Close()
		}
	}
	tell := func() { // the last answer may be lost with the connection
		if err := s.once(func(c *caller) error { return c.echo("ctl", how) }); err != nil && !lost(err) {
			t.Fatal(err)
		}
		s.d.await("ending")
	}
	adopted := false
	switch how {
	case "kill":
		adopted = true
		s.d.Process.Kill()
		s.d.Wait()
		wait(dying)
		meanwhile()
		begin()
	case "quit":
		adopted = true
		tell()
		s.d.ends()
		wait(dying)
		meanwhile()
		begin()
	default:
		old, err := os.Stat(program)
		if err != nil {
			t.Fatal(err)
		}
		copyOf(t, program)
		tell()
		wait(dying)
		meanwhile()
		s.d.await("listening")
		exe, err := os.Stat(fmt.Sprintf("/proc/%d/exe", keeper))
		if err != nil || os.SameFile(old, exe) != (how == "reload") {
			t.Errorf("the keeper is the old program: %v, %v", os.SameFile(old, exe), err)
		}
	}

	if p := s.cat("ctr/runs/pid"); p != pid {
		t.Errorf("pid %s, was %s", p, pid)
	}
	for name, want := range map[string]string{"new": "new", "created": "created", "runs": "running", "ends": "stopped", "ended": "stopped"} {
		if name == "ends" {
			s.record("ctr/ends/wait") // its end may still be being noted
		}
		if got := s.state(name); got != want {
			t.Errorf("%s is %s", name, got)
		}
	}
	if err := s.do(func(c *caller) error {
		err := c.clone("ctr/runs/proc/clone", "label x\nexec /bin/sh -c 'exit 9'")
		if err == nil {
			var r string
			if r, err = c.record("ctr/runs/proc/x/wait"); err == nil && !strings.HasSuffix(r, "'exit: 9'\n") {
				err = errors.New(r)
			}
		}
		return err
	}); err != nil {
		t.Error("inside:", err)
	}
	s.echo("ctr/runs/ctl", "stop")
	s.echo("ctr/created/proc/1/ctl", "exec /bin/sh -c 'exit 4'")
	unknown := adopted && !tellsReaped(t)
	for name, want := range map[string]string{"runs": "'exit: 7'", "ends": "'exit: 8'", "ended": "'exit: 5'", "created": "'exit: 4'"} {
		r, err := s.record("ctr/" + name + "/wait")
		if err != nil || !strings.Contains(r, want) && !(unknown && strings.Contains(r, "unknown")) {
			t.Errorf("%s: %q, %v, want %s", name, r, err, want)
		}
	}
	if out := s.output("ctr/ended/stdout"); out != "said\n" {
		t.Errorf("ended said %q", out)
	}
	for _, test := range []struct{ label, status, output string }{
		{"prints", "'exit: 3'\n", said}, {"tty", "'exit: 4'\n", said}, {"early", "'exit: 6'\n", "early\n"}, {"child", "'signal: KILL'\n", ""},
	} {
		var record, output string
		err := s.do(func(c *caller) (err error) { record, output, err = c.ended("proc/" + test.label); return err })
		if err != nil || !strings.HasSuffix(record, test.status) && !(unknown && strings.HasSuffix(record, "unknown\n")) {
			t.Errorf("%s: %q, %v", test.label, record, err)
		}
		if output != test.output {
			t.Errorf("%s: %d bytes of output, want %d", test.label, len(output), len(test.output))
		}
	}
	if after := seq(s); after <= before {
		t.Errorf("SEQ %d after %d", after, before)
	}
	for _, name := range []string{"new", "created", "runs", "ends", "ended"} {
		if err := s.do(func(c *caller) error { return c.rmdir("ctr/" + name) }); err != nil {
			t.Error(name, err)
		}
	}
	c.conn.Close()
	if adopted {
		s.files = 0 // of another keeper
	}
	s.ends()
	if _, err := os.Lstat(state); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", state, err)
	}
}

// Keepers are killed one after the other, each when its server has started one program more: all end with their status and
// output, whichever keeper they were the child of.
func TestKeepersKilled(t *testing.T) {
	s := survive(t)
	script, said := counting(2000)
	const keepers = 10
	for i := range keepers {
		if err := s.do(func(c *caller) error {
			return c.clone("proc/clone", fmt.Sprintf("label j%d\nexec /bin/sh -c '%s; exit %d'\n", i, script, i+1))
		}); err != nil {
			t.Fatal(err)
		}
		s.d.Process.Kill()
		s.d.Wait()
		s.d = start(t, "listening", "-a", "unix!"+s.sock)
	}
	unknown := !tellsReaped(t)
	for i := range keepers {
		record, output := "", ""
		err := s.do(func(c *caller) (err error) { record, output, err = c.ended(fmt.Sprint("proc/j", i)); return err })
		if err != nil || output != said || !strings.HasSuffix(record, fmt.Sprintf("'exit: %d'\n", i+1)) && !(unknown && strings.HasSuffix(record, "unknown\n")) {
			t.Errorf("j%d: %q and %d bytes, %v", i, record, len(output), err)
		}
	}
	s.files = 0 // of another keeper
	s.ends()
}

// seq is the number of an event.
func seq(s *survivor) (n int) {
	s.t.Helper()
	text, err := s.record("events")
	if err == nil {
		_, err = fmt.Sscan(strings.Fields(text)[1], &n)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// An upgrade to what does not run, or does not know the flags, is refused, and the one that runs stays.
func TestUpgradeRefused(t *testing.T) {
	top := t.TempDir()
	program := filepath.Join(top, "ctrfs")
	copyOf(t, program)
	s := &survivor{t: t, sock: filepath.Join(top, "sock")}
	cmd := role(t, "ctrfs", "-a", "unix!"+s.sock)
	cmd.Path = program
	s.d = launch(t, "listening", cmd)
	for text, want := range map[string]string{
		"not a program":                           "exec format error",
		"#!/bin/sh\necho unknown flag; exit 2\n":  "unknown flag: exit status 2",
		"#!/bin/sh\nexec /nonesuch 2>/dev/null\n": "exit status 127",
	} {
		if err := errors.Join(os.WriteFile(program+".new", []byte(text), 0755), os.Rename(program+".new", program)); err != nil {
			t.Fatal(err)
		}
		if err := s.do(func(c *caller) error { return c.echo("ctl", "upgrade") }); err == nil {
			t.Errorf("%q is a program", text)
		}
		all := s.cat("error")
		if !strings.Contains(all, want) {
			t.Errorf("%q: /error has not %q:\n%s", text, want, all)
		}
	}
	s.d.Process.Signal(syscall.SIGTERM)
	s.d.ends()
}

// Of two keepers of the same state the second ends.
func TestTwoKeepers(t *testing.T) {
	s := survive(t)
	out, err := role(t, "ctrfs", "-a", "unix!"+s.sock).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another server is at work there") {
		t.Errorf("%v, %s", err, out)
	}
	s.ends()
}

// The holder is started again when it dies, and holds all.
func TestHolderKilled(t *testing.T) {
	s := survive(t)
	if err := s.do(func(c *caller) error { return c.clone("proc/clone", "label x\nexec /bin/sleep 1000\n") }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		holder := s.d.holder(nil)
		holder.Signal(syscall.SIGKILL)
		if err := ns.Await(t.Context(), holder); err != nil {
			t.Fatal(err)
		}
		s.d.holder(holder).Close() // the next one
		holder.Close()
		s.cat("version")
	}
	s.d.Process.Kill()
	s.d.Wait()
	s.d = start(t, "listening", "-a", "unix!"+s.sock)
	if state := s.cat("proc/x/status"); !strings.Contains(state, "\nstate sleeping\n") {
		t.Errorf("after all that: %s", state)
	}
	s.echo("proc/x/ctl", "kill")
	if r, err := s.record("proc/x/wait"); err != nil || !strings.HasSuffix(r, "'signal: KILL'\n") && tellsReaped(t) {
		t.Errorf("%q, %v", r, err)
	}
	s.files = 0
	s.ends()
}

// holder is the keeper's holder, another than one.
func (d *daemon) holder(old *ns.Process) *ns.Process {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.Process.Pid))
		for _, file := range tasks {
			b, _ := os.ReadFile(file)
			for pid := range strings.FieldsSeq(string(b)) {
				args, _ := os.ReadFile("/proc/" + pid + "/cmdline")
				n, _ := strconv.Atoi(pid)
				if p, err := ns.Open(n); err == nil {
					if string(args) == "ctrfs-holder\x00" && (old == nil || p.ID() != old.ID()) {
						return p
					}
					p.Close()
				}
			}
		}
	}
	d.t.Fatal("no holder")
	return nil
}
