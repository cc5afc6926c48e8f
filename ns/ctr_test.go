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
