package srv

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"ctrfs/fs/styx"
)

// What a hostile client may do; the numbers are those of the list of cases.

// raw sends bytes as they are, and looks whether the connection lives: a reply comes or it is closed.
func (c *client) raw(b []byte) (*styx.Msg, error) {
	c.c.Write(b)
	f, err := c.r.Next()
	if err != nil {
		return nil, err
	}
	m := new(styx.Msg)
	return m, styx.Parse(f, c.d, m)
}

func TestSizes(t *testing.T) { // R01
	s := &Server{Root: newWorld()}
	for _, size := range []uint32{0, 1, 6, 65537, 1 << 31, 1<<32 - 1} {
		c := dial(t, s, asRoot).start("9P2000.L")
		b := binary.LittleEndian.AppendUint32(nil, size)
		if m, err := c.raw(append(b, byte(styx.Tclunk), 0, 0)); err == nil {
			t.Errorf("size %d: %s", size, m)
		}
		c.hangUp()
		if err := <-c.served; err == nil {
			t.Errorf("size %d: no error", size)
		}
		c.served <- nil
	}
}

func TestMalformed(t *testing.T) { // R02, R22: a bit wrong, or too short, anywhere in any message
	s := &Server{Root: newWorld()}
	for _, d := range []styx.Dialect{styx.Plain, styx.Linux} {
		lines := []string{
			"Tversion msize 8192 version 9P2000", "Tattach fid 5 uname root aname /", "Twalk fid 0 newfid 2 names d name",
			"Topen fid 1 mode 0", "Tcreate fid 1 name x perm 0644 mode 1", "Tstat fid 0", "Twstat fid 1 name x", "Tread fid 1 offset 0 count 10",
			"Twrite fid 1 offset 0 data abc", "Tflush oldtag 3", "Tlopen fid 1 flags 0", "Tsetattr fid 1 valid 8", "Treaddir fid 1 offset 0 count 100",
			"Tgetattr fid 0 mask 1", "Tmkdir fid 0 name x", "Trenameat fid 0 name d newdirfid 0 newname e", "Tlock fid 1 client h", "Tclunk fid 1",
		}
		for _, line := range lines {
			m, err := styx.ParseText(line)
			if err != nil {
				t.Fatal(err)
			}
			b, err := m.Append(nil, d)
			if err != nil {
				continue
			}
			c := dial(t, s, asRoot).start(d.String())
			for bit := 5 * 8; bit < len(b)*8; bit++ {
				x := bytes.Clone(b)
				x[bit/8] ^= 1 << (bit % 8)
				if m, err := c.raw(x); err != nil {
					t.Fatalf("%s with bit %d wrong: %v, %v", line, bit, m, err)
				}
				if m.Type == styx.Tversion || line[:8] == "Tversion" {
					c.d = styx.Plain
					c.start(d.String())
				}
			}
			for n := headerSize; n < len(b)-4; n++ {
				x := bytes.Clone(b[:n])
				binary.LittleEndian.PutUint32(x, uint32(n))
				if m, err := c.raw(x); err != nil || m.Type != styx.Rerror && m.Type != styx.Rlerror {
					t.Fatalf("%s cut to %d bytes: %v, %v", line, n, m, err)
				}
			}
			c.hangUp()
		}
	}
}

func TestBeforeVersion(t *testing.T) { // R03
	c := dial(t, &Server{Root: newWorld()}, asRoot)
	for _, line := range []string{"Tattach fid 0 uname root", "Tclunk fid 0", "Tflush oldtag 0"} {
		if m := c.rpc("%s", line); m.Type != styx.Rerror {
			t.Errorf("%s: %s", line, m)
		}
	}
	c.start("9P2000")
}

func TestSecondVersion(t *testing.T) { // R04
	const n = 10000
	w := newWorld()
	s := &Server{Root: w}
	c := dial(t, s, asRoot).start("9P2000.L")
	c.open(1, "stuck", "r")
	var msgs []*styx.Msg
	for i := range n {
		msgs = append(msgs, &styx.Msg{Type: styx.Twalk, Fid: 0, Newfid: styx.Fid(i + 10)})
	}
	c.send(msgs...)
	for range n {
		c.recv()
	}
	for i, m := range msgs {
		*m = styx.Msg{Type: styx.Tread, Tag: styx.Tag(i), Fid: 1, Count: 1}
	}
	c.send(msgs...)
	w.blocked(t, n)
	c.must("Tversion msize 8192 version 9P2000.L") // and it is the next reply
	if w.open.Load() != 0 || s.count.fids.Load() != 0 {
		t.Errorf("%d files open, %d fids", w.open.Load(), s.count.fids.Load())
	}
	w.blocked(t, 0)
}

