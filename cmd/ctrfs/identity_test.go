package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"ctrfs/fs/styx"

	"golang.org/x/sys/unix"
)

// Who a client is, shows the process that is his when he opens clone.
func (c *caller) self() (who string) {
	err := c.on("/proc/clone", func(f styx.Fid) error {
		err := c.open(f, styx.ORead)
		if err != nil {
			return err
		}
		pid, err := c.readAt(f, 0)
		if err != nil {
			return err
		}
		text, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/status")
		for line := range strings.Lines(string(text)) {
			switch w := strings.Fields(line); {
			case w[0] == "Uid:" || w[0] == "Gid:":
				if w[1] != w[2] || w[1] != w[3] || w[1] != w[4] {
					return fmt.Errorf("%s", line)
				}
				who += w[1] + " "
			case w[0] == "Groups:":
				who += strings.Join(w[1:], ",")
			}
		}
		return err
	})
	if denies(err) {
		return "none"
	}
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(who)
}

// Whoever connects is who the kernel says, and only root of this very machine may say to be another.
func TestIdentity(t *testing.T) {
	s := serveHere(t)
	user := as(uidA, gidAB, 7, 8)
	in := func(flags uintptr) *syscall.SysProcAttr { return &syscall.SysProcAttr{Cloneflags: flags} }
	same := in(unix.CLONE_NEWUSER)
	same.UidMappings = []syscall.SysProcIDMap{{Size: 1}}
	same.GidMappings = []syscall.SysProcIDMap{{Size: 1}}
	const himself, daemon = "40001 40100 7,8", "1 1"
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	mapped := strings.TrimSpace("40001 40100 " + strings.Trim(strings.ReplaceAll(fmt.Sprint(groups), " ", ","), "[]"))
	type attach struct {
		uname string
		uid   uint32
		want  string
	}
	// What a peer without identity may say to no effect.
	nothing := []attach{{"root", styx.NoUid, "none"}, {"root", 0, "none"}, {"", uidA, "none"}, {"daemon", 1, "none"}}
	for _, test := range []struct {
		rule, peer string
		how        *syscall.SysProcAttr // nil: by TCP
		without    bool                 // CAP_SETUID
		linux      []attach             // one after the other, in one conversation
		plain      []string             // uname and what comes of it
	}{
		{"U1", "a user", user, false, []attach{
			{"", styx.NoUid, himself}, {"root", styx.NoUid, himself}, {"daemon", uidA, himself}, {"no such user", uidA, himself},
			{"root", 0, "EPERM"}, {"", uidB, "EPERM"}, {"", 65534, "EPERM"}, {"", uidA, himself},
		}, []string{"root", himself, "daemon", himself, "", himself, "nobody", himself}},
		{"U1", "a user's root, mapped", &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: uidA, Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: gidAB, Size: 1}},
			Credential: &syscall.Credential{NoSetGroups: true},
		}, false, []attach{{"root", 0, "EPERM"}, {"", uidB, "EPERM"}, {"root", uidA, mapped}}, []string{"root", mapped}},
		{"U3", "root in another mount name space", in(unix.CLONE_NEWNS), false, nothing, []string{"root", "none"}},
		{"U3", "root in another pid name space", in(unix.CLONE_NEWPID), false, nothing, []string{"root", "none"}},
		{"U3", "root in another user name space", same, false, nothing, []string{"root", "none"}},
		{"U3", "root without CAP_SETUID", in(0), true, nothing, []string{"root", "none"}},
		{"U4, U5", "root", as(0, 0), false, []attach{
			{"nobody", styx.NoUid, "none"}, {"", 0, "0 0"}, {"", uidA, "40001 65534"}, {"root", 1, daemon}, {"", uidB, "40002 65534"},
			{"", 0, "0 0"}, {"root", styx.NoUid, "0 0"}, {"daemon", styx.NoUid, daemon}, {"no such user", styx.NoUid, "none"},
			{"", styx.NoUid, "none"},
		}, []string{"root", "0 0", "daemon", daemon, "nobody", "none", "no such user", "none", "", "none", "0", "none"}},
		{"U6", "somebody by TCP", nil, false, nothing, []string{"root", "none", "daemon", "none"}},
	} {
		for _, d := range []styx.Dialect{styx.Linux, styx.Plain} {
			t.Run(fmt.Sprintf("%s: %s/%s", test.rule, test.peer, d), func(t *testing.T) {
				s := &served{s.server, t, s.unix, s.tcp}
				conn, err := net.Dial("tcp", s.tcp.String())
				if test.how != nil {
					conn.Close()
					conn, _ = s.peer(test.how, test.without)
				} else if err != nil {
					t.Fatal(err)
				}
				c := converse(t, conn, d)
				all := test.linux
				if d == styx.Plain {
					all = nil
					for i := 0; i < len(test.plain); i += 2 {
						all = append(all, attach{test.plain[i], styx.NoUid, test.plain[i+1]})
					}
				}
				for _, a := range all {
					err := c.attach(a.uname, a.uid)
					got := ""
					if r, ok := err.(*refusal); ok && r.errno == syscall.EPERM {
						got = "EPERM"
					} else if err != nil {
						got = err.Error()
					} else {
						got = c.self()
						if err := c.clunk(0); err != nil {
							t.Fatal(err)
						}
					}
					if got != a.want {
						t.Errorf("%q, %d: %s, want %s", a.uname, int32(a.uid), got, a.want)
					}
				}
			})
		}
	}
}

// U2: who has ended before anybody could look at him is refused, root too.
func TestIdentityGone(t *testing.T) {
	s := serveHere(t)
	l, err := addr{"unix", s.unix.String() + ".2"}.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, how := range []*syscall.SysProcAttr{as(0, 0), as(uidA, gidAB)} {
		conn, gone := (&served{s.server, t, l.Addr(), nil}).peer(how, false)
		gone()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		hello := &styx.Msg{Type: styx.Tversion, Tag: styx.NoTag, Msize: 8192, Version: styx.VersionLinux}
		b, err := hello.Append(nil, styx.Linux)
		if err == nil {
			_, err = conn.Write(b)
		}
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.talk(context.Background(), c)
		}()
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("user %d: answered with %d bytes", how.Credential.Uid, n)
		}
		conn.Close()
		<-done
	}
}
