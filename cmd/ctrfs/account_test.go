package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"ctrfs/fs"
	"ctrfs/fs/srv"
	"ctrfs/fs/styx"
)

// as gives a client of the session's server who is a user on a connection of his own.
func (s *session) as(t *testing.T, uid uint32) (r *remoteL, hangUp func()) {
	t.Helper()
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.srv.Serve(s.ctx, theirs, srv.Peer{Proven: true, Uid: uid, Gid: uid})
	}()
	if r, err = attachL(ours, uid); err != nil {
		t.Fatal(err)
	}
	return r, func() { ours.Close(); <-served }
}

// One user has no more of the server's descriptors than his share: others and root go on, he is told, and what he gives back
// he can have again.
func TestDescriptorsOfUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "needs root: makes processes of other users")
	}
	s := newSession(styx.Linux)
	defer s.end()
	const each = 60
	s.srv.Accounts = fs.NewAccounts(0, fs.Quota{fs.Descriptors: each}, fs.Quota{fs.Descriptors: 3 * each / 2})
	var all []remoteFile // what is no longer used, the client closes
	open := func(r *remoteL, name string, how fs.How) int {
		t.Helper()
		for n := 0; ; n++ {
			f, err := r.open(name, how)
			all = append(all, f)
			if err != nil {
				if !strings.HasPrefix(err.Error(), "too many open files: ") {
					t.Fatal(err)
				}
				return n
			}
			if n == 2*each {
				return n
			}
		}
	}
	wait := fmt.Sprintf("/proc/%d/wait", os.Getpid())
	for range 3 {
		glenda, bye := s.as(t, 1000)
		if n := open(glenda, wait, fs.Read); n != each-1 { // and the connection
			t.Errorf("opened %d times", n)
		}
		if n := open(glenda, "/proc/clone", fs.Read|fs.Write); n != 0 {
			t.Errorf("made %d processes", n)
		}
		text, err := glenda.open("/error", fs.Read)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, most)
		n, _ := text.ReadAt(b, 0)
		if !strings.HasSuffix(string(b[:n]), " /proc/clone 'too many open files: a user may have 60'\n") {
			t.Errorf("errors: %s", b[:n])
		}
		other, byeOther := s.as(t, 1001)
		if n := open(other, wait, fs.Read); n != each/2-1 {
			t.Errorf("another opened %d times", n)
		}
		root, byeRoot := s.as(t, 0)
		if n := open(root, wait, fs.Read); n != 2*each {
			t.Errorf("root opened %d times", n)
		}
		if _, err := root.open("/proc/clone", fs.Read); err != nil {
			t.Error(err)
		}
		bye()
		glenda, bye = s.as(t, 1000)
		if n := open(glenda, "/proc/clone", fs.Read|fs.Write); n != (each-1)/9 { // of nine each
			t.Errorf("made %d processes", n)
		}
		for _, bye := range []func(){bye, byeOther, byeRoot} {
			bye()
		}
		runtime.KeepAlive(all)
	}
}

// What is kept of one user's outputs has a limit: the oldest of his records go.
func TestMemoryOfUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "needs root: makes processes of other users")
	}
	s := newSession(styx.Linux)
	defer s.end()
	s.srv.Accounts = fs.NewAccounts(0, fs.Quota{fs.Memory: 4 << 20}, fs.Quota{})
	glenda, bye := s.as(t, 1000)
	defer bye()
	const n = 20
	for i := range n {
		clone, err := glenda.open("/proc/clone", fs.Read|fs.Write)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := clone.WriteAt([]byte(fmt.Sprintf("label j%d\nexec /bin/sh -c 'head -c 700000 /dev/zero'", i)), 0); err != nil {
			t.Fatal(err)
		}
		wait, err := glenda.open(fmt.Sprintf("/proc/j%d/wait", i), fs.Read)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := wait.ReadAt(make([]byte, 100), 0); err != nil {
			t.Error(err)
		}
		wait.Close()
		clone.Close()
	}
	there := 0
	for i := range n {
		if _, err := glenda.stat(fmt.Sprintf("/proc/j%d", i)); err == nil {
			there++
		} else if there > 0 {
			t.Errorf("the record of %d has gone, an older one has not", i)
		}
	}
	if there < 2 || there > 4 { // of a megabyte each
		t.Errorf("%d records", there)
	}
	out, err := glenda.open(fmt.Sprintf("/proc/j%d/stdout", n-1), fs.Read)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if got, err := out.ReadAt(make([]byte, 1000), 699_000); got != 1000 || err != nil {
		t.Errorf("the end of the last output: %d bytes, %v", got, err)
	}
}
