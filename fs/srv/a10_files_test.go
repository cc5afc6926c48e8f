package srv

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"ctrfs/fs/styx"
)

// What is done with files.

func openFlags(t *testing.T, w *world, c *client) {
	for i, flags := range []int{0x41, 0x8041, 0x441, 0x941, 0x7ffffffd &^ 0x10200} { // all but O_TRUNC and O_DIRECTORY
		c.must("Twalk fid 0 newfid %d names note", i+1)
		c.must("Tlopen fid %d flags %d", i+1, flags)
	}
	if w.text != "note\n" {
		t.Errorf("the text is %q", w.text)
	}
}

func setattrNothing(t *testing.T, w *world, c *client) {
	c.must("Twalk fid 0 newfid 1 names ctl")
	for _, valid := range []int{0x68, 0x70, 0x1f0 &^ 7, 0x20, 0x8} {
		c.must("Tsetattr fid 1 valid %d size 0", valid)
	}
	c.must("Tlopen fid 1 flags 1")
	c.must("Tsetattr fid 1 valid 0x68 size 0")
	c.open(2, "note", "w")
	c.must("Tsetattr fid 2 valid 0x68 size 0")
	if w.text != "" {
		t.Errorf("`>` left %q", w.text)
	}
	g := dial(t, &Server{Root: w}, asGlenda).start("9P2000.L")
	g.must("Twalk fid 0 newfid 1 names hello")
	g.refused(13, "", "Tsetattr fid 1 valid 0x70")
	g.refused(13, "", "Tsetattr fid 1 valid 0x68 size 0")
	g.hangUp()
}

func setattrMode(t *testing.T, w *world, c *client) {
	c.must("Twalk fid 0 newfid 1 names ctl")
	for _, valid := range []int{1, 2, 4, 0x41, 7} {
		c.refused(1, "", "Tsetattr fid 1 valid %d mode 0100600", valid)
	}
	c.refused(1, "", "Tsetattr fid 1 valid 8 size 1")
}

func wstatNothing(t *testing.T, w *world, c *client) {
	c.must("Twalk fid 0 newfid 1 names hello")
	c.must("Twstat fid 1")
	c.must("Twstat fid 1 name hello")
	c.must("Twalk fid 0 newfid 2 names note")
	c.must("Twstat fid 2 atime 1 mtime 2")
	c.must("Twstat fid 2 length 0 mtime 2")
	if w.text != "" {
		t.Errorf("length 0 left %q", w.text)
	}
	c.refused(1, "wstat prohibited", "Twstat fid 2 mode 0")
	c.refused(1, "wstat prohibited", "Twstat fid 2 uid glenda")
	c.refused(1, "only support truncation to zero length", "Twstat fid 2 length 1")
}

func openTrunc(t *testing.T, w *world, c *client) {
	c.must("Twalk fid 0 newfid 1 names ctl")
	c.must("Twalk fid 0 newfid 2 names note")
	if c.d == styx.Linux {
		c.must("Tlopen fid 1 flags 0x201")
		c.must("Tlopen fid 2 flags 0x201")
	} else {
		c.refused(1, "Operation not permitted", "Topen fid 1 mode 0x41")
		c.must("Topen fid 1 mode 0x11")
		c.must("Topen fid 2 mode 0x11")
	}
	if w.text != "" {
		t.Errorf("truncation left %q", w.text)
	}
}

func emptyWrites(t *testing.T, w *world, c *client) {
	c.open(1, "ctl", "w")
	c.must(`Twrite fid 1 offset 0 data "a\n"`)
	c.must(`Twrite fid 1 offset 777 data "b\n"`)
	if m := c.must("Twrite fid 1 offset 2 data ''"); m.Count != 0 {
		t.Errorf("an empty write: %s", m)
	}
	c.open(2, "stuck", "w")
	c.must("Twrite fid 2 offset 0 data ''") // does not get there
	if got := strings.Join(w.did, ""); got != "a\nb\n" || len(w.did) != 2 {
		t.Errorf("commands %q", w.did)
	}
}

func wholeWrites(t *testing.T, w *world, c *client) {
	c.open(1, "zeros", "w")
	for _, n := range []int{1, 2, 100, 4072, 8168, 65512} {
		c.send(&styx.Msg{Type: styx.Twrite, Fid: 1, Data: make([]byte, n)})
		if m := c.recv(); m.Type != styx.Rwrite || int(m.Count) != n {
			t.Errorf("write of %d bytes: %s", n, m)
		}
	}
	c.open(2, "short", "w")
	c.refused(5, "short write", "Twrite fid 2 offset 0 data abc")
}

