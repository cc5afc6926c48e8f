package styx

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"unicode/utf8"
)

// maxEname is the longest error text: Plan 9's ERRMAX and Linux's P9_ERRMAX are 128, and some clients keep a NUL and
// a byte to spare.
const maxEname = 125

const lastErrno = syscall.ERFKILL

type words []struct {
	text  string
	errno syscall.Errno
}

// common are the errnos for which Plan 9 has words that Linux's client knows (net/9p/error.c); each goes out so.
var common = words{
	{"file does not exist", syscall.ENOENT},
	{"permission denied", syscall.EACCES},
	{"file already exists", syscall.EEXIST},
	{"not a directory", syscall.ENOTDIR},
	{"directory is not empty", syscall.ENOTEMPTY},
	{"protocol botch", syscall.EPROTO},
	{"i/o error", syscall.EIO},
}

// other are more of those words: errors of Plan 9's file servers, understood where somebody uses them.
var other = words{
	{"file not found", syscall.ENOENT},
	{"directory entry not found", syscall.ENOENT},
	{"illegal path element", syscall.ENOENT},
	{"file exists", syscall.EEXIST},
	{"not owner", syscall.EACCES},
	{"wstat prohibited", syscall.EPERM},
	{"wstat can't convert between files and directories", syscall.EPERM},
	{"only support truncation to zero length", syscall.EPERM},
	{"cannot remove root", syscall.EPERM},
	{"fid unknown or out of range", syscall.EBADF},
	{"fid already in use", syscall.EBADF},
	{"bad use of fid", syscall.EBADF},
	{"bad offset in directory read", syscall.ESPIPE},
	{"authentication failed", syscall.ECONNREFUSED},
	{"illegal mode", syscall.EINVAL},
	{"illegal offset", syscall.EINVAL},
	{"unknown user", syscall.EINVAL},
	{"unknown group", syscall.EINVAL},
	{"illegal name", syscall.ENAMETOOLONG},
	{"i/o count too large", syscall.EIO},
	{"bogus wstat buffer", syscall.EPROTO},
	{"file in use", syscall.ETXTBSY},
	{"file has been removed", syscall.EIDRM},
	{"file is read only", syscall.EROFS},
	{"file too big", syscall.EFBIG},
	{"file system is full", syscall.ENOSPC},
}

// general are the errors of the library and of those who wrap them.
var general = []struct {
	err   error
	errno syscall.Errno
}{
	{context.Canceled, syscall.EINTR},
	{context.DeadlineExceeded, syscall.ETIMEDOUT}, // before ErrDeadlineExceeded's timeouts
	{fs.ErrNotExist, syscall.ENOENT},
	{fs.ErrPermission, syscall.EACCES},
	{fs.ErrExist, syscall.EEXIST},
	{fs.ErrClosed, syscall.EBADF},
	{fs.ErrInvalid, syscall.EINVAL},
	{errors.ErrUnsupported, syscall.EOPNOTSUPP},
	{io.ErrUnexpectedEOF, syscall.EIO},
}

// Errno gives the errno that Rlerror carries: that of the system call or of the io/fs or context error that err is
// or wraps, or the one that Linux's client has for its words. What it does not know is EINVAL, because most errors of
// a server like this one say what is wrong with something that the client wrote, and a shell shows EINVAL as such.
//
// EINTR is for a request that was flushed only and EAGAIN never sent: clients repeat both, some for ever. nil is 0.
func Errno(err error) uint32 {
	if err == nil {
		return 0
	}
	return uint32(errno(err))
}

func errno(err error) syscall.Errno {
	if errors.Is(err, context.Canceled) {
		return syscall.EINTR
	}
	var e syscall.Errno
	if errors.As(err, &e) {
		switch e {
		case 0:
			return syscall.EINVAL
		case syscall.EINTR:
			return syscall.EIO
		case syscall.EAGAIN:
			return syscall.EBUSY
		}
		return e
	}
	for _, g := range general {
		if errors.Is(err, g.err) {
			return g.errno
		}
	}
	for ; err != nil; err = errors.Unwrap(err) {
		if e, ok := parseErrno(err.Error()); ok {
			return e
		}
	}
	return syscall.EINVAL
}

// parseErrno finds the errno that Plan 9's or Linux's words mean.
func parseErrno(text string) (syscall.Errno, bool) {
	for _, t := range []words{common, other} {
		for _, w := range t {
			if w.text == text {
				return w.errno, true
			}
		}
	}
	for e := syscall.Errno(1); e <= lastErrno; e++ {
		if strings.EqualFold(e.Error(), text) {
			return e, true
		}
	}
	return 0, false
}

// Ename gives the text that Rerror carries. An error that is nothing but an errno, an io/fs or a context error has
// the words by which Plan 9's programs and Linux's client know it; any other has its own. It is shorter than 126
// bytes, UTF-8, and shows control bytes as their pictures.
func Ename(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if _, ok := err.(syscall.Errno); ok {
		text = errnoText(errno(err))
	}
	for _, g := range general {
		if err == g.err {
			text = errnoText(g.errno)
		}
	}
	text = strings.Map(func(r rune) rune {
		switch {
		case r < ' ':
			return 0x2400 + r
		case r == 0x7f:
			return 0x2421
		}
		return r
	}, text)
	if len(text) > maxEname {
		n := maxEname
		for !utf8.RuneStart(text[n]) {
			n--
		}
		text = text[:n]
	}
	return text
}

// errnoText gives Plan 9's words for an errno, else Linux's, which begin with a capital in its client's table.
func errnoText(e syscall.Errno) string {
	for _, w := range common {
		if w.errno == e {
			return w.text
		}
	}
	text := e.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}
