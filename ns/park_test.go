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
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
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

func TestPlan(t *testing.T) {
	p := park(t, Opt{})
	ctx := withTimeout(t)
	dir := t.TempDir()
	os.WriteFile(dir+"/f", []byte("text"), 0644)
	f, err := os.Open(dir + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	plan := &Plan{}
	fd := plan.Send(int(f.Fd()))
	pid := plan.Do("getpid", unix.SYS_GETPID)
	failed := plan.Do("open", unix.SYS_OPENAT, unix.AT_FDCWD, dir+"/nonesuch", 0, 0).Try()
	closed := plan.Do("close what was not opened", unix.SYS_CLOSE, failed).Try()
	out := plan.Do("open", unix.SYS_OPENAT, unix.AT_FDCWD, dir+"/out", unix.O_CREAT|unix.O_WRONLY, 0644)
	copied := plan.Do("sendfile", unix.SYS_SENDFILE, out, fd, 0, 100)
	plan.Do("writev", unix.SYS_WRITEV, out, []any{" and more", 9, []byte("!"), 1}, 2)
	// A step's result within a structure: pollfd is not of words, so dup2's number in an iovec.
	zero := plan.Do("getppid", unix.SYS_SETPGID, 0, 0)
	plan.Do("writev of nothing", unix.SYS_WRITEV, out, []any{"x", zero}, 1)
	if err := p.Run(ctx, plan); err != nil {
		t.Fatal(err)
	}
	if pid.Result() != p.Pid || copied.Result() != 4 || fd.Result() != 4 || !errors.Is(closed.Err(), unix.EBADF) {
		t.Errorf("pid %d, copied %d, fd %d, close: %v", pid.Result(), copied.Result(), fd.Result(), closed.Err())
	}
	if b, _ := os.ReadFile(dir + "/out"); string(b) != "text and more!" {
		t.Errorf("written: %q", b)
	}

	plan = &Plan{}
	plan.Do(`mount "/srv/x"`, unix.SYS_CHDIR, "/srv/nonesuch")
	never := plan.Do("never", unix.SYS_EXIT_GROUP, 3)
	err = p.Run(ctx, plan)
	if err == nil || err.Error() != `mount "/srv/x": no such file or directory` || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	_ = never
	plan = &Plan{}
	plan.Do("nonsense", 9999)
	if err := p.Run(ctx, plan); err == nil || err.Error() != "nonsense: function not implemented" {
		t.Errorf("error %v", err)
	}
	plan = &Plan{}
	for range 1000 {
		plan.Do("getpid", unix.SYS_GETPID)
	}
	if err := p.Run(ctx, plan); err != errPlanTooLong {
		t.Errorf("long plan: %v", err)
	}
	plan = &Plan{}
	plan.Do("exit", unix.SYS_EXIT_GROUP, 3)
	if err := p.Run(ctx, plan); err != io.EOF {
		t.Errorf("a plan that ends the process: %v", err)
	}
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

// The test binary again, for what needs a parent, a namespace or a first start of its own.
var roles = map[string]func() error{}

func TestMain(m *testing.M) {
	Tracer()
	if role, ok := roles[os.Getenv("NS_TEST_ROLE")]; ok {
		if err := role(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	for _, f := range atExit {
		f()
	}
	os.Exit(code)
}

var atExit []func() // after the tests

func runRole(t *testing.T, role string, attr *syscall.SysProcAttr, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(withTimeout(t), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "NS_TEST_ROLE="+role)
	cmd.SysProcAttr = attr
	b, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", role, err, b)
	}
	return string(b)
}

func init() {
	// A server whose parent waits for its children.
	roles["sibling"] = func() error {
		p, err := Park(context.Background(), Opt{Sibling: true, Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}})
		if err != nil {
			return err
		}
		if err := p.Exec(context.Background(), []string{"nonesuch"}, nil); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("exec nonesuch: %v", err)
		}
		if err := p.Exec(context.Background(), []string{"sh", "-c", "echo ppid $PPID; exit 9"}, nil); err != nil {
			return err
		}
		if err := unix.Waitid(unix.P_PIDFD, p.Pidfd, nil, unix.WEXITED, nil); err != unix.ECHILD {
			return fmt.Errorf("waitid by the server: %v", err)
		}
		fmt.Println("pid", p.Pid)
		return p.Close()
	}
	// A server that ignores signals and has a terminal: descriptor 0.
	roles["terminal"] = func() error {
		signal.Ignore(syscall.SIGUSR2, syscall.SIGPIPE)
		if fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY, 0); err != nil {
			return fmt.Errorf("server without a terminal: %v", err)
		} else {
			unix.Close(fd)
		}
		p, err := Park(context.Background(), Opt{Stdio: [3]*os.File{1: os.Stdout, 2: os.Stderr}})
		if err != nil {
			return err
		}
		if err := p.Exec(context.Background(), []string{"sh", "-c", "grep SigIgn /proc/self/status; (: </dev/tty) 2>/dev/null || echo no terminal"}, nil); err != nil {
			return err
		}
		waitEnd(p.Pidfd)
		return p.Close()
	}
	// In a pid namespace of its own where memfds may not be executed.
	roles["noexec"] = func() error {
		if err := os.WriteFile("/proc/sys/vm/memfd_noexec", []byte("2"), 0); err != nil {
			return err
		}
		if _, err := Park(context.Background(), Opt{}); !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("memfd with memfd_noexec=2: %v", err)
		}
		p, err := Park(context.Background(), Opt{State: os.Args[1], Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}})
		if err != nil {
			return err
		}
		if err := p.Exec(context.Background(), []string{"echo", "from a file"}, nil); err != nil {
			return err
		}
		waitEnd(p.Pidfd)
		return p.Close()
	}
}

func TestParkSibling(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "NS_TEST_ROLE=sibling")
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	b, _ := io.ReadAll(r)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	var pid int
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	slices.Sort(lines)
	if _, err := fmt.Sscanf(lines[0], "pid %d", &pid); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	if want := fmt.Sprintf("ppid %d", os.Getpid()); lines[1] != want {
		t.Errorf("its parent: %s, want %s", lines[1], want)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err != nil || ws.ExitStatus() != 9 {
		t.Errorf("waited by the parent: %#x, %v", ws, err)
	}
}

func TestParkedHasNoTerminal(t *testing.T) {
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		lacks(t, "needs a terminal: %v", err)
	}
	defer ptmx.Close()
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		lacks(t, "needs /dev/pts of /dev/ptmx: %v", err)
	}
	defer tty.Close()
	cmd := exec.CommandContext(withTimeout(t), "/proc/self/exe")
	cmd.Env = append(os.Environ(), "NS_TEST_ROLE=terminal")
	cmd.Stdin = tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	b, err := cmd.CombinedOutput()
	if want := "SigIgn:\t0000000000000000\nno terminal\n"; err != nil || string(b) != want {
		t.Errorf("%v, %q, want %q", err, b, want)
	}
}

func TestStubWithoutMemfd(t *testing.T) {
	needsRoot(t)
	if _, err := os.Stat("/proc/sys/vm/memfd_noexec"); err != nil {
		lacks(t, "needs Linux 6.3: %v", err)
	}
	// The sysctl is the pid namespace's of the writer.
	got := runRole(t, "noexec", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, t.TempDir())
	if got != "from a file\n" {
		t.Errorf("said %q", got)
	}
}
