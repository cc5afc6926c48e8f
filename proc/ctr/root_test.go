package ctr

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	cfs "ctrfs/fs"
)

// node walks from the directory of containers.
func (s *session) node(name string) (n cfs.Node, err error) {
	n = s.Root
	for word := range strings.SplitSeq(name, "/") {
		if n, err = cfs.Look(s.Ctx, n, word); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// at is node of what is there.
func (s *session) at(name string) cfs.Node {
	s.T.Helper()
	n, err := s.node(name)
	if err != nil {
		s.T.Fatalf("%s: %v", name, err)
	}
	return n
}

func (s *session) stat(name string) cfs.Stat {
	s.T.Helper()
	st, err := s.at(name).Stat(s.Ctx)
	if err != nil {
		s.T.Fatalf("stat %s: %v", name, err)
	}
	return st
}

// create makes a file with a text.
func (s *session) create(name, text string, perm cfs.FileMode) error {
	_, h, err := cfs.Create(s.Ctx, s.at(path.Dir(name)), path.Base(name), perm, cfs.Write)
	if err != nil {
		return err
	}
	_, err = h.Write(s.Ctx, 0, []byte(text))
	return errors.Join(err, h.Close(s.Ctx))
}

// inside makes a container that waits, and gives the path of its root on the host.
func (s *session) inside(name string) string {
	s.T.Helper()
	s.Mkdir(name)
	return s.runs(name)
}

// runs is inside of one that is made.
func (s *session) runs(name string) string {
	s.T.Helper()
	s.Write(name+"/ctl", "exec /bin/sleep 1000")
	s.T.Cleanup(func() {
		s.Echo(name+"/ctl", "killall")
		s.Read(name + "/wait")
		s.Rmdir(name)
	})
	return "/proc/" + strings.TrimSpace(s.Read(name+"/pid")) + "/root"
}

// What root shows is what there is.
func TestRootShows(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	t.Cleanup(check)
	root := s.inside("c")
	when := time.Unix(1e9, 5)
	mk := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	mk(os.Mkdir(root+"/root/d", 0700))
	mk(os.WriteFile(root+"/root/d/f", []byte("text"), 0640))
	mk(os.Chown(root+"/root/d/f", 12, 34))
	mk(os.Chmod(root+"/root/d/f", 0640|os.ModeSetuid))
	mk(os.Chtimes(root+"/root/d/f", time.Unix(2e9, 0), when))
	mk(os.Symlink("/etc/passwd", root+"/root/d/l"))
	mk(unix.Mkfifo(root+"/root/d/p", 0600))
	mk(unix.Mknod(root+"/root/d/c", unix.S_IFCHR|0600, int(unix.Mkdev(1, 3))))
	for name, want := range map[string]cfs.Stat{
		"d":   {Mode: fs.ModeDir | 0700},
		"d/f": {Mode: 0640 | fs.ModeSetuid, Uid: 12, Gid: 34, Length: 4, Time: when, Atime: time.Unix(2e9, 0)},
		"d/l": {Mode: fs.ModeSymlink | 0777, Length: 11},
		"d/p": {Mode: fs.ModeNamedPipe | 0600},
		"d/c": {Mode: fs.ModeDevice | fs.ModeCharDevice | 0600},
	} {
		got := s.stat("c/root/root/" + name)
		if want.Time.IsZero() {
			want.Time, want.Atime = got.Time, got.Atime
		}
		want.Name, want.Qid, want.Ctime = path.Base(name), got.Qid, got.Ctime
		if got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	list, err := cfs.Contents(s.Ctx, s.at("c/root/root/d"))
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
		if st := s.stat("c/root/root/d/" + e.Name); st.Qid != e.Qid || st.Mode.Type() != e.Type {
			t.Errorf("%+v in the listing, %+v by stat", e, st)
		}
	}
	if slices.Sort(names); err != nil || !slices.Equal(names, []string{"c", "f", "l", "p"}) {
		t.Errorf("names %q, %v", names, err)
	}
	if text := s.Read("c/root/root/d/f"); text != "text" {
		t.Errorf("text %q", text)
	}
	if text := s.Read("c/root/root/d/l"); text != "/etc/passwd" { // as 9P2000 reads a link
		t.Errorf("link %q", text)
	}
	for _, name := range []string{"d/p", "d/c"} {
		for _, how := range []cfs.How{cfs.Read, cfs.Write} {
			if _, err := s.Open("c/root/root/"+name, how); err != errSpecial {
				t.Errorf("open %s: %v", name, err)
			}
		}
	}
	if n, err := s.node("c/root/proc/1/root/etc"); err != cfs.ErrNotDir {
		t.Errorf("through a magic link: %v, %v", n, err)
	}
	if st := s.stat("c/root/sys/kernel/mm/hugepages"); !st.Mode.IsDir() {
		t.Errorf("%+v", st)
	}
	if st := s.stat("c/root/sys/kernel/profiling"); st.Length != 0 {
		t.Errorf("a file of sysfs has length %d", st.Length)
	}
}

// What has the inode of a file that is gone is another file.
func TestRootQid(t *testing.T) {
	s := newSession(t)
	dir := t.TempDir()
	s.Mkdir("c")
	s.Write("c/mounts", "mount bind "+dir+" /data")
	s.runs("c")
	seen, inodes := map[uint64]bool{}, map[uint64]bool{}
	again := 0
	for i := range 500 {
		if err := os.WriteFile(dir+"/f", nil, 0600); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		unix.Stat(dir+"/f", &st)
		if inodes[st.Ino] {
			again++
		}
		q := s.stat("c/root/data/f").Qid
		if seen[q] {
			t.Fatalf("round %d: qid %#x again", i, q)
		}
		seen[q], inodes[st.Ino] = true, true
		os.Remove(dir + "/f")
	}
	t.Log(again, "inodes came again")
}

// Its owner changes it; what is there then is seen inside.
func TestRootChanges(t *testing.T) {
	s := newSession(t)
	root := s.inside("c")
	c := "c/root/root/"
	is := func(what, want string) {
		t.Helper()
		fi, err := os.Lstat(root + "/root/" + what)
		got := fmt.Sprint(err)
		if err == nil {
			b, _ := os.ReadFile(root + "/root/" + what)
			got = fmt.Sprintf("%v %q", fi.Mode(), b)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	dir := s.at("c/root/root")
	_, err := cfs.Make(s.Ctx, dir, "d", 0777)
	try(err)
	_, err = cfs.Make(s.Ctx, dir, "e", 0700)
	try(err)
	try(s.create(c+"d/f", "hello, world", 0666))
	is("d", `drwxrwxrwx ""`)
	is("d/f", `-rw-rw-rw- "hello, world"`)
	if err := s.create(c+"d/f", "", 0600); !errors.Is(err, cfs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	_, err = cfs.Symlink(s.Ctx, dir, "l", "d/f")
	try(err)
	if target, err := s.at(c + "l").(cfs.Link).Readlink(s.Ctx); target != "d/f" || err != nil {
		t.Errorf("link %q, %v", target, err)
	}
	s.Write(c+"d/f", "new")
	is("d/f", `-rw-rw-rw- "new"`)
	h, err := s.Open(c+"d/f", cfs.Read|cfs.Write)
	try(err)
	size, mode, uid, when := uint64(2), cfs.FileMode(0400)|fs.ModeSetuid, uint32(77), time.Unix(1e9, 0)
	try(cfs.Set(s.Ctx, s.at(c+"d/f"), h, cfs.Change{Size: &size, Mode: &mode, Uid: &uid, Mtime: &when}))
	if b, err := h.Read(s.Ctx, 0, 10); string(b) != "ne" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	try(h.Close(s.Ctx))
	is("d/f", `ur-------- "ne"`)
	if st := s.stat(c + "d/f"); st.Uid != 77 || !st.Time.Equal(when) {
		t.Errorf("%+v", st)
	}
	size = 1
	try(cfs.Set(s.Ctx, s.at(c+"d/f"), nil, cfs.Change{Size: &size, Mtime: new(time.Time)}))
	is("d/f", `ur-------- "n"`)
	try(cfs.Move(s.Ctx, s.at(c+"d"), "f", nil, "g"))
	try(cfs.Move(s.Ctx, s.at(c+"d"), "g", s.at(c+"e"), "h"))
	is("d/f", "lstat "+root+"/root/d/f: no such file or directory")
	is("e/h", `ur-------- "n"`)
	try(cfs.Move(s.Ctx, s.at(c+"e"), "h", s.at("c/root"), "h"))
	try(cfs.Delete(s.Ctx, s.at("c/root"), "h"))
	if err := cfs.Delete(s.Ctx, s.at("c/root"), "root"); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("a directory that is not empty: %v", err)
	}
	try(cfs.Delete(s.Ctx, dir, "e"))
	try(cfs.Delete(s.Ctx, dir, "l"))
	is("e", "lstat "+root+"/root/e: no such file or directory")
	if err := cfs.Set(s.Ctx, s.at("c/root"), nil, cfs.Change{Mode: &mode}); !errors.Is(err, unix.EPERM) {
		t.Errorf("the mode of root itself: %v", err)
	}
	s.inside("other")
	if err := cfs.Move(s.Ctx, dir, "d", s.at("other/root"), "d"); err != unix.EXDEV {
		t.Errorf("to another container: %v", err)
	}
}

// Nobody else gets in, and what its owner is not allowed to in there he is refused; while nothing is mounted there is nothing.
func TestRootRights(t *testing.T) {
	s := newSession(t)
	s.inside("c")
	other := s.as(cfs.Client{Uid: 4321, Gid: 4321})
	if _, err := other.node("c/root/etc"); !errors.Is(err, cfs.ErrPerm) {
		t.Errorf("another: %v", err)
	}
	mine := s.as(cfs.Client{Uid: 4321, Gid: 4321})
	mine.set.Uid = 4321
	mine.inside("mine")
	if err := mine.create("mine/root/usr/share/f", "x", 0600); !errors.Is(err, cfs.ErrPerm) {
		t.Errorf("in the host root's directory: %v", err)
	}
	if err := mine.create("mine/root/root/f", "x", 0600); err != nil {
		t.Error(err)
	}
	if err := s.create("mine/root/root/g", "x", 0600); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"f", "g"} {
		if st := mine.stat("mine/root/root/" + name); st.Uid != 4321 || st.Gid != 4321 {
			t.Errorf("%s: %+v", name, st)
		}
	}
	h, err := s.Open("c/root/etc/passwd", cfs.Read)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(s.Ctx)
	s.Write("c/ctl", "killall")
	s.Read("c/wait")
	if _, err := h.Read(s.Ctx, 0, 10); err != errNotRunning {
		t.Errorf("an open file after the end: %v", err)
	}
	if _, err := s.node("c/root/etc"); err != errNotRunning {
		t.Errorf("after the end: %v", err)
	}
}
