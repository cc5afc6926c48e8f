package fs

// A ring is the store of a log in memory. It grows up to size.
type ring struct {
	size       int64
	b          []byte
	start, end int64 // what is in it
}

func (r *ring) put(p []byte, start, end int64) error {
	r.start = start
	if need := end + int64(len(p)) - start; int64(len(r.b)) < need {
		r.grow(min(r.size, max(need, 2*int64(len(r.b)))))
	}
	for len(p) > 0 {
		n := copy(r.b[r.end%int64(len(r.b)):], p)
		p, r.end = p[n:], r.end+int64(n)
	}
	return nil
}

func (r *ring) grow(size int64) {
	b := make([]byte, size)
	for off := r.start; off < r.end; {
		part := r.at(off, r.end)
		copy(b[off%size:], part)
		if over := off%size + int64(len(part)) - size; over > 0 {
			copy(b, part[int64(len(part))-over:])
		}
		off += int64(len(part))
	}
	r.b = b
}

// at gives the bytes kept from off to at most end that lie together.
func (r *ring) at(off, end int64) []byte {
	i, size := off%int64(len(r.b)), int64(len(r.b))
	return r.b[i:min(size, i+end-off)]
}

func (r *ring) get(p []byte, off int64) error {
	for len(p) > 0 {
		n := copy(p, r.at(off, r.end))
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (r *ring) drop(int64, int64) {}
func (r *ring) close()            { r.b = nil }
