package fs

import (
	"context"
	"errors"
	"math"
	"sync"
	"syscall"
)

// A Log is output of which every reader gets every byte, the offset counting from its first byte. The last bytes are
// kept, also after its end. While somebody has the log open the writer waits rather than that he loses a byte; while
// nobody has, the oldest bytes go and the writer never waits.
type Log struct {
	mu         sync.Mutex // guards what follows
	kept       store
	account    *Account
	size       int64 // how much is to be kept
	granted    int64 // how much of that is on the account
	most       int64 // how much is kept for now
	start, end int64 // offsets of the oldest byte kept and behind the newest
	closed     bool
	released   bool // nobody will open it any more
	drained    bool // somebody has read it to its end
	readers    map[*LogReader]struct{}
	grown      chan struct{} // closed when there is more, or the end; made by who waits
	room       chan struct{} // closed when a reader has gone on or away; made by who waits
}

// A store is where the bytes of a log are, each at its offset.
type store interface {
	// put adds p at end, where start will be the oldest byte that is wanted.
	put(p []byte, start, end int64) error
	// get gives the bytes from off on, all of them kept.
	get(p []byte, off int64) error
	// drop says that nobody wants what is before start.
	drop(start, end int64)
	close()
}

// NewLog makes a log in memory that keeps the last size bytes, or fewer where an account does not go as far.
func NewLog(size int, on *Account) *Log {
	return newLog(&ring{size: int64(size)}, size, on)
}

func newLog(kept store, size int, on *Account) *Log {
	return &Log{kept: kept, size: int64(size), account: on, readers: map[*LogReader]struct{}{}}
}

// leastKept is how much a log keeps whatever its account says.
const leastKept = 4096

// fit lets the log keep n bytes more, as far as its size and its account go. Called with the lock.
func (l *Log) fit(n int64) {
	want := min(l.size, l.end-l.start+n)
	for _, more := range []int64{max(want, min(2*l.granted, l.size)) - l.granted, want - l.granted} {
		if want > l.granted && l.account.Take(Memory, more) == nil {
			l.granted += more
		}
	}
	l.most = min(l.size, max(l.granted, leastKept))
}

// Write adds p, waiting while a reader would lose bytes.
func (l *Log) Write(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		if err := l.Room(ctx); err != nil {
			return err
		}
		l.mu.Lock()
		n := min(int64(len(p)), l.free(int64(len(p))))
		err := l.put(p[:n])
		l.mu.Unlock()
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// Room waits until a byte can be added without that a reader loses one.
func (l *Log) Room(ctx context.Context) error {
	for {
		l.mu.Lock()
		if l.free(1) > 0 {
			l.mu.Unlock()
			return nil
		}
		if l.room == nil {
			l.room = make(chan struct{})
		}
		room := l.room
		l.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TryWrite adds p whole if no reader would lose a byte by it.
func (l *Log) TryWrite(p []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := int64(len(p))
	return l.free(n) >= n && l.put(p) == nil
}

// free says how much may be written, if it is to be n bytes: what the slowest reader may still want (he may step back to where his last read
// began) is not to be overwritten.
func (l *Log) free(n int64) int64 {
	l.fit(n)
	oldest := int64(math.MaxInt64)
	for r := range l.readers {
		oldest = min(oldest, max(r.place, l.start))
	}
	if oldest == math.MaxInt64 {
		return l.most
	}
	return l.most - (l.end - oldest)
}

// put adds at most as many bytes as are kept, which may push the oldest out.
func (l *Log) put(p []byte) error {
	if err := l.kept.put(p, max(l.start, l.end+int64(len(p))-l.most), l.end); err != nil {
		return err
	}
	l.added(int64(len(p)))
	return nil
}

// added notes that the store has n bytes more.
func (l *Log) added(n int64) {
	l.end += n
	l.start = max(l.start, l.end-l.most)
	l.kept.drop(l.start, l.end)
	wake(&l.grown)
}

func wake(c *chan struct{}) {
	if *c != nil {
		close(*c)
		*c = nil
	}
}

// End says that nothing more will be written: a reader who has read all gets 0 bytes from now on.
func (l *Log) End() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	wake(&l.grown)
}

// Close lets go of what the log is kept in, once the last who has it open closes it.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.released = true
	l.release()
}

// release is called with the lock.
func (l *Log) release() {
	if l.released && len(l.readers) == 0 {
		l.kept.close()
		l.kept = closed{}
		l.account.Give(Memory, l.granted)
		l.account, l.granted = nil, 0
	}
}

// Drained says whether the log has ended and somebody has read it to its end, or nothing was ever written.
func (l *Log) Drained() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed && (l.end == 0 || l.drained)
}

