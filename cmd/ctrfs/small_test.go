package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"ctrfs/fs/styx"
	"ctrfs/ns"
)

// smallGroup is a cgroup with so much memory.
func smallGroup(t *testing.T, memory string) *ns.Group {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "needs root: makes a cgroup")
	}
	groups, err := ns.FindCgroups("ctrfs-small")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(groups.Close)
	g, err := groups.MakeGroup("g" + strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(g.Kill(), g.WaitEmpty(ctx), g.Remove(ctx)); err != nil {
			t.Error(err)
		}
	})
	if err := g.Set("memory.max", memory); errors.Is(err, errors.ErrUnsupported) {
		lacking(t, "needs the memory controller")
	} else if err != nil {
		t.Fatal(err)
	}
	g.Set("memory.swap.max", "0") // fails where there is none
	return g
}

// startIn starts a server in a cgroup.
func startIn(t *testing.T, g *ns.Group, args ...string) *daemon {
	t.Helper()
	server := role(t, "ctrfs", args...)
	shell := exec.Command("/bin/sh", append([]string{"-c", `read go; exec /proc/self/fd/3 "$@"`, "sh"}, args...)...)
	shell.Env = server.Env
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	shell.ExtraFiles = []*os.File{self}
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	d := launch(t, "-", shell)
	p, err := ns.Open(shell.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := g.Enter(p); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	in.Close()
	d.await("listening")
	return d
}

// hostileTo is a conversation of an ordinary user, who waits for the end of this process with all that he reads.
func hostileTo(t *testing.T, sock string) *crowd {
	t.Helper()
	var conn net.Conn
	if err := ns.As(ns.Cred{Uid: 1000, Gid: 1000}, func() (err error) { conn, err = net.Dial("unix", sock); return err }); err != nil {
		t.Fatal(err)
	}
	c := &crowd{t: t, pids: []int{os.Getpid()}}
	c.begin(conn, 1<<20, 1000)
	return c
}

// A user who has the server hold all that he may is told so, and the server is not killed for want of memory: it answers
// others (R15).
func TestSmallMemory(t *testing.T) {
	memory := "256M"
	if underRace { // which takes some times as much
		memory = "1G"
	}
	g := smallGroup(t, memory)
	dir := t.TempDir()
	os.Chmod(filepath.Dir(dir), 0755)
	sock := filepath.Join(dir, "sock")
	startIn(t, g, "-a", "unix!"+sock)

	// Messages that do not end, as far as they are taken, and answers that nobody takes.
	var frame []byte
	frame, err := (&styx.Msg{Type: styx.Twrite, Tag: 1, Data: make([]byte, 1<<20-64)}).Append(frame, styx.Linux)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		c := hostileTo(t, sock)
		c.conn.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		c.conn.Write(frame[:len(frame)-1])
	}
	for range 20 {
		c := hostileTo(t, sock)
		c.ask(styx.Linux, &styx.Msg{Type: styx.Twalk, Newfid: 1, Names: []string{"help"}})
		c.ask(styx.Linux, &styx.Msg{Type: styx.Tlopen, Fid: 1})
		var all []byte
		for tag := range styx.Tag(500) {
			if all, err = (&styx.Msg{Type: styx.Tread, Tag: tag, Fid: 1, Count: 1 << 20}).Append(all, styx.Linux); err != nil {
				t.Fatal(err)
			}
		}
		c.conn.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		c.conn.Write(all)
	}

	// As many reads that wait, on files of their own, as he may have requests; and as many fids.
	reads, n := hostileTo(t, sock), styx.Fid(0)
	each := func(count int, what styx.Msg) (all []*styx.Msg) {
		for i := range count {
			m := what
			m.Tag = styx.Tag(n) + styx.Tag(i)
			if m.Newfid, m.Fid = n+styx.Fid(i)+1, n+styx.Fid(i)+1; m.Type == styx.Twalk {
				m.Fid = 0
			}
			all = append(all, &m)
		}
		return all
	}
	for n < 1<<14-200 {
		const some = 100
		reads.ask(styx.Linux, each(some, styx.Msg{Type: styx.Twalk, Names: []string{"events"}})...)
		reads.ask(styx.Linux, each(some, styx.Msg{Type: styx.Tlopen})...)
		reads.send(styx.Linux, each(some, styx.Msg{Type: styx.Tread, Offset: 1 << 30, Count: 100})...)
		n += some
	}
	for full := ""; full == ""; {
		c := hostileTo(t, sock)
		for n = 0; n < 1<<14-100 && full == ""; n += 100 {
			all := each(100, styx.Msg{Type: styx.Twalk, Names: []string{"proc"}})
			c.send(styx.Linux, all...)
			for range all {
				if m := c.reply(); m.Type == styx.Rlerror {
					full = m.String()
				}
			}
		}
	}

	l := dialLine(t, sock)
	defer l.Close()
	l.say("Twalk tag 1 fid 0 newfid 1 names version", "Tlopen tag 1 fid 1 flags 0", "Tread tag 1 fid 1 offset 0 count 1000")
	if n, err := g.OOMKills(); n != 0 || err != nil {
		t.Errorf("killed for want of memory: %d, %v", n, err)
	}
	if err := g.Kill(); err != nil { // to end in order would take its time, with all those requests
		t.Error(err)
	}
}
