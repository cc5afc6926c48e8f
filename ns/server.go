package ns

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Keeper is the program that started this one, the server, and will start the next one when this one dies: it holds what
// is not to be lost with the server, by names, and is the parent of all that the server starts. On a nil Keeper nothing is
// held, and what this program starts is its child.
type Keeper struct {
	conn  *os.File
	held  []*Held
	lasts bool
	lost  chan struct{}
}

// A Held is what an earlier server gave into the keeper's hands.
type Held struct {
	Name    string
	Text    []byte     // JSON
	Killed  bool       // with the server that died
	Process *Process   // nil: none
	Files   []*os.File // nil: closed
}

// kept says that this program has a keeper, which is to be the parent of what is started.
var kept atomic.Bool

// Server is called at the beginning of a program in whose name Keep is called. It says whether a keeper has started this
// process to be the server, and with which arguments.
func Server() (k *Keeper, args []string, err error) {
	if len(os.Args) < 2 || os.Args[0] != serverName {
		return nil, nil, nil
	}
	fd, err := strconv.Atoi(os.Args[1])
	if err != nil || fd < 3 {
		return nil, nil, fmt.Errorf("%s: not a descriptor: %q", serverName, os.Args[1])
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, nil, fmt.Errorf("keeper: %w", err)
	}
	unix.CloseOnExec(fd)
	k = &Keeper{conn: os.NewFile(uintptr(fd), "keeper"), lost: make(chan struct{})}
	kept.Store(true)
	for buf := make([]byte, messageMost); ; {
		switch more, err := k.receive(buf); {
		case err != nil:
			return nil, nil, fmt.Errorf("keeper: %w", err)
		case !more:
			go k.listen()
			return k, os.Args[2:], nil
		}
	}
}

// Held gives what the keeper holds from before.
func (k *Keeper) Held() []*Held {
	if k == nil {
		return nil
	}
	return k.held
}

// Lasts reports whether what the keeper holds outlives it too.
func (k *Keeper) Lasts() bool { return k != nil && k.lasts }

// Lost is closed when the keeper has died.
func (k *Keeper) Lost() <-chan struct{} { return k.lost }

func (k *Keeper) listen() {
	buf := make([]byte, 4096) // what comes now is about one process
	for {
		if _, err := k.receive(buf); err != nil {
			close(k.lost)
			return
		}
	}
}

// receive hears one message; false: the keeper has given all that it holds.
func (k *Keeper) receive(buf []byte) (more bool, err error) {
	conn, err := k.conn.SyscallConn()
	if err != nil {
		return false, err
	}
	oob, n, nb := make([]byte, unix.CmsgSpace(rightsMost*4)), 0, 0
	if e := conn.Read(func(fd uintptr) bool {
		n, nb, _, _, err = unix.Recvmsg(int(fd), buf, oob, unix.MSG_CMSG_CLOEXEC)
		return err != unix.EAGAIN && err != unix.EINTR
	}); e != nil {
		return false, e
	}
	if err == nil && n == 0 {
		err = errors.New("connection lost")
	}
	if err != nil {
		return false, err
	}
	m, fds, err := parseMessage(buf[:n], oob[:nb])
	if err != nil {
		return false, err
	}
	switch m.Verb {
	case "held":
		return true, k.take(&m, fds)
	case "ended":
		watching.ended(m.End)
	case "all":
		k.lasts = m.Lasts
	}
	return m.Verb != "all", nil
}

// take takes over what the keeper holds.
func (k *Keeper) take(m *message, fds []int) error {
	h := &Held{Name: m.Name, Text: m.Text, Killed: m.Kill}
	for _, open := range m.Open {
		var f *os.File
		if open && len(fds) > 0 {
			f, fds = os.NewFile(uintptr(fds[0]), m.Name), fds[1:]
		}
		h.Files = append(h.Files, f)
	}
	if m.InFile && len(fds) > 0 {
		f := os.NewFile(uintptr(fds[0]), m.Name)
		defer f.Close()
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		h.Text = make([]byte, fi.Size())
		if _, err := f.ReadAt(h.Text, 0); err != nil {
			return err
		}
	}
	k.held = append(k.held, h)
	if m.Pid == 0 {
		return nil
	}
	if len(h.Files) == 0 || h.Files[0] == nil {
		return fmt.Errorf("%s: no process", h.Name)
	}
	fd, err := unix.FcntlInt(h.Files[0].Fd(), unix.F_DUPFD_CLOEXEC, 0)
	h.Files[0].Close()
	h.Files = h.Files[1:]
	if err != nil {
		return err
	}
	p := &Process{pid: m.Pid, fd: fd, start: m.Start, id: m.Start<<22 | uint64(m.Pid)}
	if pidfs() {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		p.id = st.Ino
	}
	h.Process = p
	switch {
	case m.End != nil:
		x := m.End.exit()
		p.exit = &x // nobody else knows p
	case m.Adopted:
		return p.adopt()
	default:
		return watching.keeps(p)
	}
	return nil
}

