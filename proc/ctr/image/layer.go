package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unpacking is a root that is being made.
type unpacking struct {
	root int
	ids  IDs
	// what may come yet: bytes of archives, packed and unpacked, of files, and of names, and files and directories
	packed, bytes, space, names int64
	entries                     int

	// of the layer at hand
	added map[string]bool      // names in it, and the directories above them
	times map[string]time.Time // of its directories, which are set when all is in them
}

var errTooMuch = errors.New("unpacks to too much")

// layer unpacks one layer over those before it, and compares its digests.
func (u *unpacking) layer(ctx context.Context, src Source, l layer) error {
	f, err := src.Open(l.name)
	if err != nil {
		return err
	}
	defer f.Close()
	packed, unpacked := sha256.New(), sha256.New()
	in := bufio.NewReaderSize(io.TeeReader(&bounded{ctx, f, &u.packed}, packed), 64<<10) // of which much may unpack to nothing
	plain, err := decompress(in)
	if err != nil {
		return err
	}
	stream := io.TeeReader(&bounded{ctx, plain, &u.bytes}, unpacked)
	u.added, u.times = map[string]bool{}, map[string]time.Time{}
	for t := tar.NewReader(stream); ; {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = u.entry(h, t)
		}
		if err != nil {
			return err
		}
	}
	for name, when := range u.times {
		if err := u.touch(name, when); err != nil {
			return err
		}
	}
	// What follows the end of the archive counts for the digests, too.
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	if l.digest != "" && l.digest != digest(packed) {
		return fmt.Errorf("its digest is %s", digest(packed))
	}
	if l.diff != digest(unpacked) {
		return fmt.Errorf("its digest unpacked is %s and not %s", digest(unpacked), l.diff)
	}
	return nil
}

func digest(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

// decompress looks at what the bytes are, whatever the image says that they are.
func decompress(in *bufio.Reader) (io.Reader, error) {
	head, err := in.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(in)
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return nil, errors.New("compressed by zstd, which is not supported")
	case bytes.HasPrefix(head, []byte("BZh")), bytes.HasPrefix(head, []byte("\xfd7zX")):
		return nil, errors.New("compressed by what is neither gzip nor nothing")
	}
	return in, nil
}

// bounded reads so many bytes at most, until ctx ends.
type bounded struct {
	ctx  context.Context
	r    io.Reader
	left *int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if *b.left <= 0 {
		return 0, errTooMuch
	}
	n, err := b.r.Read(p[:min(int64(len(p)), *b.left)])
	*b.left -= int64(n)
	return n, err
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// entry does what one entry of a layer says.
func (u *unpacking) entry(h *tar.Header, text io.Reader) error {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") { // a few bytes would be the whole memory
			return fmt.Errorf("%q: a sparse file", h.Name)
		}
	}
	u.names -= int64(len(h.Name))
	u.space -= h.Size
	if u.entries--; u.entries < 0 || u.names < 0 || u.space < 0 {
		return errTooMuch
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := clean(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		if h.Typeflag == tar.TypeDir {
			u.times[name] = h.ModTime
			return u.attributes(h, u.root)
		}
		return fmt.Errorf("%q: not a directory", h.Name)
	}
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	parent, err := u.parent(dir)
	if err != nil {
		return fmt.Errorf("%q: %w", h.Name, err)
	}
	defer unix.Close(parent)
	switch {
	case base == opaque:
		err = u.empty(parent, dir, 0)
	case strings.HasPrefix(base, whiteout+whiteout): // aufs's own
	case strings.HasPrefix(base, whiteout):
		if gone := base[len(whiteout):]; gone == "" || gone == "." || gone == ".." {
			err = errors.New("takes nothing away")
		} else if !u.added[path.Join(dir, gone)] {
			err = remove(parent, gone, 0)
		}
	default:
		for d := name; d != "." && !u.added[d]; d = path.Dir(d) {
			u.added[d] = true
			if u.entries--; u.entries < 0 {
				return errTooMuch
			}
		}
		err = u.make(h, parent, base, name, text)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", h.Name, err)
	}
	return nil
}

// clean gives the name below the root.
func clean(name string) (string, error) {
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." || strings.ContainsRune(part, 0) || len(part) > 255 {
			return "", fmt.Errorf("not a name in an image: %.256q", name)
		}
		depth++
	}
	if depth > MaxDepth || len(name) >= unix.PathMax {
		return "", fmt.Errorf("too deep: %.256q", name)
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/") + map[bool]string{true: "."}[path.Clean("/"+name) == "/"], nil
}
