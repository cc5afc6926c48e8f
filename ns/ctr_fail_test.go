package ns

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A container of which any one step fails is not made, says which step it was, and leaves nothing; the next try makes it.
func TestCreateFails(t *testing.T) {
	needsRoot(t)
	c := testGroups(t)
	eachCtr(t, func(t *testing.T, s Spec) {
		g := makeGroup(t, c, "fails"+strconv.FormatUint(uint64(s.Flags), 16))
		s.Cgroup = g
		warm := s
		warm.probe = func(p *Plan) { p.steps[0].nr = nosuchCall }
		Create(withTimeout(t), warm) // what is made for good is made by the first
		before, fds := hostState(t), countFDs(t)
		stride := 1
		if testing.Short() {
			stride = 7
		}
		for _, layer := range []string{"new", "kept"} {
			s.Root.Scratch = new(Scratch)
			if layer == "kept" {
				if _, code := inside(t, s, "touch", "/root/kept"); code != 0 {
					t.Fatal(code)
				}
			}
			for k, steps := 0, 1; k < steps; k += stride {
				var broken *Step
				s.probe = func(p *Plan) {
					steps = len(p.steps)
					if broken = p.steps[k]; broken.flags&stepLoad == 0 {
						broken.nr = nosuchCall
					}
				}
				if layer == "new" {
					s.Root.Scratch.Close()
				}
				p, err := Create(withTimeout(t), s)
				switch {
				case err == nil && broken.flags&(stepLoad|stepTry) != 0:
					p.End()
				case err != nil && broken.flags&stepTry != 0: // of the step that needed it
				case !errors.Is(err, unix.ENOSYS) || !strings.HasPrefix(err.Error(), broken.what+": ") || strings.Contains(err.Error(), "\n"):
					t.Errorf("%s layer, step %d of %d, %s: %v", layer, k, steps, broken.what, err)
				}
			}
			s.probe = nil
			if out, code := inside(t, s, "ls", "/root"); layer == "kept" && out != "kept\n" || code != 0 {
				t.Errorf("after all, in a %s layer: %q, status %d", layer, out, code)
			}
			s.Root.Scratch.Close()
		}
		if err := g.Remove(withTimeout(t)); err != nil { // waits until nobody is in it
			t.Error(err)
		}
		if after := hostState(t); after != before {
			t.Errorf("before %s, after %s", before, after)
		}
		for ctx := withTimeout(t); countFDs(t) >= fds && ctx.Err() == nil; { // those killed are waited for by and by
		}
		if n := countFDs(t); n >= fds { // the group's is closed
			t.Errorf("%d descriptors before, %d after", fds, n)
		}
	})
}

// nosuchCall is the number of no system call.
const nosuchCall = 1 << 20
