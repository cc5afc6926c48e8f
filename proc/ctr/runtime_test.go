package ctr

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ctrfs/fs"
)

func lacks(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// pure is a runtime that sees version 2 of cgroups only, as crun wants it.
func pure(t *testing.T, name string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	script := "#!/bin/sh\nexec unshare -m sh -c 'mount -t cgroup2 none /sys/fs/cgroup && exec " + name + " \"$@\"' " + name + " \"$@\"\n"
	if err := os.WriteFile(path, []byte(script), 0755); err != nil {
		t.Fatal(err)
	}
	return path
}

// The whole life of a container by each runtime.
func TestRuntimes(t *testing.T) {
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			s := newSession(t)
			if _, err := exec.LookPath(name); err != nil {
				lacks(t, "needs %s: %v", name, err)
			}
			root := t.TempDir()
			busybox(t, root)
			check := leaks(t, s)
			runtime := name
			if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); name == "crun" && err != nil {
				runtime = pure(t, name)
			}
			s.life(runtime, root)
			if runtime != name { // a container that it cannot make, for want of a controller, leaves no cgroup either
				s.Mkdir("p")
				id := s.Read("p/id")
				s.Write("p/runtime", runtime)
				s.Write("p/rootfs", root)
				s.Write("p/limits", "pids.max 100")
				if err := s.Echo("p/ctl", "exec /bin/true"); err == nil {
					t.Error("limited without a controller")
				}
				s.empty(id)
				s.Rmdir("p")
			}
			check()
		})
	}
}

// asked is what the runtime itself says of the containers that ctrfs has it make.
func (s *session) asked(runtime string) string {
	s.T.Helper()
	out, err := exec.CommandContext(s.Ctx, runtime, "--root", filepath.Join(s.set.State, "runtime", filepath.Base(runtime)), "list").CombinedOutput()
	if err != nil {
		s.T.Fatalf("%s list: %v: %s", runtime, err, out)
	}
	return string(out)
}

// says makes sure of what a file begins with, and of what the runtime says of its containers.
func (s *session) says(runtime, name string, want state) {
	s.T.Helper()
	if got := s.do("status", name); got != string(want) {
		s.T.Errorf("%s, not %s", got, want)
	}
	if list := s.asked(runtime); !strings.Contains(list, string(want)) {
		s.T.Errorf("it is %s, and the runtime says\n%s", want, list)
	}
}

