package ns

import "golang.org/x/sys/unix"

// hands are what holds descriptors and texts by names, and knows nothing of what they are: the keeper's, and the holder's.
type hands map[string]*holding

// A holding is what is held under one name.
type holding struct {
	message
	fds  []int // -1: closed
	text int   // where the text is if not in the message, else -1
}

// How long something is held.
const (
	withKeeper = "keeper" // no longer than the keeper lives
	withOthers = "others" // no longer than something is held for its own sake
)

// do does what a message says and gives what is held under its name then.
func (hs hands) do(m message, fds []int) *holding {
	h := hs[m.Name]
	switch {
	case m.Verb == "hold":
		return hs.hold(m, fds)
	case m.Verb == "held":
		return hs.take(m, fds)
	case h == nil:
	case m.Verb == "drop":
		closeFDs(append(h.fds, h.text))
		delete(hs, m.Name)
	case m.Verb == "close" && m.Fd >= 0 && m.Fd < len(h.fds):
		closeFDs(h.fds[m.Fd : m.Fd+1])
		h.fds[m.Fd] = -1
	case m.Verb == "ended" && m.End != nil && m.End.Pid == h.Pid:
		h.End = m.End
	}
	closeFDs(fds)
	return h
}

// hold holds descriptors and a text by a name. Without descriptors, or without a process, the text is a new one for those
// that are held.
func (hs hands) hold(m message, fds []int) *holding {
	h := hs[m.Name]
	if h == nil {
		h = &holding{text: -1}
		hs[m.Name] = h
	}
	closeFDs([]int{h.text})
	h.text = -1
	if m.InFile && len(fds) > 0 {
		h.text, fds = fds[len(fds)-1], fds[:len(fds)-1]
	}
	if len(fds) > 0 {
		closeFDs(h.fds)
		h.fds = fds
	}
	if m.Pid == 0 {
		m.Pid, m.Start, m.End, m.Adopted = h.Pid, h.Start, h.End, h.Adopted
	}
	h.message = m
	return h
}

// take takes over what another held.
func (hs hands) take(m message, fds []int) *holding {
	h := &holding{message: m, text: -1}
	for _, open := range m.Open {
		fd := -1
		if open && len(fds) > 0 {
			fd, fds = fds[0], fds[1:]
		}
		h.fds = append(h.fds, fd)
	}
	if m.InFile && len(fds) > 0 {
		h.text, fds = fds[0], fds[1:]
	}
	closeFDs(fds)
	if old := hs[m.Name]; old != nil {
		closeFDs(append(old.fds, old.text))
	}
	hs[m.Name] = h
	return h
}

// give gives all that is held to who listens at sock.
func (hs hands) give(sock int) {
	for _, h := range hs {
		m, open := h.message, []int(nil)
		m.Verb, m.Open = "held", make([]bool, len(h.fds))
		for i, fd := range h.fds {
			if m.Open[i] = fd >= 0; m.Open[i] {
				open = append(open, fd)
			}
		}
		if h.text >= 0 {
			open = append(open, h.text)
		}
		say(sock, m, open...)
	}
}

// kill ends what is to end with the server.
func (hs hands) kill() {
	for _, h := range hs {
		if h.Kill && h.Pid != 0 && h.End == nil && len(h.fds) > 0 {
			unix.PidfdSendSignal(h.fds[0], unix.SIGKILL, nil, 0) // fails only where it has ended
		}
	}
}

// say sends a message; it fails where nobody is left who listens.
func say(sock int, m message, fds ...int) error {
	b, rights := m.bytes(fds)
	return pass(sock, b, rights)
}

func pass(sock int, b, rights []byte) error {
	for {
		if err := unix.Sendmsg(sock, b, rights, nil, unix.MSG_NOSIGNAL); err != unix.EINTR {
			return err
		}
	}
}

// hear hears a message; false: nobody is left who says one.
func hear(sock int, buf, oob []byte) (m message, fds []int, ok bool) {
	defer consume(sock)
	return peek(sock, buf, oob)
}

// peek hears a message that stays to be heard by others until consume.
func peek(sock int, buf, oob []byte) (m message, fds []int, ok bool) {
	for {
		n, nb, _, _, err := unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_PEEK)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || n == 0:
			return m, nil, false
		}
		if m, fds, err = parseMessage(buf[:n], oob[:nb]); err == nil {
			return m, fds, true
		}
		consume(sock)
	}
}

// consume takes away the message that peek has given.
func consume(sock int) {
	for {
		if _, _, err := unix.Recvfrom(sock, make([]byte, 1), unix.MSG_DONTWAIT); err != unix.EINTR {
			return
		}
	}
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
