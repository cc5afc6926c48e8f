package srv

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"ctrfs/fs"
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

func TestFidLimit(t *testing.T) { // R10, R11
	s := &Server{Root: newWorld(), Limits: Limits{Fids: 100}}
	c := dial(t, s, asGlenda).start("9P2000.L")
	for i := range 99 {
		c.must("Twalk fid 0 newfid %d names hello", i+1)
	}
	c.refused(24, "", "Twalk fid 0 newfid 1000 names hello")
	c.refused(24, "", "Tattach fid 1000 uname root")
	c.refused(9, "", "Twalk fid 0 newfid ~0")
	for range 1000 {
		c.refused(2, "", "Tauth afid 1000 uname root")
		c.refused(9, "", "Twalk fid 0 newfid 1")
	}
	c.must("Tclunk fid 1")
	c.must("Twalk fid 0 newfid 1 names hello")
	c.hangUp()
	if n := s.count.fids.Load(); n != 0 {
		t.Errorf("%d fids are left", n)
	}
}

// TestUnread: a client that sends and does not read costs no more than some messages, is closed after a while, and
// keeps nobody else waiting (R12).
func TestUnread(t *testing.T) {
	w := newWorld()
	s := &Server{Root: w, Limits: Limits{Stall: 300 * time.Millisecond}}
	c := dial(t, s, asRoot).start("9P2000.L")
	c.open(1, "zeros", "r")
	req := frame(t, true, "Tread fid 1 offset 0 count 65000")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	sent := 0
	var err error
	c.c.Write(bytes.Repeat(req, 340)) // as many as one read takes
	for i := 0; err == nil; i++ {     // ends because the server hangs up
		binary.LittleEndian.PutUint16(req[5:], uint16(i))
		_, err = c.c.Write(req)
		sent++
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("%d MB were used", n>>20)
	}
	if sent > 100000 {
		t.Errorf("%d requests were taken", sent)
	}
	c.hangUp()
	if err := <-c.served; err != errStalled {
		t.Errorf("served: %v", err)
	}
	c.served <- nil
}

// TestUnreadFlush: replies of blocked reads that nobody takes wait too, and when they are taken a flush is still
// right: no data of the flushed read behind its Rflush.
func TestUnreadFlush(t *testing.T) {
	w := newWorld()
	c := dial(t, &Server{Root: w}, asRoot).start("9P2000.L")
	c.open(1, "big", "r")
	const n = 500
	for i := range n {
		c.say(fmt.Sprintf("Tread tag %d fid 1 offset 0 count 65000", i))
	}
	w.blocked(t, n)
	close(w.end) // 500 replies of 16 kB, and nobody reads
	var flushes []string
	for i := range n {
		flushes = append(flushes, fmt.Sprintf("Tflush tag %d oldtag %d", n+i, i))
	}
	go c.say(flushes...)
	flushed := map[int]bool{}
	for len(flushed) < n {
		switch m := c.recv(); {
		case m.Type == styx.Rflush:
			flushed[int(m.Tag)-n] = true
		case m.Type != styx.Rread || flushed[int(m.Tag)]:
			t.Fatalf("tag %d type %s", m.Tag, m.Type)
		}
	}
}

// TestAccounts: one user has no more than his share, on however many connections, also those that others have too; a second
// and root have theirs (R10, R13).
func TestAccounts(t *testing.T) {
	w := newWorld()
	s := &Server{Root: w, Users: people{}, Limits: Limits{Fids: 8}, Accounts: fs.NewAccounts(0, fs.Quota{fs.Fids: 10, fs.Requests: 6, fs.Memory: 5000, fs.Descriptors: 3}, fs.Quota{})}
	for range 3 { // and leaves nothing
		shared := dial(t, s, asMount).start("9P2000.L")
		shared.must("Tattach fid 1 uname glenda")
		own := dial(t, s, asGlenda).start("9P2000.L")
		n := 2
		fids := func(c *client, from int) {
			for ; ; n++ {
				if m := c.rpc("Twalk fid %d newfid %d", from, 100+n); m.Type != styx.Rwalk {
					if m.Ecode != 24 {
						t.Errorf("%s", m)
					}
					return
				}
			}
		}
		if fids(own, 0); n != 9 {
			t.Errorf("%d fids, one of them on the other connection", n)
		}
		if fids(shared, 1); n != 10 {
			t.Errorf("%d fids on both", n)
		}
		for i := range 50 {
			shared.must("Twalk fid 0 newfid %d", 200+i)
		}
		own.must("Tclunk fid 102")
		own.open(5, "stuck", "rw")
		for i := range 6 {
			own.say(fmt.Sprintf("Tread tag %d fid 5 offset 0 count 9", i))
		}
		w.blocked(t, 6)
		own.refused(16, "", "Tread tag 6 fid 5 offset 0 count 9")
		shared.refused(16, "", "Tgetattr tag 6 fid 1 mask 1")
		shared.must("Tgetattr tag 6 fid 0 mask 1")
		own.must("Tflush tag 7 oldtag 0")
		own.say(fmt.Sprintf("Twrite tag 0 fid 5 offset 0 data %s", strings.Repeat("x", 4000)))
		w.blocked(t, 6)
		own.must("Tflush tag 7 oldtag 1")
		own.refused(105, "", "Twrite tag 1 fid 5 offset 0 data %s", strings.Repeat("x", 2000))
		third, more := dial(t, s, asGlenda), dial(t, s, asGlenda)
		third.must("Tversion msize 8192 version 9P2000.L")
		more.must("Tversion msize 8192 version 9P2000.L")
		last := dial(t, s, asGlenda)
		if _, err := last.r.Next(); err == nil {
			t.Error("one descriptor too many")
		}
		for _, c := range []*client{shared, own, third, more} {
			c.hangUp()
		}
		w.blocked(t, 0)
	}
}

