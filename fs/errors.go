package fs

import (
	"context"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"time"
)

// The common errors in Plan 9's words, which go out bare: Linux's 9P2000 client knows them by the whole text
// (net/9p/error.c), Go's io/fs has the first three letter for letter.
var (
	ErrNotExist = fs.ErrNotExist
	ErrPerm     = fs.ErrPermission
	ErrExist    = fs.ErrExist
	ErrNotDir   = Err(syscall.ENOTDIR, "not a directory")
	ErrIsDir    = Err(syscall.EISDIR, "Is a directory")
	ErrInUse    = Err(syscall.EBUSY, "device or object already in use")
	ErrNoFree   = Err(syscall.EAGAIN, "no free devices")
	ErrHungUp   = Err(syscall.EPIPE, "i/o on hungup channel")
	ErrTooLarge = Err(syscall.EFBIG, "read or write too large")
)

type errnoError struct {
	text  string
	errno syscall.Errno
}

func (e *errnoError) Error() string { return e.text }
func (e *errnoError) Unwrap() error { return e.errno }

// Err is an error of the text given that 9P2000.L clients, who get only a number, see as errno.
func Err(errno syscall.Errno, format string, args ...any) error {
	return &errnoError{fmt.Sprintf(format, args...), errno}
}

// Errors keeps the last errors that a user was given, since neither Linux's clients nor echo show their text.
type Errors struct {
	mu   sync.Mutex // guards what follows
	ring [64]string
	n    int
}

// Add notes that the client was refused something at path.
func (e *Errors) Add(path string, err error) {
	line := fmt.Sprintf("%s %s %s\n", Time(time.Now()), Quote(clip(path)), Quote(clip(err.Error())))
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ring[e.n%len(e.ring)] = line
	e.n++
}

// clip bounds what a client can make the server keep.
func clip(s string) string {
	const most = 1024
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// Text gives the errors, newest last, `TIME PATH 'TEXT'` a line.
func (e *Errors) Text(context.Context) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var s string
	for i := max(0, e.n-len(e.ring)); i < e.n; i++ {
		s += e.ring[i%len(e.ring)]
	}
	return s, nil
}

var users struct {
	sync.Mutex // guards m
	m          map[uint32]*Errors
}

// ErrorsOf gives the errors of a user, whichever connections he has; somebody who is nobody has those of his connection.
func ErrorsOf(uid uint32) *Errors {
	users.Lock()
	defer users.Unlock()
	e := users.m[uid]
	if e == nil {
		if users.m == nil {
			users.m = map[uint32]*Errors{}
		}
		e = new(Errors)
		users.m[uid] = e
	}
	return e
}
