package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if f := os.Getenv("FUSE_TEST_READER"); f != "" {
		readers(f)
	}
	if dir := os.Getenv("FUSE_TEST_SERVER"); dir != "" {
		server(dir)
	}
	goleak.VerifyTestMain(m)
}

// lack skips a test on a machine that cannot do it, which the CI's can.
func lack(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("needs ", what)
	}
	t.Skip("needs ", what)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		lack(t, "root: mounts")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		lack(t, "/dev/fuse: the kernel module fuse")
	}
}

// mounts gives the mounts of type fuse.ctrfs.
func mounts(t testing.TB) int {
	t.Helper()
	// Only this package's: others' tests mount at the same time.
	ours := filepath.Join(os.TempDir(), placed)
	list, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return i.FSType != fsType || !strings.HasPrefix(i.Mountpoint, ours), false
	})
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// placed begins the names of the directories on which this package's tests mount.
const placed = "ctrfs-fuse-test"

// place makes a directory that all users can reach.
func place(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", placed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	if err := os.Chmod(dir, 0755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// mounted mounts w until the test's end.
func mounted(t testing.TB, w *world) (*Mounted, string) {
	t.Helper()
	needRoot(t)
	before, dir := mounts(t), place(t)
	m, err := Mount(context.Background(), w, dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := m.Unmount(ctx); err != nil {
			t.Error(err)
		}
		if n := mounts(t); n > before {
			t.Errorf("%d mounts left", n-before)
		}
		if len(m.handles) > 0 && w.opened.Load() != 0 {
			t.Errorf("%d handles left", w.opened.Load())
		}
	})
	return m, dir
}

// sh runs a script in dir as a user, with groups, and gives all that it said. A program that this process starts must
// not be started in the mount: the runtime stands still until it has changed its directory.
func sh(t testing.TB, dir string, uid, gid uint32, groups []uint32, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "env", "-C", dir, "bash", "-c", script)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%q hangs: %s", script, out)
	}
	var code *exec.ExitError
	if err != nil && !errors.As(err, &code) {
		t.Fatal(err)
	}
	return string(out)
}