func TestManyConnections(t *testing.T) { // R13
	s := &Server{Root: newWorld(), Limits: Limits{Conns: 3}}
	for range 3 {
		dial(t, s, asGlenda).start("9P2000")
		dial(t, s, asNobody).start("9P2000")
	}
	for range 10 {
		dial(t, s, asRoot).start("9P2000")
	}
	dial(t, s, Peer{Proven: true, Uid: 1001}).start("9P2000")
	for _, p := range []Peer{asGlenda, asNobody} {
		c := dial(t, s, p)
		if _, err := c.r.Next(); err == nil {
			t.Error("one connection too many")
		}
	}
	if got := s.Stats(); !strings.Contains(got, "ctrfs_connections 17\n") {
		t.Errorf("%s", got)
	}
}

// TestSlow: one byte at a time is not enough to keep a connection (R20).
func TestSlow(t *testing.T) {
	s := &Server{Root: newWorld(), Limits: Limits{Hello: 100 * time.Millisecond, Frame: 100 * time.Millisecond}}
	silent, slow, begun := dial(t, s, asRoot), dial(t, s, asRoot).start("9P2000"), dial(t, s, asRoot)
	begun.c.Write([]byte{19, 0})
	slow.must("Tstat fid 0")
	go func() {
		for _, b := range frame(t, false, "Twrite fid 0 offset 0 data %s", strings.Repeat("x", 4000)) {
			if _, err := slow.c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	for want, c := range map[error]*client{errHello: silent, errSlow: slow} {
		if _, err := c.r.Next(); err == nil {
			t.Error("a reply")
		}
		c.hangUp()
		if err := <-c.served; err != want {
			t.Errorf("served: %v, want %v", err, want)
		}
		c.served <- nil
	}
	if _, err := begun.r.Next(); err == nil {
		t.Error("a reply")
	}
}

// TestDeaf: a request that blocks where no context ends it does not keep the connection from reading, nor do many.
func TestDeaf(t *testing.T) {
	w := newWorld()
	c := dial(t, &Server{Root: w}, asRoot).start("9P2000.L")
	c.open(1, "deaf", "r")
	for i := range 50 {
		c.say(fmt.Sprintf("Tread tag %d fid 1 offset 0 count 10", i))
	}
	c.must("Tgetattr tag 99 fid 0 mask 1")
	w.blocked(t, 50)
	close(w.end)
	for range 50 {
		c.recv()
	}
}

// TestHeld bounds what blocked writes hold.
func TestHeld(t *testing.T) {
	w := newWorld()
	c := dial(t, &Server{Root: w}, asRoot)
	c.must("Tversion msize 1048576 version 9P2000.L")
	c.must("Tattach fid 0 uname root aname ''")
	c.open(1, "stuck", "w")
	for i := range 8 {
		c.send(&styx.Msg{Type: styx.Twrite, Tag: styx.Tag(i), Fid: 1, Data: make([]byte, 1<<20-24)})
	}
	w.blocked(t, 8)
	c.send(&styx.Msg{Type: styx.Twrite, Tag: 9, Fid: 1, Data: make([]byte, 1000)})
	if m := c.recv(); m.Tag != 9 || m.Ecode != 105 {
		t.Errorf("%s", m)
	}
	close(w.end)
	for range 8 {
		c.recv()
	}
	c.must("Twrite fid 1 offset 0 data x")
}

// TestUse races everything that can be done with one fid (C52), with go test -race to look on.
func TestUse(t *testing.T) {
	w := newWorld()
	s := &Server{Root: w, Users: people{}}
	c := dial(t, s, asRoot).start("9P2000.L")
	var wg sync.WaitGroup
	rounds := 2000
	wg.Go(func() {
		for i := range rounds {
			tag := (i * 8) % 60000
			c.say(
				fmt.Sprintf("Twalk tag %d fid 0 newfid 1 names stuck", tag), fmt.Sprintf("Tlopen tag %d fid 1 flags 2", tag+1),
				fmt.Sprintf("Tread tag %d fid 1 offset 0 count 9", tag+2), fmt.Sprintf("Twrite tag %d fid 1 offset 0 data abc", tag+3),
				fmt.Sprintf("Tread tag %d fid 1 offset 0 count 9", tag+4), fmt.Sprintf("Tflush tag %d oldtag %d", tag+5, tag+2+i%3),
				fmt.Sprintf("%s tag %d fid 1", []string{"Tclunk", "Tremove"}[i%2], tag+6),
			)
		}
	})
	count := 0
	for count < rounds*7-rounds { // the flushed ones, reads at least, have no reply of their own, perhaps
		b, err := c.r.Next()
		if err != nil {
			t.Fatal(err)
		}
		m := new(styx.Msg)
		if err := styx.Parse(b, c.d, m); err != nil {
			t.Fatal(err)
		}
		count++
	}
	wg.Wait()
	c.hangUp()
	if w.open.Load() != 0 || s.count.fids.Load() != 0 {
		t.Errorf("%d files open, %d fids", w.open.Load(), s.count.fids.Load())
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