func oneMessage(t *testing.T, w *world, c *client) {
	c.open(1, "ctl", "w")
	c.must(`Twrite fid 1 offset 0 data "a\nb\n"`)
	c.must(`Twrite fid 1 offset 4 data "c\n"`)
	c.say(`Twrite tag 1 fid 1 offset 0 data "d\n"`, `Twrite tag 2 fid 1 offset 0 data "e\n"`)
	c.recv()
	c.recv()
	slices.Sort(w.did) // those two may come in any order
	if got := fmt.Sprintf("%q", w.did); got != `["a\nb\n" "c\n" "d\n" "e\n"]` {
		t.Errorf("commands %s", got)
	}
}

func lastError(t *testing.T, w *world, c *client) {
	c.open(1, "ctl", "w")
	c.refused(22, `unknown control message: "fail"`, `Twrite fid 1 offset 0 data "fail\n"`)
	before := c.cat("error")
	if !strings.HasSuffix(before, " /ctl 'unknown control message: \"fail\"'\n") {
		t.Errorf("/error is %q", before)
	}
	c.refused(2, "file does not exist", "Twalk fid 0 newfid 2 names nothing")
	if c.d == styx.Linux {
		c.rpc("Txattrwalk fid 1 newfid 2 name security.capability")
	}
	if now := c.cat("error"); now != before {
		t.Errorf("a look-up was kept: %q", now)
	}
	c.must("Twalk fid 0 newfid 2 names d")
	if c.d == styx.Linux {
		c.refused(1, "", "Tlcreate fid 2 name new flags 1 perm 0644")
	} else {
		c.refused(1, "Operation not permitted", "Tcreate fid 2 name new perm 0644 mode 1")
	}
	if now := c.cat("error"); !strings.HasSuffix(now, " /d/new 'Operation not permitted'\n") {
		t.Errorf("/error is %q", now)
	}
	c.open(3, "stuck", "r")
	c.say("Tread tag 7 fid 3 offset 0 count 1")
	w.blocked(t, 1)
	c.must("Tflush tag 8 oldtag 7")
	if now := c.cat("error"); strings.Contains(now, "stuck") {
		t.Errorf("a flush was kept: %q", now)
	}
}

func xattr(t *testing.T, w *world, c *client) {
	c.must("Twalk fid 0 newfid 1 names ctl")
	c.refused(95, "", "Txattrwalk fid 1 newfid 2 name security.capability")
	c.refused(9, "", "Tclunk fid 2")
	c.refused(95, "", "Txattrcreate fid 1 name user.x size 3")
	c.must("Tlopen fid 1 flags 1")
}

func lengthZero(t *testing.T, w *world, c *client) {
	for i, name := range []string{"hello", "ctl", "wait", "d"} {
		c.must("Twalk fid 0 newfid %d names %s", i+1, name)
		m := c.must("%s", c.stat(0, i+1))
		if m.Attr != nil && m.Attr.Size != 0 || m.Stat != nil && m.Stat.Length != 0 {
			t.Errorf("%s: %s", name, m)
		}
	}
}

func qids(t *testing.T, w *world, c *client) {
	one := c.must("Twalk fid 0 newfid 1 names d name").Qids
	w.Remove(nil, "d")
	w.Mkdir(t.Context(), "d", 0755)
	two := c.must("Twalk fid 0 newfid 2 names d name").Qids
	for i := range one {
		if one[i].Path == two[i].Path || one[i].Version != 0 || two[i].Version != 0 {
			t.Errorf("%v, made again %v", one[i], two[i])
		}
	}
	if one[0].Type != styx.QTDir || one[1].Type != 0 {
		t.Errorf("types of %v", one)
	}
}

