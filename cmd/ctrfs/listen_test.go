package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseAddr(t *testing.T) {
	wd, _ := os.Getwd()
	for _, test := range []struct {
		in   string
		want addr
	}{
		{"unix!/run/x", addr{"unix", "/run/x"}},
		{"unix!/a!b", addr{"unix", "/a!b"}},
		{"unix!@abstract", addr{"unix", wd + "/@abstract"}},
		{"tcp!127.0.0.1!5640", addr{"tcp", "127.0.0.1:5640"}},
		{"tcp!*!5640", addr{"tcp", ":5640"}},
		{"tcp!::1!5640", addr{"tcp", "[::1]:5640"}},
		{"tcp!localhost", addr{"tcp", "localhost:564"}},
		{"fd!3", addr{"fd", "3"}},
		{in: ""}, {in: "/run/x"}, {in: "unix!"}, {in: "unix"}, {in: "tcp!a!1!2"}, {in: "tcp!a!"}, {in: "fd!x"}, {in: "fd!-1"},
		{in: "udp!a!1"},
	} {
		a, err := parseAddr(test.in)
		if a != test.want || (err == nil) != (test.want != addr{}) {
			t.Errorf("%q: %v, %v", test.in, a, err)
		}
		if again, err := parseAddr(a.String()); err != nil && a != (addr{}) || again != a {
			t.Errorf("%q: written as %q", test.in, a)
		}
		if err != nil && !strings.Contains(err.Error(), strconv.Quote(test.in)) {
			t.Errorf("%q: the error does not quote it: %v", test.in, err)
		}
	}
}

func TestNameSpace(t *testing.T) {
	for _, test := range [][3]string{
		{"/ns", ":1", "/ns"},
		{"", "", "/tmp/ns.glenda.:0"},
		{"", ":0.0", "/tmp/ns.glenda.:0"},
		{"", "far:10.1", "/tmp/ns.glenda.far:10.1"},
		{"", "/tmp/launch/:0", "/tmp/ns.glenda._tmp_launch_:0"},
	} {
		t.Setenv("NAMESPACE", test[0])
		t.Setenv("DISPLAY", test[1])
		if got := nameSpace("glenda"); got != test[2] {
			t.Errorf("%q: %s", test, got)
		}
	}
}

func TestPrivateDir(t *testing.T) {
	dir := t.TempDir()
	old := syscall.Umask(0077)
	defer syscall.Umask(old)
	ours := filepath.Join(dir, "ours")
	for range 2 {
		if err := privateDir(ours, 0755); err != nil {
			t.Fatal(err)
		}
		if fi, _ := os.Stat(ours); fi.Mode().Perm() != 0755 {
			t.Fatalf("mode %v", fi.Mode())
		}
	}
	os.Symlink(ours, filepath.Join(dir, "link"))
	os.Mkdir(filepath.Join(dir, "open"), 0700)
	os.Chmod(filepath.Join(dir, "open"), 0777)
	os.WriteFile(filepath.Join(dir, "file"), nil, 0600)
	for name, want := range map[string]string{"link": "not a directory", "file": "not a directory", "open": "others may write it"} {
		if err := privateDir(filepath.Join(dir, name), 0755); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	os.Chown(ours, 1, 1)
	if err := privateDir(ours, 0755); err == nil || !strings.HasSuffix(err.Error(), "belongs to user 1") {
		t.Errorf("of another: %v", err)
	}
}

// A dead server's socket is replaced, a living one's and what is no socket are not touched.
func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	a := addr{"unix", path}
	gone, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	gone.SetUnlinkOnClose(false)
	gone.Close()

	first, err := a.listen()
	if err != nil {
		t.Fatal(err)
	}
	if l, err := a.listen(); err == nil || !strings.HasSuffix(err.Error(), "another server listens there") {
		t.Fatal(l, err)
	}
	if c, err := a.dial(context.Background()); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	if names, _ := os.ReadDir(filepath.Dir(path)); len(names) != 1 {
		t.Fatalf("files: %v", names)
	}
	want := fs.FileMode(0600)
	if os.Geteuid() == 0 {
		want = 0666
	}
	if fi, err := os.Lstat(path); err != nil || fi.Mode().Perm() != want {
		t.Fatal(fi, err)
	}
	first.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("after close: %v", err)
	}

	os.WriteFile(path, nil, 0600)
	if _, err := a.listen(); !errors.Is(err, syscall.ENOTSOCK) {
		t.Fatal(err)
	}

	// who comes last has it: the first's end does not take it away
	os.Remove(path)
	first, err = a.listen()
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	second, err := a.listen()
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	second.Close()
}

