package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// A Dir is an image layout that is a directory; As calls a function as who may read it.
type Dir struct {
	Root *os.File
	As   func(func() error) error
}

// Open opens a regular file, through no link.
func (d Dir) Open(name string) (io.ReadCloser, error) {
	var f *os.File
	err := d.As(func() error {
		fd, err := unix.Openat2(int(d.Root.Fd()), name, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
		if err == nil {
			f = os.NewFile(uintptr(fd), name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, errors.New("not a regular file")
	}
	return f, nil
}

// An archive is a tar file of which the places of the files are known.
type archive struct {
	f     *os.File
	files map[string]span
}

type span struct{ at, size int64 }

// maxFiles bounds the files of an archive: two for each layer, and some for each image.
const maxFiles = 16 << 10

// Archive reads where the files of a tar file are, which stays open while it is used.
func Archive(f *os.File) (Source, error) {
	if head, _ := bufio.NewReader(io.NewSectionReader(f, 0, 2)).Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) {
		return nil, errors.New("a compressed archive: unpack it by gunzip(1)")
	}
	// A SectionReader seeks over what is not read, and says where it is.
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	in := io.NewSectionReader(f, 0, st.Size())
	a := &archive{f, map[string]span{}}
	links := map[string]string{}
	for t := tar.NewReader(in); ; {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("archive: %w", err)
		}
		name, err := clean(h.Name)
		if err != nil {
			return nil, err
		}
		switch h.Typeflag {
		case tar.TypeReg:
			at, _ := in.Seek(0, io.SeekCurrent)
			a.files[name] = span{at, h.Size}
		case tar.TypeSymlink, tar.TypeLink: // docker save has one for a layer that it has already
			to := h.Linkname
			if h.Typeflag == tar.TypeSymlink {
				to = path.Join(path.Dir(name), to)
			}
			links[name] = to
		}
		if len(a.files)+len(links) > maxFiles {
			return nil, fmt.Errorf("archive: more than %d files", maxFiles)
		}
	}
	for name, to := range links {
		if at, ok := a.files[to]; ok {
			a.files[name] = at
		}
	}
	return a, nil
}

func (a *archive) Open(name string) (io.ReadCloser, error) {
	at, ok := a.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(io.NewSectionReader(a.f, at.at, at.size)), nil
}
