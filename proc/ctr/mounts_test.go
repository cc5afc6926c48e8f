package ctr

import (
	"os"
	"path/filepath"
	"testing"

	"ctrfs/fs"
)

// Nobody has in his container what he may not open himself, and what he may he has as he has it.
func TestMountsAs(t *testing.T) {
	root := newSession(t)
	check := leaks(t, root)
	s := root.as(fs.Client{Uid: 4321, Gid: 4321})
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0755)
	}
	for name, mode := range map[string]os.FileMode{"open": 0755, "shut": 0700} {
		if err := os.Mkdir(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "x"), []byte("x\n"), 0644); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*session{root, s} {
		c, err := s.set.make(s.Ctx, "m") // past the mode of the directory, which is root's
		if err != nil {
			t.Fatal(err)
		}
		// Below what he may not search he names nothing; what he may not search he may name, and not search there either.
		s.Write("m/mounts", "mount bind "+filepath.Join(dir, "shut/x")+" /file")
		s.Write("m/args", "cat /file")
		err = s.Echo("m/ctl", "start")
		if s == root && err != nil || s != root && (err == nil || err.Error() != "mounts \""+filepath.Join(dir, "shut/x")+"\": permission denied") {
			t.Errorf("shut/x: %v", err)
		}
		s.Read("m/wait")
		s.Write("m/mounts", "mount bind "+filepath.Join(dir, "shut")+" /shut")
		s.Write("m/ctl", "exec cat /shut/x")
		if got := s.Read("m/stdout"); (got == "x\n") != (s == root) {
			t.Errorf("shut: %q", got)
		}
		s.Read("m/wait")
		s.Write("m/mounts", "mount bind "+filepath.Join(dir, "open")+" /in")
		s.Write("m/ctl", "exec /bin/sh -c 'cat /in/x; echo y >/in/y'")
		if got := s.Read("m/stdout"); got != "x\n" {
			t.Errorf("%q, %q", got, s.Read("m/stderr"))
		}
		s.Read("m/wait")
		_, err = os.Stat(filepath.Join(dir, "open", "y"))
		if (s == root) != (err == nil) {
			t.Errorf("written to root's directory: %v", err)
		}
		os.Remove(filepath.Join(dir, "open", "y"))
		if err := c.delete(s.Ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	check()
}
