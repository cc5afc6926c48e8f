package ns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inside runs argv in a container and gives its output and exit status.
func inside(t testing.TB, s Spec, argv ...string) (string, int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s.Stdio[1], s.Stdio[2] = w, w
	p, err := Create(withTimeout(t), s)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.End()
	if err := p.Exec(withTimeout(t), argv, []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), status(t, p).ExitStatus()
}

const (
	idMap   = "0 100000 65536\n"
	idFirst = 100000
)

// eachCtr tests containers with and without a user namespace, and those of an ordinary user, for which
// TestRootless executes the tests as one.
func eachCtr(t *testing.T, f func(t *testing.T, s Spec)) {
	kinds := map[string]Spec{
		"root": {Opt: Opt{Flags: CtrFlags}},
		"user": {Opt: Opt{Flags: CtrFlags | unix.CLONE_NEWUSER}, UidMap: idMap, GidMap: idMap},
	}
	if os.Geteuid() != 0 {
		kinds = map[string]Spec{"rootless": {Opt: Opt{Flags: CtrFlags | unix.CLONE_NEWUSER},
			UidMap: fmt.Sprintf("0 %d 1\n", os.Geteuid()), GidMap: fmt.Sprintf("0 %d 1\n", os.Getegid())}}
	}
	for name, s := range kinds {
		t.Run(name, func(t *testing.T) {
			s.Hostname, s.Domainname, s.Caps = "web", "example", DefaultCaps
			f(t, s)
		})
	}
}

// Containers of a server that is an ordinary user's.
func TestRootless(t *testing.T) {
	needsRoot(t)
	home := publicDir(t, 65534)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // many tests, and machines may be slow
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.v",
		"-test.run=^(TestCtr|TestDevices|TestRootDir|TestRootOverlay|TestMountTarget|TestCtrLeavesNothing|TestEnter|TestScratch|TestUserNotMapped)$")
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+home, "TMPDIR="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("--- SKIP")) || !bytes.Contains(out, []byte("--- PASS: TestCtr/rootless")) {
		t.Errorf("as an ordinary user: %v\n%s", err, out)
	}
}

// publicDir is a directory that everybody can get at and uid owns.
func publicDir(t testing.TB, uid int) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0755); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// ownDir is a directory of the container's root.
func ownDir(t testing.TB, s Spec) string {
	uid := 0
	if s.UidMap == idMap {
		uid = idFirst
	}
	return publicDir(t, uid)
}

