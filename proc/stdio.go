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

// outputKept is how much of an output is kept for those who come late.
const outputKept = 1 << 20

// Stdio is the standard input, output and error of a process, as files.
type Stdio struct {
	In       *Input
	Out, Err *fs.Log

	child  [3]*os.File // the process's ends, until it has them
	ours   [2]*os.File // where its output comes out
	cancel context.CancelFunc
	ctx    context.Context
}

// NewStdio makes three pipes.
func NewStdio() (*Stdio, error) {
	s := &Stdio{Out: fs.NewLog(outputKept), Err: fs.NewLog(outputKept)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for i := range s.child {
		// Only our ends are non-blocking: the program would be astonished.
		var fd [2]int
		if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
			s.Close()
			return nil, fs.Err(err.(unix.Errno), "pipe: %v", err)
		}
		mine, his := fd[0], fd[1]
		if i == 0 {
			mine, his = fd[1], fd[0]
		}
		unix.SetNonblock(mine, true)
		s.child[i] = os.NewFile(uintptr(his), "stdio")
		f := os.NewFile(uintptr(mine), "stdio")
		if i == 0 {
			s.In = &Input{pipe: f, turn: make(chan struct{}, 1)}
		} else {
			s.ours[i-1] = f
		}
	}
	return s, nil
}

// Child gives the ends that the process is to have.
func (s *Stdio) Child() [3]*os.File { return s.child }

// Parked says that the process has its ends: the pipes are now only its own. Ended is called when both outputs have
// ended: when no process has them open any more.
func (s *Stdio) Parked(ended func()) {
	for i, f := range s.child {
		f.Close()
		s.child[i] = nil
	}
	var both sync.WaitGroup
	for i, l := range []*fs.Log{s.Out, s.Err} {
		both.Add(1)
		go func() {
			defer both.Done()
			pump(s.ctx, l, s.ours[i])
		}()
	}
	go func() {
		both.Wait()
		ended()
	}()
}

// Close lets go of all. Whoever still writes gets EPIPE.
func (s *Stdio) Close() {
	s.cancel()
	if s.In != nil {
		s.In.End()
	}
	for _, f := range append(s.child[:], s.ours[:]...) {
		if f != nil {
			f.Close()
		}
	}
}

var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// pump moves output into the log. It has a buffer only while there is something to move.
func pump(ctx context.Context, l *fs.Log, f *os.File) {
	defer l.End()
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	for {
		var n int
		buf := buffers.Get().(*[32 << 10]byte)
		if e := conn.Read(func(fd uintptr) bool {
			if buf == nil {
				buf = buffers.Get().(*[32 << 10]byte)
			}
			for {
				n, err = unix.Read(int(fd), buf[:])
				if err != unix.EINTR {
					break
				}
			}
			if err == unix.EAGAIN {
				buffers.Put(buf)
				buf = nil
			}
			return err != unix.EAGAIN
		}); e != nil || err != nil || n <= 0 {
			return
		}
		err = l.Write(ctx, buf[:n])
		buffers.Put(buf)
		if err != nil {
			return
		}
	}
}

// An Input is the end of a pipe that a process reads. It is closed when its last writer closes it.
type Input struct {
	turn chan struct{} // has a token while somebody writes

	mu      sync.Mutex // guards what follows
	pipe    *os.File   // nil once closed
	writers int
	opened  bool
}

// Open gives a handle that writes to it.
func (in *Input) Open() (*InputWriter, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.pipe == nil {
		return nil, fs.ErrHungUp
	}
	in.writers++
	in.opened = true
	return &InputWriter{in}, nil
}

// End closes the input, whoever has it open.
func (in *Input) End() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.pipe != nil {
		in.pipe.Close()
		in.pipe = nil
	}
}

// EndUnused closes the input if nobody has ever opened it.
func (in *Input) EndUnused() {
	in.mu.Lock()
	opened := in.opened
	in.mu.Unlock()
	if !opened {
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
	f := w.in.pipe
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

// Close ends the input if this was the last writer.
func (w *InputWriter) Close(context.Context) error {
	in := w.in
	in.mu.Lock()
	in.writers--
	last := in.writers == 0
	in.mu.Unlock()
	if last {
		in.End()
	}
	return nil
}

// Data opens standard input and output as one file: a write goes to the input, a read goes on from the oldest byte of
// the output that the reader has not had.
func (s *Stdio) Data(how fs.How) (fs.Handle, error) {
	d := &data{}
	if how&fs.Write != 0 {
		w, err := s.In.Open()
		if err != nil {
			return nil, err
		}
		d.InputWriter = w
	}
	if how&fs.Read != 0 {
		d.out = s.Out.Open(true)
	}
	return d, nil
}

type data struct {
	*InputWriter // nil: not open for writing
	out          *fs.LogReader
}

func (d *data) Read(ctx context.Context, off int64, n int) ([]byte, error) {
	if d.out == nil {
		return nil, fs.ErrPerm
	}
	return d.out.Read(ctx, off, n)
}

// Unread makes the next read give p again.
func (d *data) Unread(ctx context.Context, p []byte) { d.out.Unread(ctx, p) }

func (d *data) Write(ctx context.Context, off int64, p []byte) (int, error) {
	if d.InputWriter == nil {
		return 0, fs.ErrPerm
	}
	return d.InputWriter.Write(ctx, off, p)
}

func (d *data) Close(ctx context.Context) error {
	if d.out != nil {
		d.out.Close(ctx)
	}
	if d.InputWriter != nil {
		return d.InputWriter.Close(ctx)
	}
	return nil
}