func (s *session) life(runtime, root string) {
	t := s.T
	s.Mkdir("o")
	s.Write("o/runtime", runtime)
	if err := s.Echo("o/ctl", "exec /bin/true"); err == nil || !strings.Contains(err.Error(), "a runtime takes a directory") {
		t.Errorf("the host's root: %v", err)
	}
	s.Rmdir("o")

	s.Mkdir("o")
	s.Write("o/runtime", runtime)
	s.Write("o/rootfs", root)
	limits := filepath.Base(runtime) == "runc" // there are no controllers where crun is
	if limits {
		s.Write("o/limits", "pids.max 100")
	}
	s.Write("o/args", `/bin/sh -c 'hostname; echo $$; grep Seccomp: /proc/self/status; unshare -n true; unshare -U true; read x; echo got $x; echo bad >&2; exit 7'`)
	s.Write("o/ctl", "create")
	s.says(runtime, "o", isCreated)
	s.Write("o/ctl", "start")
	s.says(runtime, "o", isRunning)
	if err := s.Echo("o/ctl", "start"); err == nil || err.Error() != "cannot start a running container" {
		t.Errorf("twice: %v", err)
	}
	h := s.clone("o")
	s.Say(h, "label in\nexec /bin/sh -c 'hostname; cat /proc/1/comm; cat /proc/self/cgroup /proc/1/cgroup; exit 3'")
	lines := strings.Split(s.Read("o/proc/in/stdout"), "\n")
	if n := (len(lines) - 3) / 2; lines[0] != "o" || lines[1] != "sh" || strings.Join(lines[2:2+n], "\n") != strings.Join(lines[2+n:2+2*n], "\n") {
		t.Errorf("inside: %q; %s", lines, s.Read("o/proc/in/stderr"))
	}
	if got := s.Read("o/proc/in/wait"); !strings.HasSuffix(got, " 'exit: 3'\n") {
		t.Errorf("inside: %s", got)
	}
	h.Close(s.Ctx)
	s.Write("o/ctl", "pause")
	s.says(runtime, "o", isPaused)
	s.Write("o/ctl", "resume")
	s.says(runtime, "o", isRunning)
	if limits {
		s.Write("o/limits", "pids.max 50")
	}
	stats := s.Read("o/stats")
	if !strings.Contains(stats, "\nrss ") || limits && (!strings.Contains(stats, "\ncpu.usage.total ") || !strings.Contains(stats, "\npids.limit 50\n")) {
		t.Errorf("stats:\n%s", stats)
	}
	s.Write("o/stdin", "word\n")
	if got := s.Read("o/wait"); !strings.HasSuffix(got, " 'exit: 7' exit_code=1792 reboot=none\n") {
		t.Errorf("wait: %s", got)
	}
	const refused = "unshare: unshare(0x40000000): Operation not permitted\nunshare: unshare(0x10000000): Operation not permitted\n"
	if out, bad := s.Read("o/stdout"), s.Read("o/stderr"); out != "o\n1\nSeccomp:\t2\ngot word\n" || bad != refused+"bad\n" {
		t.Errorf("stdout %q, stderr %q", out, bad)
	}
	s.says(runtime, "o", isStopped)

	// once more, with another program than it was made for, and asked to end
	s.Write("o/args", "/bin/true")
	s.Write("o/ctl", "create")
	s.Write("o/ctl", `exec /bin/sh -c 'trap "exit 5" TERM; echo up; while :; do sleep 0.01; done'`)
	out, err := s.Open("o/stdout", fs.Read)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := out.Read(s.Ctx, 0, 100); string(b) != "up\n" {
		t.Fatalf("%q, %v; %s", b, err, s.Read("o/status"))
	}
	out.Close(s.Ctx)
	s.Write("o/ctl", "pause")
	s.Write("o/ctl", "stop 100")
	if got := s.Read("o/wait"); !strings.Contains(got, " 'exit: 5' ") {
		t.Errorf("wait: %s", got)
	}

	// a terminal, and an end by force of what stands still
	s.Write("o/ctl", "tty 100 40")
	s.Write("o/ctl", "exec /bin/sh -c 'stty size; tty; cat'")
	if out, err = s.Open("o/stdout", fs.Read); err != nil {
		t.Fatal(err)
	}
	for text := ""; !strings.HasSuffix(text, "/dev/pts/0\r\n"); {
		b, err := out.Read(s.Ctx, int64(len(text)), 100)
		if text += string(b); err != nil || len(text) > 22 {
			t.Fatalf("%q, %v", text, err)
		}
	}
	out.Close(s.Ctx)
	s.Write("o/winsize", "90 30")
	s.Write("o/ctl", "pause")
	s.Write("o/ctl", "kill")
	if got := s.Read("o/wait"); !strings.Contains(got, " 'signal: KILL' ") {
		t.Errorf("wait: %s", got)
	}
	id := s.Read("o/id")
	s.Rmdir("o")
	if list := s.asked(runtime); strings.Count(strings.TrimSpace(list), "\n") > 0 {
		t.Errorf("the runtime still has\n%s", list)
	}
	s.empty(id)
}

// empty makes sure that nothing is left of what a runtime has made.
func (s *session) empty(id string) {
	s.T.Helper()
	left, _ := filepath.Glob(filepath.Join(s.set.State, "bundle", "*"))
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + strings.TrimSpace(id))
	if len(left)+len(groups) > 0 {
		s.T.Errorf("left: %q %q", left, groups)
	}
}

