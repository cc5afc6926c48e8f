package ctr

import (
	"fmt"
	"strings"
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
