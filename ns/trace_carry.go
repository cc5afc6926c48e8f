package ns

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"
)

// carry carries out a plan in the thread, as the stub would. Its data have their place in the thread's home, or memory is
// mapped for them; its descriptors are sent through a socket that the process makes.
func (t *tracer) carry(th *tracee, p *Plan) error {
	if err := t.enter(th); err != nil {
		return err
	}
	_, data, err := p.bytes(0, 1<<12)
	if err != nil {
		return err
	}
	at := th.mem.home + homeSize
	if len(data) > 0 && (th.mem.home == 0 || homeSize+len(data) > th.mem.free) {
		if err := t.room(th, uint64(len(data))); err != nil {
			return err
		}
		at = t.page
	}
	table, data, err := p.bytes(0, at)
	if err != nil {
		return err
	}
	if len(data) > 0 {
		if err := th.mem.write(at, data); err != nil {
			return err
		}
	}
	files := p.files
	for i, s := range p.steps {
		e := table[i*entrySize:]
		var args [6]uint64
		for j := range args {
			args[j] = le.Uint64(e[entryArgs+8*j:])
		}
		var result int64
		if s.flags&stepLoad != 0 {
			n, err := t.give(th, files[0])
			if err != nil {
				return err
			}
			files, result = files[1:], int64(n)
		} else if result, err = t.call(th, s.nr, args[:]...); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		s.result = result
		if err := s.Err(); err != nil && s.flags&stepTry == 0 {
			return err
		} else if err != nil {
			continue
		}
		for _, at := range s.uses {
			if at < uint64(len(table)) {
				le.PutUint64(table[at:], uint64(result))
			} else if err := th.mem.write(at, le.AppendUint64(nil, uint64(result))); err != nil {
				return err
			}
		}
	}
	return nil
}

// The memory in the process: data of plans, behind them what a message to it needs.
const messageRoom = 256

func (t *tracer) room(th *tracee, n uint64) error {
	n = (n + messageRoom + 4095) &^ 4095
	if n <= t.size {
		return nil
	}
	if err := t.unmap(th); err != nil {
		return err
	}
	at, err := t.call(th, unix.SYS_MMAP, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uint64(0), 0)
	if err == nil && at < 0 && at > -4096 {
		err = unix.Errno(-at)
	}
	if err != nil {
		return fmt.Errorf("memory in the process: %w", err)
	}
	t.page, t.size = uint64(at), n
	return nil
}

func (t *tracer) unmap(th *tracee) error {
	if t.size == 0 {
		return nil
	}
	_, err := t.call(th, unix.SYS_MUNMAP, t.page, t.size)
	t.page, t.size = 0, 0
	return err
}

// give gives the process a descriptor and returns its number there.
func (t *tracer) give(th *tracee, fd int) (int, error) {
	if err := t.room(th, 0); err != nil {
		return 0, err
	}
	at := t.page + t.size - messageRoom
	if len(t.given) == 0 {
		r, err := t.call(th, unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0, at)
		if err == nil && r < 0 {
			err = unix.Errno(-r)
		}
		if err != nil {
			return 0, fmt.Errorf("socketpair: %w", err)
		}
		b := make([]byte, 8)
		if err := th.mem.read(at, b); err != nil {
			return 0, err
		}
		t.socks = [2]int{int(le.Uint32(b)), int(le.Uint32(b[4:]))}
		t.given = append(t.given, t.socks[0], t.socks[1])
		if err := t.fetch(th, t.socks[0]); err != nil {
			return 0, err
		}
	}
	if err := unix.Sendmsg(t.sock, []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return 0, fmt.Errorf("send a descriptor: %w", err)
	}
	// struct msghdr, iovec, a byte, and room for one descriptor.
	var b bytes.Buffer
	for _, w := range []uint64{0, 0, at + 56, 1, at + 80, 24, 0, at + 72, 1, 0} {
		b.Write(le.AppendUint64(nil, w))
	}
	b.Write(make([]byte, 24))
	if err := th.mem.write(at, b.Bytes()); err != nil {
		return 0, err
	}
	r, err := t.call(th, unix.SYS_RECVMSG, uint64(t.socks[1]), at, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err == nil && r < 0 {
		err = unix.Errno(-r)
	}
	if err != nil {
		return 0, fmt.Errorf("receive a descriptor: %w", err)
	}
	c := make([]byte, 24)
	if err := th.mem.read(at+80, c); err != nil {
		return 0, err
	}
	if le.Uint64(c) < 20 { // its table is full
		return 0, fmt.Errorf("receive a descriptor: %w", unix.EMFILE)
	}
	n := int(int32(le.Uint32(c[16:])))
	t.given = append(t.given, n)
	return n, nil
}

// fetch gets the tracer's end of the pair.
func (t *tracer) fetch(th *tracee, n int) error {
	pidfd := t.p.fd
	if th.tid != t.p.pid { // the first thread may have ended, and with it what a pidfd of the process shows; since 6.9
		var err error
		if pidfd, err = unix.PidfdOpen(th.tid, unix.PIDFD_THREAD); err != nil {
			return fmt.Errorf("pidfd_open: %w", err)
		}
		defer unix.Close(pidfd)
	}
	var err error
	if t.sock, err = unix.PidfdGetfd(pidfd, n, 0); err != nil {
		return fmt.Errorf("pidfd_getfd: %w", err)
	}
	return nil
}

// letGo takes out of the process what was only for the tracer.
func (t *tracer) letGo() {
	for _, fd := range t.given {
		if _, err := t.call(t.lead, unix.SYS_CLOSE, uint64(fd)); err != nil { // EBADF: newfd was there first
			return
		}
	}
	t.unmap(t.lead)
}