// What a runtime cannot do it says in its own words, and what it may not be is refused.
func TestRuntimeRefused(t *testing.T) {
	s := newSession(t)
	if _, err := exec.LookPath("runc"); err != nil {
		lacks(t, "needs runc: %v", err)
	}
	root := t.TempDir()
	busybox(t, root)
	check := leaks(t, s)
	s.Mkdir("o")
	for _, c := range [][2]string{
		{"frob", `no such runtime: "frob"`},
		{"/nonesuch", `runtime "/nonesuch": no such file or directory`},
		{"a b", `runtime: not one word: "a b"`},
	} {
		if err := s.Echo("o/runtime", c[0]); err == nil || err.Error() != c[1] {
			t.Errorf("%s: %v, want %s", c[0], err, c[1])
		}
	}
	c, err := s.set.find("o")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.setRuntime(fs.WithClient(context.Background(), &fs.Client{Uid: 4321}), "/usr/sbin/runc"); err == nil || !strings.HasSuffix(err.Error(), "permission denied") {
		t.Errorf("a path from another: %v", err)
	}
	s.Write("o/runtime", "runc")
	s.Write("o/rootfs", root)
	if err := s.Echo("o/ctl", "exec /nonesuch"); err == nil || !strings.HasPrefix(err.Error(), "runc create: ") || !strings.Contains(err.Error(), "/nonesuch") {
		t.Errorf("no such program: %v", err)
	}
	if code := s.Read("o/exitstatus"); code != "128\n" || s.do("status", "o") != string(isStopped) {
		t.Errorf("exitstatus %s", code)
	}
	if err := s.Echo("o/limits", "io.max 8:0 rbps=1"); err == nil || err.Error() != "io.max: the runtime has no word for it" {
		t.Errorf("io.max: %v", err)
	}
	if err := s.Echo("o/runtime", "crun"); err == nil || err.Error() != "cannot change the runtime of a stopped container" {
		t.Errorf("another runtime: %v", err)
	}
	s.Rmdir("o")
	check()
}

// What runs in a sandbox is not among the host's processes, and all else is as with others.
func TestSandbox(t *testing.T) {
	s := newSession(t)
	const runtime = "runsc"
	if _, err := exec.LookPath(runtime); err != nil {
		lacks(t, "needs runsc: %v", err)
	}
	root := t.TempDir()
	busybox(t, root)
	check := leaks(t, s)
	s.Mkdir("o")
	s.Write("o/runtime", runtime)
	s.Write("o/rootfs", root)
	s.Write("o/ctl", "exec /bin/sh -c 'hostname; read x; echo got $x; exit 5'")
	s.says(runtime, "o", isRunning)
	if err := s.say("o", "clone"); err == nil || err.Error() != "clone: runsc hides the processes" {
		t.Errorf("clone: %v", err)
	}
	if err := s.Echo("o/limits", "pids.max 100"); err == nil || err.Error() != "limits: runsc has no command update" {
		t.Errorf("limits: %v", err)
	}
	if err := s.Echo("o/hostname", "other"); err == nil || err.Error() != "hostname: runsc hides it" || s.Read("o/hostname") != "o\n" {
		t.Errorf("hostname: %v", err)
	}
	s.Write("o/ctl", "pause")
	s.says(runtime, "o", isPaused)
	s.Write("o/ctl", "resume")
	if stats := s.Read("o/stats"); !strings.Contains(stats, "\nmemory.usage.usage ") {
		t.Errorf("stats:\n%s", stats)
	}
	s.Write("o/stdin", "word\n")
	if got := s.Read("o/wait"); !strings.Contains(got, " 'exit: 5' ") {
		t.Errorf("wait: %s", got)
	}
	if got := s.Read("o/stdout"); got != "o\ngot word\n" {
		t.Errorf("stdout %q", got)
	}
	s.Rmdir("o")
	check()
}
