package ns

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

func TestReaders(t *testing.T) {
	atEnd(t)
	dir := t.TempDir()
	name := "a (b) c\n"
	prog := filepath.Join(dir, name)
	if err := os.Symlink("/bin/sh", prog); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(dir+"/f", os.O_CREATE|os.O_RDWR, 0600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteString("12345")
	cmd := exec.Command(prog, "-c", "ulimit -n 77; read x; exit 0", "", "a b")
	cmd.Dir, cmd.Env = dir, []string{"A=1", "B=x\ny"}
	cmd.ExtraFiles = []*os.File{f}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	p := open(t, cmd.Process.Pid)
	me := Cred{Uid: uint32(os.Geteuid())}

	st, err := p.Stat()
	if err != nil || st.Name != name || st.Ppid != os.Getpid() || st.Pid != p.pid || st.Start == 0 {
		t.Errorf("stat %+v, %v", st, err)
	}
	s, err := p.Status()
	if err != nil || s.Uid != [4]uint32{me.Uid, me.Uid, me.Uid, me.Uid} || !slices.Equal(s.NSPid[:1], []int{p.pid}) || s.RSS <= 0 {
		t.Errorf("status %+v, %v", s, err)
	}
	if a, err := p.Args(); err != nil || !slices.Equal(a, cmd.Args) {
		t.Errorf("args %q, %v", a, err)
	}
	if e, err := p.Environ(me); err != nil || !slices.Equal(e, cmd.Env) {
		t.Errorf("environ %q, %v", e, err)
	}
	if d, err := p.Cwd(me); err != nil || d != dir {
		t.Errorf("cwd %q, %v", d, err)
	}
	if d, err := p.Root(me); err != nil || d != "/" {
		t.Errorf("root %q, %v", d, err)
	}
	sh, err := filepath.EvalSymlinks("/bin/sh")
	if e, err2 := p.Exe(me); err != nil || err2 != nil || e != sh {
		t.Errorf("exe %q, %v", e, err2)
	}
	fds, err := p.FDs(me)
	if err != nil {
		t.Error(err)
	}
	i := slices.IndexFunc(fds, func(f FD) bool { return f.N == 3 })
	var info unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &info); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("3 rw file %d:%d (%d 0 0) 0 5 %s", unix.Major(info.Dev), unix.Minor(info.Dev), info.Ino, f.Name())
	if i < 0 || strings.Join(fds[i].Words(), " ") != want {
		t.Errorf("descriptors %+v, want %s", fds, want)
	}
	if i := slices.IndexFunc(fds, func(f FD) bool { return f.N == 0 }); i < 0 || fds[i].Type != "pipe" || fds[i].Inode == 0 || fds[i].Mode != "r" {
		t.Errorf("descriptors %+v", fds)
	}
	limits, err := p.Limits()
	if err != nil || len(limits) != 16 {
		t.Errorf("limits %v, %v", limits, err)
	}
	var core unix.Rlimit
	unix.Prlimit(p.pid, unix.RLIMIT_CORE, nil, &core)
	if limits[unix.RLIMIT_CORE] != (Limit{"core", core.Cur, core.Max}) {
		t.Errorf("core %+v, not %+v", limits[unix.RLIMIT_CORE], core)
	}
	mounts, err := p.Mounts(me)
	if i := slices.IndexFunc(mounts, func(w []string) bool { return w[len(w)-1] == "proc" && w[len(w)-2] == "/proc" }); err != nil || i < 0 {
		t.Errorf("mounts %q, %v", mounts, err)
	}
	self := open(t, os.Getpid())
	if c, err := self.Children(); err != nil || !slices.Contains(c, p.pid) {
		t.Errorf("children %v, %v", c, err)
	}
	if pids, err := Pids(me); err != nil || !slices.Contains(pids, p.pid) || !slices.Contains(pids, os.Getpid()) {
		t.Errorf("pids %v, %v", pids, err)
	}

	// Of a zombie only what the kernel still has; of a gone process nothing.
	in.Close()
	untilEnd(t, p, false)
	if st, err := p.Stat(); err != nil || st.State != 'Z' {
		t.Errorf("stat of a zombie: %+v, %v", st, err)
	}
	if s, err := p.Status(); err != nil || s.RSS != -1 {
		t.Errorf("status of a zombie: %+v, %v", s, err)
	}
	if d, err := p.Cwd(me); err != ErrExited {
		t.Errorf("cwd of a zombie: %q, %v", d, err)
	}
	cmd.Wait()
	for name, f := range map[string]func() error{
		"stat":     func() error { _, err := p.Stat(); return err },
		"status":   func() error { _, err := p.Status(); return err },
		"args":     func() error { _, err := p.Args(); return err },
		"environ":  func() error { _, err := p.Environ(me); return err },
		"cwd":      func() error { _, err := p.Cwd(me); return err },
		"fd":       func() error { _, err := p.FDs(me); return err },
		"mounts":   func() error { _, err := p.Mounts(me); return err },
		"limits":   func() error { _, err := p.Limits(); return err },
		"setlimit": func() error { return p.SetLimit(withTimeout(t), me, Limit{"core", 0, 0}) },
		"children": func() error { _, err := p.Children(); return err },
		"shares":   func() error { _, err := p.Shares(); return err },
		"signal":   func() error { return p.Signal(0) },
		"signalas": func() error { return SignalAs(me, p, 0) },
	} {
		if err := f(); err != ErrExited {
			t.Errorf("%s of a gone process: %v", name, err)
		}
	}
}

