package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/fs/fstest"
	"ctrfs/ns"
)

func TestMain(m *testing.M) {
	ns.Tracer()
	os.Exit(m.Run())
}

// session is a client's use of a tree of processes.
type session struct {
	*fstest.Client
	feed *fs.Feed
}

func newSession(t *testing.T, uid uint32) *session {
	t.Helper()
	fstest.NeedsRoot(t)
	feed := new(fs.Feed)
	ps := &Processes{Feed: feed}
	return &session{fstest.New(t, ps.Machine().Dir("proc", 1), &fs.Client{Uid: uid, Gid: uid}), feed}
}

func (s *session) as(uid uint32) *session {
	return &session{s.As(&fs.Client{Uid: uid, Gid: uid}), s.feed}
}

// clone opens clone and keeps it open.
func (s *session) clone() (fs.Handle, string) { return s.Clone("") }

func field(text, key string) string {
	for _, l := range strings.Split(text, "\n") {
		if v, ok := strings.CutPrefix(l, key+" "); ok {
			return v
		}
	}
	return ""
}

// A process is parked at the opening of clone, with what the manual says and nothing else, and becomes a program.
func TestClone(t *testing.T) {
	s := newSession(t, 1234)
	h, n := s.clone()
	if st := s.Read(n + "/status"); field(st, "state") != "parked" || field(st, "user") != "1234" {
		t.Errorf("status of a parked process:\n%s", st)
	}
	if got := s.Read(n + "/env"); got != defaultPath+"\n" {
		t.Errorf("env %q", got)
	}
	if got := regexp.MustCompile(`(?m) .*$`).ReplaceAllString(s.as(0).Read(n+"/fd"), ""); got != "/\n0\n1\n2\n" {
		t.Errorf("descriptors %q", got)
	}
	s.Say(h, "dir /usr\nenv A=b\nenv 'C=it''s'\nlabel j1\n")
	s.Write(n+"/args", "/bin/sh -c 'echo $A $C $PWD; pwd; id -u; ls /proc/self/fd; echo err >&2; read x; echo got $x; exit 3'\n")
	s.Say(h, "exec\n")
	if _, err := h.Write(s.Ctx, 0, []byte("exec /bin/true\n")); err != fs.ErrInUse {
		t.Errorf("second exec: %v", err)
	}
	if err := s.Echo(n+"/ctl", "dir /\n"); err == nil || err.Error() != "dir: process is running" {
		t.Errorf("dir of a running process: %v", err)
	}
	s.Write("j1/stdin", "hello\n")
	if got := s.Read(n + "/stdout"); got != "b it's /usr\n/usr\n1234\n0\n1\n2\n3\ngot hello\n" {
		t.Errorf("stdout %q", got)
	}
	if got := s.Read("j1/wait"); !strings.HasPrefix(got, n+" ") || !strings.HasSuffix(got, " 'exit: 3'\n") || len(strings.Fields(got)) != 6 {
		t.Errorf("wait %q", got)
	}
	if got := s.Read("j1/exitstatus"); got != "3\n" {
		t.Errorf("exitstatus %q", got)
	}
	if _, err := s.as(1235).Cat("j1/wait"); err != fs.ErrNotExist {
		t.Errorf("another's label: %v", err)
	}
	if got := s.Read(n + "/stderr"); got != "err\n" {
		t.Errorf("stderr %q", got)
	}
	h.Close(s.Ctx)
	if _, err := s.Cat(n + "/status"); err != fs.ErrNotExist {
		t.Errorf("a record that was read whole is still there: %v", err)
	}
}

