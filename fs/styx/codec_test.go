package styx

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"9fans.net/go/plan9"
	"pgregory.net/rapid"
)

// vectors are messages written out by hand from intro(5) and its pages, diod's protocol.md and Linux's
// net/9p/client.c. Where a dialect is missing the bytes are the same in both.
var vectors = []struct {
	dialects dialects
	text     string
	bytes    string
}{
	{both, "Tversion tag ~0 msize 8192 version 9P2000", "13000000 64 ffff 00200000 0600 395032303030"},
	{both, "Rversion tag ~0 msize 4096 version unknown", "14000000 65 ffff 00100000 0700 756e6b6e6f776e"},
	{plain, "Tauth tag 1 afid 2 uname glenda aname ''", "15000000 66 0100 02000000 0600 676c656e6461 0000"},
	{linux, "Tauth tag 1 afid 2 uname '' aname / nuname 1000", "14000000 66 0100 02000000 0000 0100 2f e8030000"},
	{plain, "Tattach tag 1 fid 0 afid ~0 uname me aname /ctr", "19000000 68 0100 00000000 ffffffff 0200 6d65 0400 2f637472"},
	{linux, "Tattach tag 1 fid 0 afid ~0 uname nobody aname ''", "1d000000 68 0100 00000000 ffffffff 0600 6e6f626f6479 0000 ffffffff"},
	{both, "Rattach tag 1 qid 0x1a.0.d", "14000000 69 0100 80 00000000 1a00000000000000"},
	{plain, "Rerror tag 3 ename 'file does not exist'", "1c000000 6b 0300 1300 66696c6520646f6573206e6f74206578697374"},
	{linux, "Rlerror tag 3 ecode 2", "0b000000 07 0300 02000000"},
	{both, "Tflush tag 2 oldtag 1", "09000000 6c 0200 0100"},
	{both, "Rflush tag 2", "07000000 6d 0200"},
	{both, "Twalk tag 1 fid 1 newfid 2 names hello 'a b'", "1d000000 6e 0100 01000000 02000000 0200 0500 68656c6c6f 0300 612062"},
	{both, "Twalk tag 1 fid 1 newfid 2 names", "11000000 6e 0100 01000000 02000000 0000"},
	{both, "Rwalk tag 1 qids 0x1.0 0x2.5.dA", "23000000 6f 0100 0200 00000000000100000000000000 88050000000200000000000000"},
	{plain, "Topen tag 1 fid 2 mode 0x11", "0c000000 70 0100 02000000 11"},
	{plain, "Ropen tag 1 qid 0x7.0 iounit 0", "18000000 71 0100 00 00000000 0700000000000000 00000000"},
	{plain, "Tcreate tag 1 fid 2 name d perm 020000000755 mode 0x0", "13000000 72 0100 02000000 0100 64 ed010080 00"},
	{both, "Tread tag 1 fid 2 offset 4096 count 8168", "17000000 74 0100 02000000 0010000000000000 e81f0000"},
	{both, `Rread tag 1 data "42\n"`, "0e000000 75 0100 03000000 34320a"},
	{both, `Twrite tag 1 fid 2 offset 0 data "kill\n"`, "1c000000 76 0100 02000000 0000000000000000 05000000 6b696c6c0a"},
	{both, "Rwrite tag 1 count 5", "0b000000 77 0100 05000000"},
	{both, "Tclunk tag 1 fid 2", "0b000000 78 0100 02000000"},
	{plain, "Rstat tag 1 type 0 dev 0 qid 0x3.0 mode 0444 atime 1 mtime 2 length 0 name f uid u gid g muid m",
		"3e000000 7d 0100 3500 3300 0000 00000000 00000000000300000000000000 24010000 01000000 02000000 0000000000000000 0100 66 0100 75 0100 67 0100 6d"},
	{plain, "Twstat tag 1 fid 2 type ~0 dev ~0 qid ~0 mode ~0 atime ~0 mtime ~0 length 0 name '' uid '' gid '' muid ''",
		"3e000000 7e 0100 02000000 3100 2f00 ffff ffffffff ffffffffffffffffffffffffff ffffffff ffffffff ffffffff 0000000000000000 0000 0000 0000 0000"},
	{linux, "Tlopen tag 1 fid 2 flags 0x8041", "0f000000 0c 0100 02000000 41800000"},
	{linux, "Tlcreate tag 1 fid 2 name f flags 0x241 perm 0100644 gid 100", "1a000000 0e 0100 02000000 0100 66 41020000 a4810000 64000000"},
	{linux, "Tgetattr tag 1 fid 2 mask 0x17ff", "13000000 18 0100 02000000 ff17000000000000"},
	{linux, "Tsetattr tag 1 fid 2 valid 0x68 mode 00 uid 0 gid 0 size 0 atime 0.0 mtime 1.2",
		"43000000 1a 0100 02000000 68000000 00000000 00000000 00000000 0000000000000000 0000000000000000 0000000000000000 0100000000000000 0200000000000000"},
	{linux, "Rgetattr tag 1 valid 0x7ff qid 0x3.0 mode 0100444 uid 7 gid 8 nlink 1 rdev 0 size 0 blksize 4096 blocks 0 " +
		"atime 1.0 mtime 2.0 ctime 3.0 btime 0.0 gen 0 dataversion 9",
		"a0000000 19 0100 ff07000000000000 00000000000300000000000000 24810000 07000000 08000000 0100000000000000 " +
			"0000000000000000 0000000000000000 0010000000000000 0000000000000000 0100000000000000 0000000000000000 " +
			"0200000000000000 0000000000000000 0300000000000000 0000000000000000 0000000000000000 0000000000000000 " +
			"0000000000000000 0900000000000000"},
	{linux, "Txattrwalk tag 1 fid 2 newfid 3 name security.capability",
		"24000000 1e 0100 02000000 03000000 1300 73656375726974792e6361706162696c697479"},
	{linux, "Txattrcreate tag 1 fid 2 name u size 3 flags 0x1", "1a000000 20 0100 02000000 0100 75 0300000000000000 01000000"},
	{linux, "Treaddir tag 1 fid 2 offset 3 count 100", "17000000 28 0100 02000000 0300000000000000 64000000"},
	{linux, "Tfsync tag 1 fid 2 datasync 1", "0f000000 32 0100 02000000 01000000"},
	{linux, "Tlock tag 1 fid 2 type 1 flags 0x1 start 0 length 0 pid 9 client h",
		"27000000 34 0100 02000000 01 01000000 0000000000000000 0000000000000000 09000000 0100 68"},
	{linux, "Rgetlock tag 1 type 2 start 0 length 0 pid 9 client h", "1f000000 37 0100 02 0000000000000000 0000000000000000 09000000 0100 68"},
	{linux, "Rstatfs tag 1 type 0x1021997 bsize 4096 blocks 1 bfree 2 bavail 3 files 4 ffree 5 fsid 6 namelen 255",
		"43000000 09 0100 97190201 00100000 0100000000000000 0200000000000000 0300000000000000 0400000000000000 0500000000000000 0600000000000000 ff000000"},
	{linux, "Tlink tag 1 newdirfid 2 fid 3 name n", "12000000 46 0100 02000000 03000000 0100 6e"},
	{linux, "Trenameat tag 1 fid 2 name a newdirfid 3 newname b", "15000000 4a 0100 02000000 0100 61 03000000 0100 62"},
	{linux, "Tunlinkat tag 1 fid 2 name a flags 0x200", "12000000 4c 0100 02000000 0100 61 00020000"},
	{linux, "Tmknod tag 1 fid 2 name p perm 010644 major 1 minor 3 gid 4", "1e000000 12 0100 02000000 0100 70 a4110000 01000000 03000000 04000000"},
	{linux, "Tsymlink tag 1 fid 2 name l target /x gid 4", "16000000 10 0100 02000000 0100 6c 0200 2f78 04000000"},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// each calls f for every dialect in d.
func (d dialects) each(f func(Dialect)) {
	for _, x := range []Dialect{Plain, Linux} {
		if d>>x&1 != 0 {
			f(x)
		}
	}
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		want := unhex(t, v.bytes)
		v.dialects.each(func(d Dialect) {
			var m Msg
			if err := Parse(want, d, &m); err != nil {
				t.Errorf("%s: parse %s: %v", d, v.text, err)
			} else if m.String() != v.text {
				t.Errorf("%s: parse:\n%s, want\n%s", d, &m, v.text)
			}
			p, err := ParseText(v.text)
			if err != nil {
				t.Errorf("%s: %v", v.text, err)
				return
			}
			if got, err := p.Append(nil, d); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: append %s:\n%x, %v, want\n%x", d, v.text, got, err, want)
			}
		})
	}
}

