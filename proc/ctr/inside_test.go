package ctr

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"ctrfs/fs"
)

// What a process inside is asked to be before its program runs, it is then; its files stay its maker's, whoever has the
// number of that user here.
func TestUserInside(t *testing.T) {
	root := newSession(t)
	for _, s := range []*session{root, root.as(fs.Client{Uid: 4321, Gid: 4321})} {
		if _, err := s.set.make(s.Ctx, "u"); err != nil { // past the mode of the directory, which is root's
			t.Fatal(err)
		}
		s.Write("u/ctl", "exec /bin/sleep 1000")
		h := s.clone("u")
		user := 1234
		if s != root {
			user = 0 // it has no other, without a line in /etc/subuid
		}
		s.Say(h, fmt.Sprintf("label x\nuser %d:%d\ndir /tmp\nexec /bin/sh -c 'id -u; pwd; read x'", user, user))
		want := fmt.Sprintf("%d\n/tmp\n", user)
		out, err := s.Open("u/proc/x/stdout", fs.Read)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for len(got) < len(want) {
			b, err := out.Read(s.Ctx, int64(len(got)), 100)
			if err != nil || len(b) == 0 {
				t.Fatalf("%q, then %v, %q", got, err, s.Read("u/proc/x/stderr"))
			}
			got = append(got, b...)
		}
		if string(got) != want {
			t.Errorf("%q, want %q", got, want)
		}
		b, _ := h.Read(s.Ctx, 0, 100)
		file := "u/proc/" + strings.TrimSpace(string(b)) + "/stdin"
		if _, err := s.as(fs.Client{Uid: 1234, Gid: 1234}).Open(file, fs.Write); err != fs.ErrPerm {
			t.Errorf("the input of another's process, for who has the number of its user here: %v", err)
		}
		if s != root {
			if err := s.Echo(file, "x\n"); err != nil {
				t.Error("its maker writes its input:", err)
			}
		}
		out.Close(s.Ctx)
		h.Close(s.Ctx)
		s.Write("u/ctl", "kill")
		s.Read("u/wait")
		root.Rmdir("u")
	}
}

// Who enters a container that is frozen waits for it, and nobody else does: neither other starts nor the collector, for
// which all threads must be reached.
func TestEnterFrozen(t *testing.T) {
	s := newSession(t)
	s.Mkdir("f")
	s.Write("f/ctl", "exec /bin/sleep 1000")
	group := s.set.names["f"].run.group
	if err := group.Freeze(s.Ctx); err != nil {
		t.Fatal(err)
	}
	frozen, cancel := context.WithCancel(s.Ctx)
	inside := *s.Client
	inside.Ctx = frozen
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if h, err := inside.Open("f/proc/clone", fs.Write); err == nil {
				h.Close(s.Ctx)
				t.Error("entered a frozen container")
			}
		})
	}
	// All eight are in it when the group says so.
	for n := 0; n < 9; {
		pids, err := group.Procs()
		if err != nil {
			t.Fatal(err)
		}
		n = len(pids)
		runtime.GC()
	}
	s.Mkdir("g")
	s.Write("g/ctl", "exec /bin/true")
	s.Read("g/wait")
	s.Rmdir("g")
	cancel()
	all.Wait()
	if err := group.Thaw(s.Ctx); err != nil {
		t.Fatal(err)
	}
	h := s.clone("f")
	s.Say(h, "exec /bin/true")
	h.Close(s.Ctx)
	s.Write("f/ctl", "kill")
	s.Read("f/wait")
	s.Rmdir("f")
}
