package styx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func frame(size int) []byte {
	b := bytes.Repeat([]byte{byte(size)}, size)
	return resize(b)
}

// chunks reads like a connection on which the bytes come in pieces of the given sizes, over and over.
type chunks struct {
	b     []byte
	sizes []byte
	reads int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := len(c.b)
	if len(c.sizes) > 0 {
		n = int(c.sizes[c.reads%len(c.sizes)]) + 1
	}
	c.reads++
	n = copy(p, c.b[:min(n, len(c.b))])
	c.b = c.b[n:]
	return n, nil
}

func TestReaderPipelined(t *testing.T) {
	var in []byte
	for range 100 {
		in = append(in, frame(11)...)
	}
	c := &chunks{b: in}
	r := NewReader(c)
	for i := range 100 {
		if got := r.Buffered(); got != (i > 0) {
			t.Fatalf("before message %d: buffered %v", i, got)
		}
		if b, err := r.Next(); err != nil || !bytes.Equal(b, frame(11)) {
			t.Fatalf("message %d: %x, %v", i, b, err)
		}
	}
	if c.reads != 1 {
		t.Errorf("%d reads for 100 messages", c.reads)
	}
	if r.Buffered() {
		t.Error("buffered at the end")
	}
	if _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
}

func TestReaderSize(t *testing.T) {
	for _, test := range []struct{ size, msize uint32 }{
		{0, 8192}, {1, 8192}, {3, 8192}, {6, 8192}, {8193, 8192}, {1 << 31, 8192}, {1<<32 - 1, 8192}, {65537, 65536}, {8, 7},
	} {
		in := binary.LittleEndian.AppendUint32(frame(7), test.size)
		c := &chunks{b: append(in, make([]byte, 100)...)}
		r := NewReader(c)
		r.SetMsize(test.msize)
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if !r.Buffered() {
			t.Errorf("size %d: Next would read on", test.size)
		}
		for range 2 {
			if b, err := r.Next(); err == nil {
				t.Errorf("size %d of at most %d: %d bytes", test.size, test.msize, len(b))
			}
		}
		if c.reads != 1 || len(r.buf) != minBuffer {
			t.Errorf("size %d: %d reads, %d bytes of memory", test.size, c.reads, len(r.buf))
		}
	}
}

// TestReaderGrows: a size that is allowed costs memory only as its bytes come, and the memory goes when they are gone.
func TestReaderGrows(t *testing.T) {
	const size = 1 << 20
	pr, pw := io.Pipe()
	defer pw.Close()
	r := NewReader(pr)
	r.SetMsize(size)
	got := make(chan []byte)
	go func() {
		defer close(got)
		for {
			b, err := r.Next()
			if err != nil {
				return
			}
			got <- bytes.Clone(b)
		}
	}()
	whole := frame(size)
	pw.Write(whole[:100]) // returns when it has been read
	if len(r.buf) != minBuffer {
		t.Errorf("%d bytes of memory for 100 of %d bytes", len(r.buf), size)
	}
	pw.Write(whole[100 : minBuffer+1])
	if len(r.buf) > 2*minBuffer {
		t.Errorf("%d bytes of memory for %d of %d bytes", len(r.buf), minBuffer+1, size)
	}
	go pw.Write(whole[minBuffer+1:])
	if b := <-got; !bytes.Equal(b, whole) {
		t.Error("not what was written")
	}
	pw.Write(frame(7)[:1])
	if len(r.buf) > maxIdleBuffer {
		t.Errorf("%d bytes of memory kept", len(r.buf))
	}
	pw.Close()
	<-got
}

func TestReaderTake(t *testing.T) {
	for _, sizes := range [][]int{{11, 11, 11}, {5000, 7, 8192}, {8192, 8192, 9}, {7, 100000, 7}, {30000, 30000, 30000}} {
		var in []byte
		for _, n := range sizes {
			in = append(in, frame(n)...)
		}
		r := NewReader(bytes.NewReader(in))
		r.SetMsize(1 << 20)
		var taken [][]byte
		for range sizes {
			b, err := r.Next()
			if err != nil {
				t.Fatal(sizes, err)
			}
			if k := r.Take(); bytes.Equal(k, b) {
				taken = append(taken, k)
			}
		}
		if _, err := r.Next(); err != io.EOF {
			t.Error(sizes, err)
		}
		if got := slices.Concat(taken...); !bytes.Equal(got, in) {
			t.Errorf("%v: what was taken has changed", sizes)
		}
	}
}

func TestReaderErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		r      io.Reader
		frames int
		err    error
	}{
		{strings.NewReader(""), 0, io.EOF},
		{bytes.NewReader(frame(9)[:3]), 0, io.ErrUnexpectedEOF},
		{bytes.NewReader(frame(9)[:8]), 0, io.ErrUnexpectedEOF},
		{iotest.DataErrReader(bytes.NewReader(frame(9))), 1, io.EOF},
		{io.MultiReader(bytes.NewReader(frame(9)), iotest.ErrReader(broken)), 1, broken},
		{stuck{}, 0, io.ErrNoProgress},
	} {
		r := NewReader(test.r)
		n := 0
		var err error
		for ; err == nil; n++ {
			_, err = r.Next()
		}
		if n-1 != test.frames || err != test.err {
			t.Errorf("%d messages, %v, want %d, %v", n-1, err, test.frames, test.err)
		}
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// FuzzReader: what comes out does not depend on how it comes in, and memory only on what has come in.
func FuzzReader(f *testing.F) {
	f.Add(slices.Concat(frame(7), frame(11), frame(300), frame(7)), []byte{0, 5, 200})
	f.Add(slices.Concat(frame(20000), frame(7)), []byte{255})
	f.Add(append(frame(8), 255, 255, 255, 255), []byte{1})
	f.Add([]byte{6, 0, 0, 0}, []byte{})
	f.Add(slices.Concat(frame(20000), frame(7)), []byte{250, 250}) // a buffer stays for the next message
	f.Fuzz(func(t *testing.T, in, sizes []byte) {
		const msize = 32 << 10
		r := NewReader(&chunks{b: in, sizes: sizes})
		r.SetMsize(msize)
		for rest := in; ; {
			ready := r.Buffered()
			b, err := r.Next()
			if len(r.buf) > min(max(minBuffer, 2*len(in)), msize) {
				t.Fatalf("%d bytes of memory for %d", len(r.buf), len(in))
			}
			n := 0
			if len(rest) >= 4 {
				n = int(binary.LittleEndian.Uint32(rest))
			}
			switch {
			case len(rest) == 0:
				if err != io.EOF || ready {
					t.Fatal("at the end:", err, ready)
				}
				return
			case len(rest) >= 4 && (n < headerSize || n > msize):
				if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF {
					t.Fatalf("size %d: %v", n, err)
				}
				return
			case len(rest) < max(n, 4):
				if err != io.ErrUnexpectedEOF {
					t.Fatalf("%d of %d bytes: %v", len(rest), n, err)
				}
				return
			}
			if err != nil || !bytes.Equal(b, rest[:n]) {
				t.Fatalf("%x, %v, want %x", b, err, rest[:n])
			}
			if rest = rest[n:]; len(sizes)%2 == 1 && !bytes.Equal(r.Take(), b) {
				t.Fatal("took another message")
			}
		}
	})
}
