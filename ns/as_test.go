package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const alice, bob = 1234, 1235 // users of the tests; nobody else may have these

// attr starts a process as c, in a session of its own: everybody may continue the processes of his session.
func attr(c Cred) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: c.Uid, Gid: c.Gid, Groups: c.Groups}}
}

// What a thread of ours may do as a user is what a process of that user may do.
func TestAs(t *testing.T) {
	needsRoot(t)
	atEnd(t)
	dir := t.TempDir()
	os.Chmod(filepath.Dir(dir), 0755)
	os.Chmod(dir, 0755)
	secret := filepath.Join(dir, "secret") // execute only: its processes are not dumpable
	text, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, text, 0711); err != nil {
		t.Fatal(err)
	}
	group := filepath.Join(dir, "group")
	if err := os.WriteFile(group, nil, 0640); err != nil {
		t.Fatal(err)
	}
	os.Chown(group, 0, 777)

	a, b := Cred{Uid: alice, Gid: alice, Groups: []uint32{}}, Cred{Uid: bob, Gid: bob, Groups: []uint32{777, 778}}
	ag := Cred{Uid: alice, Gid: bob, Groups: []uint32{}}
	root := Cred{}
	mapped := attr(root)
	mapped.Cloneflags = unix.CLONE_NEWUSER
	mapped.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: alice, Size: 1}}
	mapped.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: alice, Size: 1}}
	targets := []struct {
		name string
		sh   *sh
	}{
		{"root's", shell(t, attr(root))},
		{"alice's", shell(t, attr(a))},
		{"alice's, other group", shell(t, attr(ag))},
		{"bob's", shell(t, attr(b))},
		{"alice's, not dumpable", shell(t, attr(a))},
		{"alice's own user namespace", shell(t, attr(a))},
		{"user namespace of root mapped to alice", shell(t, mapped)},
	}
	// The shell that answers is the one after the exec: what its predecessor had read ahead of its input would be lost.
	for i, cmd := range map[int]string{4: "exec %[1]s -c 'echo yes; exec %[1]s'", 5: "exec unshare -U sh -c 'echo yes; exec sh' # %s", 6: "echo yes # %s"} {
		if i == 5 {
			if targets[i].sh.ask("unshare -U true && echo yes || echo no") != "yes" {
				t.Log("lacking: user namespaces for users")
				continue
			}
		}
		if a := targets[i].sh.ask(cmd, secret); !strings.HasPrefix(a, "yes") {
			t.Fatalf("%s answers %q", targets[i].name, a)
		}
	}

	ops := []struct {
		name, script string
		do           func(c Cred, p *Process) error
	}{
		{"environ", "cat /proc/%d/environ", func(c Cred, p *Process) error { _, err := p.Environ(c); return err }},
		{"cmdline", "cat /proc/%d/cmdline", func(c Cred, p *Process) error { _, err := p.readAs(c, "cmdline", maxArgs); return err }},
		{"maps", "cat /proc/%d/maps", func(c Cred, p *Process) error { _, err := p.readAs(c, "maps", maxMounts); return err }},
		{"cwd", "readlink /proc/%d/cwd", func(c Cred, p *Process) error { _, err := p.Cwd(c); return err }},
		{"exe", "readlink /proc/%d/exe", func(c Cred, p *Process) error { _, err := p.Exe(c); return err }},
		{"fd", "ls /proc/%d/fd", func(c Cred, p *Process) error {
			return As(c, func() error { _, err := numbers(p.path("fd")); return err })
		}},
		{"signal 0", "kill -0 %d", func(c Cred, p *Process) error { return SignalAs(c, p, 0) }},
		{"signal CONT", "kill -CONT %d", func(c Cred, p *Process) error { return SignalAs(c, p, unix.SIGCONT) }},
		{"a group's file", "cat " + group + " # %d", func(c Cred, p *Process) error {
			fd, err := OpenAs(c, group, unix.O_RDONLY)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}},
	}
	allowed := 0
	for _, target := range targets {
		p := open(t, target.sh.cmd.Process.Pid)
		for _, c := range []Cred{root, a, ag, b} {
			for _, op := range ops {
				client := exec.Command("/bin/sh", "-c", fmt.Sprintf(op.script, p.pid))
				client.SysProcAttr = attr(c)
				want := client.Run()
				got := op.do(c, p)
				if (want == nil) != (got == nil) || got != nil && !errors.Is(got, fs.ErrPermission) {
					t.Errorf("%s of %s by %+v: %v, the user's own process: %v", op.name, target.name, c, got, want)
				}
				if got == nil {
					allowed++
				}
			}
		}
	}
	if all := len(targets) * 4 * len(ops); allowed == 0 || allowed == all {
		t.Errorf("%d of %d allowed", allowed, all)
	}
	unchanged(t)
}

