package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"ctrfs/fs/srv"

	"golang.org/x/sys/unix"
)

func init() {
	if r := os.Getenv("CTRFS_TEST_ROLE"); r == "connect" || r == "pass" {
		runtime.LockOSThread() // the first thread is the one that is looked at
	}
}

// reach connects to a socket, without CAP_SETUID if it is to be without.
func reach(path string, without bool) (net.Conn, error) {
	if without {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		unix.Capget(&hdr, &caps[0])
		caps[0].Effective &^= 1 << unix.CAP_SETUID
		if err := unix.Capset(&hdr, &caps[0]); err != nil {
			return nil, err
		}
	}
	return net.Dial("unix", path)
}

// connect connects to a socket and waits for the other side to hang up.
func connect(path string, without bool) {
	c, err := reach(path, without)
	if err != nil {
		fmt.Println(err)
		return
	}
	bufio.NewReader(c).ReadByte()
}

// Who connected is known, and only root of this very machine may speak for others.
func TestPeer(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "needs root: to be others")
	}
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0755)
	l, err := addr{"unix", filepath.Join(dir, "sock")}.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	in := func(flags uintptr) *syscall.SysProcAttr { return &syscall.SysProcAttr{Cloneflags: flags} }
	as := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 100, Groups: []uint32{7, 8}}}
	mapped := in(unix.CLONE_NEWUSER)
	mapped.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1}}
	mapped.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1}}
	mapped.Credential = &syscall.Credential{NoSetGroups: true}
	same := in(unix.CLONE_NEWUSER)
	same.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	same.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	none := srv.Peer{}
	for _, test := range []struct {
		name    string
		how     *syscall.SysProcAttr
		without bool
		want    srv.Peer
	}{
		{"root", in(0), false, srv.Peer{Proven: true, MayClaim: true}},
		{"user", as, false, srv.Peer{Proven: true, Uid: 1000, Gid: 100, Groups: []uint32{7, 8}}},
		{"mnt", in(unix.CLONE_NEWNS), false, none},
		{"pid", in(unix.CLONE_NEWPID), false, none},
		{"user name space", same, false, none},
		{"mapped root", mapped, false, srv.Peer{Proven: true, Uid: 100000, Gid: 100000}},
		{"no CAP_SETUID", in(0), true, none},
	} {
		args := []string{l.Addr().String()}
		if test.without {
			args = append(args, "without")
		}
		cmd := role(t, "connect", args...)
		cmd.SysProcAttr = test.how
		cmd.Stdout = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		p, err := peerOf(c)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if p.Pid != cmd.Process.Pid {
			t.Errorf("%s: pid %d, want %d", test.name, p.Pid, cmd.Process.Pid)
		}
		p.Pid = 0
		if test.how != as {
			p.Groups = nil
		}
		if fmt.Sprint(p) != fmt.Sprint(test.want) {
			t.Errorf("%s: %+v, want %+v", test.name, p, test.want)
		}
		c.Close()
		cmd.Wait()
	}
}

// Of those who come over the network nothing is known.
func TestPeerTCP(t *testing.T) {
	l, err := addr{"tcp", "127.0.0.1:0"}.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if p, err := peerOf(s); err != nil || p.Proven || p.MayClaim {
		t.Errorf("%+v, %v", p, err)
	}
}

// A connection of which it cannot be told who made it is refused.
func TestPeerRefused(t *testing.T) {
	a, b, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a.Close()
	if p, err := peerOf(a); err == nil {
		t.Errorf("%+v", p)
	}
}
