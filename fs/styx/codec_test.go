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
		whole[0]++
		refuse(whole, "of another size")
	})
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
	const maxName = 1<<16 - 1 - 2 - 47 // a size of 16 bits has a size and the rest of the record in it
	fits := &Msg{Type: Rstat, Stat: &Dir{Name: long[:maxName]}}
	if b, err := fits.Append(nil, Plain); err != nil || Parse(b, Plain, new(Msg)) != nil {
		t.Errorf("stat record with a name of %d bytes: %v", maxName, err)
	}
	for _, m := range []*Msg{
		{Type: Tversion, Version: long},
		{Type: Twalk, Names: []string{long}},
		{Type: Twalk, Names: make([]string, MaxWalk+1)},
		{Type: Rwalk, Qids: make([]Qid, MaxWalk+1)},
		{Type: Tcreate, Name: long},
		{Type: Rstat},
		{Type: Rstat, Stat: &Dir{Name: long}},
		{Type: Rstat, Stat: &Dir{Name: long[:40000], Uid: long[:40000]}},
		{Type: Rstat, Stat: &Dir{Name: long[:maxName+1]}},
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
