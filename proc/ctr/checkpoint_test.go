package ctr

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ctrfs/fs"
)

// A checkpoint can be made and used where criu can, and else the runtime's own reason is given, and criu's.
//
// One of a container without a runtime would want more than criu(8) does: of it, criu 4.2 says that "/dev/tty doesn't have a
// proper root mount", and so of all that is mounted of what is not in the container. With each of them named (--external) it
// writes the container down, but to go on there it must find them all mounted under those names, below a root that is.
func TestCheckpoint(t *testing.T) {
	s := newSession(t)
	for _, name := range []string{"runc", "criu"} {
		if _, err := exec.LookPath(name); err != nil {
			lacks(t, "needs %s: %v", name, err)
		}
	}
	root := t.TempDir()
	busybox(t, root)
	check := leaks(t, s)
	s.Mkdir("o")
	if err := s.Echo("o/ctl", "checkpoint /tmp"); err == nil || err.Error() != "cannot checkpoint a new container" {
		t.Errorf("new: %v", err)
	}
	s.counts("o", root)
	s.Write("o/ctl", "start")
	if err := s.Echo("o/ctl", "restore /tmp"); err == nil || err.Error() != "cannot restore a running container" {
		t.Errorf("running: %v", err)
	}
	for _, args := range []string{"tmp", "/nonesuch", "/tmp -x", "/etc/passwd"} {
		if err := s.Echo("o/ctl", "checkpoint "+args); err == nil {
			t.Errorf("%s: taken", args)
		}
	}
	if said, err := exec.CommandContext(s.Ctx, "criu", "check").CombinedOutput(); err == nil {
		s.goesOn(root)
	} else {
		s.refuses(string(said))
	}
	s.Rmdir("o")
	s.into("p", isRunning)
	if err := s.Echo("p/ctl", "checkpoint /tmp"); err == nil || err.Error() != "checkpoint: the container has no runtime that could" {
		t.Errorf("without a runtime: %v", err)
	}
	s.end("p")
	check()
}

// counts makes the container one that says how many lines it was given, and who it is, and exits 6 at the end of them.
func (s *session) counts(name, root string) {
	s.Write(name+"/runtime", "runc")
	s.Write(name+"/rootfs", root)
	s.Write(name+"/args", `/bin/sh -c 'i=0; while read x; do i=$((i+1)); echo $i $$ $x; done; exit 6'`)
}

// count gives it a line more, and makes sure that it is the nth; from is where in its output the answer is.
func (s *session) count(in, out fs.Handle, n int, from int64) {
	s.T.Helper()
	if _, err := in.Write(s.Ctx, 0, []byte("word\n")); err != nil {
		s.T.Fatal(err)
	}
	want := fmt.Sprintf("%d 1 word\n", n)
	if got, err := out.Read(s.Ctx, from, 100); string(got) != want {
		s.T.Fatalf("%q, %v, want %q", got, err, want)
	}
}

// stdio opens the input and the output of a container.
func (s *session) stdio(name string) (in, out fs.Handle) {
	s.T.Helper()
	in, err := s.Open(name+"/stdin", fs.Write)
	if err == nil {
		out, err = s.Open(name+"/stdout", fs.Read)
	}
	if err != nil {
		s.T.Fatal(err)
	}
	return in, out
}

// goesOn makes checkpoints of a container that counts, and sees it count on: itself, made again, and another made like it.
func (s *session) goesOn(root string) {
	t := s.T
	if _, err := exec.LookPath("iptables-restore"); err != nil {
		lacks(t, "needs iptables, with which criu stops the network: %v", err)
	}
	first, second := t.TempDir(), t.TempDir()
	events, err := s.Open("o/events", fs.Read)
	if err != nil {
		t.Fatal(err)
	}
	in, out := s.stdio("o")
	s.count(in, out, 1, 0)
	s.Write("o/ctl", "checkpoint "+first+" leave-running")
	s.says("runc", "o", isRunning)
	s.count(in, out, 2, int64(len("1 1 word\n")))
	s.Write("o/ctl", "checkpoint "+second)
	if got := s.do("status", "o"); got != string(isStopped) {
		t.Errorf("%s after its checkpoint", got)
	}
	if got := s.Read("o/wait"); !strings.Contains(got, " 'signal: KILL' ") {
		t.Errorf("wait: %s", got)
	}
	in.Close(s.Ctx)
	out.Close(s.Ctx)
	if err := s.Echo("o/ctl", "restore "+root); err == nil || !strings.HasPrefix(err.Error(), "runc restore: ") {
		t.Errorf("of what is none: %v", err)
	}
	s.Mkdir("q")
	s.counts("q", root)
	for _, c := range []struct {
		name, image string
		next        int
	}{{"o", second, 3}, {"q", first, 2}} {
		s.Write(c.name+"/ctl", "restore "+c.image)
		s.says("runc", c.name, isRunning)
		in, out := s.stdio(c.name)
		s.count(in, out, c.next, 0)
		in.Close(s.Ctx)
		if got := s.Read(c.name + "/wait"); !strings.Contains(got, " 'exit: 6' ") {
			t.Errorf("wait: %s", got)
		}
		out.Close(s.Ctx)
	}
	s.Rmdir("q")
	var topics []string
	for _, e := range s.eventsUntil(events, "restore") {
		topics = append(topics, e.topic)
	}
	events.Close(s.Ctx)
	if want := []string{"present", "ready", "checkpoint", "checkpoint", "exit", "restore"}; !slices.Equal(topics, want) {
		t.Errorf("events: %q, want %q", topics, want)
	}
}

// refuses makes sure that a checkpoint fails for the runtime's own reason, and for one that criu has said of this machine.
func (s *session) refuses(criu string) {
	t := s.T
	ours, theirs := t.TempDir(), t.TempDir()
	log := filepath.Join(theirs, "log")
	their := exec.CommandContext(s.Ctx, "runc", "--root", filepath.Join(s.set.State, "runtime/runc"), "--log", log, "--log-format", "json",
		"checkpoint", "--leave-running", "--image-path", theirs, strings.TrimSpace(s.Read("o/id"))).Run()
	err := s.Echo("o/ctl", "checkpoint "+ours+" leave-running")
	if err == nil || their == nil {
		t.Fatalf("%v; the runtime itself: %v; criu: %s", err, their, criu)
	}
	text, e := os.ReadFile(log)
	var said struct{ Msg string }
	if e == nil {
		e = json.Unmarshal(text, &said)
	}
	reason := strings.Join(strings.Fields(said.Msg), " ")
	if e != nil || !strings.HasPrefix(err.Error(), "runc checkpoint: "+reason) {
		t.Errorf("%v; the runtime itself: %q, %v", err, reason, e)
	} else if _, words, _ := strings.Cut(err.Error(), "criu: "); !strings.Contains(criu, words) {
		t.Errorf("%v; criu itself: %s", err, criu)
	}
	s.says("runc", "o", isRunning)
	s.Write("o/ctl", "kill")
	s.Read("o/wait")
}
