package main

import (
	"io"
	"net"
	"testing"

	"ctrfs/fs/styx"
)

// halfLost is a connection whose reader hears of its end before the writer does.
type halfLost struct {
	net.Conn
	writing, told chan struct{}
}

func (c halfLost) Read([]byte) (int, error) {
	<-c.writing
	return 0, io.EOF
}

func (c halfLost) Write([]byte) (int, error) {
	close(c.writing)
	<-c.told
	return 0, io.ErrClosedPipe
}

// TestWireTellsOnce: go9p's client waits for ever when a request's error comes from both sides.
func TestWireTellsOnce(t *testing.T) {
	c := halfLost{writing: make(chan struct{}), told: make(chan struct{})}
	w := newWire(c)
	b, err := (&styx.Msg{Type: styx.Tclunk, Tag: 1, Fid: 1}).Append(nil, styx.Plain)
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error)
	go func() {
		_, err := w.Write(b)
		wrote <- err
	}()
	answer := make([]byte, 512)
	n, err := w.Read(answer)
	close(c.told)
	if err != nil {
		t.Fatal(err)
	}
	var m styx.Msg
	if err := styx.Parse(answer[:n], styx.Plain, &m); err != nil || m.Type != styx.Rerror || m.Tag != 1 {
		t.Errorf("%v, %v", &m, err)
	}
	if err := <-wrote; err != nil {
		t.Errorf("and once more: %v", err)
	}
}
