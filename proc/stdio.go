package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// outputKept is how much of an output is kept for those who come late.
const outputKept = 1 << 20

// Stdio is the standard input, output and error of a process, as files.
type Stdio struct {
	In       *Input
	Out, Err *fs.Log

	child  [3]*os.File   // the process's ends, until it has them
	ours   [2]*os.File   // where its output comes out; nil: nowhere
	tty    *os.File      // the master, if it is a terminal
	kept   [2]*os.File   // the files of the logs
	middle [2]*os.File   // a pipe on the way from a terminal or socket to its log: only from a pipe is nothing lost
	over   chan struct{} // closed when the process has ended
	cancel context.CancelFunc
	ctx    context.Context

	account *fs.Account
}

// filesEach is how many descriptors are on the account for a process that is started here, its own among them, at most.
const filesEach = 9

func newStdio(on *fs.Account) (*Stdio, error) {
	if err := on.Take(fs.Descriptors, filesEach); err != nil {
		return nil, err
	}
	s := &Stdio{
		In:  &Input{turn: make(chan struct{}, 1)},
		Out: fs.NewLog(0, nil), Err: fs.NewLog(0, nil),
		over: make(chan struct{}), account: on,
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// keepOutput makes the log of output i, 0 or 1, which is in a file so that it can outlive this program.
func (s *Stdio) keepOutput(i int) error {
	f, err := ns.Memfd("output")
	if err != nil {
		return err
	}
	if err := s.openLog(i, f); err != nil {
		f.Close()
		return err
	}
	return nil
}

// openLog makes the log of output i in a file.
func (s *Stdio) openLog(i int, f *os.File) error {
	l, err := fs.OpenLog(f, outputKept, s.account)
	if err != nil {
		return err
	}
	s.kept[i] = f
	*[]**fs.Log{&s.Out, &s.Err}[i] = l
	return nil
}

// makeMiddle makes the pipe between what is no pipe and its log.
func (s *Stdio) makeMiddle() error {
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return err
	}
	s.middle = [2]*os.File{os.NewFile(uintptr(fd[0]), "output"), os.NewFile(uintptr(fd[1]), "output")}
	return nil
}

// NewStdio makes three pipes. What the process has the server hold is on an account until Close.
func NewStdio(on *fs.Account) (*Stdio, error) { return makeStdio("pipe", on) }

// makeStdio makes three pipes, one socket as input and output beside a pipe for errors, or, of kind none, nothing.
func makeStdio(kind string, on *fs.Account) (*Stdio, error) {
	s, err := newStdio(on)
	if err != nil {
		return nil, err
	}
	pipe := func(i int) {
		// Only our ends are non-blocking: the program would be astonished.
		var fd [2]int
		if err == nil {
			err = unix.Pipe2(fd[:], unix.O_CLOEXEC)
		}
		if err != nil {
			return
		}
		if i == 0 {
			fd[0], fd[1] = fd[1], fd[0]
		}
		s.take(i, fd[0], fd[1])
		if i > 0 {
			err = s.keepOutput(i - 1)
		}
	}
	switch kind {
	case "pipe":
		pipe(0)
		pipe(1)
		pipe(2)
	case "socket":
		var fd [2]int
		if fd, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
			s.take(1, fd[0], fd[1])
			s.child[0] = s.child[1]
			s.In.socket = s.ours[0]
			err = errors.Join(s.keepOutput(0), s.makeMiddle())
		}
		pipe(2)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	return s, nil
}

// take makes mine our end of the process's descriptor i, and his the process's.
func (s *Stdio) take(i, mine, his int) {
	unix.SetNonblock(mine, true)
	s.child[i] = os.NewFile(uintptr(his), "stdio")
	f := os.NewFile(uintptr(mine), "stdio")
	if i == 0 {
		s.In.pipe = f
	} else {
		s.ours[i-1] = f
	}
}

// newTerminal makes a terminal of the devpts below root: its two directions are input and output.
func newTerminal(root *os.File, uid uint32, size ns.Winsize, on *fs.Account) (*Stdio, error) {
	master, slave, err := ns.OpenTerminal(root, uid)
	if err != nil {
		return nil, err
	}
	s, err := NewTerminal(master, size, on)
	if err != nil {
		slave.Close()
		return nil, err
	}
	s.child = [3]*os.File{slave, slave, slave}
	return s, nil
}

// NewTerminal is the standard input, output and error of a process that has a terminal already.
func NewTerminal(master *os.File, size ns.Winsize, on *fs.Account) (*Stdio, error) {
	s, err := newStdio(on)
	if err != nil {
		master.Close()
		return nil, err
	}
	s.tty, s.ours[0], s.In.tty = master, master, master
	if err := errors.Join(ns.SetWinsize(master, size), s.keepOutput(0), s.makeMiddle()); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Child gives the ends that the process is to have.
func (s *Stdio) Child() [3]*os.File { return s.child }

// Parked says that the process has its ends: the pipes are now only its own. Ended is called when both outputs have
// ended: when no process has them open any more.
func (s *Stdio) Parked(ended func()) {
	s.closeChild()
	var both sync.WaitGroup
	for i, l := range []*fs.Log{s.Out, s.Err} {
		if s.ours[i] == nil {
			l.End()
			continue
		}
		both.Go(func() { s.pump(l, s.ours[i]) })
	}
	go func() {
		both.Wait()
		ended()
	}()
}

func (s *Stdio) closeChild() {
	for i, f := range s.child {
		if f != nil {
			f.Close() // a second time, where it is several descriptors, fails and does no harm
		}
		s.child[i] = nil
	}
}

// Close lets go of all. Whoever still writes gets EPIPE.
func (s *Stdio) Close() {
	s.cancel()
	s.In.End()
	s.closeChild()
	for _, f := range append(s.ours[:], s.middle[:]...) {
		if f != nil {
			f.Close()
		}
	}
	s.Out.Close()
	s.Err.Close()
	s.account.Give(fs.Descriptors, filesEach)
	s.account = nil
}

// Ended says that the process has ended. Its output may go on: others may have it open.
func (s *Stdio) Ended() {
	close(s.over)
	if s.tty != nil {
		s.tty.SetReadDeadline(time.Unix(1, 0)) // wakes the pump, which may have seen the end before
	}
}

// pump moves output into the log: out of a pipe straight, else through the middle, which is emptied before more comes in.
func (s *Stdio) pump(l *fs.Log, f *os.File) {
	defer l.End()
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	middle := f == s.ours[0] && s.middle[0] != nil
	for {
		if err := l.Room(s.ctx); err != nil {
			return
		}
		if middle {
			switch err := s.pour(l); err {
			case nil, fs.ErrFull:
				continue
			case unix.EAGAIN:
			default:
				return
			}
		}
		n := 0
		e := conn.Read(func(fd uintptr) bool {
			if middle {
				n, err = s.fill(int(fd))
			} else {
				n, err = l.Splice(int(fd))
			}
			// Nobody has the terminal open: closing it now would hang up a program that has closed it only before its end.
			return err != unix.EAGAIN && !(err == unix.EIO && s.lives())
		})
		if errors.Is(e, os.ErrDeadlineExceeded) {
			f.SetReadDeadline(time.Time{})
			continue
		}
		if e != nil || err != nil && err != fs.ErrFull || err == nil && n == 0 {
			return
		}
	}
}

// pour moves what is in the middle into the log.
func (s *Stdio) pour(l *fs.Log) (err error) {
	control(s.middle[0], func(fd int) { _, err = l.Splice(fd) })
	return err
}

// fill moves what comes out of a terminal or socket into the middle, which is empty.
func (s *Stdio) fill(from int) (n int, err error) {
	control(s.middle[1], func(fd int) { n, err = fs.Splice(from, fd, middleSize) })
	return n, err
}

// middleSize is what a pipe has as a rule.
const middleSize = 64 << 10

func (s *Stdio) lives() bool {
	select {
	case <-s.over:
		return false
	default:
		return true
	}
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
