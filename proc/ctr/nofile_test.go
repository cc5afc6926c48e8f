package ctr

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
)

// few lets this process open n more descriptors until the function is called that it gives.
func few(t *testing.T, n int) (enough func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	// The limit is on numbers: first all below the highest that is in use are taken.
	fill := []*os.File{null}
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for _, e := range list {
		fd := 0
		fmt.Sscan(e.Name(), &fd)
		most = max(most, fd)
	}
	for top := 0; top < most; {
		fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		top = fd
		fill = append(fill, os.NewFile(uintptr(fd), "fill"))
		most = max(most, top)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(most + 1 + n), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
		for _, f := range fill {
			f.Close()
		}
	}
}

// Whatever finds no descriptor says so and leaves nothing, at each place where one is needed, and with one more than that
// it goes on from there (R14, R36).
func TestFewDescriptors(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	steps := []struct {
		name string
		do   func() error
	}{
		{"mkdir", func() error { _, err := fs.Make(s.Ctx, s.Root, "few", 0755); return err }},
		{"create", func() error { return s.Echo("few/ctl", "create") }},
		{"pid", func() error { _, err := s.Cat("few/proc/1/status"); return err }},
		{"list", func() error {
			n, err := fs.Look(s.Ctx, s.Root, "few")
			if err == nil {
				n, err = fs.Look(s.Ctx, n, "proc")
			}
			if err == nil {
				_, err = fs.Contents(s.Ctx, n)
			}
			return err
		}},
		{"exec", func() error { return s.Echo("few/ctl", "exec /bin/sh -c 'read x; echo $x'") }},
		{"cgroup", func() error { _, err := s.Cat("few/cgroup"); return err }},
		{"hostname", func() error { _, err := s.Cat("few/hostname"); return err }},
		{"sethostname", func() error { return s.Echo("few/hostname", "other") }},
		{"clone", func() error {
			h, err := s.Open("few/proc/clone", fs.Read|fs.Write)
			if err != nil {
				return err
			}
			_, err = h.Write(s.Ctx, 0, []byte("label in\nuser root\nexec /bin/echo in"))
			if e := h.Close(s.Ctx); err == nil {
				err = e
			}
			return err
		}},
		{"output", func() error {
			_, err := s.Cat("few/proc/in/stdout")
			if err == nil {
				_, err = s.Cat("few/proc/in/stderr")
			}
			return err
		}},
		{"wait inside", func() error { _, err := s.Cat("few/proc/in/wait"); return err }}, // and its record is gone
		{"signal", func() error { return s.Echo("few/ctl", "kill CONT 0") }},
		{"stop", func() error { return s.Echo("few/ctl", "stop") }},
		{"wait", func() error { _, err := s.Cat("few/wait"); return err }},
		{"again", func() error { return s.Echo("few/ctl", "exec /bin/true") }},
		{"wait again", func() error { _, err := s.Cat("few/wait"); return err }},
		{"delete", func() error { return fs.Delete(s.Ctx, s.Root, "few") }},
	}
	most := 0
	for _, step := range steps {
		for n := 0; ; n++ {
			enough := few(t, n)
			err := step.do()
			enough()
			if err == nil {
				most = max(most, n)
				break
			}
			if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) {
				t.Errorf("%s with %d descriptors: %v", step.name, n, err)
			}
			if n == 100 {
				t.Fatalf("%s: %v", step.name, err)
			}
		}
	}
	t.Logf("%d descriptors are enough for everything", most)
	check()
}
