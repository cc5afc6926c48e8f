package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"ctrfs/proc/ctr/image"
	it "ctrfs/proc/ctr/image/imagetest"
)

// files is a source in memory.
type files map[string][]byte

func (s files) Open(name string) (io.ReadCloser, error) {
	text, ok := s[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(text)), nil
}

// layered is an image of one layer.
func layered(layer []byte) files {
	return files{
		"manifest.json": []byte(`[{"Config": "c", "Layers": ["l"]}]`),
		"c":             fmt.Appendf(nil, `{"os": "linux", "architecture": %q, "rootfs": {"diff_ids": ["sha256:%x"]}}`, runtime.GOARCH, sha256.Sum256(layer)),
		"l":             layer,
	}
}

// into gives a function that unpacks into one directory, again and again, which is empty between.
func into(f *testing.F) func(image.Source) error {
	name := f.TempDir()
	root, err := os.Open(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { root.Close() })
	return func(src image.Source) error {
		_, err := image.Unpack(context.Background(), src, "", int(root.Fd()), same)
		made, _ := os.ReadDir(name)
		for _, e := range made {
			os.RemoveAll(name + "/" + e.Name())
		}
		return err
	}
}

// FuzzJSON: whatever the JSON of an image says, it is refused or unpacked, and only its own files are opened.
func FuzzJSON(f *testing.F) {
	oci, docker := it.Files(f, image.Config{Env: []string{"A=b"}}, it.Layer(f, nil, tar.Header{Name: "d", Typeflag: dir}))
	for _, files := range []map[string][]byte{oci, docker} {
		for _, text := range files {
			if bytes.HasPrefix(text, []byte("{")) || bytes.HasPrefix(text, []byte("[")) {
				f.Add(text)
			}
		}
	}
	unpack := into(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, name := range []string{"index.json", "manifest.json"} {
			if unpack(files{name: text}) == nil {
				t.Errorf("%q is an image", text)
			}
		}
	})
}

// FuzzLayer: whatever a layer has in it, nothing outside the root changes.
func FuzzLayer(f *testing.F) {
	out := f.TempDir()
	os.WriteFile(out+"/f", []byte("outside"), 0644)
	before := tree(f, out)
	f.Add(it.Layer(f, map[string]string{"a/b": "text"}, tar.Header{Name: "a/b"}, tar.Header{Name: "l", Typeflag: link, Linkname: out},
		tar.Header{Name: "l/g"}, tar.Header{Name: "l/.wh.f"}, tar.Header{Name: "h", Typeflag: hard, Linkname: out + "/f"}))
	f.Add(it.Layer(f, nil, tar.Header{Name: "a", Typeflag: dir}, tar.Header{Name: "a/.wh..wh..opq"}, tar.Header{Name: ".wh.a"}, tar.Header{Name: "../x"}))
	unpack := into(f)
	f.Fuzz(func(t *testing.T, layer []byte) {
		unpack(layered(layer))
		if after := tree(t, out); after != before {
			t.Fatalf("outside there is\n%s", after)
		}
	})
}

// FuzzArchive: what is no archive is refused, and its files lie within it.
func FuzzArchive(f *testing.F) {
	f.Add(it.Layer(f, map[string]string{"a": "b"}, tar.Header{Name: "a"}, tar.Header{Name: "l", Typeflag: link, Linkname: "a"}))
	unpack := into(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		fd, err := unix.MemfdCreate("archive", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		m := os.NewFile(uintptr(fd), "archive")
		defer m.Close()
		m.Write(text)
		if src, err := image.Archive(m); err == nil {
			unpack(src)
		}
	})
}
