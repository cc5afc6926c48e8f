package styx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"
)

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		err   error
		errno syscall.Errno
		ename string
	}{
		{fs.ErrNotExist, syscall.ENOENT, "file does not exist"},
		{fs.ErrPermission, syscall.EACCES, "permission denied"},
		{fs.ErrExist, syscall.EEXIST, "file already exists"},
		{fs.ErrInvalid, syscall.EINVAL, "Invalid argument"},
		{fs.ErrClosed, syscall.EBADF, "Bad file descriptor"},
		{errors.ErrUnsupported, syscall.EOPNOTSUPP, "Operation not supported"},
		{context.Canceled, syscall.EINTR, "Interrupted system call"},
		{context.DeadlineExceeded, syscall.ETIMEDOUT, "Connection timed out"},
		{fmt.Errorf("read: %w", context.Canceled), syscall.EINTR, "read: context canceled"},
		{syscall.ENOENT, syscall.ENOENT, "file does not exist"},
		{syscall.EACCES, syscall.EACCES, "permission denied"},
		{syscall.EPERM, syscall.EPERM, "Operation not permitted"},
		{syscall.ENOTDIR, syscall.ENOTDIR, "not a directory"},
		{syscall.EISDIR, syscall.EISDIR, "Is a directory"},
		{syscall.EBUSY, syscall.EBUSY, "Device or resource busy"},
		{syscall.EINVAL, syscall.EINVAL, "Invalid argument"},
		{syscall.ESRCH, syscall.ESRCH, "No such process"},
		{syscall.EREMOTEIO, syscall.EREMOTEIO, "Remote I/O error"},
		{syscall.EAGAIN, syscall.EBUSY, "Device or resource busy"},
		{syscall.EINTR, syscall.EIO, "i/o error"},
		{&fs.PathError{Op: "mount", Path: "/x", Err: syscall.ENODEV}, syscall.ENODEV, "mount /x: no such device"},
		{os.NewSyscallError("setns", syscall.EPERM), syscall.EPERM, "setns: operation not permitted"},
		{errors.New("fid unknown or out of range"), syscall.EBADF, "fid unknown or out of range"},
		{fmt.Errorf("walk: %w", errors.New("not owner")), syscall.EACCES, "walk: not owner"},
		{errors.New(`unknown control message: "frob"`), syscall.EINVAL, `unknown control message: "frob"`},
		{errors.New("a\nb\x00\x7f\xff"), syscall.EINVAL, "a␊b␀␡\ufffd"},
		{errors.Join(errors.New("x"), fs.ErrExist), syscall.EEXIST, "x␊file already exists"},
	} {
		if got := Errno(test.err); got != uint32(test.errno) {
			t.Errorf("%v: errno %d, want %d", test.err, got, test.errno)
		}
		if got := Ename(test.err); got != test.ename {
			t.Errorf("%v: %q, want %q", test.err, got, test.ename)
		}
	}
	if Errno(nil) != 0 || Ename(nil) != "" {
		t.Error("no error has an errno or a text")
	}
}

func TestEnameLength(t *testing.T) {
	for _, c := range []string{"x", "é", "日", "😀", "\n", "\xff"} {
		for n := 1; n < 300; n++ {
			s := strings.Repeat("x", n%4) + strings.Repeat(c, n)
			got := Ename(errors.New(s))
			if len(got) > 125 || !utf8.ValidString(got) || len(s) <= 120/3 && utf8.RuneCountInString(got) != utf8.RuneCountInString(s) {
				t.Fatalf("%q: %q", s, got)
			}
			if len(got) < 122 && len(got) < len(s) {
				t.Fatalf("%q: %q is shorter than it must be", s, got)
			}
		}
	}
}

// TestErrnoWords: an errno that went out as words comes back as itself, so Linux's client, which has the same table,
// reads in 9P2000 what it would have had in 9P2000.L.
func TestErrnoWords(t *testing.T) {
	for e := syscall.Errno(1); e <= lastErrno; e++ {
		want := Errno(e)
		if strings.HasPrefix(e.Error(), "errno ") {
			continue // 41 and 58 mean nothing
		}
		if got := Errno(errors.New(Ename(e))); got != want {
			t.Errorf("%d %v: %q comes back as %d", uint(e), e, Ename(e), got)
		}
	}
	seen := make(map[string]bool)
	for _, w := range append(append(words{}, common...), other...) {
		if seen[w.text] {
			t.Errorf("%q twice", w.text)
		}
		seen[w.text] = true
	}
}