// types calls f for every message type of every dialect.
func types(f func(t Type, r *row, d Dialect)) {
	for t := range table {
		table[t].in.each(func(d Dialect) { f(Type(t), &table[t], d) })
	}
}

// draw makes a message of type t with arbitrary values in its fields.
func draw(rt *rapid.T, t Type, r *row, d Dialect) *Msg {
	m := &Msg{Type: t, Tag: Tag(rapid.Uint16().Draw(rt, "tag"))}
	if r.part != nil {
		r.part(m, true)
	}
	str := rapid.StringOf(rapid.Rune().Filter(func(c rune) bool { return c != 0 }))
	qids := rapid.Custom(func(rt *rapid.T) Qid {
		return Qid{rapid.Uint8().Draw(rt, "type"), rapid.Uint32().Draw(rt, "version"), rapid.Uint64().Draw(rt, "path")}
	})
	for _, f := range r.fields {
		switch p := f.at(m).(type) {
		case *uint8:
			*p = rapid.Uint8().Draw(rt, f.key)
		case *uint16:
			*p = rapid.Uint16().Draw(rt, f.key)
		case *uint32:
			if *p = rapid.Uint32().Draw(rt, f.key); f == nuname && d == Plain {
				*p = NoUid
			}
		case *uint64:
			*p = rapid.Uint64().Draw(rt, f.key)
		case *Time:
			*p = Time{rapid.Uint64().Draw(rt, f.key), rapid.Uint64().Draw(rt, f.key)}
		case *Qid:
			*p = qids.Draw(rt, f.key)
		case *string:
			*p = str.Draw(rt, f.key)
		case *[]byte:
			*p = rapid.SliceOf(rapid.Byte()).Draw(rt, f.key)
		case *[]string:
			*p = rapid.SliceOfN(str, 0, MaxWalk).Draw(rt, f.key)
		case *[]Qid:
			*p = rapid.SliceOfN(qids, 0, MaxWalk).Draw(rt, f.key)
		default:
			rt.Fatalf("%s %s: no values for a %T", r.name, f.key, p)
		}
	}
	return m
}

