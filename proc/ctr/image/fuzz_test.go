package image_test

import (
	"archive/tar"
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"ctrfs/proc/ctr/image"
	it "ctrfs/proc/ctr/image/imagetest"
)

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
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, name := range []string{"index.json", "manifest.json"} {
			files := map[string][]byte{name: text}
			if _, _, err := unpack(t, archive(t, files), ""); err == nil {
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
	f.Fuzz(func(t *testing.T, layer []byte) {
		_, docker := it.Files(t, image.Config{}, layer)
		unpack(t, archive(t, docker), "")
		if after := tree(t, out); after != before {
			t.Fatalf("outside there is\n%s", after)
		}
	})
}

// FuzzArchive: what is no archive is refused, and its files lie within it.
func FuzzArchive(f *testing.F) {
	f.Add(it.Layer(f, map[string]string{"a": "b"}, tar.Header{Name: "a"}, tar.Header{Name: "l", Typeflag: link, Linkname: "a"}))
	f.Fuzz(func(t *testing.T, text []byte) {
		fd, err := unix.MemfdCreate("archive", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		m := os.NewFile(uintptr(fd), "archive")
		defer m.Close()
		m.Write(text)
		if src, err := image.Archive(m); err == nil {
			unpack(t, src, "")
		}
	})
}
