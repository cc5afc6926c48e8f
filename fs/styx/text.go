package styx

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// String gives the message as a line of text that ParseText reads:
//
//	Twalk tag 1 fid 1 newfid 2 names hello 'a b'
//	Rattach tag 1 qid 0x1a.0.d
//
// Each field is its name and its value, in the order of the wire; names and qids, being lists, come last. A number
// with all bits set (NoFid, NoTag, what a Twstat does not touch) is ~0. A word is quoted as by quote(2), or as Go
// quotes it if it has bytes that would not show. A qid is its path, version and type, the type one of the letters
// d (directory) a (append) l (exclusive) m (mount) A (auth) t (temporary) L (symlink) h (link) for each bit.
func (m *Msg) String() string {
	b := append([]byte(m.Type.String()), " tag "...)
	b = tag.appendText(b, m)
	if int(m.Type) >= len(table) {
		return string(b)
	}
	r := &table[m.Type]
	if r.part != nil && !r.part(m, false) {
		return string(b)
	}
	for _, f := range r.fields {
		if f == nuname && m.NUname == NoUid {
			continue // as on 9P2000, which has none
		}
		b = f.appendText(append(append(append(b, ' '), f.key...), ' '), m)
	}
	return strings.TrimRight(string(b), " ")
}

func (f *field) appendText(b []byte, m *Msg) []byte {
	switch p := f.at(m).(type) {
	case *uint8:
		return appendNumber(b, uint64(*p), 8, f.base)
	case *uint16:
		return appendNumber(b, uint64(*p), 16, f.base)
	case *uint32:
		return appendNumber(b, uint64(*p), 32, f.base)
	case *uint64:
		return appendNumber(b, *p, 64, f.base)
	case *Time:
		b = append(strconv.AppendUint(b, p.Sec, 10), '.')
		return strconv.AppendUint(b, p.Nsec, 10)
	case *Qid:
		return appendQidText(b, *p)
	case *string:
		return appendWord(b, *p)
	case *[]byte:
		return appendWord(b, string(*p))
	case *[]string:
		for i, s := range *p {
			if i > 0 {
				b = append(b, ' ')
			}
			b = appendWord(b, s)
		}
		return b
	case *[]Qid:
		for i, q := range *p {
			if i > 0 {
				b = append(b, ' ')
			}
			b = appendQidText(b, q)
		}
		return b
	}
	panic("styx: " + f.key + " has no form as text")
}

func appendNumber(b []byte, n uint64, bits, base int) []byte {
	if n == 1<<bits-1 {
		return append(b, "~0"...)
	}
	switch base {
	case 8:
		b = append(b, '0')
	case 16:
		b = append(b, "0x"...)
	}
	return strconv.AppendUint(b, n, base)
}

func parseNumber(s string, bits int) (uint64, error) {
	if s == "~0" {
		return 1<<bits - 1, nil
	}
	return strconv.ParseUint(s, 0, bits)
}

// qidLetters are the letters of the type's bits, the highest first.
const qidLetters = "dalmAtLh"

func appendQidText(b []byte, q Qid) []byte {
	if q == noQid {
		return append(b, "~0"...)
	}
	b = strconv.AppendUint(append(b, "0x"...), q.Path, 16)
	b = strconv.AppendUint(append(b, '.'), uint64(q.Version), 10)
	if q.Type != 0 {
		b = append(b, '.')
	}
	for i := range qidLetters {
		if q.Type&(0x80>>i) != 0 {
			b = append(b, qidLetters[i])
		}
	}
	return b
}

func parseQid(s string) (q Qid, err error) {
	if s == "~0" {
		return noQid, nil
	}
	path, rest, _ := strings.Cut(s, ".")
	vers, letters, _ := strings.Cut(rest, ".")
	if q.Path, err = strconv.ParseUint(path, 0, 64); err != nil {
		return q, err
	}
	v, err := strconv.ParseUint(vers, 0, 32)
	if err != nil {
		return q, err
	}
	q.Version = uint32(v)
	for _, c := range letters {
		i := strings.IndexRune(qidLetters, c)
		if i < 0 {
			return q, fmt.Errorf("no qid type %q", c)
		}
		q.Type |= 0x80 >> i
	}
	return q, nil
}