// same compares messages; empty and nil lists are the same.
func same(a, b *Msg) bool {
	x, y := *a, *b
	for _, m := range []*Msg{&x, &y} {
		m.Names, m.Qids, m.Data = append([]string{}, m.Names...), append([]Qid{}, m.Qids...), append([]byte{}, m.Data...)
	}
	return reflect.DeepEqual(x, y)
}

func TestRoundTrip(t *testing.T) {
	types(func(typ Type, r *row, d Dialect) {
		t.Run(d.String()+"/"+r.name, rapid.MakeCheck(func(rt *rapid.T) {
			m := draw(rt, typ, r, d)
			b, err := m.Append([]byte("before"), d)
			if err != nil {
				rt.Fatal(err)
			}
			var p Msg
			if err := Parse(b[len("before"):], d, &p); err != nil || !same(m, &p) {
				rt.Fatalf("parse(append(m)):\n%+v, %v, want\n%+v", p, err, *m)
			}
			line := m.String()
			if strings.ContainsAny(line, "\n\r") {
				rt.Fatalf("more than a line: %q", line)
			}
			if p, err := ParseText(line); err != nil || !same(m, p) {
				rt.Fatalf("parse(print(m)): %s\n%+v, %v, want\n%+v", line, p, err, *m)
			}
		}))
	})
}

