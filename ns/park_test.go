package ns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParkedIsClean(t *testing.T) {
	needsRoot(t)
	open, err := os.Open("/etc") // one more descriptor of the server, without close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := unix.FcntlInt(open.Fd(), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}

	defer unix.Umask(unix.Umask(077))
	p := park(t, Opt{})
	proc := fmt.Sprintf("/proc/%d/", p.Pid)
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, fd := range fds {
		names = append(names, fd.Name())
	}
	if got := strings.Join(names, " "); got != "0 1 2 3" {
		t.Errorf("parked: descriptors %s", got)
	}
	for _, x := range []struct{ name, want string }{
		{"Name", "parked"}, {"Umask", "0022"}, {"SigBlk", "0000000000000000"}, {"SigIgn", "0000000000000000"},
		{"SigCgt", "0000000000000000"}, {"FDSize", "64"}, {"CapInh", "0000000000000000"}, {"CapAmb", "0000000000000000"},
	} {
		if got := statusField(t, p.Pid, x.name); got != x.want {
			t.Errorf("parked: %s is %s, want %s", x.name, got, x.want)
		}
	}
	if dir, err := os.Readlink(proc + "cwd"); dir != "/" {
		t.Errorf("directory %q, %v", dir, err)
	}
	if g, err := unix.Getpgid(p.Pid); g != p.Pid {
		t.Errorf("process group %d, %v; want %d", g, err, p.Pid)
	}
	plan := &Plan{}
	dumpable := plan.Do("prctl", unix.SYS_PRCTL, unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err := p.Run(withTimeout(t), plan); err != nil || dumpable.Result() != 0 {
		t.Errorf("dumpable %d, %v", dumpable.Result(), err)
	}
	if s, err := unix.Getsid(p.Pid); s == p.Pid || err != nil {
		t.Errorf("session %d, %v: it must not lead one", s, err)
	}
	var lim unix.Rlimit
	if err := unix.Prlimit(p.Pid, unix.RLIMIT_NOFILE, nil, &lim); err != nil || lim.Cur != min(1024, lim.Max) {
		t.Errorf("limit of descriptors %v, %v", lim, err)
	}

	out, code := output(t, Opt{}, "sh", "-c", "ls /proc/self/fd; env; exit 7")
	if want := "0\n1\n2\n3\nPATH=/bin:/usr/bin\nPWD=/\n"; out != want && !strings.HasPrefix(out, "0\n1\n2\n3\n") || strings.Contains(out, "4\n") || code != 7 {
		t.Errorf("program: %q, status %d", out, code)
	}
}

// A process of another user is one: no id, group, capability or secret of the server's is left.
func TestParkedUser(t *testing.T) {
	needsRoot(t)
	p := park(t, Opt{Cred: &Cred{Uid: 65534, Gid: 65533, Groups: []uint32{7, 9}}})
	for _, x := range []struct{ name, want string }{
		{"Uid", "65534 65534 65534 65534"}, {"Gid", "65533 65533 65533 65533"}, {"Groups", "7 9"},
		{"CapPrm", "0000000000000000"}, {"CapEff", "0000000000000000"}, {"CapInh", "0000000000000000"}, {"CapAmb", "0000000000000000"},
	} {
		if got := statusField(t, p.Pid, x.name); got != x.want {
			t.Errorf("%s is %s, want %s", x.name, got, x.want)
		}
	}
	proc := fmt.Sprintf("/proc/%d/", p.Pid)
	look := func(argv ...string) error {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65533}}
		return cmd.Run()
	}
	for _, name := range []string{"environ", "maps", "auxv"} {
		if look("cat", proc+name) == nil {
			t.Errorf("%s of a parked process read by its user", name)
		}
	}
	for _, name := range []string{"fd/", "cwd/", "root/"} {
		if look("ls", proc+name) == nil {
			t.Errorf("%s of a parked process listed by its user", name)
		}
	}
	// Once it is a program it is the user's again.
	if err := p.Exec(withTimeout(t), []string{"sleep", "60"}, []string{"PATH=/bin"}); err != nil {
		t.Fatal(err)
	}
	if err := look("cat", proc+"environ"); err != nil {
		t.Errorf("environ of the user's program: %v", err)
	}
}

