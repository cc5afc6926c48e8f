package srv

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"ctrfs/fs"
	"ctrfs/fs/styx"
)

const both = "9P2000 9P2000.L"

// TestA10 has a test for each row of what Linux's, Plan 9's and Inferno's clients need of a server. Each runs in the
// dialects named.
func TestA10(t *testing.T) {
	for _, row := range []struct {
		name, dialects string
		run            func(t *testing.T, w *world, c *client)
	}{
		{"01_open-flags", "9P2000.L", openFlags},
		{"02_setattr-does-nothing", "9P2000.L", setattrNothing},
		{"03_setattr-of-mode-is-refused", "9P2000.L", setattrMode},
		{"04_wstat-does-nothing", "9P2000", wstatNothing},
		{"05_open-for-truncation", both, openTrunc},
		{"06_offset-and-empty-writes", both, emptyWrites},
		{"07_whole-writes", both, wholeWrites},
		{"08_one-write-one-message", both, oneMessage},
		{"09_never-again", "9P2000.L", neverAgain},
		{"10_last-error", both, lastError},
		{"11_xattr", "9P2000.L", xattr},
		{"12_length-is-0", both, lengthZero},
		{"13_qids", both, qids},
		{"14_ends-and-counts", both, endsAndCounts},
		{"15_wait", both, waitFile},
		{"16_stream", both, stream},
		{"17_flush", both, flushStorm},
		{"18_flush-of-anything", both, flushOfAnything},
		{"19_blocked-reads", both, blockedReads},
		{"20_blocked-read-holds-nothing", both, holdsNothing},
		{"22_walk-from-an-open-fid", both, walkOpen},
		{"23_partial-walk", both, partialWalk},
		{"24_dot-dot", both, dotDot},
		{"25_clunk-frees", both, clunkFrees},
		{"26_readdir", "9P2000.L", readdir},
		{"27_dirread", "9P2000", dirread},
		{"28_getattr", "9P2000.L", getattr},
		{"29_permission", both, permission},
		{"30_attaches", "9P2000.L", attaches},
		{"31_version", both, version},
		{"32_auth", both, auth},
		{"33_error-words", "9P2000", errorWords},
		{"34_odd-messages", both, oddMessages},
		{"35_clone", both, clone},
		{"36_lost-connection", both, lostConnection},
		{"37_made-again", both, madeAgain},
		{"38_msize", both, msize},
	} {
		for _, d := range strings.Fields(row.dialects) {
			t.Run(row.name+"/"+d, func(t *testing.T) {
				w := newWorld()
				c := dial(t, &Server{Root: w, Users: people{}}, asRoot).start(d)
				row.run(t, w, c)
				c.hangUp()
				if n := w.open.Load(); n != 0 {
					t.Errorf("%d files are open after the end", n)
				}
			})
		}
	}
}

// open walks to a file and opens it: "r", "w" or "rw".
func (c *client) open(fid int, path, mode string) {
	c.t.Helper()
	c.must("Twalk fid 0 newfid %d names %s", fid, strings.ReplaceAll(path, "/", " "))
	c.must("%s", c.opening(fid, mode))
}

func (c *client) opening(fid int, mode string) string {
	n := map[string]int{"r": 0, "w": 1, "rw": 2}[mode]
	if c.d == styx.Linux {
		return fmt.Sprintf("Tlopen fid %d flags %d", fid, n)
	}
	return fmt.Sprintf("Topen fid %d mode %d", fid, n)
}

// stat is the message that asks for a file's attributes.
func (c *client) stat(tag, fid int) string {
	if c.d == styx.Linux {
		return fmt.Sprintf("Tgetattr tag %d fid %d mask 0x17ff", tag, fid)
	}
	return fmt.Sprintf("Tstat tag %d fid %d", tag, fid)
}

// refused is an rpc that is to fail with an error that has this errno or text.
func (c *client) refused(errno int, text, format string, args ...any) {
	c.t.Helper()
	m := c.rpc(format, args...)
	ok := m.Type == styx.Rlerror && int(m.Ecode) == errno
	if c.d == styx.Plain {
		ok = m.Type == styx.Rerror && m.Ename == text
	}
	if !ok {
		c.t.Fatalf("%s: %s; want error %d, %s", fmt.Sprintf(format, args...), m, errno, text)
	}
}

func (c *client) text(fid int) string {
	c.t.Helper()
	return string(c.must("Tread fid %d offset 0 count 8000", fid).Data)
}

