package ctr

import (
	"errors"
	"testing"

	"ctrfs/fs"
)

// Who is not root gets no name space of the host's or of another container by way of his container.
func TestSpacesAs(t *testing.T) {
	root := newSession(t)
	check := leaks(t, root)
	s := root.as(fs.Client{Uid: 4321, Gid: 4321})
	root.into("one", isRunning)
	for _, name := range []string{"a", "b"} {
		if _, err := s.set.make(s.Ctx, name); err != nil { // past the mode of the directory, which is root's
			t.Fatal(err)
		}
	}
	s.Write("b/ctl", "exec /bin/sleep 1000")
	for _, line := range []string{"net host", "ipc host", "uts host", "cgroup host", "user host", "net one", "net b", "net /proc/self/ns/net"} {
		if err := s.Echo("a/nsgrp", line); !errors.Is(err, fs.ErrPerm) {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, line := range []string{"net new", "user new"} {
		if err := s.Echo("a/nsgrp", line); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	s.Write("a/ctl", "exec /bin/sleep 1000")
	mine, err := s.set.names["one"].run.job.Process().Namespace("net")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if net, err := s.set.names[name].run.job.Process().Namespace("net"); err != nil || net == mine {
			t.Errorf("%s: net %d, %v", name, net, err)
		}
	}
	for _, name := range []string{"one", "a", "b"} {
		root.end(name)
	}
	check()
}