func TestExecErrors(t *testing.T) {
	dir := t.TempDir()
	noexec := filepath.Join(dir, "noexec")
	os.Mkdir(noexec, 0755)
	os.WriteFile(filepath.Join(noexec, "true"), []byte("#!/bin/sh\n"), 0644)
	os.WriteFile(filepath.Join(dir, "garbage"), []byte("garbage"), 0755)
	p := park(t, Opt{})
	for _, x := range []struct {
		argv, env []string
		want      string
		is        error
	}{
		{nil, nil, `exec: no such file or directory`, fs.ErrNotExist},
		{[]string{"/bin/nonesuch"}, nil, `exec "/bin/nonesuch": no such file or directory`, fs.ErrNotExist},
		{[]string{"frob"}, []string{"PATH=/bin:/usr/bin"}, `exec "frob": no such file or directory`, fs.ErrNotExist},
		{[]string{"true"}, []string{"PATH=/nonesuch:" + noexec}, `exec "` + noexec + `/true": permission denied`, fs.ErrPermission},
		{[]string{"garbage"}, []string{"PATH=" + dir}, `exec "` + dir + `/garbage": exec format error`, unix.ENOEXEC},
		{[]string{"true"}, []string{"HOME"}, `environment "HOME": invalid argument`, unix.EINVAL},
		{[]string{"true", "a\x00b"}, nil, `"a\x00b": invalid argument`, unix.EINVAL},
		{[]string{"true", strings.Repeat("x", 200<<10)}, nil, `exec "/bin/true": argument list too long`, unix.E2BIG},
	} {
		err := p.Exec(withTimeout(t), x.argv, x.env)
		if err == nil || err.Error() != x.want || !errors.Is(err, x.is) {
			t.Errorf("exec %.20q: %v, want %s", x.argv, err, x.want)
		}
	}
	// After all of them it waits still, and an entry that cannot be executed does not hide a later one.
	if err := p.Exec(withTimeout(t), []string{"true"}, []string{"PATH=" + noexec + "::/bin"}); err != nil {
		t.Fatal(err)
	}
	if ws := status(t, p); ws != 0 {
		t.Errorf("status %v", ws)
	}
	if err := p.Exec(withTimeout(t), []string{"true"}, nil); !errors.Is(err, ErrExited) {
		t.Errorf("second exec: %v", err)
	}
}

// Arguments that fill no message, and more than one of them.
func TestExecLong(t *testing.T) {
	argv := []string{"sh", "-c", `echo $# ${#1} ${#LONG}`, "sh"}
	for range 12 {
		argv = append(argv, strings.Repeat("a", 100_000))
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := park(t, Opt{Stdio: [3]*os.File{nil, w, nil}})
	w.Close()
	if err := p.Exec(withTimeout(t), argv, []string{"PATH=/bin", "LONG=" + strings.Repeat("b", 120_000)}); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(r)
	if string(b) != "12 100000 120000\n" {
		t.Errorf("program says %q", b)
	}
	status(t, p)
}

// A plan that waits ends with its context, and its process with it.
func TestRunCancelled(t *testing.T) {
	var begun, never [2]int
	for _, p := range []*[2]int{&begun, &never} {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(p[0])
		defer unix.Close(p[1])
	}
	p := park(t, Opt{})
	plan := &Plan{}
	plan.Do("write", unix.SYS_WRITE, plan.Send(begun[1]), "x", 1)
	plan.Do("read", unix.SYS_READ, plan.Send(never[0]), make([]byte, 8), 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Run(ctx, plan) }()
	if _, err := unix.Read(begun[0], make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
	if ws := status(t, p); ws.Signal() != unix.SIGKILL {
		t.Errorf("status %#x", ws)
	}
	if err := p.Run(withTimeout(t), &Plan{}); err != ErrExited {
		t.Errorf("run after it: %v", err)
	}
}

func TestClose(t *testing.T) {
	other := exec.Command("true")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	p := park(t, Opt{})
	fd, err := unix.FcntlInt(uintptr(p.Pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if ws := status(t, p); ws.ExitStatus() != 127 {
		t.Errorf("status %#x", ws)
	}
	if err := p.Close(); err == nil {
		t.Error("closed twice")
	}
	if err := other.Wait(); err != nil {
		t.Errorf("another's child: %v", err)
	}
}

// Many at once, with the collector running: every one has its own descriptors and status.
func TestParkMany(t *testing.T) {
	before := countFDs(t)
	ctx := withTimeout(t)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 25 {
				r, w, err := os.Pipe()
				if err != nil {
					t.Error(err)
					return
				}
				p, err := Park(ctx, Opt{Stdio: [3]*os.File{nil, w, nil}})
				w.Close()
				if err != nil {
					t.Error(err)
					return
				}
				want := strconv.Itoa(g*100 + i)
				if err := p.Exec(ctx, []string{"/bin/echo", want}, nil); err != nil {
					t.Error(err)
				}
				b, _ := io.ReadAll(r)
				r.Close()
				if string(b) != want+"\n" {
					t.Errorf("%q, want %s", b, want)
				}
				status(t, p)
				p.Close()
			}
		})
	}
	wg.Wait()
	if after := countFDs(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func countFDs(t testing.TB) int {
	t.Helper()
	if err := openHatch(""); err != nil {
		t.Fatal(err)
	}
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// The stub as a file, for machines that refuse to execute memfds.
func TestStubInDir(t *testing.T) {
	dir := t.TempDir()
	fd, err := stubInDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "stub")
	defer f.Close()
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left in the directory: %v", left)
	}
	b, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(b, stubELF()) {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
}
