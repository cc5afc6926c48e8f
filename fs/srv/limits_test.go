package srv

import (
	"bytes"
	"ctrfs/fs"
	"ctrfs/fs/styx"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

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
		clock := time.NewTicker(time.Millisecond)
		defer clock.Stop()
		for _, b := range frame(t, false, "Twrite fid 0 offset 0 data %s", strings.Repeat("x", 4000)) {
			<-clock.C
			if _, err := slow.c.Write([]byte{b}); err != nil {
				return
			}
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
