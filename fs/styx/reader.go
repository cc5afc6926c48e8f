package styx

import (
	"bytes"
	"encoding/binary"
	"io"
)

const (
	// minBuffer is what an idle connection costs, and the largest message before Tversion has said how large they
	// may be.
	minBuffer = 8 << 10
	// maxIdleBuffer is the largest buffer that is kept when nothing is in it.
	maxIdleBuffer = 64 << 10
)

// A Reader cuts a stream of bytes into messages. Many small ones come out of one read. It is not for use by several
// goroutines at once.
type Reader struct {
	r     io.Reader
	msize uint32
	buf   []byte
	last  int   // the message given out last is buf[last:rd]
	rd, w int   // what was read and not yet given out is buf[rd:w]
	err   error // of the last read
}

// NewReader gives a Reader that takes messages of at most 8 KiB until SetMsize says otherwise.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: r, msize: minBuffer}
}

// SetMsize sets the largest size of the messages from now on.
func (r *Reader) SetMsize(n uint32) { r.msize = n }

// size gives the size of the next message, once it is known, and an error if it cannot be one.
func (r *Reader) size() (n int, known bool, err error) {
	if r.w-r.rd < 4 {
		return 0, false, nil
	}
	u := binary.LittleEndian.Uint32(r.buf[r.rd:])
	if u < headerSize || u > r.msize {
		return 0, true, malformed("message of %d bytes: %d to %d are allowed", u, headerSize, r.msize)
	}
	return int(u), true, nil
}

// Buffered says whether Next will return without reading, with a message or an error.
func (r *Reader) Buffered() bool {
	n, known, err := r.size()
	return r.err != nil || known && (err != nil || r.w-r.rd >= n)
}

// Next gives the next message whole, its size included. The bytes are the caller's until Next is called again;
// Take is for longer. The error is io.EOF where the stream ends between messages, io.ErrUnexpectedEOF within one; a
// size that cannot be is an error too, after which the stream has no meaning any more. Errors stay.
func (r *Reader) Next() ([]byte, error) {
	for {
		n, known, err := r.size()
		switch {
		case err != nil:
			return nil, err
		case known && r.w-r.rd >= n:
			r.last = r.rd
			r.rd += n
			return r.buf[r.last:r.rd:r.rd], nil
		case r.err == io.EOF && r.rd < r.w:
			return nil, io.ErrUnexpectedEOF
		case r.err != nil:
			return nil, r.err
		}
		r.fill(n)
	}
}

// Take gives the message that Next gave last, to keep. It may be called once after each Next.
func (r *Reader) Take() []byte {
	b := r.buf[r.last:r.rd:r.rd]
	if r.rd < r.w || len(b) < len(r.buf)/2 {
		return bytes.Clone(b)
	}
	r.buf, r.last, r.rd, r.w = nil, 0, 0, 0
	return b
}

// fill reads once, more of a message of n bytes if n is not 0. The buffer grows with what has come, not with what a
// size claims.
func (r *Reader) fill(n int) {
	switch {
	case r.buf == nil || r.rd == r.w && len(r.buf) > maxIdleBuffer:
		r.buf = make([]byte, minBuffer)
		r.rd, r.w = 0, 0
	case r.rd == r.w:
		r.rd, r.w = 0, 0
	case r.w < len(r.buf):
	case r.rd > 0:
		r.w = copy(r.buf, r.buf[r.rd:r.w])
		r.rd = 0
	default:
		r.buf = append(make([]byte, 0, min(n, 2*len(r.buf))), r.buf...)
		r.buf = r.buf[:cap(r.buf)]
	}
	for range 100 { // as bufio: a reader that gives neither bytes nor an error is broken
		n, err := r.r.Read(r.buf[r.w:])
		r.w += n
		if r.err = err; n > 0 || err != nil {
			return
		}
	}
	r.err = io.ErrNoProgress
}
