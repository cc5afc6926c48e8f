package styx

import (
	"slices"
	"testing"
)

func TestSplit(t *testing.T) {
	for _, test := range []struct {
		line  string
		words []string
	}{
		{"", nil},
		{" a\tb ", []string{"a", "b"}},
		{"'a b' ''", []string{"a b", ""}},
		{"'it''s' x'y z'w", []string{"it's", "xy zw"}},
		{`"a\n\x00" b"c`, []string{"a\n\x00", `b"c`}},
		{"é 日本", []string{"é", "日本"}},
	} {
		if got, err := split(test.line); err != nil || !slices.Equal(got, test.words) {
			t.Errorf("%s: %q, %v, want %q", test.line, got, err, test.words)
		}
	}
	for _, line := range []string{"'a", "a 'b''", `"a`, `"\q"`} {
		if got, err := split(line); err == nil {
			t.Errorf("%s: %q", line, got)
		}
	}
}

func TestAppendWord(t *testing.T) {
	for s, want := range map[string]string{
		"a": "a", "": "''", "a b": "'a b'", "it's": "'it''s'", `"x`: `'"x'`, "é": "é",
		"a\n": `"a\n"`, "\x00": `"\x00"`, "\xff": `"\xff"`, "'\n": `"'\n"`, "\u00a0": `"\u00a0"`,
	} {
		if got := string(appendWord(nil, s)); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}

// TestTextDefaults: what a line may leave out.
func TestTextDefaults(t *testing.T) {
	for line, want := range map[string]string{
		"Tversion msize 8192 version 9P2000": "Tversion tag ~0 msize 8192 version 9P2000",
		"Tattach fid 1":                      "Tattach tag 0 fid 1 afid ~0 uname '' aname ''",
		"Tattach nuname 5 fid 0x10":          "Tattach tag 0 fid 16 afid ~0 uname '' aname '' nuname 5",
		"Twalk newfid 2 fid 1 tag 7 names a": "Twalk tag 7 fid 1 newfid 2 names a",
		"Twstat fid 1 length 0":              "Twstat tag 0 fid 1 type ~0 dev ~0 qid ~0 mode ~0 atime ~0 mtime ~0 length 0 name '' uid '' gid '' muid ''",
		"Rstat":                              "Rstat tag 0 type 0 dev 0 qid 0x0.0 mode 00 atime 0 mtime 0 length 0 name '' uid '' gid '' muid ''",
	} {
		m, err := ParseText(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		} else if got := m.String(); got != want {
			t.Errorf("%s:\n%s, want\n%s", line, got, want)
		}
	}
}

func TestTextErrors(t *testing.T) {
	for line, want := range map[string]string{
		"":                     "empty line",
		"Tfoo tag 1":           `unknown message type "Tfoo"`,
		"Terror":               `unknown message type "Terror"`,
		"''":                   `unknown message type ""`,
		"Tread frob 1":         "Tread: frob: no such field",
		"Tread fid":            "Tread: fid: no value",
		"Tread fid x":          `Tread: fid: strconv.ParseUint: parsing "x": invalid syntax`,
		"Topen fid 1 mode 300": `Topen: mode: strconv.ParseUint: parsing "300": value out of range`,
		"Tread tag 70000":      `Tread: tag: strconv.ParseUint: parsing "70000": value out of range`,
		"Rattach qid 1.0.x":    `Rattach: qid: no qid type 'x'`,
		"Rattach qid 1":        `Rattach: qid: strconv.ParseUint: parsing "": invalid syntax`,
		"Rgetattr atime 1":     `Rgetattr: atime: strconv.ParseUint: parsing "": invalid syntax`,
		"Rwalk qids 1.0 2":     `Rwalk: qids: strconv.ParseUint: parsing "": invalid syntax`,
		"Twrite fid 1 data '":  "unfinished ' in line",
	} {
		if m, err := ParseText(line); err == nil || err.Error() != want {
			t.Errorf("%s: %v, %v, want %s", line, m, err, want)
		}
	}
}

// TestTextOfPart: a message that lacks its part, or whose type nobody knows, still prints.
func TestTextOfPart(t *testing.T) {
	for want, m := range map[string]*Msg{
		"Rstat tag 1":    {Type: Rstat, Tag: 1},
		"type 98 tag 1":  {Type: 98, Tag: 1},
		"type 200 tag 1": {Type: 200, Tag: 1},
	} {
		if got := m.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// FuzzText: what was read prints as a line that reads the same.
func FuzzText(f *testing.F) {
	for _, v := range vectors {
		f.Add(v.text)
	}
	f.Add(`Twrite data "a\x00" fid ~0`)
	f.Add("Rattach qid 0x1.2.dalmAtLh")
	f.Fuzz(func(t *testing.T, line string) {
		m, err := ParseText(line)
		if err != nil {
			return
		}
		text := m.String()
		p, err := ParseText(text)
		if err != nil || !same(m, p) {
			t.Fatalf("%s: %v", text, err)
		}
	})
}