func TestCtr(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	eachCtr(t, func(t *testing.T, s Spec) {
		before := hostState(t)
		for _, x := range []struct{ script, want string }{
			{`echo $$ $(hostname) $(cat /proc/sys/kernel/domainname) $(id -u) $(pwd) $(umask)`, "1 web example 0 / 0022"},
			{`cut -d' ' -f5,6 /proc/1/stat`, "1 1"},       // process group and session
			{`ls /proc/self/fd | tr '\n' ' '`, "0 1 2 3"}, // 3 is ls's own
			{`ls -d /proc/[0-9]*`, "/proc/1*"},
			{`grep CapBnd /proc/self/status | tail -c17`, "00000000a80425fb"},
			{`grep -h CapEff /proc/self/status | tail -c17`, "00000000a80425fb"},
			{`grep -h CapInh /proc/self/status | tail -c17`, "0000000000000000"},
			{`cat /sys/class/net/lo/flags; ls /sys/class/net`, "0x9\nlo"},
			{`cat /etc/hostname; grep -c web /etc/hosts`, "web\n1"},
			{`grep ^0: /proc/self/cgroup`, "0::/"},
			{`cd /dev; stat -c '%n %F %t %T' null zero full random urandom tty`, "null character special file 1 3\nzero character special file 1 5\nfull character special file 1 7\n" +
				"random character special file 1 8\nurandom character special file 1 9\ntty character special file 5 0"},
			{`echo x >/dev/null && head -c3 /dev/zero | wc -c; readlink /dev/ptmx /dev/fd /dev/stdin`, "3\npts/ptmx\n/proc/self/fd\n/proc/self/fd/0"},
			{`stat -f -c %T /dev /dev/pts /dev/mqueue /proc /sys /usr`, "tmpfs\ndevpts\nmqueue\nproc\nsysfs\noverlayfs"},
			// Nothing of the host's mounts, and nothing that is not the container's own kind.
			{`awk '{for (i = 7; $i != "-"; i++); print $(i+1)}' /proc/self/mountinfo | sort -u | grep -v devtmpfs | tr '\n' ' '`, "cgroup2 devpts mqueue overlay proc sysfs tmpfs"},
			{`for d in root home run tmp var srv mnt media boot; do ls -A /$d; done`, ""},
			{`for f in shadow gshadow shadow- sudoers ssl/private ssh/ssh_host_rsa_key; do ls -d /etc/$f; done 2>/dev/null`, ""},
			{`find /etc ! -type l ! -perm -004 2>/dev/null`, ""},
			{`for f in /proc/sys/kernel/core_pattern /sys/x /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/x; do echo x >$f; done 2>&1 | grep -vc 'Read-only file system'`, "0"},
			{`for f in kcore keys timer_list interrupts; do cat /proc/$f 2>/dev/null; done | wc -c; ls /sys/firmware /proc/acpi 2>/dev/null | grep -v :`, "0"},
			{`touch /usr/x /etc/x /root/x /x 2>/dev/null; ls /x /root/x`, "/root/x\n/x"},
			{`unshare -U true 2>/dev/null; unshare -m true 2>/dev/null || echo no`, "no"},
		} {
			out, code := inside(t, s, "sh", "-c", x.script)
			out = strings.TrimSpace(out)
			if prefix, ok := strings.CutSuffix(x.want, "*"); out != x.want && !(ok && strings.HasPrefix(out, prefix)) {
				t.Errorf("%s\nsays %q, status %d, want %q", x.script, out, code, x.want)
			}
		}
		if _, code := inside(t, s, "sh", "-c", "exit 5"); code != 5 {
			t.Errorf("status %d", code)
		}
		if now, _ := os.Hostname(); now != host {
			t.Errorf("the host is called %q now", now)
		}
		if after := hostState(t); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}

// hostState is what a container must leave as it was: mounts of the server, namespaces of its threads.
func hostState(t testing.TB) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for line := range strings.Lines(string(mounts)) {
		if !strings.Contains(line, "fuse") { // another test's
			count["mounts"]++
		}
	}
	ns := map[string]bool{}
	tasks, _ := filepath.Glob("/proc/self/task/*/ns/*")
	for _, f := range tasks {
		if l, err := os.Readlink(f); err == nil {
			ns[l] = true
		}
	}
	return fmt.Sprintf("%d mounts, %d namespaces", count["mounts"], len(ns))
}

// A secret that the host gets after the first container is hidden from the next, and what the first does to its
// name does not bring it to light.
func TestHostSecrets(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		inside(t, s, "true")
		const marker = "the host's own secret"
		var names []string
		for _, dir := range []string{"/etc", "/root", "/etc/ssl"} {
			f, err := os.CreateTemp(dir, "ctrfs-test-*.key") // mode 0600
			if err != nil {
				lacks(t, "needs %s: %v", dir, err)
			}
			defer os.Remove(f.Name())
			f.WriteString(marker)
			f.Close()
			names = append(names, f.Name())
		}
		script := "for f in " + strings.Join(names, " ") + "; do cat $f; echo own >$f; cat $f; rm $f; cat $f; rm -r ${f%/*}/zz; done 2>/dev/null; rm -rf /root; mkdir /root; ls -A /root; grep -rs 'own secret' /etc /root"
		out, _ := inside(t, s, "sh", "-c", script)
		if strings.Contains(out, "secret") || strings.Count(out, "own\n") == 0 {
			t.Errorf("inside: %q", out)
		}
		for _, n := range names {
			if b, err := os.ReadFile(n); string(b) != marker {
				t.Errorf("on the host: %q, %v", b, err)
			}
		}
		// One that becomes secret later.
		open, err := os.CreateTemp("/etc", "ctrfs-test-*.conf")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(open.Name())
		open.WriteString(marker)
		open.Chmod(0644)
		open.Close()
		if out, _ := inside(t, s, "cat", open.Name()); out != marker {
			t.Errorf("what all may read: %q", out)
		}
		os.Chmod(open.Name(), 0600)
		if out, _ := inside(t, s, "cat", open.Name()); strings.Contains(out, marker) {
			t.Error("it was made private and can be read still")
		}
	})
}