// A process that got the number of another is never met through it. It is tried in a pid namespace of its own: other tests do
// not expect that numbers come again.
func TestPidReuse(t *testing.T) {
	needsRoot(t)
	if os.Getpid() != 1 {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(withTimeout(t), "unshare", "--pid", "--fork", "--mount-proc", "--kill-child", self, "-test.run=^TestPidReuse$")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	const last = "/proc/sys/kernel/ns_last_pid"
	if f, err := os.OpenFile(last, os.O_WRONLY, 0); err != nil {
		lacks(t, "needs ns_last_pid: %v", err)
	} else {
		f.Close()
	}
	atEnd(t)
	reused := 0
	for range 20 {
		old, in := child(t, "exit 0")
		in.Close()
		if err := Reap(old); err != nil {
			t.Fatal(err)
		}
		wantExit(t, old, "")
		os.WriteFile(last, []byte(strconv.Itoa(old.pid-1)), 0)
		fresh, in := child(t, "exit 0")
		if fresh.pid == old.pid { // somebody else's fork may come between
			reused++
			if fresh.ID() == old.ID() {
				t.Error("one id for two processes")
			}
			if err := old.Signal(unix.SIGKILL); err != ErrExited {
				t.Errorf("signal: %v", err)
			}
			if st, err := old.Stat(); err != ErrExited {
				t.Errorf("stat %+v, %v", st, err)
			}
			if a, err := old.Args(); err != ErrExited {
				t.Errorf("args %q, %v", a, err)
			}
			if err := old.SetLimit(withTimeout(t), Cred{}, Limit{"core", 0, 0}); err != ErrExited {
				t.Errorf("limit: %v", err)
			}
			if !fresh.Alive() {
				t.Error("the new process was hit")
			}
		}
		in.Close()
		if err := Reap(fresh); err != nil {
			t.Fatal(err)
		}
		wantExit(t, fresh, "")
	}
	if reused == 0 {
		t.Error("no number came again")
	}
}

func TestShares(t *testing.T) {
	needsRoot(t)
	atEnd(t)
	uts := func() *syscall.SysProcAttr { return &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS} }
	alone := shell(t, uts())
	pair := shell(t, uts())
	pid := pair.num("(exec sleep 1000) >/dev/null & echo $!")
	defer open(t, pid).Signal(unix.SIGKILL)
	count := func(s *sh, kind string) Shared {
		t.Helper()
		all, err := open(t, s.cmd.Process.Pid).Shares()
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(x Shared) bool { return x.Kind == kind })
		if i < 0 {
			t.Fatalf("no %s in %v", kind, all)
		}
		return all[i]
	}
	if s := count(alone, "uts"); s.Count != 1 || s.Inode == 0 {
		t.Errorf("alone: %+v", s)
	}
	if s := count(pair, "uts"); s.Count != 2 {
		t.Errorf("pair: %+v", s)
	}
	for _, kind := range []string{"fd", "fs", "vm"} {
		if s := count(alone, kind); s.Count != 1 || s.Inode != uint64(alone.cmd.Process.Pid) {
			t.Errorf("%+v", s)
		}
	}
	if s := count(alone, "net"); s.Count < 3 {
		t.Errorf("%+v", s)
	}
}

