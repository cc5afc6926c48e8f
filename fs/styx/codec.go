package styx

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"syscall"
	"unicode/utf8"
)

const headerSize = 4 + 1 + 2 // size, type, tag

// A msgError says what is wrong with a message. It is an errno too, for 9P2000.L.
type msgError struct {
	text  string
	errno syscall.Errno
}

func (e *msgError) Error() string { return e.text }
func (e *msgError) Unwrap() error { return e.errno }

func malformed(format string, args ...any) error {
	return &msgError{fmt.Sprintf(format, args...), syscall.EPROTO}
}

// lookup finds a type's row, or says why the dialect has none.
func lookup(t Type, d Dialect) (*row, error) {
	if int(t) >= len(table) || table[t].name == "" {
		return nil, &msgError{fmt.Sprintf("unknown message type %d", t), syscall.EOPNOTSUPP}
	}
	r := &table[t]
	if r.in>>d&1 == 0 {
		return nil, &msgError{r.name + ": not a message of " + d.String(), syscall.EOPNOTSUPP}
	}
	return r, nil
}

// String gives the dialect as Tversion names it.
func (d Dialect) String() string {
	if d == Linux {
		return VersionLinux
	}
	return VersionPlain
}

// String gives the type's name, or its number where it has none.
func (t Type) String() string {
	if int(t) >= len(table) || table[t].name == "" {
		return fmt.Sprintf("type %d", uint8(t))
	}
	return table[t].name
}

// Append adds the message to b as it goes on the wire, its size first, and gives b back unchanged with an error if a
// value does not fit there. It does not look at msize: that belongs to the conversation.
func (m *Msg) Append(b []byte, d Dialect) ([]byte, error) {
	r, err := lookup(m.Type, d)
	if err != nil {
		return b, err
	}
	if r.part != nil && !r.part(m, false) {
		return b, fmt.Errorf("%s: nothing to send", r.name)
	}
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(m.Type))
	b = binary.LittleEndian.AppendUint16(b, uint16(m.Tag))
	for _, f := range r.fields {
		if f == nuname && d == Plain {
			continue
		}
		if f == dirType { // the first of a stat record, which is the rest of the message
			if b, err = m.Stat.appendSized(b); err != nil {
				return b[:start], fmt.Errorf("%s: %w", r.name, err)
			}
			break
		}
		if b, err = f.append(b, m); err != nil {
			return b[:start], fmt.Errorf("%s: %w", r.name, err)
		}
	}
	n := len(b) - start
	if uint64(n) > math.MaxUint32 {
		return b[:start], fmt.Errorf("%s: %d bytes do not fit in a message", r.name, n)
	}
	binary.LittleEndian.PutUint32(b[start:], uint32(n))
	return b, nil
}

func (f *field) append(b []byte, m *Msg) ([]byte, error) {
	le := binary.LittleEndian
	switch p := f.at(m).(type) {
	case *uint8:
		return append(b, *p), nil
	case *uint16:
		return le.AppendUint16(b, *p), nil
	case *uint32:
		return le.AppendUint32(b, *p), nil
	case *uint64:
		return le.AppendUint64(b, *p), nil
	case *Time:
		return le.AppendUint64(le.AppendUint64(b, p.Sec), p.Nsec), nil
	case *Qid:
		return appendQid(b, *p), nil
	case *string:
		return appendString(b, f.key, *p)
	case *[]byte:
		if uint64(len(*p)) > math.MaxUint32 {
			return b, fmt.Errorf("%s: %d bytes do not fit in a message", f.key, len(*p))
		}
		return append(le.AppendUint32(b, uint32(len(*p))), *p...), nil
	case *[]string:
		if len(*p) > MaxWalk {
			return b, fmt.Errorf("%d names", len(*p))
		}
		b = le.AppendUint16(b, uint16(len(*p)))
		for _, s := range *p {
			var err error
			if b, err = appendString(b, f.key, s); err != nil {
				return b, err
			}
		}
		return b, nil
	case *[]Qid:
		if len(*p) > MaxWalk {
			return b, fmt.Errorf("%d qids", len(*p))
		}
		b = le.AppendUint16(b, uint16(len(*p)))
		for _, q := range *p {
			b = appendQid(b, q)
		}
		return b, nil
	}
	panic("styx: " + f.key + " has no form on the wire")
}

