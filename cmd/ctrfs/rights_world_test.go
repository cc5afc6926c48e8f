package main

import (
	"context"
	"ctrfs/fs"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// world makes a process and a container of each kind.
func (s *served) world() []place {
	t := s.t
	root := fs.WithClient(context.Background(), &fs.Client{Errors: new(fs.Errors)})
	own := fs.WithClient(context.Background(), &fs.Client{Uid: uidA, Gid: gidAB, Errors: new(fs.Errors)})
	keep := func(ctx context.Context, name string, how fs.How, msgs ...string) string {
		n, err := fs.Node(s.root()), error(nil)
		for _, name := range strings.Split(name, "/") {
			if n, err = fs.Look(ctx, n, name); err != nil {
				t.Fatal(name, err)
			}
		}
		h, err := fs.Enter(ctx, n, how)
		if err != nil {
			t.Fatal(name, err)
		}
		t.Cleanup(func() { h.Close(ctx) })
		for _, m := range msgs {
			if _, err := h.Write(ctx, 0, []byte(m)); err != nil {
				t.Fatal(name, m, err)
			}
		}
		b, _ := h.Read(ctx, 0, 100) // of a ctl the name
		return strings.TrimSpace(string(b))
	}
	start := func(how *syscall.SysProcAttr) string {
		cmd := exec.Command("/bin/sleep", "1000")
		how.Setpgid = true
		cmd.SysProcAttr = how
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return strconv.Itoa(cmd.Process.Pid)
	}
	for name, ctx := range map[string]context.Context{"r": root, "a": own} {
		// Not every user may in this server: /ctr's mode is asked by who calls this.
		if _, err := s.ctrs.Dir("ctr", 1).(fs.Maker).Mkdir(ctx, name, 0755); err != nil {
			t.Fatal(err)
		}
		keep(ctx, "ctr/"+name+"/ctl", fs.Write, "tty", "exec /bin/sleep 1000")
		keep(ctx, "ctr/"+name+"/stdin", fs.Write) // it ends with its last writer
	}
	theirs, as := start(as(0, 0)), start(as(uidA, gidAB))
	parked := keep(own, "proc/clone", fs.Read|fs.Write, "tty")
	cloned := keep(own, "proc/clone", fs.Read|fs.Write, "exec /bin/sleep 1000", "killonclose")
	keep(own, "proc/"+cloned+"/stdin", fs.Write)
	number := func(name string) bool { _, err := strconv.Atoi(name); return err == nil }
	any := func(string) bool { return true }
	one := func(names ...string) func(string) bool {
		return func(name string) bool { return slices.Contains(names, name) }
	}
	return []place{
		{"/", 0, adminGid, rights(false, rootRights), one("proc", "ctr")},
		{"/proc", 0, 0, rights(false, "clone 0666 RABG RABG?"), number},
		{"/proc/" + theirs, 0, 0, rights(true, processRights), one()},
		{"/proc/" + as, uidA, gidAB, rights(false, processRights), one()},
		{"/proc/" + parked, uidA, gidAB, rights(false, processRights, clonedRights, parkedRights, terminalRights), one()},
		{"/proc/" + cloned, uidA, gidAB, rights(false, processRights, clonedRights), one()},
		{"/ctr", 0, adminGid, rights(false, "clone 0660 RG RG?"), one("r", "a")},
		{"/ctr/r", 0, adminGid, rights(true, containerRights), one("proc", "root")},
		{"/ctr/a", uidA, gidAB, rights(false, containerRights), one("proc", "root")},
		{"/ctr/r/proc", 0, adminGid, rights(true, "clone 0660 Rg Rg?"), number},
		{"/ctr/a/proc", uidA, gidAB, rights(false, "clone 0600 RA RA?"), number},
		{"/ctr/r/root", 0, adminGid, nil, any},
		{"/ctr/a/root", uidA, gidAB, nil, any},
		{"/ctr/r/proc/1", 0, 0, rights(true, terminalRights, processRights, clonedRights), one()},
		{"/ctr/a/proc/1", uidA, gidAB, rights(false, terminalRights, processRights, clonedRights), one()},
	}
}
