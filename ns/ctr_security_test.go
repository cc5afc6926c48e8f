package ns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	// In a container with the default filter: makes every call that the profile refuses, for real, with arguments that
	// no call takes, and says which were not refused.
	roles["refused"] = func() error {
		numbers := abis[runtime.GOARCH][0].numberings[0].parse()
		n := 0
		for _, name := range strings.Fields(refused) {
			nr, ok := numbers[name]
			if !ok || name == "uprobe" { // the kernel asks no filter about that
				continue
			}
			n++
			if _, _, e := unix.RawSyscall6(uintptr(nr), ^uintptr(0), ^uintptr(0), ^uintptr(0), ^uintptr(0), ^uintptr(0), ^uintptr(0)); e != unix.EPERM {
				fmt.Printf("%s: %v\n", name, e)
			}
		}
		if _, _, e := unix.RawSyscall(unix.SYS_CLONE, unix.CLONE_NEWUSER, 0, 0); e != unix.EPERM {
			fmt.Printf("clone with a user namespace: %v\n", e)
		}
		if _, _, e := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); e != unix.ENOSYS {
			fmt.Printf("clone3: %v\n", e)
		}
		fmt.Println(n, "refused")
		return nil
	}
}

// What Docker's default profile refuses is refused inside: user namespaces (C28) and mounts (C26) among it.
func TestCtrRefuses(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		self, err := os.Open("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		defer self.Close()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		s.Stdio = [3]*os.File{self, w, w}
		s.Filter = DefaultFilter(s.Caps, 0)
		p, err := Create(withTimeout(t), s)
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer p.End()
		if err := p.Exec(withTimeout(t), []string{"/proc/self/fd/0"}, []string{"NS_TEST_ROLE=refused"}); err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r)
		var n int
		if _, err := fmt.Sscanf(string(b), "%d refused\n", &n); err != nil || n < 60 {
			t.Errorf("inside: %s", b)
		}
	})
}

// Whoever writes to the executables of all processes inside does not get at the stub (C01), neither while one waits nor when it is
// made to execute itself.
func TestStubOutOfReach(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		s.Caps |= 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_DAC_READ_SEARCH
		first := running(t, s)
		waiting, err := Enter(withTimeout(t), first.Pidfd, s)
		if err != nil {
			t.Fatal(err)
		}
		defer waiting.End()
		run := func(argv ...string) (string, int) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			s.Stdio[1], s.Stdio[2] = w, w
			p, err := Enter(withTimeout(t), first.Pidfd, s)
			w.Close()
			if err != nil {
				t.Fatal(err)
			}
			defer p.End()
			if err := p.Exec(withTimeout(t), argv, []string{"PATH=/bin"}); err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(r)
			return string(b), status(t, p).ExitStatus()
		}
		script := `for f in /proc/[0-9]*/exe; do (: >>$f) 2>/dev/null && echo wrote $f; done
			printf '#!/proc/self/exe\n' >/root/x; chmod 755 /root/x; ls /proc | grep -c '^[0-9]'`
		if out, code := run("sh", "-c", script); out != "5\n" || code != 0 { // sleep, the parked one, sh, ls, grep
			t.Errorf("says %q, status %d", out, code)
		}
		if out, code := run("/root/x"); out != "" || code != 127 {
			t.Errorf("the stub says %q, status %d", out, code)
		}
		stub := make([]byte, len(stubELF()))
		if _, err := unix.Pread(hatch.stub, stub, 0); err != nil || !bytes.Equal(stub, stubELF()) {
			t.Errorf("the stub has changed: %v", err)
		}
	})
}

