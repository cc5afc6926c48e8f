package ctr

import (
	"os"
	"testing"

	"ctrfs/fs"
)

// What the server holds of a container is on its owner's account, whatever limits it has, until it is removed.
func TestDescriptorsOfContainers(t *testing.T) {
	s := newSession(t)
	const each = 2*filesEach + 1
	accounts := fs.NewAccounts(0, fs.Quota{fs.Descriptors: each}, fs.Quota{})
	glenda := fs.WithClient(s.Ctx, &fs.Client{Uid: 1000, Gid: 1000, Account: accounts.Of(1000)})
	for range 3 {
		var all []*Ctr
		for _, name := range []string{"a", "b"} {
			c, err := s.set.make(glenda, name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
		if _, err := s.set.make(glenda, "c"); err == nil || err.Error() != "too many open files: a user may have 19" {
			t.Fatalf("one more: %v", err)
		}
		for _, c := range all {
			if err := c.delete(glenda, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.set.make(fs.WithClient(glenda, &fs.Client{Account: accounts.Of(0)}), "root"); err != nil {
		t.Errorf("root's: %v", err)
	}
	s.Rmdir("root")
}

// It holds no more than is on the account.
func TestDescriptorsHeld(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := open()
	s.Mkdir("m")
	for _, l := range []string{"memory.max 64M", "pids.max 100", "cpu.max max", "cpuset.cpus 0", "io.max 1:0 rbps=max"} {
		if err := s.Echo("m/limits", l+"\n"); err != nil {
			t.Logf("limits %s: %v", l, err)
		}
	}
	s.Write("m/nsgrp", "user new\n")
	s.Write("m/ctl", "exec /bin/sleep 1000")
	if n := open() - before; n > 2*filesEach {
		t.Errorf("a container has %d descriptors open", n)
	} else {
		t.Logf("%d descriptors", n)
	}
	s.Write("m/ctl", "kill")
	s.Read("m/wait")
	s.Rmdir("m")
	check()
}
