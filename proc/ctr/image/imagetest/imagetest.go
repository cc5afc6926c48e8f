// Package imagetest makes images for tests.
package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"ctrfs/proc/ctr/image"
)

// When is the time of all files.
var When = time.Unix(1e9, 0)

// Layer is a tar archive. Text is what a regular file has in it, by its name.
func Layer(t testing.TB, text map[string]string, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0755
		}
		if h.Size == 0 {
			h.Size = int64(len(text[h.Name]))
		}
		h.ModTime, h.Format = When, tar.FormatPAX
		err := w.WriteHeader(&h)
		if err == nil && h.Typeflag == tar.TypeReg {
			_, err = w.Write([]byte(text[h.Name]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return b.Bytes()
}

// Gzip is the compressed bytes.
func Gzip(p []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(p)
	w.Close()
	return b.Bytes()
}

func digest(p []byte) string {
	sum := sha256.Sum256(p)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Files are those of an image in both forms: a layout with compressed layers, and what docker save wrote before there were layouts.
func Files(t testing.TB, c image.Config, layers ...[]byte) (layout, docker map[string][]byte) {
	t.Helper()
	layout, docker = map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion": "1.0.0"}`)}, map[string][]byte{}
	marshal := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	blob := func(kind string, p []byte) map[string]any {
		layout["blobs/sha256/"+digest(p)[7:]] = p
		return map[string]any{"mediaType": "application/vnd.oci.image." + kind, "digest": digest(p), "size": len(p)}
	}
	var diffs, names []string
	var list []any
	for _, l := range layers {
		diffs = append(diffs, digest(l))
		list = append(list, blob("layer.v1.tar+gzip", Gzip(l)))
		names = append(names, digest(l)[7:]+"/layer.tar")
		docker[digest(l)[7:]+"/layer.tar"] = l
	}
	conf := marshal(map[string]any{
		"os": "linux", "architecture": runtime.GOARCH, "config": c, "rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	manifest := blob("manifest.v1+json", marshal(map[string]any{
		"schemaVersion": 2, "config": blob("config.v1+json", conf), "layers": list,
	}))
	manifest["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "box:1"}
	layout["index.json"] = marshal(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}})
	docker[digest(conf)[7:]+".json"] = conf
	docker["manifest.json"] = marshal([]any{map[string]any{"Config": digest(conf)[7:] + ".json", "RepoTags": []string{"box:1"}, "Layers": names}})
	return layout, docker
}

// Dir writes files into a directory.
func Dir(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	for name, text := range files {
		err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0755)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Tar is an archive of files.
func Tar(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var entries []tar.Header
	text := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		entries = append(entries, tar.Header{Name: name, Mode: 0644})
		text[name] = string(files[name])
	}
	return Layer(t, text, entries...)
}

// Box is an image of busybox, whose program is given, with a user glenda and a few directories.
func Box(t testing.TB, c image.Config, busybox []byte) (layout, docker map[string][]byte) {
	t.Helper()
	base := []tar.Header{{Name: "bin/", Typeflag: tar.TypeDir}, {Name: "bin/busybox"}}
	for _, name := range []string{"sh", "cat", "id", "pwd", "ls", "hostname", "touch"} {
		base = append(base, tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"})
	}
	return Files(t, c,
		Layer(t, map[string]string{"bin/busybox": string(busybox)}, base...),
		Layer(t, map[string]string{"etc/passwd": "root:x:0:0::/:/bin/sh\nglenda:x:1000:1000::/:/bin/sh\n", "etc/group": "root:x:0:\nglenda:x:1000:\n", "etc/motd": "hello\n"},
			tar.Header{Name: "etc/passwd", Mode: 0644}, tar.Header{Name: "etc/group", Mode: 0644}, tar.Header{Name: "etc/motd", Mode: 0644},
			tar.Header{Name: "tmp", Typeflag: tar.TypeDir, Mode: 01777}))
}
