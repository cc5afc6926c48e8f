package main

import (
	"encoding/binary"
	"net"
	"os"
	"sync"
	"syscall"

	"ctrfs/fs/styx"

	"golang.org/x/sys/unix"
)

// socketPair gives the two ends of a connection.
func socketPair() (a, b net.Conn, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	var conns [2]net.Conn
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "pair")
		c, e := net.FileConn(f)
		f.Close()
		if e != nil {
			err = e
		}
		conns[i] = c
	}
	return conns[0], conns[1], err
}

// A tap stands between a client and its connection and flushes what the client waits for when it is interrupted, which the
// clients we have cannot do.
type tap struct {
	net.Conn
	dialect styx.Dialect
	in      *styx.Reader
	rest    []byte // of the message that Read is giving

	mu          sync.Mutex // guards what follows, and writing
	out         []byte     // a message that is not yet whole
	waits       map[styx.Tag]bool
	flushes     map[styx.Tag]styx.Tag // of a Tflush what it flushes
	interrupted bool
}

func newTap(conn net.Conn, d styx.Dialect) *tap {
	t := &tap{Conn: conn, dialect: d, in: styx.NewReader(conn), waits: map[styx.Tag]bool{}, flushes: map[styx.Tag]styx.Tag{}}
	t.in.SetMsize(1 << 20)
	return t
}

func (t *tap) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.interrupted {
		return 0, syscall.EINTR
	}
	t.out = append(t.out, p...)
	for len(t.out) >= 7 {
		n := int(binary.LittleEndian.Uint32(t.out))
		if len(t.out) < n {
			break
		}
		var m styx.Msg
		if err := styx.Parse(t.out[:n], t.dialect, &m); err != nil {
			return 0, err
		}
		b := t.out[:n]
		t.out = t.out[n:]
		if m.Type == styx.Tcreate && m.Perm&styx.DMDir != 0 {
			m.Mode = styx.ORead // go9p's client says ORDWR, which a directory cannot be opened for
			b, _ = m.Append(nil, t.dialect)
		}
		t.waits[m.Tag] = true
		if _, err := t.Conn.Write(b); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (t *tap) Read(p []byte) (int, error) {
	for len(t.rest) == 0 {
		b, err := t.in.Next()
		if err != nil {
			return 0, err
		}
		t.rest = t.answer(b)
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// answer gives the message for the client that a message from the server stands for; none for an Rflush that came after
// the answer to what it was to flush.
func (t *tap) answer(b []byte) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	tag := styx.Tag(binary.LittleEndian.Uint16(b[5:]))
	old, ours := t.flushes[tag]
	switch {
	case !ours:
		delete(t.waits, tag)
		return b
	case !t.waits[old]:
		return nil
	}
	delete(t.waits, old)
	m := styx.Msg{Type: styx.Rlerror, Tag: old, Ecode: uint32(syscall.EINTR)}
	if t.dialect == styx.Plain {
		m = styx.Msg{Type: styx.Rerror, Tag: old, Ename: syscall.EINTR.Error()}
	}
	b, _ = m.Append(nil, t.dialect)
	return b
}

// interrupt flushes what the client waits for and lets it ask for no more.
func (t *tap) interrupt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.interrupted {
		return
	}
	t.interrupted = true
	for old := range t.waits {
		m := styx.Msg{Type: styx.Tflush, Tag: 0xff00 + styx.Tag(len(t.flushes)), Oldtag: old}
		t.flushes[m.Tag] = old
		b, _ := m.Append(nil, t.dialect)
		t.Conn.Write(b)
	}
}