func endsAndCounts(t *testing.T, w *world, c *client) {
	c.open(1, "hello", "r")
	for _, r := range []struct {
		off   uint64
		count uint32
		want  int
	}{{0, 0, 0}, {0, 1, 1}, {0, 13, 13}, {0, 1 << 31, 13}, {0, 1<<32 - 1, 13}, {12, 100, 1}, {13, 100, 0}, {1 << 40, 1, 0}, {1<<62 - 1, 1<<32 - 1, 0}} {
		m := c.must("Tread fid 1 offset %d count %d", r.off, r.count)
		if len(m.Data) != r.want {
			t.Errorf("offset %d count %d: %d bytes", r.off, r.count, len(m.Data))
		}
	}
	for _, off := range []uint64{1<<63 - 1, 1 << 63, 1<<64 - 1} {
		c.refused(22, "illegal offset", "Tread fid 1 offset %d count 1", off)
	}
	c.open(2, "zeros", "rw")
	c.refused(22, "illegal offset", "Twrite fid 2 offset %d data x", uint64(1<<63))
	for _, count := range []uint32{65535, 65536, 1<<32 - 1} {
		if m := c.must("Tread fid 2 offset 0 count %d", count); len(m.Data) != 65536-headerSize-4 {
			t.Errorf("count %d: %d bytes", count, len(m.Data))
		}
	}
}

func walkOpen(t *testing.T, w *world, c *client) {
	c.open(1, "hello", "r")
	c.must("Twalk fid 1 newfid 2")
	c.must("%s", c.opening(2, "r"))
	c.must("Tclunk fid 1")
	if got := c.text(2); got != "hello, world\n" {
		t.Errorf("%q", got)
	}
	c.refused(9, "bad use of fid", "Twalk fid 2 newfid 2")
}

func clunkFrees(t *testing.T, w *world, c *client) {
	c.open(1, "broken", "r")
	c.refused(22, "config is not JSON", "Tclunk fid 1")
	c.refused(9, "fid unknown or out of range", "Tclunk fid 1")
	c.open(1, "hello", "r")
	c.refused(13, "permission denied", "Tremove fid 1")
	c.refused(9, "fid unknown or out of range", "Tremove fid 1")
	// a read that blocks ends, and only then is the file closed
	c.open(1, "stuck", "r")
	c.say("Tread tag 1 fid 1 offset 0 count 1")
	w.blocked(t, 1)
	c.say("Tclunk tag 2 fid 1")
	if m := c.recv(); m.Tag != 1 {
		t.Errorf("%s", m)
	}
	if m := c.recv(); m.Type != styx.Rclunk {
		t.Errorf("%s", m)
	}
	if n := w.open.Load(); n != 0 {
		t.Errorf("%d files are open", n)
	}
}

func getattr(t *testing.T, w *world, c *client) {
	c.must("Twalk fid 0 newfid 1 names d")
	c.must("Twalk fid 1 newfid 2 names secret")
	for fid, want := range map[int]styx.Attr{0: {Mode: 040755, Nlink: 2}, 1: {Mode: 040755, Nlink: 2}, 2: {Mode: 0100600, Nlink: 1}} {
		a := c.must("%s", c.stat(0, fid)).Attr
		if a.Valid != 0x7ff || a.Mode != want.Mode || a.Nlink != want.Nlink || a.Uid != 0 || a.Blksize == 0 {
			t.Errorf("fid %d: %+v", fid, a)
		}
	}
}

func clone(t *testing.T, w *world, c *client) {
	for i := range 100 {
		c.must("Twalk fid 0 newfid %d names clone", i+1)
		c.must("%s", c.stat(0, i+1))
	}
	if w.clones != 0 {
		t.Errorf("%d were made by looking", w.clones)
	}
	c.must("%s", c.opening(1, "rw"))
	c.must("%s", c.opening(2, "r"))
	if a, b := c.text(1), c.text(2); a != "1\n" || b != "2\n" {
		t.Errorf("%q, %q", a, b)
	}
	c.must("Tclunk fid 1")
	if n := w.open.Load(); n != 1 {
		t.Errorf("%d are open", n)
	}
	c.refused(9, "bad use of fid", "%s", c.opening(2, "r"))
	if n := w.open.Load(); n != 1 || w.clones != 2 {
		t.Errorf("%d are open, %d were made", n, w.clones)
	}
}

func madeAgain(t *testing.T, w *world, c *client) {
	c.must("Twalk fid 0 newfid 1 names d")
	c.open(2, "d/name", "r")
	w.Remove(nil, "d")
	if m := c.rpc("%s", c.stat(0, 1)); m.Type != styx.Rerror && m.Type != styx.Rlerror {
		t.Errorf("of what is gone: %s", m)
	}
	w.Mkdir(t.Context(), "d", 0)
	c.must("Twalk fid 1 newfid 3 names name")
	c.must("%s", c.opening(3, "r"))
	if got := c.text(3); got != "d 0x1200\n" {
		t.Errorf("%q", got)
	}
}