func appendQid(b []byte, q Qid) []byte {
	b = append(b, q.Type)
	b = binary.LittleEndian.AppendUint32(b, q.Version)
	return binary.LittleEndian.AppendUint64(b, q.Path)
}

func appendString(b []byte, key, s string) ([]byte, error) {
	if len(s) > math.MaxUint16 {
		return b, fmt.Errorf("%s: %d bytes do not fit in a string", key, len(s))
	}
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(s))), s...), nil
}

// Parse reads one whole message, its size included, into m, which it overwrites, the arrays of Names and Qids too.
// Data stays where it is in b; strings are copied. It takes what Append makes and nothing else, with one exception:
// Tfsync may come without its last field, as old clients send it.
//
// Where b has the seven bytes that every message begins with, Type and Tag are set even if there is an error, so
// that the request can be answered. The error is EPROTO for a malformed message, EOPNOTSUPP for a type that d lacks.
func Parse(b []byte, d Dialect, m *Msg) error {
	*m = Msg{Names: m.Names[:0], Qids: m.Qids[:0]}
	if len(b) < headerSize {
		return malformed("message of %d bytes", len(b))
	}
	m.Type, m.Tag = Type(b[4]), Tag(binary.LittleEndian.Uint16(b[5:]))
	r, err := lookup(m.Type, d)
	if err != nil {
		return err
	}
	if n := binary.LittleEndian.Uint32(b); uint64(n) != uint64(len(b)) {
		return malformed("%s: size %d, but %d bytes", r.name, n, len(b))
	}
	if r.part != nil {
		r.part(m, true)
	}
	in := input{b: b[headerSize:]}
	for _, f := range r.fields {
		switch {
		case f == nuname && d == Plain:
			m.NUname = NoUid
			continue
		case f == datasync && len(in.b) == 0:
			continue
		case f == dirType: // the second size is the stat record's own
			if n := int(in.u16()); n != len(in.b) || int(in.u16()) != n-2 {
				return malformed("%s: the sizes of stat do not agree", r.name)
			}
		}
		if f.parse(&in, m); in.err != "" {
			return malformed("%s: %s", r.name, strings.ReplaceAll(in.err, "$", f.key))
		}
	}
	if len(in.b) > 0 {
		return malformed("%s: %d bytes too many", r.name, len(in.b))
	}
	return nil
}

func (f *field) parse(in *input, m *Msg) {
	switch p := f.at(m).(type) {
	case *uint8:
		*p = in.u8()
	case *uint16:
		*p = in.u16()
	case *uint32:
		*p = in.u32()
	case *uint64:
		*p = in.u64()
	case *Time:
		*p = Time{in.u64(), in.u64()}
	case *Qid:
		*p = in.qid()
	case *string:
		*p = in.string()
	case *[]byte:
		n := in.u32()
		*p = in.take(uint64(n))
	case *[]string:
		n := in.u16()
		if n > MaxWalk {
			in.fail(fmt.Sprintf("%d $", n))
			return
		}
		for range n {
			*p = append(*p, in.string())
		}
	case *[]Qid:
		n := in.u16()
		if n > MaxWalk {
			in.fail(fmt.Sprintf("%d $", n))
			return
		}
		for range n {
			*p = append(*p, in.qid())
		}
	default:
		panic("styx: " + f.key + " has no form on the wire")
	}
}

// An input is the bytes of a message that are still to be read. After the first error, in which $ stands for the
// field, it is empty and gives zeros.
type input struct {
	b   []byte
	err string
}

func (in *input) fail(text string) {
	if in.err == "" {
		in.err = text
	}
	in.b = nil
}

func (in *input) take(n uint64) []byte {
	if n > uint64(len(in.b)) {
		in.fail("ends within $")
		return nil
	}
	p := in.b[:n:n]
	in.b = in.b[n:]
	return p
}

func (in *input) u8() uint8 {
	if p := in.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (in *input) u16() uint16 {
	if p := in.take(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

func (in *input) u32() uint32 {
	if p := in.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (in *input) u64() uint64 {
	if p := in.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (in *input) qid() Qid { return Qid{in.u8(), in.u32(), in.u64()} }

func (in *input) string() string {
	p := in.take(uint64(in.u16()))
	for _, c := range p {
		if c == 0 {
			in.fail("NUL in $")
			return ""
		}
	}
	if !utf8.Valid(p) {
		in.fail("$ is not UTF-8")
		return ""
	}
	return string(p)
}
