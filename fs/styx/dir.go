package styx

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
)

// A Dir is a file as 9P2000 describes it, in Rstat and in what a directory's Tread gives, and the changes that
// Twstat asks for; see stat(5).
type Dir struct {
	Type         uint16 // of the server and within it: 0 here
	Dev          uint32
	Qid          Qid
	Mode         uint32 // DMDir, ... and 0777
	Atime, Mtime uint32 // seconds since 1970
	Length       uint64 // bytes; 0 for a directory
	Name         string
	Uid          string // owner
	Gid          string // group
	Muid         string // who changed it last
}

var noQid = Qid{math.MaxUint8, math.MaxUint32, math.MaxUint64}

// DontTouch gives the Dir with which Twstat changes nothing: strings empty, numbers with all bits set.
func DontTouch() Dir {
	const all = math.MaxUint32
	return Dir{Type: math.MaxUint16, Dev: all, Qid: noQid, Mode: all, Atime: all, Mtime: all, Length: math.MaxUint64}
}

// A Touch is a set of a Dir's fields.
type Touch uint16

// The fields in a Dir's order.
const (
	TouchType Touch = 1 << iota
	TouchDev
	TouchQid
	TouchMode
	TouchAtime
	TouchMtime
	TouchLength
	TouchName
	TouchUid
	TouchGid
	TouchMuid
)

// Touched gives the fields that Twstat of d asks to change. None at all is a request to write the file to disk.
func (d *Dir) Touched() Touch {
	var t Touch
	null := DontTouch()
	for _, f := range []struct {
		touched bool
		bit     Touch
	}{
		{d.Type != null.Type, TouchType},
		{d.Dev != null.Dev, TouchDev},
		{d.Qid != null.Qid, TouchQid},
		{d.Mode != null.Mode, TouchMode},
		{d.Atime != null.Atime, TouchAtime},
		{d.Mtime != null.Mtime, TouchMtime},
		{d.Length != null.Length, TouchLength},
		{d.Name != "", TouchName},
		{d.Uid != "", TouchUid},
		{d.Gid != "", TouchGid},
		{d.Muid != "", TouchMuid},
	} {
		if f.touched {
			t |= f.bit
		}
	}
	return t
}

// Append adds the stat record to b, its size first, as a directory's Tread gives it, and gives b back unchanged with
// an error if a string or the whole does not fit.
func (d *Dir) Append(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, 0, 0)
	m := Msg{Stat: d}
	for _, f := range statFields {
		var err error
		if b, err = f.append(b, &m); err != nil {
			return b[:start], err
		}
	}
	n := len(b) - start - 2
	if n > math.MaxUint16-2 { // Rstat has a size of size + record
		return b[:start], errors.New("stat record too long")
	}
	binary.LittleEndian.PutUint16(b[start:], uint16(n))
	return b, nil
}

// appendSized is Append with the second size that Rstat and Twstat have.
func (d *Dir) appendSized(b []byte) ([]byte, error) {
	start := len(b)
	b, err := d.Append(append(b, 0, 0))
	if err == nil {
		binary.LittleEndian.PutUint16(b[start:], uint16(len(b)-start-2))
	}
	return b, err
}

// ParseDir reads the stat record at the beginning of b and gives what comes after it.
func ParseDir(b []byte) (Dir, []byte, error) {
	in := input{b: b}
	rec := input{b: in.take(uint64(in.u16()))}
	if in.err != "" {
		return Dir{}, b, malformed("stat record ends too early")
	}
	var d Dir
	m := Msg{Stat: &d}
	for _, f := range statFields {
		if f.parse(&rec, &m); rec.err != "" {
			return Dir{}, b, malformed("stat record: %s", strings.ReplaceAll(rec.err, "$", f.key))
		}
	}
	if len(rec.b) > 0 {
		return Dir{}, b, malformed("stat record: %d bytes too many", len(rec.b))
	}
	return d, in.b, nil
}

// A Dirent is an entry of a 9P2000.L directory.
type Dirent struct {
	Qid    Qid
	Offset uint64 // what Treaddir goes on with after this entry
	Type   uint8  // DT_DIR, ... of readdir(3); Linux hands it to programs as it is
	Name   string
}

// AppendDirent adds an entry to the data of Rreaddir and gives b back unchanged with an error if the name does not fit.
func AppendDirent(b []byte, q Qid, offset uint64, dtype uint8, name string) ([]byte, error) {
	start := len(b)
	b = binary.LittleEndian.AppendUint64(appendQid(b, q), offset)
	b, err := appendString(append(b, dtype), "name", name)
	if err != nil {
		return b[:start], err
	}
	return b, nil
}

// ParseDirent reads the entry at the beginning of b and gives what comes after it.
func ParseDirent(b []byte) (Dirent, []byte, error) {
	in := input{b: b}
	e := Dirent{in.qid(), in.u64(), in.u8(), in.string()}
	if in.err != "" {
		return Dirent{}, b, malformed("directory entry: %s", strings.ReplaceAll(in.err, "$", "name"))
	}
	return e, in.b, nil
}
