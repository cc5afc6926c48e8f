package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// served is a server in this process, at a socket that everybody may open and at a TCP port, with a group ctrfs-admin.
type served struct {
	*server
	t         testing.TB
	unix, tcp net.Addr
}

const adminGid = 40999

func serveHere(t testing.TB) *served {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "needs root: to be others")
	}
	dir, err := os.MkdirTemp("", "served") // t.TempDir's is not for others
	if err == nil {
		err = os.Chmod(dir, 0755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, stop := context.WithCancel(context.Background())
	s, err := newServer(nil, stop)
	if err != nil {
		t.Fatal(err)
	}
	s.admin = func() (uint32, bool) { return adminGid, true }
	s.ctrs.Gid, s.ctrs.Shared = adminGid, true
	var l []net.Listener
	for _, a := range []addr{{"unix", filepath.Join(dir, "sock")}, {"tcp", "127.0.0.1:0"}} {
		one, err := a.listen()
		if err != nil {
			t.Fatal(err)
		}
		l = append(l, one)
	}
	done := make(chan error, 1)
	go func() {
		done <- s.serve(ctx, l, func(context.Context) (func(), error) { return nil, nil })
	}()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, s.ctrs.Close(context.Background())); err != nil {
			t.Error(err)
		}
	})
	return &served{s, t, l[0].Addr(), l[1].Addr()}
}

// pass connects to a socket, without CAP_SETUID if it is to be without, gives the connection to whoever has the other end of
// descriptor 3, and lives as long as he.
func pass(path string, without bool) {
	c, err := reach(path, without)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	f, err := c.(*net.UnixConn).File()
	if err == nil {
		err = unix.Sendmsg(3, []byte("c"), unix.UnixRights(int(f.Fd())), nil, 0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	unix.Read(3, make([]byte, 1))
}

// peer is a connection made by a process of its own, which lives until gone is called, at the latest to the test's end.
func (s *served) peer(how *syscall.SysProcAttr, without bool) (c net.Conn, gone func()) {
	s.t.Helper()
	ours, theirs, err := socketPair()
	if err != nil {
		s.t.Fatal(err)
	}
	defer ours.Close()
	f, err := theirs.(*net.UnixConn).File()
	theirs.Close()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := role(s.t, "pass", s.unix.String())
	if without {
		cmd.Args = append(cmd.Args, "without")
	}
	cmd.ExtraFiles, cmd.SysProcAttr, cmd.Stderr = []*os.File{f}, how, os.Stderr
	err = cmd.Start()
	f.Close()
	if err != nil {
		s.t.Fatal(err)
	}
	life, err := ours.(*net.UnixConn).File() // its end is the process's
	if err != nil {
		s.t.Fatal(err)
	}
	ended := false
	gone = func() {
		if !ended {
			life.Close()
			cmd.Process.Kill()
			cmd.Wait()
			ended = true
		}
	}
	s.t.Cleanup(gone)
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := ours.(*net.UnixConn).ReadMsgUnix(make([]byte, 1), rights)
	if err != nil {
		s.t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(msgs) != 1 {
		s.t.Fatalf("no connection came: %v", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		s.t.Fatal(err)
	}
	conn := os.NewFile(uintptr(fds[0]), "connection")
	defer conn.Close()
	if c, err = net.FileConn(conn); err != nil {
		s.t.Fatal(err)
	}
	return c, gone
}

func as(uid, gid uint32, groups ...uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
}