// A root that brings a dev, proc, sys or etc of its own, made of links to where it wants the host to write, gets its own mounts over them or
// is refused; what the links lead to stays (C21, C22, C23).
func TestHostileRoot(t *testing.T) {
	needsRoot(t)
	marker := t.TempDir()
	file := marker + "/file"
	os.WriteFile(file, []byte("marker"), 0666)
	dir := rootDir(t, Spec{})
	if err := os.MkdirAll(dir+"/dev/pts", 0755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"null", "zero", "console", "ptmx", "pts/0", "stdout"} {
		os.Symlink("/proc/sysrq-trigger", dir+"/dev/"+name)
	}
	for _, name := range []string{"etc", "run", "tmp", "root"} {
		os.Symlink(marker, dir+"/"+name)
	}
	for name, root := range map[string]Root{"dir": {Dir: openDir(t, dir)}, "overlay": {Lower: []*os.File{openDir(t, dir)}}} {
		s := Spec{Opt: Opt{Flags: CtrFlags}, Root: root, Caps: DefaultCaps, Hostname: "web"}
		out, code := inside(t, s, "sh", "-c", "busybox stat -c '%F %t %T' /dev/null /dev/zero; busybox readlink /dev/ptmx; echo x >/dev/null; busybox ls /dev/pts")
		if want := "character special file 1 3\ncharacter special file 1 5\npts/ptmx\nptmx\n"; out != want || code != 0 {
			t.Errorf("%s: says %q, status %d", name, out, code)
		}
	}
	if list, err := os.ReadDir(marker); err != nil || len(list) != 1 {
		t.Errorf("where the links lead there is %v, %v", list, err)
	}
	if b, err := os.ReadFile(file); string(b) != "marker" {
		t.Errorf("marker %q, %v", b, err)
	}
}

// Files, sockets and state of the host and of its engines are not to be found inside.
func TestNothingOfTheHost(t *testing.T) {
	needsRoot(t)
	const name = "ctrfs-test-nothing"
	for _, dir := range []string{"/root", "/home", "/run", "/tmp", "/var/lib", "/var/run", "/srv", "/mnt", "/media", "/etc/docker", "/etc/ctrfs", "/boot"} {
		made := false
		if _, err := os.Stat(dir); err != nil {
			made = os.Mkdir(dir, 0755) == nil
		}
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, nil, 0644); err != nil {
			t.Fatal(err)
		}
		defer func() {
			os.Remove(f)
			if made {
				os.Remove(dir)
			}
		}()
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "/run/" + name + ".sock"}); err != nil {
		t.Fatal(err)
	}
	defer os.Remove("/run/" + name + ".sock")
	eachCtr(t, func(t *testing.T, s Spec) {
		out, _ := inside(t, s, "find", "/", "-path", "/proc", "-prune", "-o", "-path", "/sys", "-prune", "-o", "-name", name+"*", "-print", "-o", "-type", "s", "-print")
		for line := range strings.Lines(out) {
			if !strings.HasPrefix(line, "find: ") {
				t.Errorf("inside there is %s", line)
			}
		}
	})
}

// A container that takes more memory than it may, by its scratch layer, ends; what the layer holds is counted in its
// next run too, and whoever is outside goes on.
func TestCtrOOM(t *testing.T) {
	needsRoot(t)
	c := testGroups(t)
	g := makeGroup(t, c, "oomctr")
	defer func() {
		g.Kill()
		if err := g.Remove(withTimeout(t)); err != nil {
			t.Error(err)
		}
	}()
	if err := g.Set("memory.max", "48M"); errors.Is(err, errors.ErrUnsupported) {
		lacks(t, "needs the memory controller")
	} else if err != nil {
		t.Fatal(err)
	}
	g.Set("memory.swap.max", "0")
	s := Spec{Opt: Opt{Flags: CtrFlags, Cgroup: g}, Caps: DefaultCaps}
	s.Root.Scratch = new(Scratch)
	defer s.Root.Scratch.Close()
	run := func(mb int) unix.WaitStatus {
		p, err := Create(withTimeout(t), s)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if err := p.Exec(withTimeout(t), []string{"dd", "if=/dev/zero", "of=/fill", "bs=1M", "oflag=append", "conv=notrunc", "count=" + strconv.Itoa(mb)}, []string{"PATH=/bin"}); err != nil {
			t.Fatal(err)
		}
		return status(t, p)
	}
	if ws := run(30); ws != 0 {
		t.Errorf("30 MB of 48: status %#x", ws)
	}
	if ws := run(30); ws.Signal() != unix.SIGKILL {
		t.Errorf("30 MB more: status %#x", ws)
	}
	if n, err := g.OOMKills(); n == 0 || err != nil {
		t.Errorf("OOM kills: %d, %v", n, err)
	}
}