// ParseText reads a line as String gives it. Fields may be left out and are 0 or empty then, but afid is NoFid,
// nuname NoUid and the tag of Tversion NoTag, and the fields of Twstat are what it does not touch. But for the last
// they may come in any order.
func ParseText(line string) (*Msg, error) {
	words, err := split(line)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return nil, errors.New("empty line")
	}
	m := new(Msg)
	for t := range table {
		if words[0] != "" && table[t].name == words[0] {
			m.Type = Type(t)
		}
	}
	if m.Type == 0 {
		return nil, fmt.Errorf("unknown message type %q", words[0])
	}
	r := &table[m.Type]
	if r.part != nil {
		r.part(m, true)
	}
	switch m.Type {
	case Tversion:
		m.Tag = NoTag
	case Tauth, Tattach:
		m.Afid, m.NUname = NoFid, NoUid
	case Twstat:
		*m.Stat = DontTouch()
	}
	for words = words[1:]; len(words) > 0; {
		key := words[0]
		if key == "tag" {
			words, err = tag.parseText(words[1:], m)
		} else if f := r.field(key); f != nil {
			words, err = f.parseText(words[1:], m)
		} else {
			err = errors.New("no such field")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", r.name, key, err)
		}
	}
	return m, nil
}

func (r *row) field(key string) *field {
	for _, f := range r.fields {
		if f.key == key {
			return f
		}
	}
	return nil
}

// parseText sets the field from the first of words, or a list from all of them, and gives those that are left.
func (f *field) parseText(words []string, m *Msg) (rest []string, err error) {
	switch p := f.at(m).(type) {
	case *[]string:
		*p = words
		return nil, nil
	case *[]Qid:
		for _, w := range words {
			q, err := parseQid(w)
			if err != nil {
				return nil, err
			}
			*p = append(*p, q)
		}
		return nil, nil
	}
	if len(words) == 0 {
		return nil, errors.New("no value")
	}
	w := words[0]
	var n uint64
	switch p := f.at(m).(type) {
	case *uint8:
		n, err = parseNumber(w, 8)
		*p = uint8(n)
	case *uint16:
		n, err = parseNumber(w, 16)
		*p = uint16(n)
	case *uint32:
		n, err = parseNumber(w, 32)
		*p = uint32(n)
	case *uint64:
		*p, err = parseNumber(w, 64)
	case *Time:
		sec, nsec, _ := strings.Cut(w, ".")
		if p.Sec, err = strconv.ParseUint(sec, 10, 64); err == nil {
			p.Nsec, err = strconv.ParseUint(nsec, 10, 64)
		}
	case *Qid:
		*p, err = parseQid(w)
	case *string:
		*p = w
	case *[]byte:
		*p = []byte(w)
	default:
		panic("styx: " + f.key + " has no form as text")
	}
	return words[1:], err
}

// appendWord adds s quoted so that split finds it as one word and a line stays a line.
func appendWord(b []byte, s string) []byte {
	plain := s != ""
	for _, c := range s {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return strconv.AppendQuote(b, s)
		}
		if c == ' ' || c == '\'' || c == '"' {
			plain = false
		}
	}
	if plain {
		return append(b, s...)
	}
	b = append(b, '\'')
	b = append(b, strings.ReplaceAll(s, "'", "''")...)
	return append(b, '\'')
}

// split cuts a line into words: quoted as by quote(2), or as Go does where they begin with a double quote.
func split(s string) (words []string, err error) {
	for {
		s = strings.TrimLeft(s, " \t\r\n")
		if s == "" {
			return words, nil
		}
		if s[0] == '"' {
			q, err := strconv.QuotedPrefix(s)
			if err != nil {
				return nil, errors.New("unfinished \" in line")
			}
			w, _ := strconv.Unquote(q)
			words, s = append(words, w), s[len(q):]
			continue
		}
		var w strings.Builder
		quoted := false
		i := 0
		for ; i < len(s) && (quoted || !strings.ContainsRune(" \t\r\n", rune(s[i]))); i++ {
			switch {
			case s[i] != '\'':
				w.WriteByte(s[i])
			case quoted && i+1 < len(s) && s[i+1] == '\'':
				w.WriteByte('\'')
				i++
			default:
				quoted = !quoted
			}
		}
		if quoted {
			return nil, errors.New("unfinished ' in line")
		}
		words, s = append(words, w.String()), s[i:]
	}
}
