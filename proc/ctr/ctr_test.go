package ctr

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"ctrfs/fs"
	"ctrfs/ns"
	"ctrfs/proc"
)

// session is a client's use of a tree of containers.
type session struct {
	t    *testing.T
	ctx  context.Context
	set  *Containers
	root fs.Dir
}

func newSession(t *testing.T) *session {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	return newSessionOf(t, &fs.Client{})
}

// newSessionOf is the session of a client whose server is his own.
func newSessionOf(t *testing.T, client *fs.Client) *session {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	groups, err := ns.FindCgroups("ctrfs-test")
	if err != nil {
		t.Fatal(err)
	}
	client.Errors = new(fs.Errors)
	feed := new(fs.Feed)
	set := &Containers{Processes: &proc.Processes{Feed: feed}, Cgroups: groups, Feed: feed, Log: slog.Default(), Uid: client.Uid, Gid: client.Gid}
	t.Cleanup(func() { set.Close(context.Background()) })
	set.Processes.Ctr = set.Of
	return &session{t, fs.WithClient(ctx, client), set, set.Dir("ctr", 1)}
}

func (s *session) open(path string, how fs.How) (fs.Handle, error) {
	var n fs.Node = s.root
	var err error
	for _, name := range strings.Split(path, "/") {
		if n, err = fs.Look(s.ctx, n, name); err != nil {
			return nil, err
		}
	}
	return fs.Enter(s.ctx, n, how)
}

func (s *session) cat(path string) (string, error) {
	h, err := s.open(path, fs.Read)
	if err != nil {
		return "", err
	}
	defer h.Close(s.ctx)
	var text []byte
	for {
		b, err := h.Read(s.ctx, int64(len(text)), 8192)
		if err != nil || len(b) == 0 {
			return string(text), err
		}
		text = append(text, b...)
	}
}

func (s *session) read(path string) string {
	s.t.Helper()
	text, err := s.cat(path)
	if err != nil {
		s.t.Fatalf("read %s: %v", path, err)
	}
	return text
}

func (s *session) echo(path, text string) error {
	h, err := s.open(path, fs.Write|fs.Trunc)
	if err != nil {
		return err
	}
	_, err = h.Write(s.ctx, 0, []byte(text))
	if e := h.Close(s.ctx); err == nil {
		err = e
	}
	return err
}

func (s *session) write(path, text string) {
	s.t.Helper()
	if err := s.echo(path, text); err != nil {
		s.t.Fatalf("write %q to %s: %v", text, path, err)
	}
}

func (s *session) mkdir(name string) {
	s.t.Helper()
	if _, err := fs.Make(s.ctx, s.root, name, 0755); err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) rmdir(name string) {
	s.t.Helper()
	if err := fs.Delete(s.ctx, s.root, name); err != nil {
		s.t.Fatal(err)
	}
}

func TestRun(t *testing.T) {
	s := newSession(t)
	s.mkdir("t")
	s.write("t/ctl", "exec /bin/sh -c 'hostname; id -u; echo $$; exit 3'")
	if got := s.read("t/stdout"); got != "t\n0\n1\n" {
		t.Errorf("stdout %q, stderr %q", got, s.read("t/stderr"))
	}
	if got := s.read("t/wait"); !strings.HasSuffix(got, " 'exit: 3' exit_code=768 reboot=none\n") {
		t.Errorf("wait %q", got)
	}
	if got := s.read("t/exitstatus"); got != "3\n" {
		t.Errorf("exitstatus %q", got)
	}
	s.rmdir("t")
}

func TestLife(t *testing.T) {
	s := newSession(t)
	s.mkdir("web")
	s.write("web/hostname", "web1\n")
	s.write("web/args", "/bin/sleep 1000\n")
	s.write("web/ctl", "create\n")
	t.Log(s.read("web/status"), s.read("web/cgroup"), s.read("web/proc/1/status"))
	s.write("web/ctl", "start\n")
	if err := s.echo("web/ctl", "start"); err == nil || err.Error() != "cannot start a running container" {
		t.Errorf("start twice: %v", err)
	}
	h, err := s.open("web/proc/clone", fs.Read|fs.Write)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Write(s.ctx, 0, []byte("label sh\nexec /bin/sh -c 'hostname; cat /proc/1/comm; exit 7'")); err != nil {
		t.Fatal(err)
	}
	if got := s.read("web/proc/sh/stdout"); got != "web1\nsleep\n" {
		t.Errorf("stdout inside: %q, %q", got, s.read("web/proc/sh/stderr"))
	}
	if got := s.read("web/proc/sh/wait"); !strings.HasSuffix(got, "'exit: 7'\n") {
		t.Errorf("wait inside: %q", got)
	}
	h.Close(s.ctx)
	if got := s.read("web/hostname"); got != "web1\n" {
		t.Errorf("hostname: %q", got)
	}
	s.write("web/ctl", "stop\n")
	if got := s.read("web/wait"); !strings.HasSuffix(got, " 'signal: KILL' exit_code=9 reboot=none\n") {
		t.Errorf("wait %q", got)
	}
	s.rmdir("web")
}
