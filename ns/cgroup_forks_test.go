package ns

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Every process is counted that a member of the group makes, or of one below it, and no other.
func TestForks(t *testing.T) {
	needsRoot(t)
	c := testGroups(t)
	f, err := c.CountForks()
	if err != nil {
		lacks(t, "%v", err)
	}
	defer f.Close()
	g, other := makeGroup(t, c, "forks"), makeGroup(t, c, "nobody")
	defer func() {
		for _, g := range []*Group{g, other} {
			if err := g.Remove(withTimeout(t)); err != nil {
				t.Error(err)
			}
		}
	}()
	if _, err := f.Count(g); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before it is added: %v", err)
	}
	for _, g := range []*Group{g, other} {
		if err := f.Add(g); err != nil {
			t.Fatal(err)
		}
	}
	below := filepath.Join(g.dir.Name(), "below")
	if err := os.Mkdir(below, 0755); err != nil {
		t.Fatal(err)
	}
	const each = 100
	cmd := shellIn(t, g, `n=0; while [ $n -lt 100 ]; do /bin/true; n=$((n+1)); [ $n -ne 50 ] || echo 0 >`+below+`/cgroup.procs; done; exit 0`)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Count(g); n != each || err != nil {
		t.Errorf("%d forks, want %d: %v", n, each, err)
	}
	if n, err := f.Count(other); n != 0 || err != nil {
		t.Errorf("%d forks of nobody: %v", n, err)
	}
	f.Remove(g)
	if _, err := f.Count(g); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("when it was removed: %v", err)
	}
}