// adopt makes the kernel's word the end of p, a child of nobody who is left: every Wait finds it out, but if it was reaped
// it is known now or never.
func (p *Process) adopt() error {
	pid, err := pidOf(p.fd)
	switch {
	case err == ErrExited:
		x, ok := (&watch{p: p, fd: p.fd, late: true}).look(true)
		if !ok {
			x = unknownExit
		}
		p.exit = &x // nobody else knows p
		return nil
	case err == nil && pid != p.pid:
		return fmt.Errorf("process %d: its descriptor is of %d", p.pid, pid)
	}
	return err
}

// HoldBeside gives a text and a descriptor into the keeper's hands, under a name, that nobody would want for their own sake: they are
// let go with the last of the others, or, if they are its own, with the keeper.
func (k *Keeper) HoldBeside(name string, own bool, text any, f *os.File) error {
	if k == nil {
		return nil
	}
	m := message{Verb: "hold", Name: name, With: withOthers}
	if own {
		m.With = withKeeper
	}
	return control(f, func(fd int) error { return k.say(&m, text, []int{fd}) })
}

// Hold gives a text and descriptors into the keeper's hands, under a name. With p, whose parent the keeper is, every Wait
// for it gets what the keeper tells. kill: it is killed when the server dies.
func (k *Keeper) Hold(name string, p *Process, kill bool, text any, files ...*os.File) error {
	if k == nil {
		return nil
	}
	m := message{Verb: "hold", Name: name, Kill: kill}
	var fds []int
	if p != nil {
		var err error
		m.Pid = p.Pid()
		if m.Start, err = p.Start(); err != nil {
			return err
		}
		pidfd, err := p.hold()
		if err != nil {
			return err
		}
		defer p.drop()
		fds = append(fds, pidfd)
		if err := watching.keeps(p); err != nil {
			return err
		}
	}
	for _, f := range files {
		err := control(f, func(fd int) error { fds = append(fds, fd); return nil })
		if err != nil {
			return err
		}
	}
	return k.say(&m, text, fds)
}

// Note gives a new text for what is held.
func (k *Keeper) Note(name string, kill bool, text any) error {
	if k == nil {
		return nil
	}
	return k.say(&message{Verb: "hold", Name: name, Kill: kill}, text, nil)
}

// Drop makes the keeper let go of what it holds under the name.
func (k *Keeper) Drop(name string) error {
	if k == nil {
		return nil
	}
	return k.say(&message{Verb: "drop", Name: name}, nil, nil)
}

// Close makes the keeper let go of one descriptor, counted without that of a process.
func (k *Keeper) Close(name string, file int) error {
	if k == nil {
		return nil
	}
	return k.say(&message{Verb: "close", Name: name, Fd: file + 1}, nil, nil)
}

// Up says that this server works: another is started when it dies.
func (k *Keeper) Up() error {
	if k == nil {
		return nil
	}
	return k.say(&message{Verb: "up"}, nil, nil)
}

// End says that the end of this server that follows is meant, and that of all that is held.
func (k *Keeper) End() error { return k.Next(nextEnd) }

// Next says what is to follow the end of this server, which follows: "quit", the end of the keeper, but what it holds stays for
// the next one where it Lasts; "reload", another server; "upgrade", a server of the program that now has this one's name,
// and its keeper in this keeper's process, where it Lasts.
func (k *Keeper) Next(what string) error {
	if k == nil {
		return nil
	}
	return k.say(&message{Verb: what}, nil, nil)
}

// say sends a message. The keeper reads always, and what it has not read when this program dies it reads then.
func (k *Keeper) say(m *message, text any, fds []int) error {
	if text != nil {
		b, err := json.Marshal(text)
		if err != nil {
			return err
		}
		m.Text = b
		if len(b) > textMost {
			f, err := Memfd("text")
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := f.Write(b); err != nil {
				return err
			}
			m.Text, m.InFile = nil, true
			fds = append(fds, int(f.Fd()))
		}
	}
	b, rights := m.bytes(fds)
	conn, err := k.conn.SyscallConn()
	if err != nil {
		return err
	}
	if e := conn.Write(func(fd uintptr) bool {
		err = unix.Sendmsg(int(fd), b, rights, nil, unix.MSG_NOSIGNAL)
		return err != unix.EAGAIN && err != unix.EINTR
	}); e != nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	return nil
}

// keeps makes the keeper's word the end of p.
func (s *watcher) keeps(p *Process) error {
	if _, err := p.hold(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.watch != nil && p.watch.kept || p.exit != nil { // it has been told already
		p.drop()
		return nil
	}
	if err := s.begin(); err != nil {
		p.drop()
		return err
	}
	s.key++
	w := &watch{p: p, fd: p.fd, key: s.key, start: p.start, kept: true, users: 1, done: make(chan struct{})}
	s.run()
	s.watches[w.key] = w
	s.byStart[incarnation{p.pid, p.start}] = w
	p.watch = w
	return nil
}

// ended is the keeper's word.
func (s *watcher) ended(e *ending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.byStart[incarnation{e.Pid, e.Start}]; w != nil && w.kept {
		w.users++
		s.finish(w, e.exit())
		s.leaveLocked(w)
	}
}
