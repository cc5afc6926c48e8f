package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ctrfs/fs/styx"
)

// A survivor is a client that begins again whenever the server dies.
type survivor struct {
	t    *testing.T
	sock string
}

func (s *survivor) do(do func(c *caller) error) error {
	return insist(s.t, s.sock, do)
}

func (s *survivor) cat(name string) (text string) {
	s.t.Helper()
	if err := s.do(func(c *caller) (err error) { text, err = c.cat(name); return err }); err != nil {
		s.t.Fatalf("%s: %v", name, err)
	}
	return text
}

func (s *survivor) echo(name, text string) {
	s.t.Helper()
	if err := s.do(func(c *caller) error { return c.echo(name, text) }); err != nil {
		s.t.Fatalf("%s: %q: %v", name, text, err)
	}
}

// record reads a file that blocks.
func (s *survivor) record(name string) (text string, err error) {
	err = s.do(func(c *caller) error {
		return c.on(name, func(f styx.Fid) error {
			err := c.open(f, styx.ORead)
			if err == nil {
				var b []byte
				b, err = c.readAt(f, 0)
				text = string(b)
			}
			return err
		})
	})
	return text, err
}

func (s *survivor) state(name string) string {
	s.t.Helper()
	state, _, _ := strings.Cut(s.cat("ctr/"+name+"/status"), "\n")
	return state
}

func (c *caller) mkdir(name string) error {
	f, _, err := c.walk(filepath.Dir(name))
	if err == nil {
		_, err = c.ask(&styx.Msg{Type: styx.Tmkdir, Fid: f, Name: filepath.Base(name), Perm: 0755})
	}
	return err
}

func (c *caller) rmdir(name string) error {
	f, _, err := c.walk(filepath.Dir(name))
	if err == nil {
		_, err = c.ask(&styx.Msg{Type: styx.Tunlinkat, Fid: f, Name: filepath.Base(name), Flags: 0x200})
	}
	return err
}

// groups are the cgroups of containers.
func groups(ids ...string) (list []string) {
	for _, id := range ids {
		for _, pattern := range []string{"/sys/fs/cgroup/*/ctrfs/", "/sys/fs/cgroup/ctrfs/"} {
			found, _ := filepath.Glob(pattern + strings.TrimSpace(id))
			list = append(list, found...)
		}
	}
	return list
}

// A container is after the end of its server what it was: in every state, with its root, its limits, its outputs and its end.
func TestServerKilledContainers(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "needs root: to make containers")
	}
	sock := filepath.Join(t.TempDir(), "sock")
	d := start(t, "listening", "-a", "unix!"+sock)
	s := &survivor{t, sock}
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
	s.echo("ctr/talks/ctl", "exec /bin/sh -c 'i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; read x; echo got $x; exit 3'")
	// Another is only asked for, and one is bound to its connection.
	c := again(t, sock)
	for _, text := range []string{"", "rename bound\nkillonclose\nexec /bin/sleep 1000"} {
		f, _, err := c.walk("ctr/clone")
		if err == nil {
			if err = c.open(f, styx.ORdwr); err == nil && text != "" {
				err = c.write(f, text)
			}
		}
		if err != nil {
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
		d.kill()
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
			f, _, err := c.walk("ctr/" + name + "/proc/clone")
			if err == nil {
				err = c.open(f, styx.ORdwr)
			}
			if err != nil {
				return err
			}
			b, err := c.readAt(f, 0)
			if err == nil {
				err = c.write(f, "exec "+cmd)
			}
			if err == nil {
				out, err = c.drain("ctr/" + name + "/proc/" + strings.TrimSpace(string(b)) + "/stdout")
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
	output := func(name string) (text string) {
		err := s.do(func(c *caller) (err error) { text, err = c.drain("ctr/" + name + "/stdout"); return err })
		if err != nil {
			t.Error(err)
		}
		return text
	}
	if out := output("created"); out != "CapBnd:\t00000000a80425fb\nSeccomp:\t2\n65534\n" {
		t.Errorf("created had %q", out)
	}
	if out := output("stopped"); out != "said\n" {
		t.Errorf("stopped said %q", out)
	}
	var lines strings.Builder
	for i := range 20000 {
		fmt.Fprintln(&lines, "line", i)
	}
	if out := output("talks"); out != lines.String()+"got something\n" {
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
	if left := groups(ids...); len(left) > 0 {
		t.Error("left:", left)
	}
	if _, others := d.children(); len(others) > 0 {
		t.Error("left:", others)
	}
	d.Process.Signal(syscall.SIGTERM)
	d.ends()
}

// Containers are made, started, waited for and removed while the server is killed at random: whatever was answered is
// so, every status is right, and nothing is left or half made.
func TestServerKilledContainersAtRandom(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "needs root: to make containers")
	}
	sock := filepath.Join(t.TempDir(), "sock")
	d := start(t, "listening", "-a", "unix!"+sock)
	s := &survivor{t, sock}
	done := make(chan struct{})
	var mu sync.Mutex // guards ids and ended
	var ids []string
	ended := 0
	var clients sync.WaitGroup
	for who := range 4 {
		clients.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				name, code := fmt.Sprintf("c%d.%d", who, i), 1+rand.IntN(100)
				exists := func() bool {
					return s.do(func(c *caller) error { _, _, err := c.walk("ctr/" + name); return err }) == nil
				}
				// Each step once more only if it was not answered and has not happened.
				for !exists() {
					s.do(func(c *caller) error { return c.mkdir("ctr/" + name) })
				}
				id := s.cat("ctr/" + name + "/id")
				mu.Lock()
				ids = append(ids, id)
				mu.Unlock()
				s.echo("ctr/"+name+"/args", fmt.Sprintf("/bin/sh -c 'echo %d; exit %d'\n", code, code))
				if got := s.cat("ctr/" + name + "/args"); !strings.Contains(got, fmt.Sprint("exit ", code)) {
					t.Errorf("%s: args %q", name, got)
				}
				if rand.IntN(2) == 0 {
					again(t, sock).echo("ctr/"+name+"/ctl", "create")
				}
				c := again(t, sock)
				err := c.echo("ctr/"+name+"/ctl", "start")
				c.conn.Close()
				started := err == nil
				for state := s.state(name); state == "new" || state == "created"; state = s.state(name) {
					c := again(t, sock)
					started = c.echo("ctr/"+name+"/ctl", "start") == nil
					c.conn.Close()
				}
				r, err := s.record("ctr/" + name + "/wait")
				want := fmt.Sprintf("'exit: %d'", code)
				if err != nil || !strings.Contains(r, want) && (started || !strings.Contains(r, "'signal: KILL'")) {
					t.Errorf("%s: started %v: %q, %v, want %s", name, started, r, err, want)
				}
				for exists() {
					s.do(func(c *caller) error { return c.rmdir("ctr/" + name) })
				}
				mu.Lock()
				ended++
				mu.Unlock()
			}
		})
	}
	for range killings() {
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond) // at any moment of what the clients do
		d.kill()
	}
	close(done)
	clients.Wait()
	t.Logf("%d containers ended", ended)
	var names []string
	if err := s.do(func(c *caller) (err error) { names, err = c.list("ctr"); return err }); err != nil || len(names) != 1 {
		t.Error("left:", names, err)
	}
	if left := groups(ids...); len(left) > 0 {
		t.Error("left:", left)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		_, others := d.children()
		if len(others) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Error("left:", others)
			break
		}
	}
	d.Process.Signal(syscall.SIGTERM)
	d.ends()
}
