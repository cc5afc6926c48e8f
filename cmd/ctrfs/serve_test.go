package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"ctrfs/ns"
)

// The test binary is ctrfs too, and a program that connects to a socket and waits there.
func TestMain(m *testing.M) {
	ns.Tracer()
	switch role, _, _ := strings.Cut(os.Getenv("CTRFS_TEST_ROLE"), " "); role {
	case "ctrfs":
		main()
	case "work":
		work()
	case "connect":
		connect(os.Args[1], len(os.Args) > 2)
	case "pass":
		pass(os.Args[1], len(os.Args) > 2)
	default:
		log.SetOutput(io.Discard) // go9p's client logs that its connection is closed
		code := m.Run()
		for _, f := range atExit {
			f()
		}
		os.Exit(code)
	}
}

var atExit []func() // after the tests

// A daemon is a server under test, or a remote verb.
type daemon struct {
	*exec.Cmd
	said chan string // the lines of its standard error
	t    testing.TB
}

func role(t testing.TB, name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute+time.Duration(killings())*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "CTRFS_TEST_ROLE="+name)
	return cmd
}

// start starts a server and waits until it says something.
func start(t *testing.T, until string, args ...string) *daemon {
	t.Helper()
	return launch(t, until, role(t, "ctrfs", args...))
}

func launch(t testing.TB, until string, cmd *exec.Cmd) *daemon {
	t.Helper()
	d := &daemon{cmd, make(chan string, 10000), t}
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.said)
		for in := bufio.NewScanner(stderr); in.Scan(); {
			d.said <- in.Text()
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM) // fails where it has ended; what a test that fails has left ends with it
		late := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		defer late.Stop()
		cmd.Wait()
	})
	d.await(until)
	return d
}

// await waits for a line of the server's standard error that holds a word; "" for its end.
func (d *daemon) await(word string) {
	d.t.Helper()
	if word == "-" {
		return
	}
	var all []string
	for line := range d.said {
		all = append(all, line)
		if word != "" && strings.Contains(line, word) {
			return
		}
	}
	if word != "" {
		d.t.Fatalf("ended without %q:\n%s", word, strings.Join(all, "\n"))
	}
}

// ends waits for the end of a server, which must be without error.
func (d *daemon) ends() {
	d.t.Helper()
	d.await("")
	if err := d.Wait(); err != nil {
		d.t.Fatal(err)
	}
}

// remotely carries out a remote verb.
func remotely(t *testing.T, input string, args ...string) (string, error) {
	cmd := role(t, "ctrfs", args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestRemote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	d := start(t, "listening", "-a", "unix!"+path)
	for _, dialect := range []string{"-2=false", "-2"} {
		for _, test := range []struct {
			input string
			args  []string
			want  string
			ok    bool
		}{
			{args: []string{"read", "version"}, want: "dialects 9P2000.L 9P2000\n", ok: true},
			{args: []string{"ls", "-d", "/"}, want: "/\n", ok: true},
			{args: []string{"ls", "-lt"}, want: "usage", ok: false},
			{args: []string{"ls", "-ld", "ctl"}, want: "-rw------- ", ok: true},
			{args: []string{"stat", "help"}, want: "m 0444 at ", ok: true},
			{args: []string{"write", "ctl"}, input: "log debug\n", ok: true},
			{args: []string{"write", "-l", "ctl"}, input: "log warn\nfrob\n", want: `unknown control message: "frob"`},
			{args: []string{"write", "ctl"}, input: "frob\n", want: `ctrfs: write "/ctl": unknown control message: "frob"` + "\n"},
			{args: []string{"write", "ctl"}, input: "", ok: true},
			{args: []string{"rdwr", "ctl"}, input: "log debug\nlog info\n", want: "log warn\ntrace off\nlog debug\ntrace off\nlog info\ntrace off\n", ok: true},
			{args: []string{"read", "no", "/a/b"}, want: `ctrfs: read "/no": file does not exist` + "\n" + `ctrfs: read "/a/b": file does not exist` + "\n"},
			{args: []string{"read", "/proc"}, want: `ctrfs: read "/proc": Is a directory` + "\n"},
			{args: []string{"read", "/help/x"}, want: `ctrfs: read "/help/x": `},
			{args: []string{"write", "help"}, input: "x", want: `ctrfs: write "/help": permission denied` + "\n"},
		} {
			out, err := remotely(t, test.input, append([]string{test.args[0], dialect, "-a", "unix!" + path}, test.args[1:]...)...)
			if (err == nil) != test.ok || !strings.Contains(strings.ToLower(out), strings.ToLower(test.want)) {
				t.Errorf("%s %q: %v\n%swant %v, %s", dialect, test.args, err, out, test.ok, test.want)
			}
		}
		if out, _ := remotely(t, "", "read", dialect, "-a", "unix!"+path+"x", "help"); !strings.Contains(out, `sock`) || !strings.HasSuffix(out, "no such file or directory\n") {
			t.Error(out)
		}
	}
	for _, args := range [][]string{{"frob"}, {"-frob"}, {"read"}, {"ls", "-frob"}} {
		if _, err := remotely(t, "", args...); err == nil || err.Error() != "exit status 2" {
			t.Errorf("%q: %v", args, err)
		}
	}
	// an interrupt ends a blocked read, and the server hears of it
	cmd := role(t, "ctrfs", "read", "-a", "unix!"+path, "events")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); !strings.HasSuffix(line, "ready\n") {
		t.Fatal(line, err)
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if out, err := remotely(t, "quit\n", "write", "-a", "unix!"+path, "ctl"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	d.ends()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Error("the socket is still there:", err)
	}
}

// A server ends at a signal, whoever is blocked in it.
func TestTerm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		d := start(t, "listening", "-a", "unix!"+path)
		reader := role(t, "ctrfs", "read", "-a", "unix!"+path, "events")
		out, err := reader.StdoutPipe()
		if err == nil {
			err = reader.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		bufio.NewReader(out).ReadString('\n')
		d.Process.Signal(syscall.SIGHUP) // changes nothing
		d.Process.Signal(sig)
		d.await("ending")
		d.ends()
		io.Copy(io.Discard, out)
		reader.Wait()
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Error("the socket is still there:", err)
		}
	}
}