// No device can be opened but those of /dev, though the root of a container may make them.
func TestDevices(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		out, _ := inside(t, s, "sh", "-c", `for d in / /dev /dev/shm /tmp; do mknod $d/n c 1 3 2>/dev/null; { echo x >$d/n; } 2>&1 | grep -o 'Permission denied'; test -c $d/n && echo made $d; rm -f $d/n; done`)
		if s.Flags&unix.CLONE_NEWUSER != 0 {
			if strings.Contains(out, "made") {
				t.Errorf("devices in a user namespace: %q", out)
			}
			return
		}
		if n := strings.Count(out, "Permission denied"); n != 4 || strings.Count(out, "made") != 4 {
			t.Errorf("devices: %q", out)
		}
	})
}

func TestExecInCtr(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		s.User = Cred{Uid: 1000, Gid: 1001, Groups: []uint32{7}}
		s.Cwd = "/usr/lib"
		s.NoNewPrivs = true
		s.Filter = []unix.SockFilter{ // getppid: EXDEV, the rest passes
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_UMASK, Jt: 0, Jf: 1},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EXDEV)},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		}
		script := `id -u; id -G; pwd; grep -E 'CapEff|CapPrm|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\t'`
		want := "1000\n1001 7\n/usr/lib\nCapPrm:0000000000000000\nCapEff:0000000000000000\nCapBnd:00000000a80425fb\nNoNewPrivs:1\nSeccomp:2\n"
		if out, _ := inside(t, s, "sh", "-c", script); out != want {
			t.Errorf("says %q, want %q", out, want)
		}

		// After an error it still waits, with all of that done.
		p, err := Create(withTimeout(t), s)
		if err != nil {
			t.Fatal(err)
		}
		defer p.End()
		for range 2 {
			if err := p.Exec(withTimeout(t), []string{"nonesuch"}, []string{"PATH=/bin"}); err == nil || err.Error() != `exec "nonesuch": no such file or directory` {
				t.Errorf("exec: %v", err)
			}
		}
		if got := statusField(t, p.Pid, "Seccomp"); got != "2" {
			t.Errorf("seccomp %s", got)
		}
		if err := p.Exec(withTimeout(t), []string{"sh", "-c", "exit 3"}, []string{"PATH=/bin"}); err != nil {
			t.Fatal(err)
		}
		if ws := status(t, p); ws.ExitStatus() != 3 {
			t.Errorf("status %#x", ws)
		}

		// A directory outside, by a descriptor.
		dir, err := os.Open("/etc")
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		s.Stdio[0] = dir
		s.Cwd = "/proc/self/fd/0"
		q, err := Create(withTimeout(t), s)
		if err != nil {
			t.Fatal(err)
		}
		defer q.End()
		if err := q.Exec(withTimeout(t), []string{"true"}, []string{"PATH=/bin"}); !errors.Is(err, unix.ELOOP) {
			t.Errorf("exec in /proc/self/fd/0: %v", err)
		}
	})
}

// rootDir is a directory of the container's root with just enough in it.
func rootDir(t testing.TB, s Spec) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		lacks(t, "needs busybox-static: %v", err)
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	dir := ownDir(t, s)
	if err := os.Mkdir(dir+"/bin", 0755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/bin/busybox", b, 0755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("busybox", dir+"/bin/sh"); err != nil {
		t.Fatal(err)
	}
	return dir
}

func openDir(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestRootDir(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		dir := rootDir(t, s)
		s.Root.Dir = openDir(t, dir)
		out, code := inside(t, s, "sh", "-c", "busybox ls /; echo x >/made; echo $$; exit 4")
		if out != "bin\ndev\nproc\nsys\n1\n" || code != 4 {
			t.Errorf("says %q, status %d", out, code)
		}
		if b, err := os.ReadFile(dir + "/made"); string(b) != "x\n" {
			t.Errorf("written in the root: %q, %v", b, err)
		}
		s.ReadOnly = true
		if out, _ := inside(t, s, "sh", "-c", "echo x >/again || echo refused"); !strings.Contains(out, "refused") {
			t.Errorf("read-only root: %q", out)
		}
	})
}

