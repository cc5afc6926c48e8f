package ctr

import (
	"strings"
	"testing"

	"ctrfs/fs"
)

// The terminal is the last that was asked for, it is the console too, and nothing is left open of how it came to be, in a
// container of root's and of another's.
func TestConsole(t *testing.T) {
	root := newSession(t)
	check := leaks(t, root)
	for _, s := range []*session{root, root.as(fs.Client{Uid: 4321, Gid: 4321})} {
		c, err := s.set.make(s.Ctx, "t") // past the mode of the directory, which is root's
		if err != nil {
			t.Fatal(err)
		}
		for _, msg := range []string{"tty 100 40", "create", "tty 90 30", "exec /bin/sh -c 'stty size </dev/console; tty; ls -l /proc/self/fd/'"} {
			s.Write("t/ctl", msg)
		}
		got := s.Read("t/stdout")
		if !strings.HasPrefix(got, "30 90\r\n/dev/pts/") {
			t.Errorf("%q", got)
		}
		for _, fd := range []string{"0", "1", "2"} {
			if !strings.Contains(got, " "+fd+" -> /dev/pts/") {
				t.Errorf("descriptor %s: %q", fd, got)
			}
		}
		if strings.Contains(got, " 4 -> ") { // 3 is ls's
			t.Errorf("more descriptors: %q", got)
		}
		s.Read("t/wait")
		if err := c.delete(s.Ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	check()
}