// fcall is m as 9fans.net/go has it.
func fcall(m *Msg) *plan9.Fcall {
	q := func(q Qid) plan9.Qid { return plan9.Qid{Path: q.Path, Vers: q.Version, Type: q.Type} }
	f := &plan9.Fcall{
		Type: uint8(m.Type), Fid: uint32(m.Fid), Tag: uint16(m.Tag), Msize: m.Msize, Version: m.Version, Oldtag: uint16(m.Oldtag),
		Ename: m.Ename, Iounit: m.Iounit, Afid: uint32(m.Afid), Uname: m.Uname, Aname: m.Aname, Perm: plan9.Perm(m.Perm),
		Name: m.Name, Mode: m.Mode, Newfid: uint32(m.Newfid), Wname: m.Names, Offset: m.Offset, Count: m.Count, Data: m.Data,
		Qid: q(m.Qid), Aqid: q(m.Qid),
	}
	for _, x := range m.Qids {
		f.Wqid = append(f.Wqid, q(x))
	}
	if s := m.Stat; s != nil {
		d := plan9.Dir{
			Type: s.Type, Dev: s.Dev, Qid: q(s.Qid), Mode: plan9.Perm(s.Mode), Atime: s.Atime, Mtime: s.Mtime,
			Length: s.Length, Name: s.Name, Uid: s.Uid, Gid: s.Gid, Muid: s.Muid,
		}
		f.Stat, _ = d.Bytes()
	}
	return f
}

// TestPlan9 compares with the encoder of 9fans.net/go.
func TestPlan9(t *testing.T) {
	types(func(typ Type, r *row, d Dialect) {
		if d != Plain {
			return
		}
		t.Run(r.name, rapid.MakeCheck(func(rt *rapid.T) {
			m := draw(rt, typ, r, d)
			got, err := m.Append(nil, d)
			if err != nil {
				rt.Fatal(err)
			}
			if want, err := fcall(m).Bytes(); err != nil || !bytes.Equal(got, want) {
				rt.Fatalf("%s:\n%x, plan9 has\n%x, %v", m, got, want, err)
			}
		}))
	})
}