func TestRootOverlay(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		low, top := rootDir(t, s), ownDir(t, s)
		os.WriteFile(top+"/top", []byte("top\n"), 0644)
		os.WriteFile(low+"/top", []byte("low\n"), 0644)
		s.Root.Lower = []*os.File{openDir(t, top), openDir(t, low)}
		if out, _ := inside(t, s, "sh", "-c", "busybox cat /top; echo new >/new; busybox cat /new /etc/hostname"); out != "top\nnew\nweb\n" {
			t.Errorf("says %q", out)
		}
		if _, err := os.Stat(top + "/new"); err == nil {
			t.Error("written into the layer")
		}
	})
}

// A root may be read-only, all of it.
func TestReadOnly(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		s.ReadOnly = true
		out, _ := inside(t, s, "sh", "-c", "for d in / /etc /usr /usr/bin /tmp; do echo x >$d/x; done 2>&1 | grep -c 'Read-only file system'; echo x >/dev/shm/x && echo shm")
		if out != "5\nshm\n" {
			t.Errorf("says %q", out)
		}
	})
}

// What is written stays from one run to the next, with who owns it, and goes when it is given up.
func TestScratch(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		s.Root.Scratch = new(Scratch)
		defer s.Root.Scratch.Close()
		script := "echo run >>/etc/runs; cat /etc/runs /root/f; rm -f /etc/passwd /etc/shadow; cat /etc/passwd; echo file >/root/f; cp /bin/true /root/mine && /root/mine && id -u; stat -c %u /root/f; ls /dev/shm; touch /dev/shm/x"
		for n, want := range []string{"run\n", "run\nrun\nfile\n", "run\nrun\nrun\nfile\n"} {
			out, _ := inside(t, s, "sh", "-c", "{ "+script+"; } 2>/dev/null")
			if out != want+"0\n0\n" {
				t.Errorf("run %d says %q", n+1, out)
			}
			if n == 1 { // a run that fails loses nothing
				bad := s
				bad.Mounts = []Mount{{Target: "/x", Type: "nonesuch"}}
				if _, err := Create(withTimeout(t), bad); err == nil {
					t.Error("a file system that there is not")
				}
			}
		}
		if strings.Contains(hostState(t), "overlay") {
			t.Error("mounted on the host")
		}
		s.Root.Scratch.Close()
		if out, _ := inside(t, s, "sh", "-c", script); strings.Count(out, "run") != 1 {
			t.Errorf("after Close: %q", out)
		}
	})
}

// Whom the container does not have is refused, and not root in his place.
func TestUserNotMapped(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		if s.Flags&unix.CLONE_NEWUSER == 0 {
			return
		}
		for _, u := range []Cred{{Uid: 100000}, {Gid: 100000}, {Groups: []uint32{100000}}} {
			s.User = u
			p, err := Create(withTimeout(t), s)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Exec(withTimeout(t), []string{"true"}, []string{"PATH=/bin"}); err == nil {
				t.Errorf("%+v runs", u)
			}
			p.End()
		}
	})
}

