package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs/styx"
	"ctrfs/ns"
)

// A worker is a process at work that is not the server's, and what is told to it.
type worker struct {
	t   testing.TB
	cmd *exec.Cmd
	in  *os.File
	out *bufio.Reader
	pid string
	c   *caller
}

func (s *served) worker(t testing.TB, attr *syscall.SysProcAttr, argv ...string) *worker {
	t.Helper()
	r, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w := &worker{t: t, cmd: exec.Command(argv[0], argv[1:]...), in: in}
	w.cmd.Dir, w.cmd.Stdin, w.cmd.SysProcAttr, w.cmd.Stderr = "/usr", r, attr, os.Stderr
	w.cmd.Env = append(os.Environ(), "CTRFS_TEST_ROLE=work")
	out, err := w.cmd.StdoutPipe()
	if err == nil {
		err = w.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); w.cmd.Process.Kill(); w.cmd.Wait() })
	w.pid, w.out = strconv.Itoa(w.cmd.Process.Pid), bufio.NewReader(out)
	w.hears("ready")
	conn, err := net.Dial(s.unix.Network(), s.unix.String())
	if err != nil {
		t.Fatal(err)
	}
	w.c = converse(t, conn, styx.Plain)
	if err := w.c.attach("root", 0); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *worker) hears(want string) {
	w.t.Helper()
	if line, err := w.out.ReadString('\n'); line != want+"\n" {
		w.t.Fatalf("it says %q, %v", line, err)
	}
}

// works is whether all that the worker does goes on, and right.
func (w *worker) works() {
	w.t.Helper()
	fmt.Fprintln(w.in, "well?")
	w.hears("right")
}

func (w *worker) tell(msg string) error { return w.c.echo("proc/"+w.pid+"/ctl", msg+"\n") }

// A sight is what of a worker can change, as the kernel has it, of all threads together.
type sight map[string]string

func (w *worker) look() sight {
	dir, s := "/proc/"+w.pid+"/", sight{}
	add := func(what, value string) {
		if !slices.Contains(strings.Fields(s[what]), value) {
			s[what] = strings.TrimSpace(s[what] + " " + value)
		}
	}
	tasks, _ := os.ReadDir(dir + "task")
	for _, task := range tasks {
		at := dir + "task/" + task.Name() + "/"
		for _, kind := range []string{"mnt", "uts", "ipc", "net", "cgroup"} {
			to, _ := os.Readlink(at + "ns/" + kind)
			add(kind, to)
		}
		status, _ := os.ReadFile(at + "status")
		if regexp.MustCompile(`(?m)^State:\s[ZX]`).Match(status) { // a thread of Go's that ends has none of it any more
			continue
		}
		for name, line := range map[string]string{"cpus": "Cpus_allowed_list", "mask": "SigIgn"} {
			if m := regexp.MustCompile(`(?m)^` + line + `:\s*(\S+)`).FindSubmatch(status); m != nil {
				add(name, string(m[1]))
			}
		}
		stat, _ := os.ReadFile(at + "stat")
		if f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])); len(f) > 20 {
			add("nice", f[16])
			add("pgrp", f[2])
		}
		fds, _ := os.ReadDir(at + "fd")
		for _, fd := range fds {
			add("fd", fd.Name())
		}
	}
	mounts, _ := os.ReadFile(dir + "mountinfo")
	if s["mounts"] = "many"; strings.Count(string(mounts), "\n") == 1 { // those of the machine come and go
		s["mounts"] = "1"
	}
	s["cwd"], _ = os.Readlink(dir + "cwd")
	limits, _ := os.ReadFile(dir + "limits")
	s["nofile"] = string(regexp.MustCompile(`Max open files.*`).Find(limits))
	return s
}

