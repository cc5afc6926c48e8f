package srv

import (
	"errors"
	"sync"
	"syscall"

	"ctrfs/fs"
	"ctrfs/fs/styx"
)

var (
	errDirOffset = fs.Err(syscall.ESPIPE, "bad offset in directory read")
	errCount     = fs.Err(syscall.EINVAL, "count too small for a directory entry")
)

// A dir is an open directory: its listing as it was when it was read at offset 0, or what gives it in pieces.
type dir struct {
	pages fs.Lister // nil: it is listed at once

	mu   sync.Mutex // guards what follows
	list []fs.Entry
	read bool

	// 9P2000: the last read's place, which a client whose read was flushed asks for again, and the next one's
	last, next spot
}

// A spot is an offset and where in the listing that is.
type spot struct {
	off int64
	at  uint64
}

// listing gives the listing, made anew at the start.
func (r *req) listing(d *dir, start bool) ([]fs.Entry, error) {
	d.mu.Lock()
	list, read := d.list, d.read
	d.mu.Unlock()
	if read && !start {
		return list, nil
	}
	found, err := fs.Contents(r, r.fid.at.Load().node)
	if err != nil {
		return nil, err
	}
	list = append(make([]fs.Entry, 0, 2+len(found)), fs.Entry{Name: ".", Type: fs.ModeDir}, fs.Entry{Name: "..", Type: fs.ModeDir})
	list = append(list, found...)
	for i := range list {
		list[i].Next = uint64(i) + 1
	}
	account := r.fid.account()
	if err := account.Take(fs.Memory, entrySize*int64(len(list))); err != nil {
		return nil, err
	}
	d.mu.Lock()
	account.Give(fs.Memory, entrySize*int64(len(d.list)))
	d.list, d.read = list, true
	d.mu.Unlock()
	return list, nil
}

// entrySize is about what an entry of a listing takes.
const entrySize = 64

// forget lets go of the listing.
func (d *dir) forget(account *fs.Account) {
	d.mu.Lock()
	defer d.mu.Unlock()
	account.Give(fs.Memory, entrySize*int64(len(d.list)))
	d.list = nil
}

// from gives entries of the listing at a place and after it; none at the end. The place of the next is in one listing its
// index, and so stays what it is whatever comes and goes.
func (r *req) from(d *dir, at uint64, start bool) ([]fs.Entry, error) {
	if d.pages != nil {
		return d.pages.From(r, at)
	}
	list, err := r.listing(d, start)
	return list[min(at, uint64(len(list))):], err
}

// readdir is 9P2000.L's.
func (r *req) readdir(m *styx.Msg) error {
	o := r.fid.open.Load()
	if o == nil || o.h != nil {
		return errBadUse
	}
	here := r.fid.at.Load()
	up := here.up
	if up == nil {
		up = here
	}
	count := int(min(m.Count, r.c.msize-headerSize-4))
	var b []byte
	for at, start := m.Offset, m.Offset == 0; ; start = false {
		list, err := r.from(o.dir, at, start)
		if err != nil {
			return err
		}
		for _, e := range list {
			qid := r.c.qid(e.Qid, e.Type)
			switch e.Name {
			case ".":
				qid = here.qid
			case "..":
				qid = up.qid
			}
			whole := len(b)
			// DT_DIR and its kin are the type's bits, 12 down; see readdir(3).
			if b, err = styx.AppendDirent(b, qid, e.Next, uint8(fs.Unix(e.Type)>>12), e.Name); err != nil {
				return err
			}
			if len(b) > count {
				if whole == 0 {
					return errCount
				}
				m.Data = b[:whole]
				return nil
			}
			at = e.Next
		}
		if len(list) == 0 {
			m.Data = b
			return nil
		}
	}
}

// dirread is 9P2000's: whole stat records, each made when its turn comes; what has gone by then is left out.
func (r *req) dirread(d *dir, count int) ([]byte, error) {
	if r.c.dialect == styx.Linux {
		return nil, fs.ErrIsDir
	}
	if r.off == 0 {
		d.mu.Lock()
		d.last, d.next = spot{}, spot{}
		d.mu.Unlock()
	}
	d.mu.Lock()
	at := d.next
	if r.off == d.last.off {
		at = d.last
	}
	d.mu.Unlock()
	if r.off != at.off {
		return nil, errDirOffset
	}
	p := r.fid.at.Load()
	n, ok := p.node.(fs.Dir)
	if !ok {
		return nil, fs.ErrNotDir
	}
	var b []byte
	next, start := at.at, r.off == 0
	for full := false; !full; start = false {
		list, err := r.from(d, next, start)
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			break
		}
		for _, e := range list {
			if e.Name != "." && e.Name != ".." {
				whole := len(b)
				rec, err := r.entry(n, e.Name)
				if err == nil && rec != nil {
					b, err = rec.Append(b)
				}
				if err != nil {
					return nil, err
				}
				if full = len(b) > count; full {
					if b = b[:whole]; whole == 0 {
						return nil, errCount
					}
					break
				}
			}
			next = e.Next
		}
	}
	d.mu.Lock()
	d.last, d.next = at, spot{at.off + int64(len(b)), next}
	d.mu.Unlock()
	return b, nil
}

// entry describes what a directory has by a name; nil if that has gone.
func (r *req) entry(d fs.Dir, name string) (*styx.Dir, error) {
	n, err := d.Walk(r, name)
	if err == nil {
		var st fs.Stat
		if st, err = n.Stat(r); err == nil {
			return r.record(st, name), nil
		}
	}
	if r.Err() != nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
		return nil, err
	}
	return nil, nil
}