func TestShell(t *testing.T) {
	w := newWorld("a", "b")
	_, dir := mounted(t, w)
	a := w.boxes["a"]
	for i := range 5000 {
		if !a.out.TryWrite(fmt.Appendln(nil, "line", i)) {
			t.Fatal("log is full")
		}
	}
	a.out.End()
	close(w.boxes["b"].done)
	const nobody = 65534
	for _, c := range []struct {
		uid    uint32
		groups []uint32
		script string
		want   string
	}{
		{0, nil, `cat a/text; cat a/text a/text | wc -l; grep -c o a/text; x=$(<a/text); echo $x`, "one\ntwo\n4\n2\none two\n"},
		{0, nil, `mapfile -t l <a/text; echo ${l[1]}; tail -n1 a/text; dd if=a/text bs=3 skip=1 count=1 status=none; head -c2 a/text`, "two\ntwo\n\ntwon"},
		{0, nil, `cat b/wait; read l <b/wait; echo $l`, "done\ndone\n"},
		{0, nil, `n=0; while read l; do [ "$l" = "line $n" ] || echo "$l for $n"; n=$((n+1)); done <a/stdout; echo $n`, "5000\n"},
		{0, nil, `cat a/stdout | wc -lc; dd if=a/stdout bs=1M count=1 status=none | wc -l`, "   5000   48890\n5000\n"},
		{0, nil, `echo x y >a/list; echo z >>a/list; cat a/list`, "x y\nz\n"},
		{0, nil, `printf 'x\ny\n' | tee -a a/list >/dev/null; cat a/list; >a/list; cat a/list`, "x y\nz\nx\ny\n"},
		{0, nil, `printf 'unfinished' >a/list; cat a/list; truncate -s 0 a/list; cat a/list; cp a/text a/list; cat a/list`, "unfinished\none\ntwo\n"},
		{0, nil, `truncate -s 5 a/list 2>&1 | sed 's/.*: //'; chmod 600 a/list; chown 1 a/list; touch a/list; stat -c '%a %U %s %h %F' a/list a`,
			"Operation not permitted\nchmod: changing permissions of 'a/list': Operation not permitted\n" +
				"chown: changing ownership of 'a/list': Operation not permitted\n666 root 0 1 regular empty file\n755 root 0 1 directory\n"},
		{0, nil, `echo frob >a/ctl; tail -n1 error | cut -d' ' -f2-`, "bash: line 1: echo: write error: Invalid argument\n/a/ctl 'unknown control message: \"frob\\n\"'\n"},
		{0, nil, `echo x >a/new; mkdir a/new; ln -s x a/new; ln a/text a/new; mknod a/new p; ls a/new; tail -n5 error | cut -d' ' -f2-`,
			"bash: line 1: a/new: Operation not permitted\nmkdir: cannot create directory 'a/new': Permission denied\n" +
				"ln: failed to create symbolic link 'a/new': Operation not permitted\nln: failed to create hard link 'a/new' => 'a/text': Permission denied\n" +
				"mknod: a/new: Permission denied\nls: cannot access 'a/new': No such file or directory\n" +
				"/a/new 'Operation not permitted'\n/a/new 'permission denied'\n/a/new 'Operation not permitted'\n/a/new 'permission denied'\n/a/new 'permission denied'\n"},
		{0, nil, `ls; ls a | wc -l; ls -l a | grep -c root; find . -type f | wc -l; find . -type d | sort`, "a\nb\nerror\n11\n11\n23\n.\n./a\n./b\n"},
		{0, nil, `mkdir c && ls c | wc -l && mv c d && ls && cat d/text && rmdir d && ls && mv a/text b/text`,
			"11\na\nb\nd\nerror\none\ntwo\na\nb\nerror\nmv: "},
		{0, nil, `mkdir c; cd c; rmdir ../c; mkdir ../c; cat text; cd ../c; cat text; rmdir ../c; ls ..`,
			"cat: text: No such file or directory\none\ntwo\na\nb\nerror\n"},
		{0, nil, `mkdir c; cd c; mv ../c ../d; cat text; pwd -P | sed 's/.*[/]//'; cd ..; rmdir d`, "one\ntwo\nd\n"},
		{0, nil, `mkdir b 2>&1; rmdir nosuch 2>&1; cat nosuch; df . | tail -n1 | tr -s ' '| cut -d' ' -f1-4`,
			"mkdir: cannot create directory 'b': File exists\nrmdir: failed to remove 'nosuch': No such file or directory\n" +
				"cat: nosuch: No such file or directory\nctrfs 0 0 0\n"},
		{0, nil, `exec 3<>a/list; echo q >&3; exec 4<a/text; sync a/text; flock a/text echo locked; mv -n a b 2>/dev/null; test -d a && echo still`, "locked\nstill\n"},
		{0, []uint32{7, 8}, `cat a/who; cat a/secret; test -x a && test ! -x a/text && test -w a/text && echo yes`, "0 0 [7 8]\nsecret\nyes\n"},
		{nobody, nil, `cat a/who a/secret; cat a/ours; test -r a/secret || echo no; test -w a/text || echo no; test -r a/text && echo yes; cat a/text`,
			"65534 65534 []\ncat: a/secret: Permission denied\ncat: a/ours: Permission denied\nno\nno\nyes\none\ntwo\n"},
		{nobody, []uint32{9, 12345}, `cat a/who a/ours; mkdir c; tail -n1 error | cut -d' ' -f2-`,
			"65534 65534 [9 12345]\nours\nmkdir: cannot create directory 'c': Permission denied\n/c 'permission denied'\n"},
	} {
		got := sh(t, dir, c.uid, c.uid, c.groups, c.script)
		if got != c.want && !(strings.HasSuffix(c.want, "mv: ") && strings.HasPrefix(got, c.want)) {
			t.Errorf("%s\ngot:\n%swant:\n%s", c.script, got, c.want)
		}
	}
}

// A descriptor speaks for who has opened it: what a set-user-id program writes to it is not root's.
func TestOpenerSpeaks(t *testing.T) {
	w := newWorld("a")
	_, dir := mounted(t, w)
	fd, err := unix.Open(filepath.Join(dir, "a/ctl"), unix.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "ctl")
	defer f.Close()
	cmd := exec.Command("echo", "one")
	cmd.Stdout = f
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if got := <-w.said; got != "0 one\n" {
		t.Errorf("got %q", got)
	}
}