// unchanged checks that no thread of ours carries anything of a client's.
func unchanged(t *testing.T) {
	t.Helper()
	tids, err := numbers("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	self := open(t, os.Getpid())
	want, err := self.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, tid := range tids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", tid))
		if err != nil {
			continue // ended
		}
		s, err := parseStatus(text)
		if err != nil {
			t.Fatal(err)
		}
		if s.Uid != want.Uid || s.Gid != want.Gid || s.CapEff != want.CapEff || s.CapPrm != want.CapPrm || fmt.Sprint(s.Groups) != fmt.Sprint(want.Groups) {
			t.Errorf("thread %d has %+v, the first %+v", tid, s, want)
		}
	}
	if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || n == 1 {
		t.Errorf("dumpable is %d, %v", n, err)
	}
}

// While a thread has a user's identity, that user can neither signal it nor look at it.
func TestAsIsNoTarget(t *testing.T) {
	needsRoot(t)
	c := Cred{Uid: alice, Gid: alice}
	tid, done := make(chan int), make(chan bool)
	result := make(chan error)
	go func() {
		result <- As(c, func() error {
			tid <- unix.Gettid()
			<-done
			return nil
		})
	}()
	n := <-tid
	for _, script := range []string{
		fmt.Sprintf("kill -0 %d", n),
		fmt.Sprintf("cat /proc/%d/environ", n),
		fmt.Sprintf("ls /proc/%d/fd", n),
		fmt.Sprintf("cat /proc/self/../%d/maps", n),
	} {
		client := exec.Command("/bin/sh", "-c", script)
		client.SysProcAttr = attr(c)
		if out, err := client.CombinedOutput(); err == nil {
			t.Errorf("%s succeeds for the user: %.99s", script, out)
		} else if !strings.Contains(strings.ToLower(string(out)), "denied") && !strings.Contains(string(out), "permitted") {
			t.Errorf("%s: %s", script, out)
		}
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", n))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := parseStatus(text); err != nil || s.CapEff != 0 || s.Uid[1] != alice || s.Uid[3] != alice || len(s.Groups) != 0 {
		t.Errorf("the thread has %+v, %v", s, err)
	}
	close(done)
	if err := <-result; err != nil {
		t.Error(err)
	}
	unchanged(t)
}

func TestAsErrors(t *testing.T) {
	needsRoot(t)
	if err := As(Cred{Uid: alice, Groups: make([]uint32, maxGroups+1)}, func() error { return nil }); err == nil {
		t.Error("too many groups are taken")
	}
	called := false
	for _, c := range []Cred{{Uid: nobodyAtAll}, {Uid: alice, Gid: nobodyAtAll}} {
		if err := As(c, func() error { called = true; return nil }); err == nil || called {
			t.Errorf("%+v: %v, called %v", c, err, called)
		}
	}
	unchanged(t)
}

func BenchmarkAs(b *testing.B) {
	needsRoot(b)
	c := Cred{Uid: alice, Gid: alice, Groups: []uint32{1, 2, 3}}
	for b.Loop() {
		if err := As(c, func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	pid := os.Getpid()
	for b.Loop() {
		p, err := Open(pid)
		if err != nil {
			b.Fatal(err)
		}
		p.ID()
		p.Close()
	}
}

func BenchmarkStat(b *testing.B) {
	p := open(b, os.Getpid())
	for b.Loop() {
		if _, err := p.Stat(); err != nil {
			b.Fatal(err)
		}
	}
}

// No goroutine but the program's first runs on the first thread.
func TestFirstThread(t *testing.T) {
	var all sync.WaitGroup
	first := atomic.Bool{}
	for range 10_000 {
		all.Go(func() {
			if unix.Gettid() == unix.Getpid() {
				first.Store(true)
			}
			runtime.Gosched()
		})
	}
	if all.Wait(); first.Load() {
		t.Error("one does")
	}
}
