package fs

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// An Event is a change, or a thing that is there.
type Event struct {
	Topic string
	Words []string           // key=value; a value may be anything
	Of    uint64             // the qid of what it is about, 0 if that has none
	See   func(*Client) bool // who may; nil: all
}

// A Feed tells every reader of what happens. Its lines are `TIME SEQ TOPIC key=value...`, SEQ growing by one over all readers.
type Feed struct {
	// Seq is where the last SEQ is; nil: the first is 1.
	Seq *uint64

	mu   sync.Mutex // guards what follows, and *Seq
	subs map[*subscriber]struct{}
}

// unread is how many bytes of events a reader may fall behind.
const unread = 256 << 10

// A subscriber is one open events file.
type subscriber struct {
	*LogReader
	feed    *Feed
	client  *Client
	want    func(Event) bool
	pending []string // what happened before the present was written; nil afterwards
	ready   bool
	lost    int // lines that found no room
}

// Put tells of an event. It never waits for a reader.
func (f *Feed) Put(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*f.number()++
	line := ""
	for s := range f.subs {
		if s.want != nil && !s.want(e) || e.See != nil && !e.See(s.client) {
			continue
		}
		if line == "" {
			line = f.line(e)
		}
		if !s.ready {
			s.pending = append(s.pending, line)
		} else {
			s.put(line)
		}
	}
}

// number is called with the lock.
func (f *Feed) number() *uint64 {
	if f.Seq == nil {
		f.Seq = new(uint64)
	}
	return f.Seq
}

func (f *Feed) line(e Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d %s", Time(time.Now()), *f.number(), e.Topic)
	for _, w := range e.Words {
		b.WriteByte(' ')
		k, v, _ := strings.Cut(w, "=")
		b.WriteString(k + "=")
		if v != "" {
			b.WriteString(Quote(v))
		}
	}
	b.WriteByte('\n')
	return b.String()
}

// put writes a line, after one that says how much is lost if some did not fit. The feed's lock is held.
func (s *subscriber) put(line string) {
	if s.tell(); s.lost > 0 || !s.log.TryWrite([]byte(line)) {
		s.lost++
	}
}

// tell says how much is lost, if there is room. The feed's lock is held.
func (s *subscriber) tell() {
	if s.lost > 0 && s.log.TryWrite([]byte(fmt.Sprintf("%s %d lost %d\n", Time(time.Now()), *s.feed.number(), s.lost))) {
		s.lost = 0
	}
}

// Read gives the line about what is lost as soon as all before it was read, not only when something happens next.
func (s *subscriber) Read(ctx context.Context, off int64, n int) ([]byte, error) {
	s.feed.mu.Lock()
	if s.lost > 0 && s.passed(off, ClientOf(ctx).Gathers) {
		s.tell()
	}
	s.feed.mu.Unlock()
	return s.LogReader.Read(ctx, off, n)
}

// Open gives the events that the client of ctx may see and want lets through: first what is there now, as present
// gives it, then one line `ready`, then each change, none between the two missing.
func (f *Feed) Open(ctx context.Context, want func(Event) bool, present func(context.Context) []Event) (Handle, error) {
	l := NewLog(unread, ClientOf(ctx).Account)
	s := &subscriber{LogReader: l.Open(false), feed: f, client: ClientOf(ctx), want: want}
	f.mu.Lock()
	if f.subs == nil {
		f.subs = map[*subscriber]struct{}{}
	}
	f.subs[s] = struct{}{}
	f.mu.Unlock()
	now := present(ctx) // without the lock: it asks the kernel
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range append(now, Event{Topic: "ready"}) {
		s.put(f.line(e))
	}
	for _, line := range s.pending {
		s.put(line)
	}
	s.pending, s.ready = nil, true
	return s, nil
}

func (s *subscriber) Close(ctx context.Context) error {
	s.feed.mu.Lock()
	delete(s.feed.subs, s)
	s.feed.mu.Unlock()
	s.log.Close()
	return s.LogReader.Close(ctx)
}
