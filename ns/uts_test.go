package ns

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHostname(t *testing.T) {
	needsRoot(t)
	atEnd(t)
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	home := utsOfThreads(t)
	if len(home) != 1 {
		t.Fatalf("threads are in %v", home)
	}
	s := shell(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS})
	p := open(t, s.cmd.Process.Pid)
	other := shell(t, nil)
	q := open(t, other.cmd.Process.Pid)

	if err := SetHostname(p, "inner"); err != nil {
		t.Fatal(err)
	}
	if err := SetDomainname(p, "inner.domain"); err != nil {
		t.Fatal(err)
	}
	if got := s.ask("hostname"); got != "inner" {
		t.Errorf("the process says %q", got)
	}
	// While the container changes its name as fast as it can, nobody of ours is moved.
	s.do("(while hostname one && hostname two && kill -0 %d; do :; done) >/dev/null 2>&1 &", s.cmd.Process.Pid)
	for range 300 {
		n, err := Hostname(p)
		if err != nil || n != "inner" && n != "one" && n != "two" {
			t.Fatalf("name is %q, %v", n, err)
		}
		if n, err := Hostname(q); err != nil || n != own {
			t.Fatalf("our name is %q, %v", n, err)
		}
	}
	if d, err := Domainname(p); err != nil || d != "inner.domain" {
		t.Errorf("domain is %q, %v", d, err)
	}
	if err := SetHostname(p, strings.Repeat("x", 65)); err == nil {
		t.Error("65 bytes are taken")
	}
	for ns := range utsOfThreads(t) {
		if !home[ns] {
			t.Errorf("a thread of ours is in %s", ns)
		}
	}
	if n, _ := os.Hostname(); n != own {
		t.Errorf("our own name became %q", n)
	}

	gone := exec.Command("/bin/true")
	if err := gone.Start(); err != nil {
		t.Fatal(err)
	}
	g := open(t, gone.Process.Pid)
	gone.Wait()
	if _, err := Hostname(g); err != ErrExited {
		t.Errorf("name of a gone process: %v", err)
	}
}

func utsOfThreads(t *testing.T) map[string]bool {
	t.Helper()
	tids, err := numbers("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]bool)
	for _, tid := range tids {
		if l, err := readlink(fmt.Sprintf("/proc/self/task/%d/ns/uts", tid)); err == nil {
			all[l] = true
		}
	}
	return all
}

func BenchmarkHostname(b *testing.B) {
	needsRoot(b)
	s := shell(b, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS})
	p := open(b, s.cmd.Process.Pid)
	for b.Loop() {
		if _, err := Hostname(p); err != nil {
			b.Fatal(err)
		}
	}
}
