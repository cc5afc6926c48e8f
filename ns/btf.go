package ns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// kernelOffsets finds the places, in bytes, of members of the running kernel's structures, named `struct.member`, in
// what the kernel tells of its own types. See Documentation/bpf/btf.rst.
func kernelOffsets(want map[string]*int) error {
	text, err := readFile("/sys/kernel/btf/vmlinux", 64<<20)
	if err != nil {
		return needs("the types of the kernel (CONFIG_DEBUG_INFO_BTF)", err)
	}
	return btfOffsets(text, want)
}

var errBTF = errors.New("types of the kernel: not as expected")

// The kinds of types, and the bytes that follow a type's 12: some, and some for each of its members.
const (
	btfStruct = 4
	btfUnion  = 5
)

var btfMore = [...]struct{ some, each int }{
	1: {some: 4}, 2: {}, 3: {some: 12}, btfStruct: {each: 12}, btfUnion: {each: 12}, 6: {each: 8}, 7: {}, 8: {}, 9: {},
	10: {}, 11: {}, 12: {}, 13: {each: 8}, 14: {some: 4}, 15: {each: 12}, 16: {}, 17: {some: 4}, 18: {}, 19: {each: 12},
}

// A btf is the types of a kernel, by their numbers.
type btf struct {
	types [][]byte
	names []byte
}

func btfOffsets(text []byte, want map[string]*int) error {
	b, err := parseBTF(text)
	if err != nil {
		return err
	}
	structs := make(map[string]int)
	for full := range want {
		name, _, _ := strings.Cut(full, ".")
		structs[name] = 0
	}
	for n, t := range b.types {
		if n > 0 && kind(t) == btfStruct {
			if first, ok := structs[string(b.name(t))]; ok && first == 0 {
				structs[string(b.name(t))] = n
			}
		}
	}
	for full, at := range want {
		name, member, _ := strings.Cut(full, ".")
		bits, ok := b.member(structs[name], member, 0)
		if !ok || bits%8 != 0 {
			return fmt.Errorf("types of the kernel: no %s", full)
		}
		*at = bits / 8
	}
	return nil
}

func kind(t []byte) int { return int(binary.NativeEndian.Uint32(t[4:])) >> 24 & 0x1f }

func parseBTF(text []byte) (b btf, err error) {
	e := binary.NativeEndian
	if len(text) < 24 || e.Uint16(text) != 0xeb9f {
		return b, errBTF
	}
	part := func(at int) []byte {
		from := uint64(e.Uint32(text[4:])) + uint64(e.Uint32(text[at:]))
		to := from + uint64(e.Uint32(text[at+4:]))
		if to > uint64(len(text)) {
			return nil
		}
		return text[from:to]
	}
	b.names = part(16)
	b.types = make([][]byte, 1, 1<<17) // 0 is void
	for rest := part(8); len(rest) > 0; {
		if len(rest) < 12 {
			return b, errBTF
		}
		k, members := kind(rest), int(e.Uint32(rest[4:]))&0xffff
		if k == 0 || k >= len(btfMore) {
			return b, errBTF
		}
		n := 12 + btfMore[k].some + members*btfMore[k].each
		if n > len(rest) {
			return b, errBTF
		}
		b.types = append(b.types, rest[:n])
		rest = rest[n:]
	}
	return b, nil
}

// name is the name that a type or a member begins with.
func (b btf) name(t []byte) []byte {
	at := int(binary.NativeEndian.Uint32(t))
	if at >= len(b.names) {
		return nil
	}
	name, _, _ := bytes.Cut(b.names[at:], []byte{0})
	return name
}

// member is the place of a member in bits, also of one that is in a part without a name.
func (b btf) member(n int, name string, depth int) (int, bool) {
	if n <= 0 || n >= len(b.types) || depth > 8 {
		return 0, false
	}
	t := b.types[n]
	if k := kind(t); k != btfStruct && k != btfUnion {
		return 0, false
	}
	e := binary.NativeEndian
	for m := t[12:]; len(m) > 0; m = m[12:] {
		bits := int(e.Uint32(m[8:]))
		if e.Uint32(t[4:])>>31 != 0 { // the upper byte is a bit field's width
			bits &= 1<<24 - 1
		}
		switch string(b.name(m)) {
		case name:
			return bits, true
		case "":
			if in, ok := b.member(int(e.Uint32(m[4:])), name, depth+1); ok {
				return bits + in, true
			}
		}
	}
	return 0, false
}
