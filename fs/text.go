package fs

import (
	"context"
	"strings"
	"sync"
)

// text serves the text that get makes. Making it may block: no lock is held meanwhile, so other readers of the same
// open file and its writers go on.
type text struct {
	get func(context.Context) (string, error)

	mu   sync.Mutex // guards what follows
	made bool
	s    string
	kept kept
	base int64 // offset at which the text begins: a descriptor that has written stands behind what it wrote
}

// NewText is the handle of a file whose text get makes when it is read at offset 0.
func NewText(get func(context.Context) (string, error)) Handle { return &text{get: get} }

func (h *text) Read(ctx context.Context, off int64, n int) ([]byte, error) {
	h.mu.Lock()
	if off < h.base {
		h.base = 0 // rewound
		h.made = h.made && off != 0
	}
	made := h.made && off != h.base
	h.mu.Unlock()
	if !made {
		s, err := h.get(ctx)
		if err != nil {
			return nil, err
		}
		if err := h.keep(ctx, s); err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return cut(h.s, off-h.base, n), nil
}

func (h *text) keep(ctx context.Context, s string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.kept.resize(ClientOf(ctx).Account, len(s)); err != nil {
		return err
	}
	h.s, h.made = s, true
	return nil
}

func cut(s string, off int64, n int) []byte {
	if off < 0 || off >= int64(len(s)) {
		return nil
	}
	s = s[off:]
	return []byte(s[:min(n, len(s))])
}

func (h *text) Write(context.Context, int64, []byte) (int, error) { return 0, ErrPerm }

func (h *text) Close(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.s, h.made = "", false
	h.kept.free()
	return nil
}

// watched is a text for which something goes on while it is open.
type watched struct {
	text
	end func()
}

func (h *watched) Close(ctx context.Context) error {
	h.end()
	return h.text.Close(ctx)
}

// wrote makes the next read at the offset that the client now stands at begin a new text.
func (h *text) wrote(end int64) {
	h.mu.Lock()
	h.base, h.made, h.s = end, false, ""
	h.kept.free()
	h.mu.Unlock()
}

const maxLine = 1 << 20 // what a client may leave unfinished

// lines is a text to which lines are written.
type lines struct {
	text
	empty func(context.Context) error // nil: truncation changes nothing
	add   func(context.Context, string) error

	write sync.Mutex // one write at a time; guards what follows
	rest  string     // a line that the last write has left unfinished
	held  kept       // it
}

// Write takes what is finished line by line. A newline within quotes belongs to its word, and as a quote in a word is
// written twice, a newline ends a line if the number of quotes before it is even.
func (h *lines) Write(ctx context.Context, off int64, p []byte) (int, error) {
	h.write.Lock()
	defer h.write.Unlock()
	if len(h.rest)+len(p) > maxLine {
		return 0, ErrTooLarge
	}
	if err := h.held.resize(ClientOf(ctx).Account, len(h.rest)+len(p)); err != nil {
		return 0, err
	}
	defer func() { h.held.resize(nil, len(h.rest)) }()
	h.rest += string(p)
	quoted, start := false, 0
	for i := 0; i < len(h.rest); i++ {
		switch c := h.rest[i]; {
		case c == '\'':
			quoted = !quoted
		case c == '\n' && !quoted:
			line := h.rest[start:i]
			start = i + 1
			if err := h.take(ctx, line); err != nil {
				h.rest = ""
				return 0, err
			}
		}
	}
	h.rest = h.rest[start:]
	h.wrote(off + int64(len(p)))
	return len(p), nil
}

func (h *lines) take(ctx context.Context, line string) error {
	if strings.TrimSpace(line) == "" {
		return nil
	}
	return h.add(ctx, line)
}

// Truncate forgets the line begun as well.
func (h *lines) Truncate(ctx context.Context) error {
	h.write.Lock()
	defer h.write.Unlock()
	h.rest = ""
	h.held.free()
	if h.empty == nil {
		return nil
	}
	return h.empty(ctx)
}

// Close takes a last line that has no newline.
func (h *lines) Close(ctx context.Context) error {
	h.write.Lock()
	defer h.write.Unlock()
	line := h.rest
	h.rest = ""
	h.held.free()
	h.text.Close(ctx)
	return h.take(ctx, line)
}

// whole is a text that is taken when the file is closed.
type whole struct {
	text
	put func(context.Context, string) error

	write sync.Mutex // guards what follows
	next  []byte
	held  kept // it
	began bool
}

// Write puts p at its offset: what is written need not come in order, as from a mount's page cache.
func (h *whole) Write(ctx context.Context, off int64, p []byte) (int, error) {
	h.write.Lock()
	defer h.write.Unlock()
	end := off + int64(len(p))
	if end > maxLine {
		return 0, ErrTooLarge
	}
	if grow := end - int64(len(h.next)); grow > 0 {
		if err := h.held.resize(ClientOf(ctx).Account, int(end)); err != nil {
			return 0, err
		}
		h.next = append(h.next, make([]byte, grow)...)
	}
	copy(h.next[off:], p)
	h.began = true
	return len(p), nil
}

// Truncate begins anew: the old text stands until the close.
func (h *whole) Truncate(context.Context) error {
	h.write.Lock()
	defer h.write.Unlock()
	h.next = nil
	h.held.free()
	return nil
}

func (h *whole) Close(ctx context.Context) error {
	h.write.Lock()
	defer h.write.Unlock()
	h.held.free()
	h.text.Close(ctx)
	if !h.began {
		return nil
	}
	return h.put(ctx, string(h.next))
}

// NewCtl is the handle of a ctl file: each write is a message for do, whatever its offset; a read gives get's text.
// Closed, if not nil, is called when the file is.
func NewCtl(get func(context.Context) (string, error), do func(context.Context, string) error, closed func(context.Context) error) Handle {
	return &control{text: text{get: get}, do: do, closed: closed}
}

type control struct {
	text
	do     func(context.Context, string) error
	closed func(context.Context) error
}

func (h *control) Write(ctx context.Context, off int64, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := h.do(ctx, string(p)); err != nil {
		return 0, err
	}
	h.wrote(off + int64(len(p)))
	return len(p), nil
}

func (h *control) Close(ctx context.Context) error {
	h.text.Close(ctx)
	if h.closed != nil {
		return h.closed(ctx)
	}
	return nil
}