// A root that cannot be had is an error, and nothing stays open.
func TestRootErrors(t *testing.T) {
	needsRoot(t)
	gone, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	dir := openDir(t, t.TempDir())
	before := countFDs(t)
	for _, x := range []Spec{
		{Root: Root{Dir: gone}},
		{Root: Root{Lower: []*os.File{dir, gone}}},
		{Root: Root{Dir: dir}, Mounts: []Mount{{Target: "/x", From: dir}, {Target: "/y", From: gone}}},
	} {
		if p, err := Create(withTimeout(t), x); err == nil {
			p.End()
			t.Errorf("%+v: no error", x)
		}
	}
	if after := countFDs(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// A root that wants its proc, sys or dev to be elsewhere is refused, and nothing there is touched.
func TestRootWithLinks(t *testing.T) {
	needsRoot(t)
	for _, name := range []string{"proc", "sys", "dev"} {
		for _, rel := range []bool{false, true} {
			dir, marker := rootDir(t, Spec{}), t.TempDir()
			target := marker
			if rel {
				target = "../../../../../../.." + marker
			}
			if err := os.Symlink(target, dir+"/"+name); err != nil {
				t.Fatal(err)
			}
			before := hostState(t)
			p, err := Create(withTimeout(t), Spec{Opt: Opt{Flags: CtrFlags}, Root: Root{Dir: openDir(t, dir)}})
			if err == nil {
				p.End()
			}
			if want := fmt.Sprintf("open %q: too many levels of symbolic links", name); err == nil || err.Error() != want {
				t.Errorf("%s -> %s: %v, want %s", name, target, err, want)
			}
			if e, err := os.ReadDir(marker); err != nil || len(e) > 0 {
				t.Errorf("%s: the directory outside has %v, %v", name, e, err)
			}
			if after := hostState(t); !strings.HasPrefix(after, before[:strings.Index(before, ",")]) {
				t.Errorf("before %s, after %s", before, after)
			}
		}
	}
}

// Links in a mount's target mean what they mean in the root, also while they change.
func TestMountTarget(t *testing.T) {
	eachCtr(t, testMountTarget)
}

func testMountTarget(t *testing.T, s Spec) {
	dir, marker, vol := rootDir(t, s), ownDir(t, s), ownDir(t, s)
	os.WriteFile(vol+"/f", []byte("volume\n"), 0644)
	os.Symlink(marker, dir+"/link")
	os.MkdirAll(dir+marker, 0755)
	os.Mkdir(dir+"/swap", 0755)
	os.Symlink(marker, dir+"/swapped")
	for _, d := range []string{"/swap", marker} { // and what is on the way to it
		for d = dir + d; d != dir && os.Geteuid() == 0 && s.UidMap == idMap; d = filepath.Dir(d) {
			os.Chown(d, idFirst, idFirst)
		}
	}
	s.Root.Dir = openDir(t, dir)
	s.Mounts = []Mount{
		{Target: "/data", From: openDir(t, vol), Attr: unix.MOUNT_ATTR_RDONLY},
		{Target: "/link/below", From: openDir(t, vol)},
		{Target: "/run", Type: "tmpfs", Data: []string{"size=1m"}},
	}
	out, _ := inside(t, s, "sh", "-c", "busybox cat /data/f "+marker+"/below/f; echo x >/data/g; echo x >/run/x && busybox df /run | busybox tail -1")
	if !strings.HasPrefix(out, "volume\nvolume\n") || !strings.Contains(out, "Read-only") || !strings.Contains(out, "1024") {
		t.Errorf("says %q", out)
	}
	// Under the race only what is inside is ever made or mounted on.
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, dir+"/swap", unix.AT_FDCWD, dir+"/swapped", unix.RENAME_EXCHANGE)
			}
		}
	}()
	s.Flags &= unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID
	s.Hostname = ""
	s.Mounts = []Mount{{Target: "/swap/a/b", From: openDir(t, vol)}}
	rounds := 300
	if os.Geteuid() != 0 {
		rounds = 30 // the same plan: that it is refused nothing
	}
	for range rounds {
		if p, err := Create(withTimeout(t), s); err == nil {
			p.End()
		}
	}
	close(stop)
	<-stopped
	if e, err := os.ReadDir(marker); err != nil || len(e) > 0 {
		t.Errorf("the directory outside has %v, %v", e, err)
	}
}

func init() {
	// On a host whose mounts propagate, as systemd's do.
	roles["shared"] = func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
			return err
		}
		before, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		p, err := Create(context.Background(), Spec{Opt: Opt{Flags: CtrFlags}})
		if err != nil {
			return err
		}
		after, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		if string(after) != string(before) {
			return fmt.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		return p.End()
	}
}

// Mounts of the host: what is below a container's root is not in it.
func init() {
	roles["mounts"] = func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		top, below := os.Args[1], os.Args[2] // directories of the host's root
		for _, dir := range []string{top, below + "/x", "/tmp", "/opt"} {
			if err := unix.Mount("secret", dir, "tmpfs", 0, "mode=0755"); err != nil {
				return err
			}
			if err := os.WriteFile(dir+"/secret", nil, 0644); err != nil {
				return err
			}
		}
		// As in a container of another engine, and a /usr of its own.
		if err := unix.Mount("/etc/hosts", "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
			return err
		}
		if err := unix.Mount("overlay", "/usr", "overlay", 0, "lowerdir=/usr:"+below); err != nil {
			return err
		}
		for _, s := range []Spec{
			{Opt: Opt{Flags: CtrFlags}, Caps: DefaultCaps, Hostname: "web"},
			{Opt: Opt{Flags: CtrFlags | unix.CLONE_NEWUSER}, UidMap: idMap, GidMap: idMap, Caps: DefaultCaps, Hostname: "web"},
		} {
			for _, readOnly := range []bool{false, true} {
				s.ReadOnly = readOnly
				s.Stdio = [3]*os.File{nil, os.Stdout, os.Stderr}
				p, err := Create(context.Background(), s)
				if err != nil {
					return err
				}
				script := `ls -d /*/secret /*/*/secret 2>/dev/null; for d in "$@"; do ls $d; done; grep -c ^root: /etc/passwd; ls -d /bin/ls
					for d in /usr /usr/share; do { echo x >$d/new; } 2>&1 | grep -o "Read-only file system"; done; echo`
				if err := p.Exec(context.Background(), []string{"sh", "-c", script, "sh", top, below}, []string{"PATH=/bin"}); err != nil {
					return err
				}
				waitEnd(p.Pidfd)
				p.End()
			}
		}
		return nil
	}
}