// What has not begun a program is gone with its clone file; what is killonclose ends with it, and not with another open of ctl.
func TestCloneClosed(t *testing.T) {
	s := newSession(t, 0)
	h, n := s.clone()
	w, err := s.Open(n+"/wait", fs.Read)
	if err != nil {
		t.Fatal(err)
	}
	h.Close(s.Ctx)
	if b, err := w.Read(s.Ctx, 0, 100); err != nil || !strings.HasSuffix(string(b), "'signal: KILL'\n") {
		t.Errorf("wait of what never ran: %q, %v", b, err)
	}
	w.Close(s.Ctx)
	if _, err := s.Cat(n + "/status"); err != fs.ErrNotExist {
		t.Errorf("status: %v", err)
	}

	h, n = s.clone()
	s.Say(h, "killonclose\nexec /bin/sleep 1000\n")
	s.Write(n+"/ctl", "stop\n")
	if got, err := s.Cat(n + "/stopped"); errors.Is(err, errors.ErrUnsupported) {
		t.Logf("lacking: %v", err)
		for field(s.Read(n+"/status"), "state") != "stopped" && s.Ctx.Err() == nil {
			runtime.Gosched()
		}
	} else if got != "stopped\n" {
		t.Errorf("stopped: %q, %v", got, err)
	}
	if st := s.Read(n + "/status"); field(st, "state") != "stopped" {
		t.Errorf("status:\n%s", st)
	}
	if w, err = s.Open(n+"/wait", fs.Read); err != nil {
		t.Fatal(err)
	}
	h.Close(s.Ctx)
	if b, err := w.Read(s.Ctx, 0, 100); err != nil || !strings.HasSuffix(string(b), "'signal: KILL'\n") {
		t.Errorf("wait: %q, %v", b, err)
	}
	w.Close(s.Ctx)

	h, n = s.clone()
	s.Say(h, "exec /bin/sleep 1000\n")
	h.Close(s.Ctx)
	if err := s.Echo(n+"/ctl", "killonclose\n"); err == nil || err.Error() != "killonclose: the file that opening clone gave is closed" {
		t.Errorf("too late: %v", err)
	}
	s.Write(n+"/ctl", "kill\n")
}

// The error of exec comes back, and the process still waits.
func TestExecError(t *testing.T) {
	s := newSession(t, 0)
	for msg, want := range map[string]string{
		"exec /nonesuch a":        `exec "/nonesuch": no such file or directory`,
		"exec nonesuch":           `exec "nonesuch": no such file or directory`,
		"exec /etc/passwd":        `exec "/etc/passwd": permission denied`,
		"exec":                    `exec: no command`,
		"dir /nonesuch":           `dir "/nonesuch": no such file or directory`,
		"user nosuch":             `user: no such user: "nosuch"`,
		"kill FOO":                `kill: no such signal: "FOO"`,
		"label 12":                `label: numbers and clone are taken: "12"`,
		"env x":                   `env: not NAME=VALUE: "x"`,
		"frob":                    `unknown control message: "frob"`,
		"label a\nfrob\nlabel b":  `line 2: unknown control message: "frob"`,
		"label a\ndir /x\nkill 9": `line 2: dir "/x": no such file or directory`,
	} {
		h, _ := s.clone()
		if _, err := h.Write(s.Ctx, 0, []byte(msg)); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", msg, err, want)
		}
		if strings.HasPrefix(msg, "exec") {
			s.Say(h, "exec true")
		} else if _, err := h.Write(s.Ctx, 0, []byte("exec true")); err == nil || !strings.HasPrefix(err.Error(), "exec: after what was refused: ") {
			t.Errorf("exec after %q: %v", msg, err)
		}
		h.Close(s.Ctx)
	}
}

