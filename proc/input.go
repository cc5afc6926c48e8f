package proc

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
)

// An Input is the end of a pipe, or a terminal, that a process reads. It ends when its last writer closes it.
type Input struct {
	turn chan struct{} // has a token while somebody writes

	mu      sync.Mutex // guards what follows
	pipe    *os.File   // nil once closed, or if it is one of the next
	socket  *os.File   // of which the half that the process reads is shut
	tty     *os.File   // where the end of a file is a character
	ended   bool
	writers int
	opened  bool
	news    func(ended bool) // called when it is first opened, and when it ends; nil: nobody wants to know
}

// tell makes f be called when the input is first opened, and when it ends.
func (in *Input) tell(f func(ended bool)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.news = f
}

// use is what has become of it.
func (in *Input) use() inputUse {
	in.mu.Lock()
	defer in.mu.Unlock()
	return inputUse{in.opened, in.ended}
}

// An inputUse is what the next server has to know of an input.
type inputUse struct{ Opened, Ended bool }

// file is what to write to; nil once it has ended. Called with the lock.
func (in *Input) file() *os.File {
	switch {
	case in.ended:
		return nil
	case in.tty != nil:
		return in.tty
	case in.socket != nil:
		return in.socket
	}
	return in.pipe
}

// Open gives a handle that writes to it.
func (in *Input) Open() (*InputWriter, error) {
	in.mu.Lock()
	if in.file() == nil {
		in.mu.Unlock()
		return nil, fs.ErrHungUp
	}
	in.writers++
	news := in.news
	if in.opened {
		news = nil
	}
	in.opened = true
	in.mu.Unlock()
	if news != nil {
		news(false)
	}
	return &InputWriter{in}, nil
}

// End closes the input, whoever has it open. The program at a terminal reads an end of file, if it reads lines, and may go
// on to read after that.
func (in *Input) End() {
	if news := in.end(); news != nil {
		news(true)
	}
}

// end gives who wants to know that it has ended now.
func (in *Input) end() (news func(ended bool)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.ended:
		return nil
	case in.tty != nil:
		// Without waiting: a program that reads has made room, and one that does not needs no end.
		control(in.tty, func(fd int) { unix.Write(fd, []byte{endOfFile}) })
		return nil
	case in.socket != nil:
		control(in.socket, func(fd int) { unix.Shutdown(fd, unix.SHUT_WR) })
	case in.pipe != nil:
		in.pipe.Close()
	}
	in.ended = true
	return in.news
}

const endOfFile = 'D' - '@' // as a terminal begins: termios(3), VEOF

// control calls f with a file's descriptor, which stays the poller's.
func control(file *os.File, f func(fd int)) {
	if conn, err := file.SyscallConn(); err == nil {
		conn.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// EndUnused closes the input if nobody has ever opened it. A terminal stays: one comes and goes at it.
func (in *Input) EndUnused() {
	in.mu.Lock()
	end := !in.opened && in.tty == nil
	in.mu.Unlock()
	if end {
		in.End()
	}
}

// An InputWriter is an open input.
type InputWriter struct{ in *Input }

func (w *InputWriter) Read(context.Context, int64, int) ([]byte, error) { return nil, fs.ErrPerm }

// Write blocks while the pipe is full.
func (w *InputWriter) Write(ctx context.Context, _ int64, p []byte) (int, error) {
	select {
	case w.in.turn <- struct{}{}:
		defer func() { <-w.in.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	w.in.mu.Lock()
	f := w.in.file()
	w.in.mu.Unlock()
	if f == nil {
		return 0, fs.ErrHungUp
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		f.SetWriteDeadline(time.Unix(1, 0))
		close(fired)
	})
	n, err := f.Write(p)
	if !stop() {
		<-fired
		f.SetWriteDeadline(time.Time{})
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, ctx.Err()
	case errors.Is(err, unix.EPIPE), errors.Is(err, os.ErrClosed):
		return n, fs.ErrHungUp
	}
	return n, err
}

// Close ends the input if this was the last writer. Not a terminal: one comes and goes at it.
func (w *InputWriter) Close(context.Context) error {
	in := w.in
	in.mu.Lock()
	in.writers--
	last := in.writers == 0 && in.tty == nil
	in.mu.Unlock()
	if last {
		in.End()
	}
	return nil
}