func (c *client) cat(path string) string {
	c.t.Helper()
	c.open(99, path, "r")
	defer c.must("Tclunk fid 99")
	return c.text(99)
}

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
	if got := fmt.Sprintf("%q", w.did); got != `["a\nb\n" "c\n" "d\n" "e\n"]` {
		t.Errorf("commands %s", got)
	}
}

func neverAgain(t *testing.T, w *world, c *client) {
	c.open(1, "broken", "rw")
	c.refused(16, "", "Tread fid 1 offset 0 count 1") // EAGAIN there
	c.refused(5, "", "Twrite fid 1 offset 0 data x")  // EINTR there
	c.open(2, "stuck", "r")
	c.say("Tread tag 2 fid 2 offset 0 count 1")
	w.blocked(t, 1)
	c.say("Tclunk tag 3 fid 2")
	if m := c.recv(); m.Tag != 2 || m.Ecode != 9 {
		t.Errorf("a read whose fid was clunked: %s", m)
	}
	c.recv()
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

func waitFile(t *testing.T, w *world, c *client) {
	c.open(1, "wait", "r")
	c.say("Tread tag 1 fid 1 offset 0 count 4096")
	w.blocked(t, 1)
	c.must("%s", c.stat(2, 0))
	close(w.end)
	const record = "1 0 0 0 ''\n"
	if m := c.recv(); m.Tag != 1 || string(m.Data) != record {
		t.Errorf("%s", m)
	}
	if m := c.must("Tread fid 1 offset %d count 4096", len(record)); len(m.Data) != 0 {
		t.Errorf("behind the record: %s", m)
	}
}

func stream(t *testing.T, w *world, c *client) {
	c.open(1, "log", "r")
	w.log.TryWrite([]byte("a\n"))
	if m := c.must("Tread fid 1 offset 0 count 4096"); string(m.Data) != "a\n" {
		t.Errorf("%s", m)
	}
	if c.d == styx.Linux {
		if m := c.must("Tread fid 1 offset 2 count 4096"); len(m.Data) != 0 {
			t.Errorf("after a batch: %s", m)
		}
	}
	c.say("Tread tag 1 fid 1 offset 2 count 4096")
	c.must("%s", c.stat(2, 0)) // and nothing before it
	w.log.TryWrite([]byte("b\n"))
	if m := c.recv(); m.Tag != 1 || string(m.Data) != "b\n" {
		t.Errorf("%s", m)
	}
}

// flushStorm flushes a thousand blocked reads while others are answered, and as many that have just ended.
func flushStorm(t *testing.T, w *world, c *client) {
	const n = 1000
	c.open(1, "stuck", "r")
	c.open(2, "hello", "r")
	for round := range 3 {
		for i := range n {
			c.say(fmt.Sprintf("Tread tag %d fid 1 offset 0 count 1", i))
		}
		w.blocked(t, n)
		go func() {
			for i := range n {
				if round == 2 && i == n/2 {
					close(w.end)
				}
				c.say(fmt.Sprintf("Tflush tag %d oldtag %d", n+i, i), fmt.Sprintf("Tread tag %d fid 2 offset 0 count 1", 2*n+i))
			}
		}()
		done := map[int]string{}
		for range n * 2 {
			m := c.recv()
			i := int(m.Tag) % n
			switch {
			case m.Type == styx.Rread && int(m.Tag) < n:
				if round < 2 || done[i] != "" {
					t.Fatalf("data of a read that was to end: %s, after %q", m, done[i])
				}
				done[i] = "data"
				m = c.recv()
				i = int(m.Tag) % n
				for m.Type == styx.Rread && int(m.Tag) < n {
					done[i] = "data"
					m = c.recv()
					i = int(m.Tag) % n
				}
			}
			switch {
			case m.Type == styx.Rflush && int(m.Tag) < 2*n:
				done[i] = "flushed"
			case m.Type == styx.Rread && int(m.Tag) >= 2*n:
			default:
				t.Fatalf("unexpected %s", m)
			}
		}
		w.blocked(t, 0)
	}
}

func flushOfAnything(t *testing.T, w *world, c *client) {
	for range 100 {
		if m := c.rpc("Tflush tag 1 oldtag 2"); m.Type != styx.Rflush {
			t.Fatal(m)
		}
	}
	if m := c.rpc("Tflush tag 1 oldtag 1"); m.Type != styx.Rflush {
		t.Fatal(m)
	}
	// deaf hears no flush, so that the flushes of it wait, and are answered in order
	c.open(1, "deaf", "r")
	c.say("Tread tag 1 fid 1 offset 0 count 10")
	w.blocked(t, 1)
	c.say("Tflush tag 2 oldtag 1", "Tflush tag 3 oldtag 1", "Tflush tag 4 oldtag 2", "Tflush tag 5 oldtag 4")
	c.must("%s", c.stat(9, 0))
	close(w.end)
	for tag := styx.Tag(2); tag <= 5; tag++ {
		if m := c.recv(); m.Type != styx.Rflush || m.Tag != tag {
			t.Fatalf("%s, want Rflush of %d", m, tag)
		}
	}
	// what has happened is said, then Rflush
	c.open(2, "ctl", "w")
	c.say(`Twrite tag 1 fid 2 offset 0 data "a\n"`, "Tflush tag 2 oldtag 1")
	if m := c.recv(); m.Type != styx.Rwrite {
		t.Fatal(m)
	}
	if m := c.recv(); m.Type != styx.Rflush {
		t.Fatal(m)
	}
}

func blockedReads(t *testing.T, w *world, c *client) {
	const n = 10000
	c.open(1, "stuck", "r")
	var msgs []*styx.Msg
	for i := range n {
		msgs = append(msgs, &styx.Msg{Type: styx.Tread, Tag: styx.Tag(i), Fid: 1, Count: 1})
	}
	c.send(msgs...)
	w.blocked(t, n)
	for range 100 {
		c.must("%s", c.stat(n, 0))
	}
	go close(w.end)
	for range n {
		if m := c.recv(); string(m.Data) != "x" {
			t.Fatal(m)
		}
	}
}

// holdsNothing: while reads and a write block, files can be moved, removed, listed, written and closed, here and on
// another connection.
func holdsNothing(t *testing.T, w *world, c *client) {
	c.open(1, "stuck", "rw")
	c.open(2, "deaf", "r")
	c.say("Tread tag 1 fid 1 offset 0 count 1", "Tread tag 2 fid 2 offset 0 count 1", "Twrite tag 3 fid 1 offset 0 data x")
	w.blocked(t, 3)
	other := dial(t, &Server{Root: w}, asRoot).start(c.d.String())
	for i, c := range []*client{c, other} {
		c.must("Twalk tag 9 fid 0 newfid 5 names stuck")
		c.must("Tclunk tag 9 fid 5")
		c.open(5, "d/name", "r")
		c.must("Tread tag 9 fid 5 offset 0 count 10")
		c.must("Tclunk tag 9 fid 5")
		w.Mkdir(t.Context(), "e", 0)
		c.must("Twalk tag 9 fid 0 newfid 5 names e")
		if c.d == styx.Linux {
			c.must("Trename tag 9 fid 5 newdirfid 0 name f%d", i)
		} else {
			c.must("Twstat tag 9 fid 5 name f%d", i)
		}
		c.must("Tremove tag 9 fid 5")
	}
	other.hangUp()
	close(w.end)
	for range 3 {
		c.recv()
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
	c.refused(22, "illegal name", "Twalk fid 0 newfid 2 names .")
	c.refused(22, "illegal name", "Twalk fid 0 newfid 2 names d/name")
	c.refused(22, "illegal name", "Twalk fid 0 newfid 2 names ''")
	c.refused(36, "File name too long", "Twalk fid 0 newfid 2 names %s", strings.Repeat("x", 256))
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

// permission: what is refused to others is given to the owner, whatever the client says of itself.
func permission(t *testing.T, w *world, c *client) {
	w.dirs["d"].uid = 1000
	d := c.d
	for _, p := range []struct {
		name   string
		peer   Peer
		attach string
		may    bool
	}{
		{"owner", asGlenda, "Tattach fid 0 uname root", true},
		{"other", Peer{Proven: true, Uid: 1001}, "Tattach fid 0 uname glenda", false},
		{"group", Peer{Proven: true, Uid: 1001, Gid: 1000}, "Tattach fid 0 uname glenda", false},
		{"root", asRoot, "Tattach fid 0 uname nobody", true},
		{"nobody", asNobody, "Tattach fid 0 uname root nuname 0", false},
		{"mount-owner", asMount, "Tattach fid 0 uname glenda", true},
		{"mount-number", asMount, "Tattach fid 0 uname '' nuname 1000", c.d == styx.Linux},
		{"mount-nobody", asMount, "Tattach fid 0 uname nobody", false},
		{"mount-stranger", asMount, "Tattach fid 0 uname stranger", false},
		{"mount-nameless", asMount, "Tattach fid 0 uname ''", false},
	} {
		t.Run(p.name, func(t *testing.T) {
			c := dial(t, &Server{Root: w, Users: people{}}, p.peer)
			c.must("Tversion msize 8192 version %s", d)
			c.must("%s", p.attach)
			c.must("Twalk fid 0 newfid 1 names d secret")
			if p.may {
				c.must("%s", c.opening(1, "r"))
			} else {
				c.refused(13, "permission denied", "%s", c.opening(1, "r"))
			}
			if p.peer.Proven {
				return
			}
			c.must("Twalk fid 0 newfid 2 names clone") // 0666
			c.refused(13, "permission denied", "%s", c.opening(2, "w"))
			if c.d == styx.Linux {
				c.refused(13, "", "Tmkdir fid 0 name x perm 0777")
			} else {
				c.refused(13, "permission denied", "Tcreate fid 0 name x perm 020000000777 mode 0")
			}
			c.must("Twalk fid 0 newfid 3 names d")
			c.refused(13, "permission denied", "Tremove fid 3")
		})
	}
	g := dial(t, &Server{Root: w, Users: people{}}, asGlenda)
	if g.must("Tversion msize 8192 version %s", c.d); c.d == styx.Linux {
		g.refused(1, "", "Tattach fid 0 uname '' nuname 0")
		g.must("Tattach fid 0 uname '' nuname 1000")
	}
}

func attaches(t *testing.T, w *world, _ *client) {
	c := dial(t, &Server{Root: w, Users: people{}}, asMount)
	c.must("Tversion msize 8192 version 9P2000.L")
	for i, uid := range []int{1000, 0, 5} {
		c.must("Tattach fid %d uname '' aname '' nuname %d", i, uid)
		c.must("Twalk fid %d newfid %d names who", i, i+10)
		c.must("Tlopen fid %d flags 0", i+10)
		if got := c.text(i + 10); !strings.HasPrefix(got, fmt.Sprintf("uid %d ", uid)) {
			t.Errorf("as %d: %q", uid, got)
		}
	}
	a, b := c.must("Tattach fid 20 uname root aname /d/../d/"), c.must("Twalk fid 0 newfid 30 names d")
	if a.Qid != b.Qids[0] {
		t.Errorf("%s, %s", a, b)
	}
	if m := c.must("Twalk fid 20 newfid 21 names .. name"); m.Qids[0] != a.Qid {
		t.Errorf("above the root: %s", m)
	}
	c.refused(2, "", "Tattach fid 22 uname root aname /nothing")
	c.refused(20, "", "Tattach fid 22 uname root aname hello")
	c.refused(9, "", "Tattach fid 0 uname root")
	c.refused(9, "", "Tattach fid 22 afid 0 uname root")
}

func version(t *testing.T, w *world, c *client) {
	for _, v := range []struct {
		asks    string
		msize   uint32
		version string
		gives   uint32
	}{
		{"9P2000", 8192, "9P2000", 8192}, {"9P2000.u", 8216, "9P2000", 8216}, {"9P2000.L", 4096, "9P2000.L", 4096},
		{"9P2000.L", 4095, "unknown", 4095}, {"9P2000", 255, "unknown", 255}, {"9P2000", 256, "9P2000", 256},
		{"", 8192, "unknown", 8192}, {"9P", 8192, "unknown", 8192}, {"9P1999", 8192, "unknown", 8192},
		{"9P2000.L.Google.7", 8192, "9P2000.L", 8192}, {strings.Repeat("9", 4000), 8192, "unknown", 8192},
		{"9P2000.L", 1<<32 - 1, "9P2000.L", 1 << 20},
	} {
		m := c.must("Tversion msize %d version '%s'", v.msize, v.asks)
		if m.Version != v.version || m.Msize != v.gives {
			t.Errorf("%q %d: %s", v.asks, v.msize, m)
		}
		c.d = styx.Plain
		if v.version == "9P2000.L" {
			c.d = styx.Linux
		}
	}
	// a second one ends what is under way
	c.start(c.d.String())
	c.open(1, "stuck", "r")
	c.open(2, "hello", "r")
	c.say("Tread tag 1 fid 1 offset 0 count 1", "Tread tag 2 fid 1 offset 0 count 1")
	w.blocked(t, 2)
	c.must("Tversion msize 8192 version 9P2000.L")
	if n := w.open.Load(); n != 0 {
		t.Errorf("%d files are open", n)
	}
	c.must("Tattach tag 1 fid 1 uname root")
	c.refused(9, "", "Tclunk tag 2 fid 2")
}

func auth(t *testing.T, w *world, c *client) {
	c.refused(2, "authentication not required", "Tauth afid 9 uname root aname ''")
	c.refused(9, "fid unknown or out of range", "Tclunk fid 9")
}

func errorWords(t *testing.T, w *world, c *client) {
	c.must("Twalk fid 0 newfid 1")
	c.refused(0, "file already exists", "Tcreate fid 1 name d perm 020000000777 mode 0")
	c.refused(0, "file does not exist", "Twalk fid 0 newfid 2 names nothing")
	c.open(2, "ctl", "w")
	m := c.rpc("Tcreate fid 1 name %s perm 020000000777 mode 0", strings.Repeat("é", 200))
	if m.Type != styx.Rerror || len(m.Ename) > 125 {
		t.Errorf("%s", m)
	}
	g := dial(t, &Server{Root: w}, asGlenda).start("9P2000")
	g.must("Twalk fid 0 newfid 1 names ctl")
	g.refused(0, "permission denied", "Topen fid 1 mode 0")
}

func oddMessages(t *testing.T, w *world, c *client) {
	c.must("Twalk fid 0 newfid 1 names ctl")
	if c.d == styx.Linux {
		c.must("Tstatfs fid 1")
		c.must("Tfsync fid 1 datasync 1")
		c.c.Write([]byte{11, 0, 0, 0, byte(styx.Tfsync), 3, 0, 1, 0, 0, 0}) // as old clients send it
		if m := c.recv(); m.Type != styx.Rfsync || m.Tag != 3 {
			t.Errorf("%s", m)
		}
		c.refused(95, "", "Tlock fid 1 type 1 client h")
		c.refused(95, "", "Tgetlock fid 1 type 1 client h")
		c.refused(22, "", "Treadlink fid 1")
		for _, m := range []string{"Tlcreate fid 0 name x", "Tsymlink fid 0 name x", "Tmknod fid 0 name x", "Tlink newdirfid 0 fid 1 name x"} {
			c.refused(1, "", "%s", m)
		}
	}
	for _, typ := range []byte{0, 1, 6, 98, 106, 128, 200, 255, byte(styx.Rread), byte(styx.Rlerror), byte(styx.Rversion)} {
		b := []byte{11, 0, 0, 0, typ, 9, 0, 0, 0, 0, 0}
		c.c.Write(b)
		if m := c.recv(); m.Tag != 9 || m.Type != styx.Rerror && m.Type != styx.Rlerror {
			t.Errorf("type %d: %s", typ, m)
		}
	}
	c.must("%s", c.opening(1, "w"))
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

func lostConnection(t *testing.T, w *world, c *client) {
	c.open(1, "stuck", "rw")
	c.open(2, "clone", "r")
	for i := range 1000 {
		c.say(fmt.Sprintf("Tread tag %d fid 1 offset 0 count 1", i))
	}
	c.say("Twrite tag 1000 fid 1 offset 0 data x")
	w.blocked(t, 1001)
	c.hangUp()
	w.blocked(t, 0)
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

func msize(t *testing.T, w *world, c *client) {
	for _, n := range []int{4096, 8192, 1 << 20} {
		c.must("Tversion msize %d version %s", n, c.d)
		c.must("Tattach fid 0 uname root aname ''")
		c.must("Twalk fid 0 newfid 1 names zeros")
		if m := c.must("%s", c.opening(1, "rw")); int(m.Iounit) != n-24 {
			t.Errorf("%s", m)
		}
		if m := c.must("Tread fid 1 offset 0 count %d", n); len(m.Data) != n-11 {
			t.Errorf("msize %d: %d bytes", n, len(m.Data))
		}
		c.send(&styx.Msg{Type: styx.Twrite, Fid: 1, Data: make([]byte, n-23)})
		if m := c.recv(); m.Type != styx.Rwrite {
			t.Errorf("%s", m)
		}
	}
	c.must("Tversion msize 4096 version %s", c.d)
	c.send(&styx.Msg{Type: styx.Twrite, Fid: 1, Data: make([]byte, 4096)})
	if _, err := c.r.Next(); err == nil {
		t.Error("a message larger than msize was taken")
	}
}

var _ fs.Dir = (*world)(nil)