// Processes that were not started here: what the kernel tells, signals as the client, and a wait for anybody's child.
func TestForeign(t *testing.T) {
	s := newSession(t, 0)
	cmd := exec.Command("/bin/sleep", "1000")
	cmd.Dir = "/usr"
	cmd.Env = []string{"WORD=a b"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := fmt.Sprint(cmd.Process.Pid)
	for s.Read(n+"/args") == "\n" { // execve has answered a moment before the kernel shows what it made
	}
	for file, want := range map[string]string{
		"cwd": "/usr\n", "ctl": n + "\n", "env": "'WORD=a b'\nPWD=/usr\n", "ctr": "\n", "root": "/\n",
	} {
		if got := s.Read(n + "/" + file); got != want && file != "env" || !strings.Contains(got, strings.Split(want, "\n")[0]) {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
	for _, file := range []string{"status", "fd", "ns", "nsgrp", "limits", "hostname", "noteid", "pgrp", "exe", "exception", "args"} {
		if got := s.Read(n + "/" + file); !strings.HasSuffix(got, "\n") {
			t.Errorf("%s: %q", file, got)
		}
	}
	nobody := s.as(65534)
	if _, err := nobody.Cat(n + "/env"); err == nil {
		t.Error("another reads env")
	}
	if err := nobody.Echo(n+"/ctl", "kill"); err != fs.ErrPerm {
		t.Errorf("another kills: %v", err)
	}
	if _, err := s.Cat(n + "/stdout"); err != fs.ErrNotExist {
		t.Errorf("stdout: %v", err)
	}
	if err := s.Echo(n+"/ctl", "exec /bin/true"); err != fs.ErrInUse {
		t.Errorf("exec: %v", err)
	}
	s.Write(n+"/limits", "nofile 17 64\n")
	if got := s.Read(n + "/limits"); !strings.Contains(got, "nofile 17 64\n") {
		t.Errorf("limits:\n%s", got)
	}
	wait, err := s.as(65534).Open(n+"/wait", fs.Read)
	if err != nil {
		t.Fatal(err)
	}
	defer wait.Close(s.Ctx)
	done := make(chan string)
	go func() {
		text, err := wait.Read(s.Ctx, 0, 1000)
		done <- fmt.Sprint(string(text), err)
	}()
	s.Write(n+"/note", "kill")
	err = cmd.Wait()
	if got := <-done; !strings.HasPrefix(got, n+" ") || !strings.HasSuffix(got, "'signal: TERM'\n<nil>") && !untold(t, got) {
		t.Errorf("wait: %q (%v)", got, err)
	}
}

// untold reports whether an end is unknown, and rightly so: User-Mode Linux has no proc connector.
func untold(t *testing.T, record string) bool {
	if !strings.Contains(record, " unknown\n") {
		return false
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err == nil {
		unix.Close(fd)
		return false
	}
	t.Logf("lacking: the proc connector: %v", err)
	return true
}

// What was opened before the end and is read after it knows when that was, though the parent has long reaped.
func TestWaitOpened(t *testing.T) {
	s := newSession(t, 0)
	cmd := exec.Command("/bin/sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h, err := s.Open(fmt.Sprint(cmd.Process.Pid, "/wait"), fs.Read)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(s.Ctx)
	cmd.Process.Kill()
	cmd.Wait()
	b, err := h.Read(s.Ctx, 0, 1000)
	if f := strings.Fields(string(b)); !untold(t, string(b)) && (err != nil || len(f) != 6 || f[3] == "-" || f[5] != "KILL'") {
		t.Errorf("wait: %q, %v", b, err)
	}
}

// At most 64 parked processes of a user, and nothing of them is left.
func TestCloneLimits(t *testing.T) {
	s := newSession(t, 1234)
	fds := func() int {
		l, _ := os.ReadDir("/proc/self/fd")
		return len(l)
	}
	h, _ := s.clone()
	h.Close(s.Ctx)
	before := fds()
	var all []fs.Handle
	for range maxParked {
		h, _ := s.clone()
		all = append(all, h)
	}
	if _, err := s.Open("clone", fs.Read); err != fs.ErrNoFree {
		t.Errorf("one more: %v", err)
	}
	if h, _ := s.as(1235).clone(); h != nil {
		all = append(all, h)
	}
	pids, _ := fs.Contents(s.Ctx, s.Root)
	for _, h := range all {
		b, _ := h.Read(s.Ctx, 0, 100)
		w, err := s.Open(strings.TrimSpace(string(b))+"/wait", fs.Read)
		if err != nil {
			t.Fatal(err)
		}
		h.Close(s.Ctx)
		w.Read(s.Ctx, 0, 100)
		w.Close(s.Ctx)
	}
	if len(pids) < len(all) {
		t.Errorf("%d processes listed", len(pids))
	}
	ps := s.Root.(*dir).Processes
	ps.mu.Lock()
	if len(ps.jobs) != 0 || len(ps.parked) != 0 {
		t.Errorf("%d jobs, %v parked are left", len(ps.jobs), ps.parked)
	}
	ps.mu.Unlock()
	if after := fds(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
