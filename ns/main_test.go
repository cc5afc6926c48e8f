package ns

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lacks ends the test for want of something of the machine; where nothing may be lacking it fails.
func lacks(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func needsRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		lacks(t, "needs root: it changes users and namespaces")
	}
}

// withTimeout is against hanging only.
func withTimeout(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func park(t testing.TB, o Opt) *Parked {
	t.Helper()
	p, err := Park(withTimeout(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.End() })
	return p
}

// status waits for a child and gives its wait status.
func status(t testing.TB, p *Parked) unix.WaitStatus {
	t.Helper()
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(p.Pid, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatalf("wait4 %d: %v", p.Pid, err)
		}
		return ws
	}
}

// output runs argv in p, whose output is the pipe w, and gives what it wrote to r and its exit status.
func output(t testing.TB, o Opt, argv ...string) (string, int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o.Stdio[1], o.Stdio[2] = w, w
	p := park(t, o)
	w.Close()
	if err := p.Exec(withTimeout(t), argv, []string{"PATH=/bin:/usr/bin"}); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	ws := status(t, p)
	p.Close()
	return string(b), ws.ExitStatus()
}

// statusField gives the value of a line of /proc/PID/status.
func statusField(t testing.TB, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.Join(strings.Fields(v), " ")
		}
	}
	t.Fatalf("no %s in status of %d", name, pid)
	return ""
}
