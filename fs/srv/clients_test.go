package srv

import (
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	go9p "github.com/knusbaum/go9p/client"
	"github.com/knusbaum/go9p/proto"
)

// Other people's clients find what they need.

func TestP9Client(t *testing.T) {
	w := newWorld()
	conn := dial(t, &Server{Root: w}, asRoot)
	c, err := p9.NewClient(conn.c)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	root, err := c.Attach("/")
	if err != nil {
		t.Fatal(err)
	}
	_, f, err := root.Walk([]string{"hello"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Open(p9.ReadOnly); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := f.ReadAt(b, 0)
	if string(b[:n]) != "hello, world\n" || err != nil && err != io.EOF {
		t.Errorf("read %q, %v", b[:n], err)
	}
	if _, _, attr, err := f.GetAttr(p9.AttrMaskAll); err != nil || attr.Mode != p9.ModeRegular|0444 {
		t.Errorf("attributes %v, %v", attr, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := root.Walk([]string{"nothing"}); !errors.Is(err, linux.ENOENT) {
		t.Errorf("walk to nothing: %v", err)
	}
	if _, err := root.Mkdir("e", 0755, p9.NoUID, p9.NoGID); err != nil {
		t.Error(err)
	}
	if err := root.RenameAt("e", root, "f"); err != nil {
		t.Error(err)
	}
	_, dir, err := root.Walk(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := dir.Open(p9.ReadOnly); err != nil {
		t.Fatal(err)
	}
	var names []string
	for off := uint64(0); ; {
		list, err := dir.Readdir(off, 200)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		for _, e := range list {
			names, off = append(names, e.Name), e.Offset
		}
	}
	if len(names) != len(worldFiles)+4 || !slices.Contains(names, "f") {
		t.Errorf("%q", names)
	}
	if err := root.UnlinkAt("f", 0x200); err != nil {
		t.Error(err)
	}
	_, ctl, err := root.Walk([]string{"ctl"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ctl.Open(p9.WriteOnly); err != nil {
		t.Fatal(err)
	}
	if n, err := ctl.WriteAt([]byte("go\n"), 5); n != 3 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if _, err := ctl.WriteAt([]byte("fail\n"), 5); !errors.Is(err, linux.EINVAL) {
		t.Errorf("write: %v", err)
	}
	if !slices.Equal(w.did, []string{"go\n"}) {
		t.Errorf("commands %q", w.did)
	}
}

func TestGo9pClient(t *testing.T) {
	w := newWorld()
	conn := dial(t, &Server{Root: w, Users: people{}}, asRoot)
	c, err := go9p.NewClient(conn.c, "glenda", "")
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Open("/hello", proto.Oread)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(f); string(b) != "hello, world\n" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	f.Close()
	st, err := c.Stat("/d/name")
	if err != nil || st.Name != "name" || st.Uid != "root" || st.Mode != 0444 {
		t.Errorf("stat %v, %v", st, err)
	}
	if _, err := c.Stat("/nothing"); err == nil {
		t.Error("found nothing")
	}
	list, err := c.Readdir("/")
	if err != nil || len(list) != len(worldFiles)+1 {
		t.Errorf("%d entries, %v", len(list), err)
	}
	ctl, err := c.Open("/ctl", proto.Owrite|proto.Otrunc)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := ctl.Write([]byte("go\n")); n != 3 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if _, err := ctl.Write([]byte("fail\n")); err == nil || err.Error() != `unknown control message: "fail"` {
		t.Errorf("write: %v", err)
	}
	ctl.Close()
	if !slices.Equal(w.did, []string{"go\n"}) {
		t.Errorf("commands %q", w.did)
	}
	w.Mkdir(t.Context(), "e", 0)
	if err := c.Remove("/e"); err != nil {
		t.Error(err)
	}
	if err := c.Remove("/hello"); err == nil {
		t.Error("removed what cannot be")
	}
}
