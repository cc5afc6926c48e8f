package fs

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// OpenLog makes a log of a file in memory (memfd_create(2)), which others may hold too so that the log outlives this
// program: its position is the number of bytes that were ever written, and what is older than the last size bytes is a
// hole. The file is the log's. On is as for NewLog.
func OpenLog(f *os.File, size int, on *Account) (*Log, error) {
	end, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	l := newLog(&file{f: f, fd: int(f.Fd())}, size, on)
	l.start, l.end = max(0, end-int64(size)), end
	return l, nil
}

// ErrFull says that the next byte would push out one that a reader may still want; see Room.
var ErrFull = errors.New("log is full")

// spliceMost is how much Splice moves at a time: what a pipe has as a rule.
const spliceMost = 64 << 10

// Splice moves what is in a pipe to the end of the log, which has a file, and gives the number of bytes: 0 when nobody
// can write to the pipe any more. It waits for nothing; the error is EAGAIN when nothing is there. The bytes leave the
// pipe and are counted in one system call, so that the end of this program at any moment loses none and doubles none.
func (l *Log) Splice(pipe int) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, ok := l.kept.(*file)
	if !ok {
		return 0, errClosed
	}
	room := l.free(spliceMost)
	if room <= 0 {
		return 0, ErrFull
	}
	n, err := Splice(pipe, f.fd, int(min(room, spliceMost)))
	if n > 0 {
		l.added(int64(n))
	}
	return n, err
}

// Splice moves at most n bytes from or to a pipe without waiting; see splice(2).
func Splice(from, to, n int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return int(max(n, 0)), err
		}
	}
}

// A file is the store of a log that outlives this program.
type file struct {
	f    *os.File
	fd   int
	hole int64 // what is before is not there
}

func (f *file) put(p []byte, _, _ int64) error {
	_, err := f.f.Write(p)
	return err
}

func (f *file) get(p []byte, off int64) error {
	_, err := f.f.ReadAt(p, off)
	return err
}

// holeLeast is how much there must be to give back before it is given back, if more than that is kept.
const holeLeast = 256 << 10

func (f *file) drop(start, end int64) {
	keep := end - start
	start -= start % int64(os.Getpagesize())
	if start-f.hole < max(min(holeLeast, keep), 1) {
		return
	}
	// Where it fails more memory is used than need be.
	if unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, f.hole, start-f.hole) == nil {
		f.hole = start
	}
}

func (f *file) close() { f.f.Close() }
