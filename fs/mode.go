package fs

import (
	"io/fs"
	"syscall"
)

// types are the file types as stat(2) has them, bits the permissions beyond those of user, group and others.
var (
	types = map[FileMode]uint32{
		0:                                 syscall.S_IFREG,
		fs.ModeDir:                        syscall.S_IFDIR,
		fs.ModeSymlink:                    syscall.S_IFLNK,
		fs.ModeDevice | fs.ModeCharDevice: syscall.S_IFCHR,
		fs.ModeDevice:                     syscall.S_IFBLK,
		fs.ModeNamedPipe:                  syscall.S_IFIFO,
		fs.ModeSocket:                     syscall.S_IFSOCK,
	}
	bits = map[FileMode]uint32{fs.ModeSetuid: syscall.S_ISUID, fs.ModeSetgid: syscall.S_ISGID, fs.ModeSticky: syscall.S_ISVTX}
)

// Unix gives a mode as stat(2) has it; a type that it does not have is a regular file's.
func Unix(m FileMode) uint32 {
	u := uint32(m.Perm())
	if t, ok := types[m.Type()]; ok {
		u |= t
	} else {
		u |= syscall.S_IFREG
	}
	for mode, bit := range bits {
		if m&mode != 0 {
			u |= bit
		}
	}
	return u
}

// FromUnix is the reverse.
func FromUnix(u uint32) FileMode {
	m := FileMode(u & 0777)
	for mode, t := range types {
		if u&syscall.S_IFMT == t {
			m |= mode
		}
	}
	for mode, bit := range bits {
		if u&bit != 0 {
			m |= mode
		}
	}
	return m
}
