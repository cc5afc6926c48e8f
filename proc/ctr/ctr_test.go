package ctr

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"

	"ctrfs/fs"
	"ctrfs/fs/fstest"
	"ctrfs/ns"
	"ctrfs/proc"
)

// session is a client's use of a tree of containers.
type session struct {
	*fstest.Client
	set *Containers
}

func newSession(t *testing.T) *session {
	t.Helper()
	fstest.NeedsRoot(t)
	return newSessionOf(t, &fs.Client{})
}

// newSessionOf is the session of a client whose server is his own.
func newSessionOf(t *testing.T, client *fs.Client) *session {
	t.Helper()
	groups, err := ns.FindCgroups("ctrfs-test")
	if err != nil {
		t.Fatal(err)
	}
	state, err := os.MkdirTemp("", "ctr") // a short name: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	feed := new(fs.Feed)
	set := &Containers{Processes: &proc.Processes{Feed: feed}, Cgroups: groups, Feed: feed, Log: slog.Default(), State: state, Uid: client.Uid, Gid: client.Gid}
	t.Cleanup(func() { set.Close(context.Background()) })
	set.Processes.Ctr = set.Of
	return &session{fstest.New(t, set.Dir("ctr", 1), client), set}
}

// as is the session of another.
func (s *session) as(c fs.Client) *session { return &session{s.As(&c), s.set} }

// clone opens a container's proc/clone and keeps it open.
func (s *session) clone(name string) fs.Handle {
	s.T.Helper()
	h, _ := s.Clone(name + "/proc")
	return h
}

func TestRun(t *testing.T) {
	s := newSession(t)
	s.Mkdir("t")
	s.Write("t/ctl", "exec /bin/sh -c 'hostname; id -u; echo $$; exit 3'")
	if got := s.Read("t/stdout"); got != "t\n0\n1\n" {
		t.Errorf("stdout %q, stderr %q", got, s.Read("t/stderr"))
	}
	if got := s.Read("t/wait"); !strings.HasSuffix(got, " 'exit: 3' exit_code=768 reboot=none\n") {
		t.Errorf("wait %q", got)
	}
	if got := s.Read("t/exitstatus"); got != "3\n" {
		t.Errorf("exitstatus %q", got)
	}
	s.Rmdir("t")
}

func TestLife(t *testing.T) {
	s := newSession(t)
	s.Mkdir("web")
	s.Write("web/hostname", "web1\n")
	s.Write("web/args", "/bin/sleep 1000\n")
	s.Write("web/ctl", "create\n")
	t.Log(s.Read("web/status"), s.Read("web/cgroup"), s.Read("web/proc/1/status"))
	s.Write("web/ctl", "start\n")
	if err := s.Echo("web/ctl", "start"); err == nil || err.Error() != "cannot start a running container" {
		t.Errorf("start twice: %v", err)
	}
	h, err := s.Open("web/proc/clone", fs.Read|fs.Write)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Write(s.Ctx, 0, []byte("label sh\nexec /bin/sh -c 'hostname; cat /proc/1/comm; exit 7'")); err != nil {
		t.Fatal(err)
	}
	if got := s.Read("web/proc/sh/stdout"); got != "web1\nsleep\n" {
		t.Errorf("stdout inside: %q, %q", got, s.Read("web/proc/sh/stderr"))
	}
	if got := s.Read("web/proc/sh/wait"); !strings.HasSuffix(got, "'exit: 7'\n") {
		t.Errorf("wait inside: %q", got)
	}
	h.Close(s.Ctx)
	if got := s.Read("web/hostname"); got != "web1\n" {
		t.Errorf("hostname: %q", got)
	}
	s.Write("web/ctl", "stop\n")
	if got := s.Read("web/wait"); !strings.HasSuffix(got, " 'signal: KILL' exit_code=9 reboot=none\n") {
		t.Errorf("wait %q", got)
	}
	s.Rmdir("web")
}

// A container lives no longer than the file that made it is open, if it is told so; who made it otherwise is refused.
func TestKillOnClose(t *testing.T) {
	s := newSession(t)
	s.Mkdir("t")
	if err := s.Echo("t/ctl", "killonclose"); err == nil || err.Error() != "killonclose: the file that opening clone gave is closed" {
		t.Errorf("made by mkdir: %v", err)
	}
	s.Rmdir("t")
	for _, run := range []string{"exec /bin/sleep 1000", "create"} {
		h, name := s.Clone("")
		s.Write(name+"/args", "/bin/sleep 1000\n")
		s.Say(h, "killonclose\n"+run)
		other, err := s.Open(name+"/ctl", fs.Write)
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Close(s.Ctx); err != nil { // another open of ctl says nothing
			t.Fatal(err)
		}
		if got := s.Read(name + "/status"); strings.HasPrefix(got, "stopped") {
			t.Errorf("status after another's close:\n%s", got)
		}
		if err := h.Close(s.Ctx); err != nil {
			t.Fatal(err)
		}
		if got := s.Read(name + "/wait"); !strings.Contains(got, " 'signal: KILL' ") {
			t.Errorf("%s: wait %q", run, got)
		}
		s.Rmdir(name)
	}
}
