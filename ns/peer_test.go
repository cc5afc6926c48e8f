package ns

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// With this variable the test connects to the socket it names and stays until its input ends.
const dialer = "NS_TEST_CONNECT"

func init() {
	path := os.Getenv(dialer)
	if path == "" {
		return
	}
	if os.Getenv(dialer+"_DROP") != "" {
		syscall.Setuid(alice)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if os.Getenv(dialer+"_LATER") != "" {
		syscall.Setuid(alice)
	}
	c.Write([]byte{1})
	os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

func TestPeer(t *testing.T) {
	needsRoot(t)
	atEnd(t)
	dir, err := os.MkdirTemp("/tmp", "peer")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0755)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/sock", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	os.Chmod(dir+"/sock", 0666)
	prog := dir + "/prog" // where every user can run it
	if text, err := os.ReadFile("/proc/self/exe"); err != nil || os.WriteFile(prog, text, 0755) != nil {
		t.Fatal("cannot copy the test")
	}

	rooted := attr(Cred{})
	rooted.Cloneflags = unix.CLONE_NEWUSER
	rooted.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	rooted.GidMappings = rooted.UidMappings
	flags := func(f uintptr) *syscall.SysProcAttr {
		a := attr(Cred{})
		a.Cloneflags = f
		return a
	}
	many := make([]uint32, 300)
	for i := range many {
		many[i] = uint32(5000 + i)
	}
	for _, c := range []struct {
		name   string
		attr   *syscall.SysProcAttr
		env    string
		uid    uint32
		groups int
		root   bool
	}{
		{"root", attr(Cred{}), "", 0, 0, true},
		{"alice", attr(Cred{Uid: alice, Gid: bob, Groups: []uint32{7, 8}}), "", alice, 2, false},
		{"alice in 300 groups", attr(Cred{Uid: alice, Gid: bob, Groups: many}), "", alice, 300, false},
		{"root that became alice before", attr(Cred{}), "_DROP", alice, 0, false},
		{"root that became alice after", attr(Cred{}), "_LATER", 0, 0, false},
		{"root of a user namespace", rooted, "", 0, 0, false},
		{"root in another pid namespace", flags(unix.CLONE_NEWPID), "", 0, 0, false},
		{"root in another mount namespace", flags(unix.CLONE_NEWNS), "", 0, 0, false},
		{"root in another network namespace", flags(unix.CLONE_NEWNET), "", 0, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(prog)
			cmd.SysProcAttr = c.attr
			cmd.Env = append(os.Environ(), dialer+"="+dir+"/sock")
			if c.env != "" {
				cmd.Env = append(cmd.Env, dialer+c.env+"=1")
			}
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			conn, err := l.AcceptUnix()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.Read(make([]byte, 1)) // it has become what it becomes
			peer, err := Peer(conn)
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Proc.Close()
			if peer.Uid != c.uid || peer.Pid != cmd.Process.Pid || peer.Root() != c.root || len(peer.Groups) != c.groups {
				t.Errorf("peer is %+v", peer)
			}
			in.Close()
			cmd.Wait()
			if again, err := Peer(conn); err == nil { // it is gone: refuse
				t.Errorf("a gone peer is %+v", again)
			}
		})
	}
}
