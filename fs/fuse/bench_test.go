package fuse

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What a small read, and the whole of open, read and close, cost here and in the kernel's own /proc.
func Benchmark(b *testing.B) {
	_, dir := mounted(b, newWorld("a"))
	buf := make([]byte, 4096)
	open := func(b *testing.B, file string) int {
		fd, err := unix.Open(file, unix.O_RDONLY, 0)
		if err != nil {
			b.Fatal(err)
		}
		return fd
	}
	read := func(b *testing.B, fd int) {
		if n, err := unix.Pread(fd, buf, 0); n <= 0 {
			b.Fatal(n, err)
		}
	}
	for _, f := range []struct{ name, file string }{
		{"fuse", filepath.Join(dir, "a/text")},
		{"proc", "/proc/version"},
	} {
		b.Run("read/"+f.name, func(b *testing.B) {
			fd := open(b, f.file)
			defer unix.Close(fd)
			for b.Loop() {
				read(b, fd)
			}
		})
		b.Run("openreadclose/"+f.name, func(b *testing.B) {
			for b.Loop() {
				fd := open(b, f.file)
				read(b, fd)
				unix.Close(fd)
			}
		})
	}
}
