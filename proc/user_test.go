package proc

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"ctrfs/ns"
)

func rootWith(t *testing.T, passwd, group string) *os.File {
	t.Helper()
	dir := t.TempDir()
	os.Mkdir(filepath.Join(dir, "etc"), 0755)
	os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte(passwd), 0644)
	os.WriteFile(filepath.Join(dir, "etc/group"), []byte(group), 0644)
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// What is no number that the kernel has is refused, and never found as a name: the file here would make it root.
func TestFindUser(t *testing.T) {
	root := rootWith(t, "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:\n4294967296:x:0:0::/:\n99999999999:x:0:0::/:\n0x0:x:0:0::/:\n-1:x:0:0::/:\n",
		"adm:x:4:web,x\nweb:x:34:\nlp:x:7:web\n")
	for spec, want := range map[string]*ns.Cred{
		"0":              {},
		"33":             {Uid: 33, Gid: 34, Groups: []uint32{4, 7}},
		"web":            {Uid: 33, Gid: 34, Groups: []uint32{4, 7}},
		"web:lp":         {Uid: 33, Gid: 7},
		"web:lp,5,adm":   {Uid: 33, Gid: 7, Groups: []uint32{5, 4}},
		"1234":           {Uid: 1234},
		"1234:5":         {Uid: 1234, Gid: 5},
		"2147483648":     nil,
		"4294967295":     nil,
		"4294967296":     nil,
		"99999999999":    nil,
		"-1":             nil,
		"0x0":            nil,
		"1e3":            nil,
		"1000:":          nil,
		":0":             nil,
		"١":              nil,
		"nosuch":         nil,
		"web:nosuch":     nil,
		"web:4294967296": nil,
		"":               nil,
		"we b":           nil,
	} {
		got, err := FindUser(root, spec)
		if (want == nil) != (err != nil) || want != nil && !reflect.DeepEqual(got, *want) {
			t.Errorf("%q: %+v, %v; want %+v", spec, got, err, want)
		}
	}
}

// A database that would be read for ever, or is none, is an error at once.
func TestFindUserHostile(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"fifo":   func(path string) error { return unix.Mkfifo(path, 0644) },
		"zero":   func(path string) error { return os.Symlink("/dev/zero", path) },
		"sparse": func(path string) error { return os.WriteFile(path, nil, 0644) },
		"out":    func(path string) error { return os.Symlink("../../../../../etc/passwd", path) },
	} {
		root := rootWith(t, "", "")
		path := filepath.Join(root.Name(), "etc/passwd")
		os.Remove(path)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if name == "sparse" {
			os.Truncate(path, 10<<30)
		}
		// Links mean what they mean below the root, where there is no /dev/zero, and etc/passwd is the link itself.
		if c, err := FindUser(root, "root"); err == nil {
			t.Errorf("%s: found %+v", name, c)
		}
	}
}
