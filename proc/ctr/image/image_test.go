package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ctrfs/fs/fstest"
	"ctrfs/proc/ctr/image"
	it "ctrfs/proc/ctr/image/imagetest"
)

func same(uid, gid int) (int, int, bool) { return uid, gid, true }

// unpack unpacks an image of the layers into a new directory.
func unpack(t testing.TB, src image.Source, ref string) (dir string, c *image.Config, err error) {
	t.Helper()
	dir = t.TempDir()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	c, err = image.Unpack(context.Background(), src, ref, int(root.Fd()), same)
	return dir, c, err
}

// archive is the source that files are in a tar file.
func archive(t testing.TB, files map[string][]byte) image.Source {
	t.Helper()
	return file(t, it.Tar(t, files))
}

func file(t testing.TB, text []byte) image.Source {
	t.Helper()
	name := t.TempDir() + "/image.tar"
	if err := os.WriteFile(name, text, 0600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	src, err := image.Archive(f)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func layout(t testing.TB, files map[string][]byte) image.Source {
	t.Helper()
	dir := t.TempDir()
	it.Dir(t, dir, files)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return image.Dir{Root: f, As: func(do func() error) error { return do() }}
}

// tree describes all that is below a directory.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "%s %v %d:%d", name[len(dir)+1:], fi.Mode(), st.Uid, st.Gid)
		switch fi.Mode().Type() {
		case 0:
			text, _ := os.ReadFile(name)
			fmt.Fprintf(&b, " %q", text)
		case fs.ModeSymlink:
			to, _ := os.Readlink(name)
			fmt.Fprintf(&b, " -> %s", to)
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const (
	dir  = tar.TypeDir
	link = tar.TypeSymlink
	hard = tar.TypeLink
)

// Both forms of an image, and both ways to keep a layout, unpack to the same.
func TestUnpack(t *testing.T) {
	fstest.NeedsRoot(t)
	caps := string([]byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}) // net_bind_service, permitted and effective
	first := it.Layer(t, map[string]string{"bin/su": "su", "a/old": "old", "a/b/deep": "deep", "etc/x": "1", "keep/me": "me", "./was": "file"},
		tar.Header{Name: "./", Typeflag: dir, Mode: 0711},
		tar.Header{Name: "bin/", Typeflag: dir}, tar.Header{Name: "bin/su", Mode: 04755, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": caps, "SCHILY.xattr.user.x": "y"}},
		tar.Header{Name: "bin/hard", Typeflag: hard, Linkname: "/bin/su"}, tar.Header{Name: "sbin", Typeflag: link, Linkname: "/bin"},
		tar.Header{Name: "a/old", Uid: 7, Gid: 8, Mode: 0600}, tar.Header{Name: "a/b/deep"}, tar.Header{Name: "etc/x"}, tar.Header{Name: "keep/me"}, tar.Header{Name: "./was"},
		tar.Header{Name: "p", Typeflag: tar.TypeFifo, Mode: 0600}, tar.Header{Name: "n", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3})
	second := it.Layer(t, map[string]string{"sbin/init": "init", "a/new": "new", "/abs": "abs", "was/now": "dir"},
		tar.Header{Name: "sbin/init"}, tar.Header{Name: "a/new"}, tar.Header{Name: "a/.wh..wh..opq"}, tar.Header{Name: "etc/.wh.x"}, tar.Header{Name: ".wh..wh.plnk"},
		tar.Header{Name: "/abs"}, tar.Header{Name: "was", Typeflag: dir}, tar.Header{Name: "was/now"}, tar.Header{Name: ".wh.nothing"}, tar.Header{Name: ".wh.keep"})
	want := `a drwxr-xr-x 0:0
a/new -rwxr-xr-x 0:0 "new"
abs -rwxr-xr-x 0:0 "abs"
bin drwxr-xr-x 0:0
bin/hard urwxr-xr-x 0:0 "su"
bin/init -rwxr-xr-x 0:0 "init"
bin/su urwxr-xr-x 0:0 "su"
etc drwxr-xr-x 0:0
n Dcrwxr-xr-x 0:0
p prw------- 0:0
sbin Lrwxrwxrwx 0:0 -> /bin
was drwxr-xr-x 0:0
was/now -rwxr-xr-x 0:0 "dir"
`
	says := image.Config{User: "u", Env: []string{"A=b"}, Cmd: []string{"c"}, Entrypoint: []string{"e"}, WorkingDir: "/w", Labels: map[string]string{"l": "m"}}
	oci, docker := it.Files(t, says, first, second)
	linked := maps.Clone(docker) // as docker save has a layer that it has already
	for name, src := range map[string]image.Source{"layout": layout(t, oci), "archive": archive(t, oci), "docker": archive(t, linked)} {
		dir, c, err := unpack(t, src, "")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := tree(t, dir); strings.ReplaceAll(got, "dur", "ur") != want {
			t.Errorf("%s:\n%swant\n%s", name, got, want)
		}
		if fmt.Sprint(*c) != fmt.Sprint(says) {
			t.Errorf("%s: %+v", name, *c)
		}
		buf := make([]byte, 64)
		if n, err := unix.Getxattr(dir+"/bin/su", "security.capability", buf); err != nil || string(buf[:n]) != caps {
			t.Errorf("%s: capability %x, %v", name, buf[:max(n, 0)], err)
		}
		if n, err := unix.Getxattr(dir+"/bin/su", "user.x", buf); err == nil {
			t.Errorf("%s: another attribute %x", name, buf[:n])
		}
		for _, f := range []string{"bin", "a/new", ""} {
			if fi, _ := os.Stat(dir + "/" + f); f != "" && !fi.ModTime().Equal(it.When) && f != "bin" {
				t.Errorf("%s: %s is of %v", name, f, fi.ModTime())
			}
		}
		if _, _, err := unpack(t, src, "box:1"); err != nil {
			t.Errorf("%s: by its name: %v", name, err)
		}
		if _, _, err := unpack(t, src, "box:2"); err == nil {
			t.Errorf("%s: another name is taken", name)
		}
	}
}

// What would lead out, or is not as the image says, is refused; nothing outside changes.
func TestRefused(t *testing.T) {
	fstest.NeedsRoot(t)
	out := t.TempDir()
	os.WriteFile(out+"/f", []byte("outside"), 0644)
	before := tree(t, out)
	up := strings.Repeat("../", 20)
	for name, x := range map[string]struct {
		err     string
		entries []tar.Header
	}{
		"dots":            {"not a name in an image", []tar.Header{{Name: up + out + "/g"}}},
		"dots inside":     {"not a name in an image", []tar.Header{{Name: "a/../../g"}}},
		"hard link out":   {"not a name in an image", []tar.Header{{Name: "h", Typeflag: hard, Linkname: up + out + "/f"}}},
		"hard link abs":   {"no such file", []tar.Header{{Name: "h", Typeflag: hard, Linkname: out + "/f"}}},
		"by a link":       {"file exists", []tar.Header{{Name: "l", Typeflag: link, Linkname: out}, {Name: "l/g"}}},
		"by a link up":    {"file exists", []tar.Header{{Name: "l", Typeflag: link, Linkname: up + out}, {Name: "l/g"}}},
		"whiteout":        {"file exists", []tar.Header{{Name: "l", Typeflag: link, Linkname: out}, {Name: "l/.wh.f"}}},
		"whiteout of all": {"takes nothing away", []tar.Header{{Name: ".wh..."}, {Name: "a/.wh..."}}},
		"opaque":          {"file exists", []tar.Header{{Name: "l", Typeflag: link, Linkname: out}, {Name: "l/.wh..wh..opq"}}},
		"hard by a link":  {"no such file", []tar.Header{{Name: "l", Typeflag: link, Linkname: out}, {Name: "h", Typeflag: hard, Linkname: "l/f"}}},
		"loop":            {"too many levels", []tar.Header{{Name: "l", Typeflag: link, Linkname: "l"}, {Name: "l/g"}}},
		"deep":            {"too deep", []tar.Header{{Name: strings.Repeat("a/", 200) + "g"}}},
		"below a file":    {"not a directory", []tar.Header{{Name: "f"}, {Name: "f/g"}}},
		"the root":        {"not a directory", []tar.Header{{Name: "/", Typeflag: link, Linkname: out}}},
		"odd type":        {"unknown type", []tar.Header{{Name: "x", Typeflag: '7'}}},
	} {
		oci, docker := it.Files(t, image.Config{}, it.Layer(t, nil, x.entries...))
		for _, src := range []image.Source{archive(t, oci), archive(t, docker)} {
			dir, _, err := unpack(t, src, "")
			if err == nil || !strings.Contains(err.Error(), x.err) {
				t.Errorf("%s: %v, want %s; made\n%s", name, err, x.err, tree(t, dir))
			}
		}
		if after := tree(t, out); after != before {
			t.Fatalf("%s: outside there is\n%s", name, after)
		}
	}
	// A link that is replaced is not followed.
	oci, _ := it.Files(t, image.Config{}, it.Layer(t, map[string]string{"l": "new"}, tar.Header{Name: "l", Typeflag: link, Linkname: out + "/f"}, tar.Header{Name: "l"}))
	if dir, _, err := unpack(t, archive(t, oci), ""); err != nil || tree(t, dir) != "l -rwxr-xr-x 0:0 \"new\"\n" {
		t.Errorf("%v\n%s", err, tree(t, dir))
	}
	if after := tree(t, out); after != before {
		t.Errorf("outside there is\n%s", after)
	}
}

// Every file that a digest is of is looked at: whichever is changed, the image is refused.
func TestDigests(t *testing.T) {
	fstest.NeedsRoot(t)
	layer := it.Layer(t, map[string]string{"f": strings.Repeat("text", 1000)}, tar.Header{Name: "f"})
	oci, docker := it.Files(t, image.Config{}, layer)
	for kind, files := range map[string]map[string][]byte{"oci": oci, "docker": docker} {
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if !strings.Contains(name, "/") && len(name) < 64 {
				continue
			}
			changed := maps.Clone(files)
			text := bytes.Clone(files[name])
			switch {
			case bytes.HasPrefix(text, []byte{0x1f, 0x8b}): // the time in its head, which means nothing
				text[4] ^= 1
			case bytes.HasPrefix(text, []byte("{")):
				text = append(text, '\n')
			default:
				text = append(text, 0)
			}
			changed[name] = text
			if _, _, err := unpack(t, archive(t, changed), ""); err == nil || !strings.Contains(err.Error(), "digest") {
				t.Errorf("%s: %s changed: %v", kind, name, err)
			}
		}
	}
}

func TestManifests(t *testing.T) {
	fstest.NeedsRoot(t)
	oci, docker := it.Files(t, image.Config{}, it.Layer(t, nil, tar.Header{Name: "f"}))
	change := func(files map[string][]byte, name, from, to string) image.Source {
		c := maps.Clone(files)
		c[name] = []byte(strings.ReplaceAll(string(c[name]), from, to))
		return archive(t, c)
	}
	without := maps.Clone(oci)
	delete(without, "index.json")
	two := strings.TrimSuffix(strings.TrimPrefix(string(docker["manifest.json"]), "["), "]")
	for _, x := range []struct {
		src image.Source
		err string
	}{
		{archive(t, without), `neither index.json nor open "manifest.json"`},
		{change(oci, "index.json", `"digest"`, `"platform":{"os":"linux","architecture":"s390x"},"digest"`), `no image "" for linux/`},
		{change(oci, "index.json", `sha256:`, `sha512:`), "not a sha256 digest"},
		{change(oci, "index.json", `sha256:`, `../../`), "not a sha256 digest"},
		{change(oci, "index.json", `"manifests":[`, `"manifests":[{"digest":"x","annotations":{"org.opencontainers.image.ref.name":"other"}},`), `2 images, say which`},
		{change(oci, "index.json", `}`, ``), "invalid character"},
		{change(docker, "manifest.json", `layer.tar`, `x`), "file does not exist"},
		{change(docker, "manifest.json", `"Layers":[`, `"Layers":["x",`), "2 layers, and digests of 1"},
		{change(docker, "manifest.json", two, two+","+two), "2 images"},
		{archive(t, map[string][]byte{"index.json": bytes.Repeat([]byte(" "), image.MaxJSON+1)}), "longer than"},
	} {
		if _, _, err := unpack(t, x.src, ""); err == nil || !strings.Contains(err.Error(), x.err) {
			t.Errorf("%v, want %s", err, x.err)
		}
	}
}

// members is a file of more and more compressed texts that are empty, during which somebody gives up.
type members struct {
	text   []byte
	giveUp context.CancelFunc
	left   int
}

func (m *members) Read(p []byte) (int, error) {
	if m.left--; m.left == 1000 {
		m.giveUp()
	}
	if m.left < 0 {
		return 0, errors.New("it is read on")
	}
	return copy(p, m.text), nil
}

func (m *members) Close() error { return nil }

type membersSource struct {
	files
	*members
}

func (s membersSource) Open(name string) (io.ReadCloser, error) {
	if name == "l" {
		return s.members, nil
	}
	return s.files.Open(name)
}

// What unpacks to nothing ends with the context, too.
func TestEmptyMembers(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	src := membersSource{layered(nil), &members{it.Gzip(nil), cancel, 2000}}
	if _, err := image.Unpack(ctx, src, "", -1, same); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
