package srv

import (
	"context"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs/styx"
)

// people is a user database: root, and glenda who is in group 7.
type people struct{}

func (people) ByName(name string) (uint32, bool) {
	uid, ok := map[string]uint32{"root": 0, "glenda": 1000, "nobody": 65534}[name]
	return uid, ok
}

func (people) ByUid(uid uint32) (string, uint32, []uint32, bool) {
	switch uid {
	case 0:
		return "root", 0, nil, true
	case 1000:
		return "glenda", 100, []uint32{7}, true
	}
	return "", 0, nil, false
}

func (people) Group(gid uint32) (string, bool) {
	name, ok := map[uint32]string{0: "root", 100: "users"}[gid]
	return name, ok
}

var (
	asRoot   = Peer{Proven: true, Pid: 1}
	asGlenda = Peer{Proven: true, Uid: 1000, Gid: 100, Groups: []uint32{7}, Pid: 42}
	asMount  = Peer{Proven: true, MayClaim: true, Pid: 1}
	asNobody = Peer{}
)

// socketpair is a connection's two ends.
func socketpair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var c [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		c[i] = conn.(*net.UnixConn)
	}
	return c[0], c[1]
}

// A client is the other end of a conversation, and knows the messages and nothing more.
type client struct {
	t testing.TB
	c net.Conn
	r *styx.Reader
	d styx.Dialect

	served chan error // what Serve returned
}

// dial begins a conversation. At the test's end it is over and all its files are closed.
func dial(t testing.TB, s *Server, p Peer) *client {
	t.Helper()
	a, b := socketpair(t)
	c := &client{t: t, c: a, r: styx.NewReader(a), served: make(chan error, 1)}
	c.r.SetMsize(1 << 20)
	a.SetDeadline(time.Now().Add(2 * time.Minute))
	go func() { c.served <- s.Serve(context.Background(), b, p) }()
	t.Cleanup(func() { c.hangUp() })
	return c
}

func (c *client) hangUp() {
	c.c.Close()
	select {
	case err := <-c.served:
		c.served <- err
	case <-time.After(time.Minute):
		c.t.Error("the conversation has not ended a minute after its connection")
	}
}

func (c *client) send(msgs ...*styx.Msg) {
	c.t.Helper()
	var b []byte
	for _, m := range msgs {
		var err error
		if b, err = m.Append(b, c.d); err == nil {
			continue
		}
		if b, err = m.Append(b, 1-c.d); err != nil { // the other dialect's
			c.t.Fatal(err)
		}
	}
	if _, err := c.c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) recv() *styx.Msg {
	c.t.Helper()
	b, err := c.r.Next()
	if err != nil {
		c.t.Fatalf("no reply: %v", err)
	}
	m := new(styx.Msg)
	if err := styx.Parse(b, c.d, m); err != nil {
		c.t.Fatalf("reply %x: %v", b, err)
	}
	if m.Type == styx.Rversion && m.Version == styx.VersionLinux {
		c.d = styx.Linux
	}
	if m.Data != nil {
		m.Data = append([]byte{}, m.Data...)
	}
	return m
}

// say sends what is written in text form.
func (c *client) say(lines ...string) {
	c.t.Helper()
	var msgs []*styx.Msg
	for _, line := range lines {
		m, err := styx.ParseText(line)
		if err != nil {
			c.t.Fatalf("%s: %v", line, err)
		}
		msgs = append(msgs, m)
	}
	c.send(msgs...)
}

// rpc sends one message and gives the next reply, which is to be its own.
func (c *client) rpc(format string, args ...any) *styx.Msg {
	c.t.Helper()
	line := fmt.Sprintf(format, args...)
	c.say(line)
	return c.recv()
}

// must is an rpc that is to succeed.
func (c *client) must(format string, args ...any) *styx.Msg {
	c.t.Helper()
	m := c.rpc(format, args...)
	if m.Type == styx.Rlerror || m.Type == styx.Rerror {
		c.t.Fatalf("%s: %s", fmt.Sprintf(format, args...), m)
	}
	return m
}

// start is a session with fid 0 attached.
func (c *client) start(version string) *client {
	c.t.Helper()
	c.must("Tversion msize 65536 version %s", version)
	c.must("Tattach fid 0 uname root aname ''")
	return c
}