func TestPost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ns")
	cmd := role(t, "ctrfs", "-s", "ctrfs")
	cmd.Env = append(cmd.Env, "NAMESPACE="+dir)
	d := launch(t, "listening", cmd)
	if out, err := remotely(t, "", "read", "-a", "unix!"+dir+"/ctrfs", "version"); err != nil {
		t.Error(out, err)
	}
	d.Process.Signal(syscall.SIGTERM)
	d.ends()
}

// An inherited connection is served and nothing else; the server ends with it.
func TestSingle(t *testing.T) {
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	f, err := theirs.(*net.UnixConn).File()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	cmd := role(t, "ctrfs", "-a", "fd!3")
	cmd.ExtraFiles = []*os.File{f}
	d := launch(t, "listening", cmd)
	f.Close()
	r, err := attach2000(ours, "none")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.list("/"); err != nil {
		t.Error(err)
	}
	ours.Close()
	d.ends()
}

// When there are no descriptors left, those who come are turned away and not left waiting, and when there are some again
// they are served.
func TestNoDescriptors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := "tcp!" + strings.Replace(l.Addr().String(), ":", "!", 1)
	f, err := l.(*net.TCPListener).File()
	l.Close()
	if err != nil {
		t.Fatal(err)
	}
	cmd := role(t, "ctrfs", "-a", "fd!3")
	cmd.ExtraFiles = []*os.File{f}
	d := launch(t, "listening", cmd)
	f.Close()
	server, _ := d.children()
	defer server.Close()
	var most unix.Rlimit
	if err := unix.Prlimit(server.Pid(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 40, Max: 40}, &most); err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	var away sync.WaitGroup
	turned := make(chan struct{}, 100)
	for range 100 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		away.Go(func() {
			if _, err := c.Read(make([]byte, 1)); err != nil && !strings.Contains(err.Error(), "closed network") {
				turned <- struct{}{}
			}
		})
	}
	for range 100 - 40 {
		<-turned
	}
	for _, c := range conns {
		c.Close()
	}
	away.Wait()
	for { // who is turned away comes again
		out, err := remotely(t, "", "read", "-a", at, "version")
		if err == nil {
			break
		}
		t.Log(out)
	}
	d.Process.Signal(syscall.SIGTERM)
	d.ends()
}

func mounted(t *testing.T, dir string) []*mountinfo.Info {
	all, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A mount is there as long as its server, and what a killed one has left is replaced.
func TestMount(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "needs root: to mount")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		lacking(t, "needs /dev/fuse")
	}
	top := t.TempDir()
	sock, dir := filepath.Join(top, "sock"), filepath.Join(top, "n/ctrfs")
	t.Cleanup(func() {
		for range mounted(t, dir) {
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	args := []string{"-a", "unix!" + sock, "-m", dir}
	cat := func(name string) (string, error) {
		out, err := exec.Command("cat", filepath.Join(dir, name)).CombinedOutput()
		return string(out), err
	}
	d := start(t, "mounted", args...)
	if out, err := cat("version"); err != nil || !strings.HasPrefix(out, "ctrfs ") {
		t.Fatal(out, err)
	}
	other := role(t, "ctrfs", "-a", "unix!"+sock+"2", "-m", dir)
	if out, err := other.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("there is a mount already")) {
		t.Errorf("a second server there: %v\n%s", err, out)
	}
	d.Process.Kill()
	d.Process.Wait() // its server may still be about to end
	if len(mounted(t, dir)) != 1 {
		t.Fatal("no dead mount to replace")
	}
	d = start(t, "mounted", args...)
	if n := len(mounted(t, dir)); n != 1 {
		t.Errorf("%d mounts", n)
	}
	if out, err := cat("version"); err != nil {
		t.Fatal(out, err)
	}
	// a reader that blocks there does not keep the server from ending
	reader := exec.Command("cat", filepath.Join(dir, "events"))
	out, err := reader.StdoutPipe()
	if err == nil {
		err = reader.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	bufio.NewReader(out).ReadString('\n')
	d.Process.Signal(syscall.SIGTERM)
	d.ends()
	io.Copy(io.Discard, out)
	reader.Wait()
	if n := len(mounted(t, dir)); n != 0 {
		t.Errorf("%d mounts left", n)
	}
}