func TestHostMounts(t *testing.T) {
	needsRoot(t)
	var dirs []string
	for range 2 {
		dir, err := os.MkdirTemp("/", "ctrfs-test-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		os.Chmod(dir, 0755)
		dirs = append(dirs, dir)
	}
	if err := os.Mkdir(dirs[1]+"/x", 0755); err != nil {
		t.Fatal(err)
	}
	out := runRole(t, "mounts", &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}, dirs...)
	const ro = "Read-only file system\nRead-only file system\n"
	if want := "x\n1\n/bin/ls\n\nx\n1\n/bin/ls\n" + ro + "\n1\n/bin/ls\n\n1\n/bin/ls\n" + ro + "\n"; out != want {
		t.Errorf("inside:\n%q, want\n%q", out, want)
	}
}

func TestSharedMounts(t *testing.T) {
	needsRoot(t)
	runRole(t, "shared", &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})
}

// A hundred containers, every third of which fails somewhere, leave nothing.
func TestCtrLeavesNothing(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		inside(t, s, "true")
		bad := s // what waits for killed children is opened at the first
		bad.Mounts = []Mount{{Target: "/x", Type: "nonesuch"}}
		if _, err := Create(withTimeout(t), bad); err == nil || err.Error() != "fsopen nonesuch: no such device" {
			t.Fatalf("mount of a file system that there is not: %v", err)
		}
		kinds := []string{"mnt", "pid", "uts", "ipc", "net", "cgroup", "user"}
		before, fds := hostState(t), countFDs(t)
		var spaces []string
		for i := range 100 {
			c := s
			switch i % 6 {
			case 1:
				c.Mounts = []Mount{{Target: "/x", Type: "nonesuch"}}
			case 4:
				c.Hostname = strings.Repeat("x", 65)
			}
			p, err := Create(withTimeout(t), c)
			if (err != nil) != (i%6 == 1 || i%6 == 4) {
				t.Fatalf("%d: %v", i, err)
			}
			if err != nil {
				continue
			}
			if i%10 == 0 {
				for _, k := range kinds {
					if l, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.Pid, k)); err == nil {
						spaces = append(spaces, l)
					}
				}
			}
			fd, err := unix.FcntlInt(uintptr(p.Pidfd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			if i%6 == 0 {
				p.Close() // parked still
			} else {
				if err := p.Exec(withTimeout(t), []string{"true"}, []string{"PATH=/bin"}); err != nil {
					t.Fatal(err)
				}
				p.Close()
			}
			waitEnd(fd)
			unix.Close(fd)
		}
		if after := hostState(t); after != before {
			t.Errorf("before %s, after %s", before, after)
		}
		ctx := withTimeout(t)
		for countFDs(t) > fds && ctx.Err() == nil { // those killed are waited for by and by
		}
		if n := countFDs(t); n > fds {
			t.Errorf("%d descriptors before, %d after", fds, n)
		}
		// None of their namespaces is anybody's any more.
		left := map[string]bool{}
		links, _ := filepath.Glob("/proc/[0-9]*/ns/*")
		for _, f := range links {
			if l, err := os.Readlink(f); err == nil {
				left[l] = true
			}
		}
		own, _ := filepath.Glob("/proc/self/ns/*")
		for _, f := range own {
			l, _ := os.Readlink(f)
			delete(left, l)
		}
		for _, l := range spaces {
			if left[l] {
				t.Errorf("%s has a process still", l)
			}
		}
	})
}