// changed gives the names of what differs.
func (s sight) changed(before sight) (names []string) {
	for name, was := range before {
		if s[name] != was {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// deeds are messages, in an order in which each has something to do, with what each changes, and how that is then: a pattern.
// Only one thread may be there for some. Who makes no call himself is not stopped for it.
var deeds = []struct {
	msg, changes, to string
	one, outside     bool
}{
	{"forkfd 9", "", "", false, false},
	{"newpgrp", "pgrp", "^PID$", false, false},
	{"close 9", "fd", "", false, false},
	{"newfd OTHERS forkfd", "fd", "", false, false},
	{"unshare uts ipc", "ipc uts", `^\S+$`, false, false},
	{"unshare net cgroup", "cgroup net", `^\S+$`, false, false},
	{"join OTHER uts", "uts", `^THEIRS$`, false, false},
	{"rfork sf", "", "", false, false},
	{"private", "", "", false, false},
	{"nice 3", "nice", "^3$", false, true},
	{"wired 0", "cpus", `^0$`, false, true},
	{"limit nofile 64 64", "nofile", `\s64\s+64\s`, false, true},
	{"forkns", "mnt", `^\S+$`, true, false},
	{"newns", "cwd mnt mounts", `^(1|/|mnt:\S+)$`, true, false},
}

// TestMatrix does all that can be done to a running process to workers of all kinds: each is changed in what was meant and in
// nothing else, or refused and unchanged, and its work goes on and comes out right.
func TestMatrix(t *testing.T) {
	s := serveHere(t)
	program := workProgram(t)
	other := exec.Command("sleep", "1000")
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Process.Kill(); other.Wait() })
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/uts", other.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	all := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
	users := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: all, GidMappings: all}
	bash := `echo ready; s=0; while read x; do for i in 1 2 3 4; do ((s += i)); done; ((s % 10)) && echo WRONG || echo right; done 9</`
	stopped := func(w *worker) func() {
		if err := w.tell("stop"); err != nil {
			w.t.Fatal(err)
		}
		w.settles("T")
		return func() {
			w.settles("T") // as it was
			if err := w.tell("start"); err != nil {
				w.t.Error(err)
			}
		}
	}
	for _, k := range []struct {
		name    string
		attr    *syscall.SysProcAttr
		argv    []string
		many    bool
		refused string // what is refused, and why
		state   func(*worker) (back func())
	}{
		{"counts", nil, []string{program, "count"}, false, "", nil},
		{"sums", nil, []string{program, "sum"}, false, "", nil},
		{"sleeps", nil, []string{program, "sleep"}, false, "", nil},
		{"serves", nil, []string{program, "serve"}, false, "", serves},
		{"reads", nil, []string{program, "read"}, false, "", nil},
		{"has a filter", nil, []string{program, "filter"}, false, "", nil},
		{"has threads", nil, []string{program, "threads"}, true, "", serves},
		{"is in a user name space", users, []string{program, "sum"}, false, "^join ", nil},
		{"is a shell", nil, []string{"bash", "-c", bash}, false, "", nil},
		{"is a Go program", nil, []string{"/proc/self/exe"}, true, "", serves},
		{"is stopped", nil, []string{program, "serve"}, false, "", stopped},
		{"has threads and is stopped", nil, []string{program, "threads"}, true, "", stopped},
		{"is a Go program and stopped", nil, []string{"/proc/self/exe"}, true, "", stopped},
		{"is frozen", nil, []string{program, "count"}, false, "process is frozen$", frozen},
		{"is traced", nil, []string{program, "read"}, false, `process is traced by process \d+$`, traced},
		{"waits for a vfork", nil, []string{program, "vfork"}, false, "process waits in the kernel ", vforks},
		{"has ended", nil, []string{program, "read"}, false, "process exited$", ends},
	} {
		if (testing.Short() || underRace) && !slices.Contains([]string{"sums", "has a filter", "has threads", "is a Go program and stopped"}, k.name) {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			w := s.worker(t, k.attr, k.argv...)
			if k.state == nil {
				w.works()
			} else if back := k.state(w); back != nil {
				defer func() { back(); w.works() }()
			}
			for i, d := range deeds {
				if i > 1 && k.name == "waits for a vfork" { // each waits a while for it
					break
				}
				before := w.look()
				others := slices.DeleteFunc(strings.Fields(before["fd"]), func(fd string) bool { return fd == "9" || fd == "5" && k.name == "is a shell" })
				msg := strings.NewReplacer("OTHERS", strings.Join(others, " "), "OTHER", strconv.Itoa(other.Process.Pid)).Replace(d.msg)
				err := w.tell(msg)
				now := w.look()
				refused := d.one && k.many || k.refused != "" && !d.outside && (k.refused[0] != '^' || strings.HasPrefix(msg, k.refused[1:]))
				switch changed := strings.Join(now.changed(before), " "); {
				case k.name == "has ended":
					if err == nil && !d.outside {
						t.Errorf("%s: done", msg)
					}
				case refused:
					why := k.refused
					if d.one && k.many {
						why = `: process has \d+ threads$`
					} else if why[0] == '^' {
						why = "operation not permitted"
					}
					if err == nil || !regexp.MustCompile(why).MatchString(err.Error()) {
						t.Errorf("%s: %v, not %s", msg, err, why)
					}
					if changed != "" {
						t.Errorf("%s: refused, and changed: %s", msg, changed)
					}
				case err != nil:
					t.Errorf("%s: %v", msg, err)
				case changed != d.changes && !(changed == "" && d.changes == "fd"): // what is closed already is
					t.Errorf("%s: changed: %s", msg, changed)
				default:
					to := strings.NewReplacer("PID", w.pid, "THEIRS", regexp.QuoteMeta(theirs)).Replace(d.to)
					for _, name := range strings.Fields(d.changes) {
						if !regexp.MustCompile(to).MatchString(now[name]) {
							t.Errorf("%s: %s is %q", msg, name, now[name])
						}
					}
				}
				if k.state == nil {
					w.works()
				}
			}
		})
	}
}