// resize puts the true size into a message.
func resize(b []byte) []byte {
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

// TestMalformed cuts every message of every dialect at every byte and adds one.
func TestMalformed(t *testing.T) {
	types(func(typ Type, r *row, d Dialect) {
		m := rapid.Custom(func(rt *rapid.T) *Msg { return draw(rt, typ, r, d) }).Example(1)
		whole, err := m.Append(nil, d)
		if err != nil {
			t.Fatal(err)
		}
		refuse := func(b []byte, what string) {
			t.Helper()
			var got Msg
			if err := Parse(b, d, &got); Errno(err) != uint32(syscall.EPROTO) {
				t.Errorf("%s: %s: %s: %v", d, r.name, what, err)
			}
			if got.Type != m.Type || got.Tag != m.Tag {
				t.Errorf("%s: %s: %s: %s, tag %d, want %d", d, r.name, what, got.Type, got.Tag, m.Tag)
			}
		}
		for n := headerSize; n < len(whole); n++ {
			if typ == Tfsync && n == headerSize+4 {
				continue // without the word datasync it is whole
			}
			refuse(resize(bytes.Clone(whole[:n])), "shorter")
			refuse(bytes.Clone(whole[:n]), "shorter than its size")
		}
		refuse(resize(append(bytes.Clone(whole), 0)), "longer")
		refuse(append(bytes.Clone(whole), 0), "longer than its size")
	})
}

// hostile has what TestMalformed cannot make, for each T-type that holds a string, a list or data.
var hostile = []struct {
	dialect Dialect
	bytes   string
	err     string
}{
	{Plain, "64 ffff 00200000 ffff 39", "Tversion: ends within version"},
	{Plain, "64 ffff 00200000 0200 3900", "Tversion: NUL in version"},
	{Plain, "66 0100 00000000 0100 80 0000", "Tauth: uname is not UTF-8"},
	{Linux, "68 0100 00000000 ffffffff 0000 0200 c328 ffffffff", "Tattach: aname is not UTF-8"},
	{Plain, "68 0100 00000000 ffffffff 0000 0000 ffffffff", "Tattach: 4 bytes too many"},
	{Linux, "68 0100 00000000 ffffffff 0000 0000", "Tattach: ends within nuname"},
	{Plain, "6e 0100 01000000 02000000 1100" + strings.Repeat("0000", 17), "Twalk: 17 names"},
	{Linux, "6e 0100 01000000 02000000 ffff", "Twalk: 65535 names"},
	{Linux, "6e 0100 01000000 02000000 0100 0300 610062", "Twalk: NUL in names"},
	{Linux, "6e 0100 01000000 02000000 0200 0100 61 0300 6162", "Twalk: ends within names"},
	{Plain, "6f 0100 1100" + strings.Repeat("00", 17*13), "Rwalk: 17 qids"},
	{Plain, "72 0100 01000000 0200 61ff 00000000 00", "Tcreate: name is not UTF-8"},
	{Plain, "76 0100 01000000 0000000000000000 ffffffff 61", "Twrite: ends within data"},
	{Plain, "76 0100 01000000 0000000000000000 01000000 6162", "Twrite: 1 bytes too many"},
	{Plain, "7e 0100 01000000 3100 3000 ffff ffffffff ffffffffffffffffffffffffff ffffffff ffffffff ffffffff 0000000000000000 0000 0000 0000 0000",
		"Twstat: the sizes of stat do not agree"},
	{Plain, "7e 0100 01000000 0000", "Twstat: the sizes of stat do not agree"},
	{Plain, "7e 0100 01000000 3100 2f00 ffff ffffffff ffffffffffffffffffffffffff ffffffff ffffffff ffffffff 0000000000000000 ffff 0000 0000 0000",
		"Twstat: ends within name"},
	{Linux, "32 0100 01000000 0000", "Tfsync: ends within datasync"},
	{Linux, "70 0100 01000000 00", "Topen: not a message of 9P2000.L"},
	{Plain, "18 0100 01000000 0000000000000000", "Tgetattr: not a message of 9P2000"},
	{Plain, "62 0100", "unknown message type 98"},
	{Linux, "ff 0100", "unknown message type 255"},
}

func TestHostile(t *testing.T) {
	for _, h := range hostile {
		b := resize(append(make([]byte, 4), unhex(t, h.bytes)...))
		m := Msg{Names: []string{"old"}, Fid: 9}
		err := Parse(b, h.dialect, &m)
		if err == nil || err.Error() != h.err {
			t.Errorf("%s: %v, want %s", h.bytes, err, h.err)
		}
		if byte(m.Type) != b[4] || m.Tag != Tag(binary.LittleEndian.Uint16(b[5:])) {
			t.Errorf("%s: %s tag %d", h.bytes, m.Type, m.Tag)
		}
	}
	for n := range headerSize {
		if err := Parse(make([]byte, n), Linux, new(Msg)); err == nil {
			t.Errorf("message of %d bytes taken", n)
		}
	}
}

// TestTable: types come in pairs but for the errors, and a line of text can tell fields apart. (That every T-type has a
// malformed case follows from TestMalformed, which walks the table.)
func TestTable(t *testing.T) {
	for typ := Type(0); typ < 128; typ++ {
		switch name := table[typ].name; {
		case name == "" && (typ == 0 || table[typ^1].name == "" || typ == Rlerror-1 || typ == Rerror-1):
		case name == "":
			t.Errorf("type %d has no row, but %s has", typ, table[typ^1].name)
		case typ%2 == 0 && name[1:] != table[typ+1].name[1:]:
			t.Errorf("%s is followed by %s", name, table[typ+1].name)
		case name[0] != "TR"[typ%2]:
			t.Errorf("type %d is called %s", typ, name)
		}
	}
	types(func(_ Type, r *row, _ Dialect) {
		seen := make(map[string]bool)
		for _, f := range r.fields {
			if seen[f.key] {
				t.Errorf("%s has two fields %q", r.name, f.key)
			}
			seen[f.key] = true
		}
	})
}

func TestAppendTooLong(t *testing.T) {
	long := strings.Repeat("x", 1<<16)
	for _, m := range []*Msg{
		{Type: Tversion, Version: long},
		{Type: Twalk, Names: []string{long}},
		{Type: Twalk, Names: make([]string, MaxWalk+1)},
		{Type: Rwalk, Qids: make([]Qid, MaxWalk+1)},
		{Type: Tcreate, Name: long},
		{Type: Rstat},
		{Type: Rstat, Stat: &Dir{Name: long}},
		{Type: Rstat, Stat: &Dir{Name: long[:40000], Uid: long[:40000]}},
		{Type: Tgetattr},
		{Type: 98},
		{Type: 255},
	} {
		if b, err := m.Append([]byte("keep"), Plain); err == nil || string(b) != "keep" {
			t.Errorf("%s: %.10q, %v", m.Type, b, err)
		}
	}
}

// FuzzParse: what is taken is what Append makes, in both dialects and as text.
func FuzzParse(f *testing.F) {
	for _, v := range vectors {
		f.Add(unhex(f, v.bytes))
	}
	for _, h := range hostile {
		f.Add(resize(append(make([]byte, 4), unhex(f, h.bytes)...)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		both.each(func(d Dialect) {
			var m Msg
			err := Parse(b, d, &m)
			if len(b) >= headerSize && byte(m.Type) != b[4] {
				t.Fatal("no type")
			}
			if err != nil {
				return
			}
			got, err := m.Append(nil, d)
			if m.Type == Tfsync && len(b) == headerSize+4 {
				b = resize(append(bytes.Clone(b), 0, 0, 0, 0))
			}
			if err != nil || !bytes.Equal(got, b) {
				t.Fatalf("append(parse(b)):\n%x, %v, want\n%x", got, err, b)
			}
			if p, err := ParseText(m.String()); err != nil || !same(p, &m) {
				t.Fatalf("parse(print(m)): %s: %v", &m, err)
			}
		})
	})
}

func benchmark(b *testing.B, text string) {
	m, err := ParseText(text)
	if err != nil {
		b.Fatal(err)
	}
	buf, err := m.Append(nil, Linux)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := Parse(buf, Linux, m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Append", func(b *testing.B) {
		b.ReportAllocs()
		out := make([]byte, 0, len(buf))
		for b.Loop() {
			if _, err := m.Append(out, Linux); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkTwalk(b *testing.B)    { benchmark(b, "Twalk fid 1 newfid 2 names ctr web") }
func BenchmarkTread(b *testing.B)    { benchmark(b, "Tread fid 1 count 8168") }
func BenchmarkRread(b *testing.B)    { benchmark(b, "Rread data 'a line of text of a usual length'") }
func BenchmarkTgetattr(b *testing.B) { benchmark(b, "Tgetattr fid 1 mask 0x7ff") }
func BenchmarkRgetattr(b *testing.B) { benchmark(b, "Rgetattr valid 0x7ff mode 0100444") }

// TestAllocs: a message costs its strings and nothing else.
func TestAllocs(t *testing.T) {
	for text, want := range map[string]float64{
		"Tread fid 1 offset 2 count 3":                0,
		"Twrite fid 1 data x":                         0,
		"Rread data x":                                0,
		"Tclunk fid 1":                                0,
		"Twalk fid 1 newfid 2 names hello world":      2,
		"Tattach fid 1 uname someone aname somewhere": 2,
	} {
		m, err := ParseText(text)
		if err != nil {
			t.Fatal(err)
		}
		buf, err := m.Append(nil, Linux)
		if err != nil {
			t.Fatal(err)
		}
		out := make([]byte, 0, len(buf))
		if got := testing.AllocsPerRun(100, func() {
			if Parse(buf, Linux, m) != nil {
				t.Fatal(text)
			}
			if _, err := m.Append(out, Linux); err != nil {
				t.Fatal(err)
			}
		}); got != want {
			t.Errorf("%s: %v allocations, want %v", text, got, want)
		}
	}
}
