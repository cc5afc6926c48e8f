package fuse

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// readers is a program in which very many threads read one file.
func readers(file string) {
	const n = 10000
	debug.SetMaxThreads(2 * n)
	fd, err := unix.Open(file, unix.O_RDONLY, 0)
	if err != nil {
		panic(err)
	}
	for range n {
		go func() {
			_, err := unix.Pread(fd, make([]byte, 4096), 0)
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}()
	}
	select {}
}

// server is a program that serves a mount and is killed.
func server(dir string) {
	w := newWorld("a")
	if _, err := Mount(context.Background(), w, dir, Options{}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("mounted")
	<-w.blocked
	fmt.Println("blocked")
	select {}
}

func self(t *testing.T, env string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), env)
	return cmd
}

func TestTenThousandBlocked(t *testing.T) {
	if testing.Short() {
		t.Skip("starts 10,000 threads")
	}
	w := newWorld("a")
	m, dir := mounted(t, w)
	cmd := self(t, "FUSE_TEST_READER="+filepath.Join(dir, "a/wait"))
	cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1") // else its own signals interrupt its reads
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	w.blocks(t, 10000)
	if got := sh(t, dir, 65534, 65534, nil, "cat a/text; ls a | wc -l"); got != "one\ntwo\n11\n" {
		t.Errorf("beside 10,000 blocked reads: %q", got)
	}
	cmd.Process.Kill()
	ended(t, cmd)
	m.mu.Lock()
	n := 0
	for _, r := range m.inflight {
		if r.Opcode == opRead {
			n++
		}
	}
	m.mu.Unlock()
	if n > 0 {
		t.Errorf("%d requests are left of a program that has ended", n)
	}
}

// The mount goes away while it is in use, and so does what uses it.
func TestUnmountBusy(t *testing.T) {
	w := newWorld("a")
	m, dir := mounted(t, w)
	list := cats(t, dir, "a/wait", 50)
	w.blocks(t, len(list))
	stay := exec.Command("env", "-C", filepath.Join(dir, "a"), "cat")
	in, err := stay.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stay.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := m.Unmount(ctx); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range list {
		if ended(t, cmd).Success() {
			t.Error("a reader ended well")
		}
	}
	if at, err := topmost(dir); err != nil || at != [2]int{} {
		t.Errorf("still mounted: %v, %v", at, err)
	}
	in.Close()
	ended(t, stay)
	if err := m.Unmount(ctx); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// Somebody else unmounts it: Wait returns, and what was mounted there since stays.
func TestUnmountedByOthers(t *testing.T) {
	w := newWorld("a")
	m, dir := mounted(t, w)
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if err := m.Wait(); err != nil {
		t.Error(err)
	}
	m2, err := Mount(t.Context(), w, dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(t.Context()); err != nil {
		t.Error(err)
	}
	if got := sh(t, dir, 0, 0, nil, "cat a/text"); got != "one\ntwo\n" {
		t.Error(got)
	}
	if err := m2.Unmount(context.Background()); err != nil {
		t.Error(err)
	}
}

// A server that was killed leaves a mount that is found, and its readers end.
func TestDead(t *testing.T) {
	needRoot(t)
	before, dir := mounts(t), place(t)
	if Dead(dir) {
		t.Error("a directory is a dead mount")
	}
	cmd := self(t, "FUSE_TEST_SERVER="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	line := func(want string) {
		b := make([]byte, len(want))
		if _, err := out.Read(b); err != nil || string(b) != want {
			t.Fatalf("%q, %v", b, err)
		}
	}
	line("mounted\n")
	if Dead(dir) {
		t.Error("a living mount is dead")
	}
	list := cats(t, dir, "a/wait", 1)
	line("blocked\n")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ended(t, cmd)
	ended(t, list[0])
	if !Dead(dir) {
		t.Error("a dead mount is not found")
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Error(err)
	}
	if n := mounts(t); n != before {
		t.Errorf("%d mounts, %d before", n, before)
	}
}

// An ordinary user's mount, by fusermount3, ends as well while it is in use.
func TestOrdinaryUser(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("fusermount3"); err != nil {
		lack(t, "fusermount3: Debian package fuse3")
	}
	before, dir := mounts(t), place(t)
	const nobody = 65534
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	// In a mount name space of its own /dev/fuse is for all, as udev makes it.
	node := filepath.Join(place(t), "fuse")
	if err := unix.Mknod(node, unix.S_IFCHR|0666, int(unix.Mkdev(10, 229))); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(node)
	if err := os.Chmod(node, 0666); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(place(t), "test") // the test's own may lie where nobody cannot reach it
	b, err := os.ReadFile(exe)
	if err == nil {
		err = os.WriteFile(copied, b, 0755)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(copied)
	cmd := exec.Command("unshare", "-m", "sh", "-c", `mount --bind "$1" /dev/fuse && cd / && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$2" -test.run='^TestAsOrdinaryUser$' -test.v`,
		"sh", node, copied)
	cmd.Env = append(os.Environ(), "FUSE_TEST_DIR="+dir, "HOME=/")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if n := mounts(t); n != before {
		t.Errorf("%d mounts, %d before", n, before)
	}
}

func TestAsOrdinaryUser(t *testing.T) {
	dir := os.Getenv("FUSE_TEST_DIR")
	if dir == "" {
		return // TestOrdinaryUser runs it as one
	}
	w := newWorld("a")
	if _, err := Mount(t.Context(), w, filepath.Join(dir, "nosuch"), Options{}); err == nil {
		t.Error("mounted nowhere")
	}
	m, err := Mount(t.Context(), w, dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	list := cats(t, dir, "a/wait", 10)
	w.blocks(t, len(list))
	out, err := exec.Command("cat", filepath.Join(dir, "a/who")).CombinedOutput()
	if string(out) != "65534 65534 []\n" {
		t.Errorf("%q, %v", out, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := m.Unmount(ctx); err != nil {
		t.Error(err)
	}
	for _, cmd := range list {
		ended(t, cmd)
	}
	if n := mounts(t); n > 0 {
		t.Errorf("%d mounts left", n)
	}
	t.Setenv("PATH", "/nonexistent")
	if _, err := Mount(t.Context(), w, dir, Options{}); err == nil || !strings.Contains(err.Error(), "fuse3") {
		t.Errorf("without fusermount3: %v", err)
	}
}
