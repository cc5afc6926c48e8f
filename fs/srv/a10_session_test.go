package srv

import (
	"fmt"
	"strings"
	"testing"

	"ctrfs/fs/styx"
)

// What makes a conversation: flush, blocking, sessions, who asks.

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
	flushedData(t, c.d)
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
		done := map[int]bool{}
		for got := 0; got < 2*n; {
			m := c.recv()
			i := int(m.Tag) % n
			switch {
			case m.Type == styx.Rread && int(m.Tag) < n:
				if round < 2 || done[i] {
					t.Fatalf("data of a read that was to end: %s", m)
				}
			case m.Type == styx.Rflush && int(m.Tag) < 2*n:
				done[i] = true
				got++
			case m.Type == styx.Rread && int(m.Tag) >= 2*n:
				got++
			default:
				t.Fatalf("unexpected %s", m)
			}
		}
		if m := c.must("%s", c.stat(9999, 0)); m.Tag != 9999 {
			t.Fatalf("after all Rflush came %s", m)
		}
		w.blocked(t, 0)
	}
}

// flushedData: the data of a read that was flushed does not go out, and is not lost.
func flushedData(t *testing.T, d styx.Dialect) {
	w := newWorld()
	c := dial(t, &Server{Root: w}, asRoot).start(d.String())
	w.log.TryWrite([]byte("data\n"))
	c.open(1, "late", "r")
	c.say("Tread tag 1 fid 1 offset 0 count 100")
	w.blocked(t, 1)
	c.say("Tflush tag 2 oldtag 1")
	c.must("%s", c.stat(3, 0))
	close(w.end)
	if m := c.recv(); m.Type != styx.Rflush {
		t.Fatalf("before Rflush came %s", m)
	}
	if got := c.text(1); got != "data\n" {
		t.Fatalf("then %q", got)
	}
	c.hangUp()
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
		{"mount-no-name", asMount, "Tattach fid 0 uname ''", false},
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
			if p.peer.Proven && !strings.HasPrefix(p.name, "mount-no") && p.name != "mount-stranger" {
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
	m := c.rpc(`Twrite fid 2 offset 0 data "long\n"`)
	if m.Type != styx.Rerror || len(m.Ename) > 125 || !strings.HasPrefix(m.Ename, "éé") {
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