func TestNames(t *testing.T) { // R05
	for _, d := range strings.Fields(both) {
		c := dial(t, &Server{Root: newWorld()}, asRoot).start(d)
		names := make([]string, 17)
		for i := range names {
			names[i] = ".."
		}
		if m := c.must("Twalk fid 0 newfid 1 names %s", strings.Join(names[:16], " ")); len(m.Qids) != 16 {
			t.Errorf("%s", m)
		}
		b := []byte{17 + 17*4, 0, 0, 0, byte(styx.Twalk), 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 17, 0}
		for range 17 {
			b = append(b, 2, 0, '.', '.')
		}
		if m, err := c.raw(b); err != nil || m.Type == styx.Rwalk {
			t.Errorf("17 names: %v, %v", m, err)
		}
		for _, name := range []string{"a\x00b", "\xff\xfe", "\x1b[2J", strings.Repeat("n", 60000)} {
			b := []byte{0, 0, 0, 0, byte(styx.Twalk), 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0}
			b = append(binary.LittleEndian.AppendUint16(b, uint16(len(name))), name...)
			binary.LittleEndian.PutUint32(b, uint32(len(b)))
			if m, err := c.raw(b); err != nil || m.Type == styx.Rwalk {
				t.Errorf("%.10q: %v, %v", name, m, err)
			}
		}
	}
}

func TestTags(t *testing.T) { // R07
	w := newWorld()
	c := dial(t, &Server{Root: w}, asRoot).start("9P2000.L")
	c.open(1, "stuck", "r")
	c.refused(22, "", "Tread tag ~0 fid 1 offset 0 count 1")
	var msgs []*styx.Msg
	for i := range manyTags {
		msgs = append(msgs, &styx.Msg{Type: styx.Tread, Tag: styx.Tag(i), Fid: 1, Count: 1})
	}
	c.send(msgs...)
	w.blocked(t, manyTags)
	c.refused(22, "", "Tgetattr tag 7 fid 0 mask 1")
	c.refused(22, "", "Tflush tag 7 oldtag 7")
	go close(w.end)
	for range msgs {
		if m := c.recv(); m.Type != styx.Rread {
			t.Fatal(m)
		}
	}
}

// TestServeEnds: the end of the server's context ends a conversation as a lost connection does.
func TestServeEnds(t *testing.T) {
	w := newWorld()
	a, b := socketpair(t)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- (&Server{Root: w}).Serve(ctx, b, asRoot) }()
	c := &client{t: t, c: a, r: styx.NewReader(a)}
	c.start("9P2000.L")
	c.open(1, "stuck", "r")
	c.say("Tread tag 1 fid 1 offset 0 count 1")
	w.blocked(t, 1)
	cancel()
	if err := <-served; err != nil || w.open.Load() != 0 {
		t.Errorf("%v, %d files open", err, w.open.Load())
	}
	if _, err := io.Copy(io.Discard, a); err != nil {
		t.Error(err)
	}
}

// A pipe has no deadlines, and serves all the same.
func TestPipe(t *testing.T) {
	a, b := net.Pipe()
	served := make(chan error)
	type plain struct{ io.ReadWriteCloser }
	go func() { served <- (&Server{Root: newWorld()}).Serve(t.Context(), plain{b}, asRoot) }()
	c := &client{t: t, c: a, r: styx.NewReader(a)}
	c.start("9P2000.L")
	if got := c.cat("hello"); got != "hello, world\n" {
		t.Errorf("%q", got)
	}
	a.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestTrace: what -D shows can be held again as a dialogue.
func TestTrace(t *testing.T) {
	var b bytes.Buffer
	s := &Server{Root: newWorld()}
	s.Trace(&b)
	c := dial(t, s, asRoot).start("9P2000.L")
	c.cat("hello")
	c.hangUp()
	var lines []string
	for line := range strings.Lines(b.String()) {
		number, line, _ := strings.Cut(line, " ")
		if number != "1" {
			t.Errorf("of connection %s: %s", number, line)
		}
		if strings.HasPrefix(line, "Rgetattr") {
			continue
		}
		lines = append(lines, line)
	}
	if len(lines) != 12 {
		t.Errorf("%q", lines)
	}
	dialogue(t, strings.Join(lines, ""))
}
