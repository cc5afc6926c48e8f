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

// clone opens a container's proc/clone and keeps it open.
func (s *session) clone(name string) fs.Handle {
	s.t.Helper()
	h, err := s.open(name+"/proc/clone", fs.Read|fs.Write)
	if err != nil {
		s.t.Fatal(err)
	}
	return h
}

func (s *session) say(h fs.Handle, msg string) {
	s.t.Helper()
	if _, err := h.Write(s.ctx, 0, []byte(msg)); err != nil {
		s.t.Fatalf("%q: %v", msg, err)
	}
}

// as is the session of another.
func (s *session) as(c fs.Client) *session {
	t := *s
	c.Errors = new(fs.Errors)
	t.ctx = fs.WithClient(s.ctx, &c)
	return &t
}

// What a process inside is asked to be before its program runs, it is then; its files stay its maker's, whoever has the
// number of that user here.
func TestUserInside(t *testing.T) {
	root := newSession(t)
	for _, s := range []*session{root, root.as(fs.Client{Uid: 4321, Gid: 4321})} {
		if _, err := s.set.make(s.ctx, "u"); err != nil { // past the mode of the directory, which is root's
			t.Fatal(err)
		}
		s.write("u/ctl", "exec /bin/sleep 1000")
		h := s.clone("u")
		user := 1234
		if s != root {
			user = 0 // it has no other, without a line in /etc/subuid
		}
		s.say(h, fmt.Sprintf("label x\nuser %d:%d\ndir /tmp\nexec /bin/sh -c 'id -u; pwd; read x'", user, user))
		want := fmt.Sprintf("%d\n/tmp\n", user)
		out, err := s.open("u/proc/x/stdout", fs.Read)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for len(got) < len(want) {
			b, err := out.Read(s.ctx, int64(len(got)), 100)
			if err != nil || len(b) == 0 {
				t.Fatalf("%q, then %v, %q", got, err, s.read("u/proc/x/stderr"))
			}
			got = append(got, b...)
		}
		if string(got) != want {
			t.Errorf("%q, want %q", got, want)
		}
		b, _ := h.Read(s.ctx, 0, 100)
		file := "u/proc/" + strings.TrimSpace(string(b)) + "/stdin"
		if _, err := s.as(fs.Client{Uid: 1234, Gid: 1234}).open(file, fs.Write); err != fs.ErrPerm {
			t.Errorf("the input of another's process, for who has the number of its user here: %v", err)
		}
		if s != root {
			if err := s.echo(file, "x\n"); err != nil {
				t.Error("its maker writes its input:", err)
			}
		}
		out.Close(s.ctx)
		h.Close(s.ctx)
		s.write("u/ctl", "kill")
		s.read("u/wait")
		root.rmdir("u")
	}
}

// Who enters a container that is frozen waits for it, and nobody else does: neither other starts nor the collector, for
// which all threads must be reached.
func TestEnterFrozen(t *testing.T) {
	s := newSession(t)
	s.mkdir("f")
	s.write("f/ctl", "exec /bin/sleep 1000")
	group := s.set.names["f"].run.group
	if err := group.Freeze(s.ctx); err != nil {
		t.Fatal(err)
	}
	frozen, cancel := context.WithCancel(s.ctx)
	inside := *s
	inside.ctx = frozen
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if h, err := inside.open("f/proc/clone", fs.Write); err == nil {
				h.Close(s.ctx)
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
	s.mkdir("g")
	s.write("g/ctl", "exec /bin/true")
	s.read("g/wait")
	s.rmdir("g")
	cancel()
	all.Wait()
	if err := group.Thaw(s.ctx); err != nil {
		t.Fatal(err)
	}
	h := s.clone("f")
	s.say(h, "exec /bin/true")
	h.Close(s.ctx)
	s.write("f/ctl", "kill")
	s.read("f/wait")
	s.rmdir("f")
}
