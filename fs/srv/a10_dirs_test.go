package srv

import (
	"bytes"
	"ctrfs/fs/styx"
	"fmt"
	"strings"
	"testing"
)

func partialWalk(t *testing.T, w *world, c *client) {
	c.refused(2, "file does not exist", "Twalk fid 0 newfid 1 names nothing name")
	if m := c.must("Twalk fid 0 newfid 1 names d nothing name"); len(m.Qids) != 1 {
		t.Errorf("%s", m)
	}
	c.refused(9, "fid unknown or out of range", "%s", c.stat(0, 1))
	c.must("Twalk fid 0 newfid 1 names d")
	if m := c.must("Twalk fid 1 newfid 1 names name nothing"); len(m.Qids) != 1 {
		t.Errorf("%s", m)
	}
	c.must("Twalk fid 1 newfid 2 names name") // fid 1 is where it was
	c.refused(9, "fid already in use", "Twalk fid 0 newfid 1 names d")
	c.refused(20, "not a directory", "Twalk fid 2 newfid 3 names x")
}

func dotDot(t *testing.T, w *world, c *client) {
	m := c.must("Twalk fid 0 newfid 1 names .. d .. .. d name ..")
	if len(m.Qids) != 7 || m.Qids[0] != m.Qids[3] || m.Qids[1] != m.Qids[6] {
		t.Errorf("%s", m)
	}
	if c.d != styx.Linux {
		c.refused(22, "illegal name", "Twalk fid 0 newfid 2 names .")
	} else if m := c.must("Twalk fid 0 newfid 3 names . d ."); len(m.Qids) != 3 || m.Qids[1] != m.Qids[2] {
		t.Errorf("%s", m)
	}
	c.refused(22, "illegal name", "Twalk fid 0 newfid 2 names d/name")
	c.refused(22, "illegal name", "Twalk fid 0 newfid 2 names ''")
	c.refused(36, "File name too long", "Twalk fid 0 newfid 2 names %s", strings.Repeat("x", 256))
}

func readdir(t *testing.T, w *world, c *client) {
	for i := range 1000 {
		w.Mkdir(t.Context(), fmt.Sprintf("dir%03d", i), 0)
	}
	want := len(worldFiles) + 1003
	c.must("Twalk fid 0 newfid 1")
	c.must("Tlopen fid 1 flags 0x10000")
	seen := map[string]bool{}
	offset := uint64(0)
	for i := 0; ; i++ {
		w.Remove(nil, fmt.Sprintf("dir%03d", 2*i)) // comes and goes meanwhile
		w.Mkdir(t.Context(), fmt.Sprintf("new%03d", i), 0)
		m := c.must("Treaddir fid 1 offset %d count 1000", offset)
		if len(m.Data) == 0 {
			break
		}
		for b := m.Data; len(b) > 0; {
			e, rest, err := styx.ParseDirent(b)
			if err != nil {
				t.Fatal(err)
			}
			if b = rest; seen[e.Name] {
				t.Fatalf("%s twice", e.Name)
			}
			seen[e.Name], offset = true, e.Offset
			dir := e.Name == "." || e.Name == ".." || e.Name == "d" || e.Name[3:] != "" && (e.Name[:3] == "dir" || e.Name[:3] == "new")
			if (e.Type == 4) != dir || e.Type != 4 && e.Type != 8 || (e.Qid.Type == styx.QTDir) != dir {
				t.Errorf("%+v", e)
			}
		}
	}
	if len(seen) != want || !seen["."] || !seen[".."] {
		t.Errorf("%d entries, want %d", len(seen), want)
	}
	c.refused(22, "", "Treaddir fid 1 offset 0 count 5")
	if m := c.must("Treaddir fid 1 offset 0 count 25"); len(m.Data) == 0 {
		t.Error("nothing at offset 0")
	}
	if m := c.must("Treaddir fid 1 offset 99999999 count 1000"); len(m.Data) != 0 {
		t.Errorf("%s", m)
	}
}

func dirread(t *testing.T, w *world, c *client) {
	for i := range 1000 {
		w.Mkdir(t.Context(), fmt.Sprintf("dir%03d", i), 0)
	}
	c.must("Twalk fid 0 newfid 1")
	c.must("Topen fid 1 mode 0")
	seen := map[string]bool{}
	offset := 0
	for i := 0; ; i++ {
		m := c.must("Tread fid 1 offset %d count 8168", offset)
		if again := c.must("Tread fid 1 offset %d count 8168", offset); len(again.Data) > 0 && !bytes.Equal(m.Data[:8], again.Data[:8]) {
			t.Fatal("asked for again it is something else")
		} else if m = again; len(m.Data) == 0 {
			break
		}
		for b := m.Data; len(b) > 0; {
			d, rest, err := styx.ParseDir(b)
			if err != nil {
				t.Fatal(err)
			}
			if b = rest; seen[d.Name] || d.Name == "" || d.Uid != "root" {
				t.Fatalf("%+v", d)
			}
			seen[d.Name] = true
		}
		if i == 0 { // what goes before its turn is left out
			for i := range 1000 {
				w.Remove(nil, fmt.Sprintf("dir%03d", i))
			}
		}
		offset += len(m.Data)
	}
	if !seen["d"] && !seen["hello"] || len(seen) > 200 {
		t.Errorf("%d entries", len(seen))
	}
	c.refused(29, "bad offset in directory read", "Tread fid 1 offset %d count 8168", offset+1)
	c.refused(29, "bad offset in directory read", "Tread fid 1 offset 1 count 8168")
	c.refused(22, "count too small for a directory entry", "Tread fid 1 offset 0 count 10")
	if m := c.must("Tread fid 1 offset 0 count 8168"); len(m.Data) == 0 {
		t.Error("nothing at offset 0")
	}
}