func TestUsers(t *testing.T) {
	var u users
	u.parse("root:x:0:0:root:/root:/bin/sh\nbad:x::0:::\nneg:x:-1:0:::\nno:x:4294967295:0:::\nshort:x:5:5\n"+
		"al:x:1234:1235:::\nal:x:0:0:::\nalias:x:1234:0:::\n",
		"g:x:7:al,root\nh:x:8:al\nbad:x::al\ng:x:9:\n")
	if len(u.byName) != 3 || u.byName["al"] != (user{"al", 1234, 1235}) || u.byID[1234].name != "al" {
		t.Errorf("%+v", u.byName)
	}
	if !slices.Equal(u.member["al"], []uint32{7, 8}) || u.gids["g"] != 7 || u.groups[8] != "h" || len(u.gids) != 2 {
		t.Errorf("%+v", u.member)
	}
	if n := UserName(0); n != "root" {
		t.Errorf("user 0 is %q", n)
	}
	if c, ok := UserCred("root"); !ok || c.Uid != 0 {
		t.Errorf("root is %+v", c)
	}
	if n := UserName(3999999999); n != "3999999999" {
		t.Errorf("a number is %q", n)
	}
	path := t.TempDir() + "/fifo"
	unix.Mkfifo(path, 0600)
	if _, err := readRegular(path, 10); err == nil {
		t.Error("a FIFO is read")
	}
	if _, err := readRegular("/etc/passwd", 10); err != errLong {
		t.Errorf("more than the limit: %v", err)
	}
}

func TestSignalNames(t *testing.T) {
	for n := syscall.Signal(1); n <= rtMax; n++ {
		if got, err := ParseSignal(SignalName(n)); err != nil || got != n {
			t.Errorf("signal %d is %q, which is %d, %v", n, SignalName(n), got, err)
		}
		if got, err := ParseNote(Note(n)); err != nil || got != n {
			t.Errorf("signal %d is note %q, which is %d, %v", n, Note(n), got, err)
		}
	}
	for _, c := range []struct {
		word string
		sig  syscall.Signal
	}{
		{"kill", 9}, {"SIGKILL", 9}, {"sigterm", 15}, {"0", 0}, {"64", 64}, {"RTMIN", 34}, {"SIGRTMIN+1", 35}, {"rtmax-1", 63}, {"RTMAX", 64}, {"33", 33},
	} {
		if got, err := ParseSignal(c.word); err != nil || got != c.sig {
			t.Errorf("%q is %d, %v", c.word, got, err)
		}
	}
	for _, word := range []string{"", "FOO", "65", "-9", "RTMIN-1", "RTMAX+1", "RTMIN5", "RTMIN+", "SIG"} {
		if got, err := ParseSignal(word); err == nil {
			t.Errorf("%q is %d", word, got)
		}
	}
	for note, sig := range map[string]syscall.Signal{"kill": 15, "KILL": 9, "sys: kill": 9, "hangup": 1, "sys: signal 5": 5} {
		if got, err := ParseNote(note); err != nil || got != sig {
			t.Errorf("note %q is %d, %v", note, got, err)
		}
	}
	if _, err := ParseNote("frob"); err == nil || err.Error() != `unknown note: "frob"` {
		t.Errorf("%v", err)
	}
}

// No text of a process makes a parser panic, or gives more than it holds.
func FuzzParsers(f *testing.F) {
	for _, name := range []string{"stat", "status", "limits", "cmdline", "mountinfo", "fdinfo/0", "cgroup"} {
		if text, err := os.ReadFile("/proc/self/" + name); err == nil {
			f.Add(text)
		}
	}
	f.Add([]byte("1 (a) b) R 1 2"))
	f.Add([]byte("x:x:1:1:::\n:::::::\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		parseStat(text)
		if s, err := parseStatus(text); err == nil && len(s.Groups) > len(text) {
			t.Errorf("%d groups of %d bytes", len(s.Groups), len(text))
		}
		parseLimits(text)
		ParseLimit(string(text))
		parseBytes(string(text))
		parseLinks(string(text))
		ParseCaps(string(text))
		keyValue(string(text), "populated")
		if all, err := parseMemberships(text); err == nil {
			for _, m := range all {
				if m.Path == "" || m.Path[0] != '/' || strings.Contains(m.Path, "\n") {
					t.Errorf("group %q", m.Path)
				}
			}
		}
		mountinfo.GetMountsFromReader(bytes.NewReader(text), nil)
		words(text)
		parseNS(string(text))
		ParseSignal(string(text))
		ParseNote(string(text))
		fd := parseFD(1, string(text), text, nil)
		if fd.Path != string(text) {
			t.Error("path changed")
		}
		var u users
		u.parse(string(text), string(text))
		for id := range u.byID {
			if id == nobodyAtAll {
				t.Error("user -1")
			}
		}
	})
}