// Open gives a reader. Follow: it ignores the offsets of its reads and goes on from the oldest byte kept.
func (l *Log) Open(follow bool) *LogReader {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &LogReader{log: l, follow: follow, place: l.start, next: l.start}
	l.readers[r] = struct{}{}
	return r
}

// stepBack is how far a client that gathers several reads into one read(2) may go back behind the last of them. bash's
// read takes 4096 bytes and goes back to the end of its line.
const stepBack = 64 << 10

// A LogReader is an open log; see Handle.
type LogReader struct {
	log    *Log
	follow bool

	// guarded by log.mu
	place int64 // the reader may step back to here
	next  int64 // follow: the offset to go on from
	shift int64 // how many bytes were lost to the reader, who does not count them
	batch bool  // bytes were given, and no 0 bytes since
}

func (r *LogReader) Read(ctx context.Context, off int64, n int) ([]byte, error) {
	l := r.log
	gathers := ClientOf(ctx).Gathers
	for {
		l.mu.Lock()
		b, wait, err := r.get(off, n, gathers)
		l.mu.Unlock()
		if wait == nil {
			return b, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// get gives bytes, or what to wait for.
func (r *LogReader) get(off int64, n int, gathers bool) ([]byte, <-chan struct{}, error) {
	l := r.log
	off += r.shift
	if r.follow {
		off = r.next // absolute already
	}
	switch {
	case n <= 0:
		return nil, nil, nil
	case off < l.start:
		lost := l.start - off
		r.shift += lost
		r.next, r.place = l.start, l.start
		return nil, nil, Err(syscall.EIO, "output lost: %d bytes", lost)
	case off < l.end:
		end := min(l.end, off+int64(n))
		b := make([]byte, end-off)
		if err := l.kept.get(b, off); err != nil {
			return nil, nil, err
		}
		if gathers && r.batch { // still the same read(2)
			r.place = max(min(r.place, off), off-stepBack)
		} else {
			r.place = off
		}
		r.next, r.batch = end, true
		wake(&l.room)
		return b, nil, nil
	case l.closed:
		l.drained = true
		return nil, nil, nil
	case gathers && r.batch:
		r.batch = false
		return nil, nil, nil
	}
	r.place = min(off, l.end)
	wake(&l.room)
	if l.grown == nil {
		l.grown = make(chan struct{})
	}
	return nil, l.grown, nil
}

// passed notes that the reader has read what is before off, if that is all there is, and begins a new read(2).
func (r *LogReader) passed(off int64, gathers bool) bool {
	l := r.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if off+r.shift < l.end || gathers && r.batch {
		return false
	}
	r.place = l.end
	return true
}

// Unread makes a reader that follows get the bytes p of its last read again.
func (r *LogReader) Unread(_ context.Context, p []byte) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if r.follow {
		r.next = max(r.place, r.next-int64(len(p)))
	}
}

func (r *LogReader) Write(context.Context, int64, []byte) (int, error) { return 0, ErrPerm }

// Close lets the writer go on.
func (r *LogReader) Close(context.Context) error {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	delete(r.log.readers, r)
	wake(&r.log.room)
	r.log.release()
	return nil
}

// closed is the store of a log that was closed.
type closed struct{}

var errClosed = errors.New("output is no longer kept")

func (closed) put([]byte, int64, int64) error { return errClosed }
func (closed) get([]byte, int64) error        { return errClosed }
func (closed) drop(int64, int64)              {}
func (closed) close()                         {}
