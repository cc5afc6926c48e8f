package ctr

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	cfs "ctrfs/fs"
)

// A file that has become shorter than the client was told is an error where the rest was, and never an early end.
func TestRootShorter(t *testing.T) {
	s := newSession(t)
	root := s.inside("c")
	name := root + "/root/f"
	os.WriteFile(name, make([]byte, 10000), 0600)
	n := s.at("c/root/root/f")
	n.Stat(s.Ctx)
	h, err := cfs.Enter(s.Ctx, n, cfs.Read)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(s.Ctx)
	os.Truncate(name, 5000)
	if b, err := h.Read(s.Ctx, 0, 4096); len(b) != 4096 || err != nil {
		t.Errorf("what is there: %d bytes, %v", len(b), err)
	}
	for _, off := range []int64{4096, 8192} {
		if b, err := h.Read(s.Ctx, off, 4096); err != errShorter {
			t.Errorf("at %d: %d bytes, %v", off, len(b), err)
		}
	}
	n.Stat(s.Ctx)
	if b, err := h.Read(s.Ctx, 4096, 4096); len(b) != 904 || err != nil {
		t.Errorf("told anew: %d bytes, %v", len(b), err)
	}
}

// While a directory becomes a link out of the container and back, all the time, nobody gets out by it, in any way.
func TestRootRace(t *testing.T) {
	s := newSession(t)
	root := s.inside("c")
	marker := t.TempDir()
	os.WriteFile(marker+"/f", []byte("outside"), 0666)
	before, _ := os.Stat(marker + "/f")
	os.Mkdir(root+"/root/swap", 0755)
	os.WriteFile(root+"/root/swap/f", []byte("inside"), 0666)
	os.Symlink(marker, root+"/root/link")
	s.Write("c/root/root/swap/f", "inside")
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		dir, err := unix.Open(root+"/root", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		defer unix.Close(dir)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(dir, "swap", dir, "link", unix.RENAME_EXCHANGE)
			}
		}
	}()
	rounds := 2000
	if testing.Short() {
		rounds = 300
	}
	got := map[string]int{}
	for i := range rounds {
		n, err := s.node("c/root/root/swap")
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := n.(cfs.Dir); !ok {
			continue
		}
		text, err := s.Cat("c/root/root/swap/f")
		if got[text]++; err == nil && text != "inside" && text != "" {
			t.Fatalf("round %d: %q", i, text)
		}
		s.Echo("c/root/root/swap/f", "inside")
		name := fmt.Sprint("new", i)
		if _, h, err := cfs.Create(s.Ctx, n, name, 0600, cfs.Write); err == nil {
			h.Close(s.Ctx)
		}
		cfs.Make(s.Ctx, n, name+"d", 0700)
		cfs.Symlink(s.Ctx, n, name+"l", "x")
		cfs.Move(s.Ctx, n, name, nil, name+"m")
		for _, end := range []string{"d", "l", "m", ""} {
			cfs.Delete(s.Ctx, n, name+end)
		}
		cfs.Delete(s.Ctx, n, "f")
		s.Echo("c/root/root/swap/f", "inside")
		if _, h, err := cfs.Create(s.Ctx, n, "f", 0600, cfs.Write); err == nil {
			h.Write(s.Ctx, 0, []byte("inside"))
			h.Close(s.Ctx)
		}
		if list, err := cfs.Contents(s.Ctx, n); err == nil {
			for _, e := range list {
				got[e.Name[:1]]++
			}
		}
	}
	close(stop)
	<-stopped
	if got["inside"] == 0 || got[""] == 0 {
		t.Errorf("the race was none: %v", got)
	}
	list, _ := os.ReadDir(marker)
	after, err := os.Stat(marker + "/f")
	if len(list) != 1 || err != nil || !after.ModTime().Equal(before.ModTime()) || after.Size() != before.Size() {
		t.Errorf("outside there is %v, %v, %v", list, after, err)
	}
}

// A directory of many names is listed in pieces, each name once, from any place.
func TestRootPages(t *testing.T) {
	s := newSession(t)
	root := s.inside("c")
	const n = 3000
	os.Mkdir(root+"/root/many", 0755)
	for i := range n {
		os.WriteFile(fmt.Sprintf("%s/root/many/%s%d", root, strings.Repeat("x", 100), i), nil, 0600)
	}
	l, err := cfs.Pages(s.Ctx, s.at("c/root/root/many"))
	if err != nil || l == nil {
		t.Fatal(err)
	}
	defer l.Close()
	seen := map[string]uint64{}
	var at, middle uint64
	var after string
	for pieces := 0; ; pieces++ {
		list, err := l.From(s.Ctx, at)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		if len(list) > 1000 {
			t.Fatalf("%d names at once", len(list))
		}
		for _, e := range list {
			if seen[e.Name] != 0 {
				t.Fatalf("%s twice", e.Name)
			}
			seen[e.Name] = e.Qid
			if len(seen) == n/2 {
				middle = e.Next
			} else if len(seen) == n/2+1 {
				after = e.Name
			}
			at = e.Next
		}
	}
	if len(seen) != n+2 {
		t.Errorf("%d names", len(seen))
	}
	if list, err := l.From(s.Ctx, middle); err != nil || list[0].Name != after {
		t.Errorf("again from the middle: %v, not %s", err, after)
	}
}