// However many begin at once, one listens and the others say why not.
func TestListenUnixRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	for range 5 {
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		dead.Close()
		got := make(chan net.Listener)
		for range 4 {
			go func() {
				l, _ := addr{"unix", path}.listen()
				got <- l
			}()
		}
		var all []net.Listener
		for range 4 {
			if l := <-got; l != nil {
				all = append(all, l)
			}
		}
		if len(all) != 1 {
			t.Fatalf("%d listen", len(all))
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		all[0].Close()
	}
}

func TestInherited(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	l, err := addr{"fd", strconv.Itoa(pair[0])}.listen()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	accept(context.Background(), l, func(c net.Conn) { n++; c.Close() })
	if n != 1 {
		t.Fatalf("%d connections", n)
	}

	path := filepath.Join(t.TempDir(), "sock")
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	f, err := u.File()
	if err != nil {
		t.Fatal(err)
	}
	fd, _ := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	f.Close()
	l, err = addr{"fd", strconv.Itoa(fd)}.listen()
	if err != nil {
		t.Fatal(err)
	}
	if l.Addr().String() != path {
		t.Errorf("address %v", l.Addr())
	}
	l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket of another was removed: %v", err)
	}

	if _, err := (addr{"fd", "999"}).listen(); !errors.Is(err, syscall.EBADF) {
		t.Error(err)
	}
	null, _ := os.Open(os.DevNull)
	fd, _ = unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	null.Close()
	if _, err := (addr{"fd", strconv.Itoa(fd)}).listen(); !errors.Is(err, syscall.ENOTSOCK) {
		t.Error(err)
	}
}

// A socket that systemd passes and -a names too is one.
func TestPassedAndNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := role(t, "ctrfs")
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec " + self + " -a fd!3"}
	cmd.ExtraFiles = []*os.File{f}
	d := launch(t, "listening", cmd)
	at := addr{"tcp", l.Addr().String()}
	if out, err := remotely(t, "", "read", "-a", at.String(), "version"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	d.Process.Signal(syscall.SIGTERM)
	d.ends()
}

func TestPassed(t *testing.T) {
	t.Setenv("LISTEN_FDS", "2")
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getppid()))
	if l := passed(); len(l) != 2 || l[1] != (addr{"fd", "4"}) {
		t.Error(l)
	}
	if _, there := os.LookupEnv("LISTEN_FDS"); there {
		t.Error("left for children")
	}
	t.Setenv("LISTEN_FDS", "2")
	t.Setenv("LISTEN_PID", "1")
	if l := passed(); l != nil {
		t.Error(l)
	}
}

// A peer that the network no longer reaches is given up in less than a minute, whether or not a reply is under way (R21).
func TestVanished(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tcp := c.(*net.TCPConn)
	if err := notForEver(tcp); err != nil {
		t.Fatal(err)
	}
	f, err := tcp.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	option := func(level, name int) int {
		n, err := unix.GetsockoptInt(int(f.Fd()), level, name)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	silent := option(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE) + option(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)*option(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
	if on := option(unix.SOL_SOCKET, unix.SO_KEEPALIVE); on == 0 || silent > 60 {
		t.Errorf("keep alive %d, given up after %d s", on, silent)
	}
	if ms := option(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); ms == 0 || ms > 60000 {
		t.Errorf("a reply is given up after %d ms", ms)
	}
}

// A server that is about to end hangs up and is replaced.
func TestListenUnixDying(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	dying, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dying.SetUnlinkOnClose(false)
	go func() {
		if c, err := dying.Accept(); err == nil {
			dying.Close()
			c.Close()
		}
	}()
	l, err := addr{"unix", path}.listen()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