// Rewinding gives what is there now; a place in a directory stays good while entries vanish.
func TestReaddir(t *testing.T) {
	w := newWorld()
	for i := range 1000 {
		w.add(fmt.Sprintf("box%03d", i))
	}
	_, dir := mounted(t, w)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	list := func(vanish bool) map[string]int {
		seen := map[string]int{}
		for buf := make([]byte, 2048); ; {
			n, err := unix.Getdents(fd, buf)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				return seen
			}
			_, _, names := unix.ParseDirent(buf[:n], -1, nil)
			for _, s := range names {
				seen[s]++
				if vanish {
					w.mu.Lock()
					delete(w.boxes, s)
					w.mu.Unlock()
				}
			}
		}
	}
	if got := list(true); len(got) != 1001 || got["box500"] != 1 {
		t.Errorf("%d entries", len(got))
	}
	w.add("late")
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		t.Fatal(err)
	}
	if got := list(false); len(got) != 2 || got["late"] != 1 {
		t.Errorf("after rewinding: %v", got)
	}
}

// What a user asks after a close finds its effect, though the kernel sends the close after close(2) has returned.
// Others do not wait for him.
func TestCloseOrder(t *testing.T) {
	w := newWorld("a")
	m, dir := mounted(t, w)
	slow := w.boxes["a"].slow
	fd, err := unix.Open(filepath.Join(dir, "a/slow"), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	<-slow.closing
	found := make(chan string, 1)
	go func() { found <- sh(t, dir, 0, 0, nil, "cat a/closed") }()
	for waits := false; !waits; runtime.Gosched() { // until root's next request has come
		select {
		case s := <-found:
			t.Fatalf("found %q while it is being closed", s)
		default:
		}
		m.mu.Lock()
		waits = len(m.inflight) > 1
		m.mu.Unlock()
	}
	if got := sh(t, dir, 65534, 65534, nil, "cat a/closed"); got != "false\n" {
		t.Errorf("another user: %q", got)
	}
	close(slow.may)
	if got := <-found; got != "true\n" {
		t.Errorf("found %q", got)
	}
}

// A file that is open stays what it was when the name is made anew; a name is always that of today.
func TestNamesAnew(t *testing.T) {
	w := newWorld("a")
	_, dir := mounted(t, w)
	ino := func() string { return sh(t, dir, 0, 0, nil, "stat -c %i a") }
	first := ino()
	if first != fmt.Sprintln(w.boxes["a"].qid) {
		t.Errorf("inode %q, qid %d", first, w.boxes["a"].qid)
	}
	fd, err := unix.Open(filepath.Join(dir, "a/text"), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	w.mu.Lock()
	delete(w.boxes, "a")
	w.mu.Unlock()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Errorf("an open file that is gone: %v", err)
	}
	if got := ino(); !strings.Contains(got, "No such file") {
		t.Error(got)
	}
	w.add("a")
	if got := ino(); got == first || got != fmt.Sprintln(w.boxes["a"].qid) {
		t.Errorf("inode %q", got)
	}
}

// A read(2) that could be filled by more than one request returns with what is there: the next would block.
func TestLongRead(t *testing.T) {
	w := newWorld("a")
	m, dir := mounted(t, w)
	if !w.boxes["a"].out.TryWrite(make([]byte, maxRead)) {
		t.Fatal("log is full")
	}
	fd, err := unix.Open(filepath.Join(dir, "a/stdout"), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	done := make(chan int, 2)
	go func() {
		for range 2 {
			n, _ := unix.Read(fd, make([]byte, 2*maxRead))
			done <- n
		}
	}()
	for _, want := range []int{maxRead - 1, 1} {
		select {
		case n := <-done:
			if n != want {
				t.Errorf("%d bytes, want %d", n, want)
			}
		case <-time.After(20 * time.Second):
			m.end()
			t.Fatal("the read blocks, though there was something")
		}
	}
}
