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

// A dir is an open directory: its listing as it was when it was read at offset 0.
type dir struct {
	mu   sync.Mutex // guards what follows
	list []fs.Entry
	read bool

	// 9P2000: the last read's place, which a client whose read was flushed asks for again, and the next one's
	last, next spot
}

// A spot is an offset and the index of the entry there.
type spot struct {
	off int64
	i   int
}

// listing gives the listing, made anew at the start.
func (r *req) listing(d *dir, start bool) ([]fs.Entry, error) {
	d.mu.Lock()
	list, read := d.list, d.read
	d.mu.Unlock()
	if read && !start {
		return list, nil
	}
	list, err := fs.Contents(r, r.fid.at.Load().node)
	if err != nil {
		return nil, err
	}
	account := r.fid.account()
	if err := account.Take(fs.Memory, entrySize*int64(len(list))); err != nil {
		return nil, err
	}
	d.mu.Lock()
	account.Give(fs.Memory, entrySize*int64(len(d.list)))
	d.list, d.read, d.last, d.next = list, true, spot{}, spot{}
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

// readdir is 9P2000.L's: an entry's offset is its index in the listing and one, and so stays what it is whatever
// comes and goes.
func (r *req) readdir(m *styx.Msg) error {
	o := r.fid.open.Load()
	if o == nil || o.h != nil {
		return errBadUse
	}
	list, err := r.listing(o.dir, m.Offset == 0)
	if err != nil {
		return err
	}
	at := r.fid.at.Load()
	up := at.up
	if up == nil {
		up = at
	}
	count := int(min(m.Count, r.c.msize-headerSize-4))
	var b []byte
	for i := m.Offset; i < uint64(len(list))+2; i++ {
		start := len(b)
		switch i {
		case 0:
			b, err = styx.AppendDirent(b, at.qid, i+1, syscall.DT_DIR, ".")
		case 1:
			b, err = styx.AppendDirent(b, up.qid, i+1, syscall.DT_DIR, "..")
		default:
			e := list[i-2]
			// DT_DIR and its kin are the type's bits, 12 down; see readdir(3).
			b, err = styx.AppendDirent(b, r.c.qid(e.Qid, e.Type), i+1, uint8(unixType(e.Type)>>12), e.Name)
		}
		if err != nil {
			return err
		}
		if len(b) > count {
			if b = b[:start]; start == 0 {
				return errCount
			}
			break
		}
	}
	m.Data = b
	return nil
}

// dirread is 9P2000's: whole stat records, each made when its turn comes; what has gone by then is left out.
func (r *req) dirread(d *dir, count int) ([]byte, error) {
	if r.c.dialect == styx.Linux {
		return nil, fs.ErrIsDir
	}
	list, err := r.listing(d, r.off == 0)
	if err != nil {
		return nil, err
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
	i := at.i
	for ; i < len(list); i++ {
		start := len(b)
		rec, err := r.entry(n, list[i].Name)
		if err != nil {
			return nil, err
		}
		if rec == nil {
			continue
		}
		if b, err = rec.Append(b); err != nil {
			return nil, err
		}
		if len(b) > count {
			if b = b[:start]; start == 0 {
				return nil, errCount
			}
			break
		}
	}
	d.mu.Lock()
	d.last, d.next = at, spot{at.off + int64(len(b)), i}
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