// settles waits until the worker is in one of the states.
func (w *worker) settles(states string) {
	w.t.Helper()
	for ctx, end := w.t.Context(), time.Now().Add(time.Minute); ctx.Err() == nil && time.Now().Before(end); runtime.Gosched() {
		stat, err := os.ReadFile("/proc/" + w.pid + "/stat")
		if i := strings.LastIndex(string(stat), ") "); err == nil && i > 0 && strings.IndexByte(states, stat[i+2]) >= 0 {
			return
		}
	}
	w.t.Fatalf("never in a state of %s", states)
}

// serves has a client that the worker must serve before and after, by the same connection and by a new one.
func serves(w *worker) func() {
	address := "@work-" + w.pid
	ask := func(c net.Conn) {
		w.t.Helper()
		c.SetDeadline(time.Now().Add(time.Minute))
		answer := make([]byte, 5)
		fmt.Fprint(c, "hello")
		if _, err := c.Read(answer); err != nil || string(answer) != "hello" {
			w.t.Errorf("served %q, %v", answer, err)
		}
	}
	old, err := net.Dial("unix", address)
	if err != nil {
		w.t.Fatal(err)
	}
	ask(old)
	return func() {
		ask(old)
		old.Close()
		fresh, err := net.Dial("unix", address)
		if err != nil {
			w.t.Fatal(err)
		}
		defer fresh.Close()
		ask(fresh)
	}
}

func frozen(w *worker) func() {
	ctx := w.t.Context()
	groups, err := ns.FindCgroups("ctrfs-test")
	if err != nil {
		w.t.Fatal(err)
	}
	g, err := groups.MakeGroup("matrix")
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := ns.Open(w.cmd.Process.Pid)
	if err == nil {
		err = g.Enter(p)
	}
	if err == nil {
		err = g.Freeze(ctx)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return func() {
		if err := g.Thaw(ctx); err != nil {
			w.t.Error(err)
		}
		w.works()
		w.t.Cleanup(func() { p.Close() })
		w.t.Cleanup(func() {
			w.cmd.Process.Kill()
			w.cmd.Wait()
			if err := g.Remove(ctx); err != nil {
				w.t.Error(err)
			}
		})
	}
}

func traced(w *worker) func() {
	runtime.LockOSThread()
	const seize, interrupt = 0x4206, 0x4207
	ptrace := func(request uintptr) {
		if _, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, request, uintptr(w.cmd.Process.Pid), 0, 0, 0, 0); errno != 0 {
			w.t.Fatal(errno)
		}
	}
	ptrace(seize)
	return func() {
		ptrace(interrupt)
		unix.Wait4(w.cmd.Process.Pid, nil, unix.WALL, nil)
		ptrace(unix.PTRACE_DETACH)
		runtime.UnlockOSThread()
	}
}

func vforks(w *worker) func() {
	w.settles("D")
	return func() {
		fmt.Fprint(w.in, "\n")
		w.hears("right")
	}
}

func ends(w *worker) func() {
	w.cmd.Process.Kill()
	w.settles("Z")
	return nil
}
