package fuse

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cats starts n programs that read a file of dir.
func cats(t *testing.T, dir, file string, n int) []*exec.Cmd {
	t.Helper()
	list := make([]*exec.Cmd, n)
	for i := range list {
		list[i] = exec.Command("cat", filepath.Join(dir, file))
		list[i].Stdout = new(bytes.Buffer)
		if err := list[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// ended waits for a program, which does not end while it is in state D.
func ended(t *testing.T, cmd *exec.Cmd) *os.ProcessState {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
		return cmd.ProcessState
	case <-time.After(30 * time.Second):
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		t.Fatalf("does not end: %s", b)
		return nil
	}
}

func TestKillBlocked(t *testing.T) {
	w := newWorld("a", "b")
	_, dir := mounted(t, w)
	const n = 1000
	others := cats(t, dir, "b/wait", 10)
	list := cats(t, dir, "a/wait", n)
	w.blocks(t, n+len(others))
	if got := sh(t, dir, 0, 0, nil, "cat a/text; echo x >a/list; ls a | wc -l"); got != "one\ntwo\n11\n" {
		t.Errorf("beside blocked readers: %q", got)
	}
	for i, cmd := range list {
		sig := []syscall.Signal{syscall.SIGINT, syscall.SIGKILL}[i%2]
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	for i, cmd := range list {
		want := []syscall.Signal{syscall.SIGINT, syscall.SIGKILL}[i%2]
		if st := ended(t, cmd).Sys().(syscall.WaitStatus); st.Signal() != want {
			t.Errorf("ended as %v, want %v", st, want)
		}
	}
	close(w.boxes["b"].done)
	for _, cmd := range others {
		ended(t, cmd)
		if got := cmd.Stdout.(*bytes.Buffer).String(); got != "done\n" {
			t.Errorf("a reader that was not killed got %q", got)
		}
	}
}

// One reads a file and blocks; others write the same, by every way of opening it.
func TestWriteBesideBlockedRead(t *testing.T) {
	w := newWorld("a")
	_, dir := mounted(t, w)
	list := cats(t, dir, "a/wait", 1)
	w.blocks(t, 1)
	for _, script := range []string{"echo x >a/list", "echo x >>a/list", "truncate -s 0 a/list", "echo x 2>/dev/null >a/wait", ">>a/wait", "stat a/wait", "truncate -s 0 a/wait"} {
		sh(t, dir, 0, 0, nil, script)
	}
	close(w.boxes["a"].done)
	ended(t, list[0])
}

// A signal that a program survives does not undo what it asks for; one that means it ends it.
func TestInterruptedWrite(t *testing.T) {
	w := newWorld("a")
	_, dir := mounted(t, w)
	a := w.boxes["a"]
	start := func() *exec.Cmd {
		// The shell itself writes; its child ends when the test says so, by the end of file on standard input.
		cmd := exec.Command("env", "-C", dir, "bash", "-c", "trap 'echo child' CHLD; cat <&3 >/dev/null & exec 3<&-; echo x >a/stdin && echo written")
		cmd.Stdout = new(bytes.Buffer)
		return cmd
	}
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, 0} {
		r, wr, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := start()
		cmd.ExtraFiles = []*os.File{r}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r.Close()
		w.blocks(t, 1)
		wr.Close()
		// The child's end has interrupted the write when the signal waits for the shell.
		for pending := false; !pending; {
			st, err := threadStatus(uint32(cmd.Process.Pid))
			if err != nil {
				t.Fatal("the write was undone: ", err)
			}
			pending = st.pending&(1<<(syscall.SIGCHLD-1)) != 0
		}
		if sig != 0 {
			cmd.Process.Signal(sig)
			if st := ended(t, cmd).Sys().(syscall.WaitStatus); st.Signal() != sig {
				t.Errorf("%v: ended as %v", sig, st)
			}
			continue
		}
		sh(t, dir, 0, 0, nil, "cat a/text") // the kernel tells of a signal before it asks for more
		close(a.done)
		ended(t, cmd)
		if len(w.blocked) > 0 {
			t.Error("the write was begun anew")
		}
		if got := cmd.Stdout.(*bytes.Buffer).String(); !strings.Contains(got, "written") {
			t.Errorf("the write was undone: %q", got)
		}
	}
}
