package ctr

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ctrfs/fs"
)

// A container that is started again finds what it wrote, and what its group counts of memory is still that; a new one of
// its name finds nothing.
func TestAgain(t *testing.T) {
	root := newSession(t)
	for _, s := range []*session{root, root.as(fs.Client{Uid: 4321, Gid: 4321})} {
		for range 2 {
			c, err := s.set.make(s.Ctx, "t") // past the mode of the directory, which is root's
			if err != nil {
				t.Fatal(err)
			}
			var group string
			for _, want := range []string{"run\n", "run\nrun\n", "run\nrun\nrun\n"} {
				s.Write("t/args", "/bin/sh -c 'echo run >>/root/runs; cat /root/runs'")
				s.Write("t/ctl", "create")
				if g := s.Read("t/cgroup"); group == "" {
					group = g
				} else if g != group {
					t.Errorf("cgroup %q, before %q", g, group)
				}
				s.Write("t/ctl", "start")
				if got := s.Read("t/stdout"); got != want {
					t.Errorf("stdout %q, want %q; %q", got, want, s.Read("t/stderr"))
				}
				s.Read("t/wait")
			}
			if err := c.delete(s.Ctx, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Where a session's server is an ordinary user, a container works whole.
func TestRootless(t *testing.T) {
	const role = "CTR_TEST_ROOTLESS"
	if os.Getenv(role) == "" {
		newSession(t)
		home := t.TempDir()
		for _, d := range []string{home, filepath.Dir(home)} {
			os.Chmod(d, 0755)
		}
		if err := os.Chown(home, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^TestRootless$", "-test.v")
		cmd.Dir = home
		cmd.Env = append(os.Environ(), role+"=1", "HOME="+home, "XDG_RUNTIME_DIR="+home, "TMPDIR="+home)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	s := newSessionOf(t, &fs.Client{Uid: 65534, Gid: 65534})
	s.Mkdir("t")
	s.Write("t/ctl", "exec /bin/sh -c 'echo x >/root/x; hostname; id -u; echo $$; read x; exit 3'")
	out, err := s.Open("t/stdout", fs.Read)
	if err != nil {
		t.Fatal(err)
	}
	for text := ""; !strings.HasSuffix(text, "\n1\n"); { // then x is there
		b, err := out.Read(s.Ctx, int64(len(text)), 100)
		if err != nil || len(b) == 0 {
			t.Fatalf("stdout %q, %v; stderr %q", text, err, s.Read("t/stderr"))
		}
		text += string(b)
	}
	out.Close(s.Ctx)
	h := s.clone("t")
	s.Say(h, "label in\nexec /bin/sh -c 'id -u; cat /proc/1/comm /root/x; exit 7'")
	if got := s.Read("t/proc/in/stdout"); got != "0\nsh\nx\n" {
		t.Errorf("stdout inside: %q, %q", got, s.Read("t/proc/in/stderr"))
	}
	if got := s.Read("t/proc/in/wait"); !strings.HasSuffix(got, "'exit: 7'\n") {
		t.Errorf("wait inside: %q", got)
	}
	h.Close(s.Ctx)
	s.Write("t/ctl", "closeio")
	if got := s.Read("t/stdout"); got != "t\n0\n1\n" {
		t.Errorf("stdout %q, stderr %q", got, s.Read("t/stderr"))
	}
	if got := s.Read("t/wait"); !strings.HasSuffix(got, " 'exit: 3' exit_code=768 reboot=none\n") {
		t.Errorf("wait %q", got)
	}
	s.Write("t/args", "sleep 1000")
	s.Write("t/ctl", "create")
	s.Say(s.clone("t"), "label in\nexec cat /root/x")
	if got := s.Read("t/proc/in/stdout"); got != "x\n" {
		t.Errorf("inside a parked one: %q, %q", got, s.Read("t/proc/in/stderr"))
	}
	s.Write("t/ctl", "start")
	s.Write("t/ctl", "kill KILL 0")
	if got := s.Read("t/wait"); !strings.HasSuffix(got, " 'signal: KILL' exit_code=9 reboot=none\n") {
		t.Errorf("wait %q", got)
	}
	s.Rmdir("t")
}
