package styx

import (
	"bytes"
	"strings"
	"testing"

	"9fans.net/go/plan9"
)

var dirs = []Dir{
	{Name: "ctl", Qid: Qid{0, 0, 5}, Mode: 0600, Atime: 1, Mtime: 2, Uid: "u", Gid: "g", Muid: "m"},
	{Name: "proc", Qid: Qid{QTDir, 0, 6}, Mode: DMDir | 0555, Uid: "root", Gid: "root"},
	DontTouch(),
}

func TestDir(t *testing.T) {
	var all []byte
	for _, d := range dirs {
		var err error
		if all, err = d.Append(all); err != nil {
			t.Fatal(err)
		}
		p := fcall(&Msg{Stat: &d})
		if !bytes.HasSuffix(all, p.Stat) {
			t.Errorf("%+v: %x, plan9 has %x", d, all, p.Stat)
		}
	}
	for rest, i := all, 0; len(rest) > 0; i++ {
		d, next, err := ParseDir(rest)
		if err != nil || d != dirs[i] {
			t.Fatalf("%+v, %v, want %+v", d, err, dirs[i])
		}
		for n := range len(rest) - len(next) {
			if d, left, err := ParseDir(rest[:n]); err == nil || len(left) != n {
				t.Errorf("%d bytes: %+v", n, d)
			}
		}
		rest = next
	}
	long := append([]byte{byte(len(all))}, all[1:]...) // the first record with a size that reaches into the second
	if d, _, err := ParseDir(long); err == nil {
		t.Errorf("size %d: %+v", len(all), d)
	}
}

func TestTouched(t *testing.T) {
	for want, change := range map[Touch]func(*Dir){
		0:                       func(*Dir) {},
		TouchType:               func(d *Dir) { d.Type = 0 },
		TouchDev:                func(d *Dir) { d.Dev = 0 },
		TouchQid:                func(d *Dir) { d.Qid.Version = 0 },
		TouchMode:               func(d *Dir) { d.Mode = 0644 },
		TouchAtime | TouchMtime: func(d *Dir) { d.Atime, d.Mtime = 1, 1 },
		TouchLength:             func(d *Dir) { d.Length = 0 },
		TouchName:               func(d *Dir) { d.Name = "n" },
		TouchUid:                func(d *Dir) { d.Uid = "u" },
		TouchGid:                func(d *Dir) { d.Gid = "g" },
		TouchMuid | TouchAtime:  func(d *Dir) { d.Muid, d.Atime = "m", 0 },
	} {
		d := DontTouch()
		change(&d)
		if got := d.Touched(); got != want {
			t.Errorf("%+v: %b, want %b", d, got, want)
		}
	}
	var null plan9.Dir
	null.Null()
	d := DontTouch()
	if b, err := d.Append(nil); err != nil || !bytes.Equal(b, fcall(&Msg{Stat: &d}).Stat) {
		t.Errorf("%x, %v", b, err)
	} else if want, _ := null.Bytes(); !bytes.Equal(b, want) {
		t.Errorf("%x, plan9 has %x", b, want)
	}
}

func TestDirent(t *testing.T) {
	b, err := AppendDirent(nil, Qid{QTDir, 1, 2}, 3, 4, "x")
	if want := unhex(t, "80 01000000 0200000000000000 0300000000000000 04 0100 78"); err != nil || !bytes.Equal(b, want) {
		t.Errorf("%x, %v, want %x", b, err, want)
	}
	b, err = AppendDirent(b, Qid{Path: 9}, 4, 8, "file")
	if err != nil {
		t.Fatal(err)
	}
	if same, err := AppendDirent(b, Qid{}, 5, 8, strings.Repeat("x", 1<<16)); err == nil || len(same) != len(b) {
		t.Errorf("name of 65536 bytes: %d bytes, %v", len(same), err)
	}
	e, rest, err := ParseDirent(b)
	if want := (Dirent{Qid{QTDir, 1, 2}, 3, 4, "x"}); err != nil || e != want {
		t.Errorf("%+v, %v, want %+v", e, err, want)
	}
	if e, left, err := ParseDirent(rest); err != nil || e.Name != "file" || len(left) != 0 {
		t.Errorf("%+v, %x, %v", e, left, err)
	}
	for n := range len(rest) {
		if e, _, err := ParseDirent(rest[:n]); err == nil {
			t.Errorf("%d bytes: %+v", n, e)
		}
	}
}
