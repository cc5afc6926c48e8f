package ns

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// holderName is the whole command line of this program when a keeper has started it to be the holder. Its descriptor 3 is
// the keeper's, 4 a socket at which the next keeper finds it.
const holderName = "ctrfs-holder"

// A holder is the keeper's second pair of hands: what the keeper holds it holds too. When the keeper has died the outputs
// have a reader still, the terminals a master, and the pidfds of what has ended say how (6.15), until the next keeper comes.
// It gets all from one keeper at a time, gives all to the next, and ends when there is no keeper and nothing worth to hold.
type holder struct {
	hands
	keeper   int // -1: there is none
	listener int
	buf, oob []byte
}

// Holder is the holder where a keeper has started this process to be that. It is called at the beginning of a program in whose
// name Keep is called.
func Holder() {
	if len(os.Args) != 1 || os.Args[0] != holderName {
		return
	}
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT)
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	h := &holder{hands: hands{}, keeper: 3, listener: 4, buf: make([]byte, messageMost), oob: make([]byte, unix.CmsgSpace(rightsMost*4))}
	for {
		poll := []unix.PollFd{{Fd: int32(h.keeper), Events: unix.POLLIN}, {Fd: int32(h.listener), Events: unix.POLLIN}}
		unix.Poll(poll, -1) // EINTR: nothing is there
		switch {
		case poll[0].Revents != 0: // first, as it may be the end of who was before those that connect
			h.obey()
		case poll[1].Revents != 0:
			h.accept()
		}
	}
}

func (h *holder) obey() {
	switch m, fds, ok := hear(h.keeper, h.buf, h.oob); {
	case !ok:
		h.lost()
	case m.Verb == "give":
		h.give()
	case m.Verb == "end":
		h.end()
	default:
		h.do(m, fds)
	}
}

func (h *holder) give() {
	h.hands.give(h.keeper)
	say(h.keeper, message{Verb: "all"})
}

// accept gives all to the next keeper. One too many is told so.
func (h *holder) accept() {
	fd, _, err := unix.Accept4(h.listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	switch {
	case err != nil || int(cred.Uid) != os.Geteuid():
		unix.Close(fd)
	case h.keeper >= 0:
		say(fd, message{Verb: "busy"})
		unix.Close(fd)
	default:
		h.keeper = fd
		h.give()
	}
}

// lost is the end of a keeper. The server that was its child moves no more data when another keeper gets what that was moving.
func (h *holder) lost() {
	unix.Close(h.keeper)
	h.keeper = -1
	if s := h.hands[serverName]; s != nil && len(s.fds) == 2 {
		unix.PidfdSendSignal(s.fds[0], unix.SIGKILL, nil, 0) // fails only where it has ended
		await(s.fds[0])
		unix.SetNonblock(s.fds[1], true)
		for { // what the server has said was so
			m, fds, ok := hear(s.fds[1], h.buf, h.oob)
			if !ok {
				break
			}
			h.do(m, fds)
		}
	}
	h.kill()
	worth := false
	for name, held := range h.hands {
		if held.With == withKeeper {
			h.do(message{Verb: "drop", Name: name}, nil)
			continue
		}
		held.Adopted = held.Pid != 0
		worth = worth || held.With == ""
	}
	if !worth {
		h.end()
	}
}

// await waits for the end of a process.
func await(pidfd int) {
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(poll, -1); err != unix.EINTR {
			return
		}
	}
}

// end ends the holder. Who connects from now on finds nobody; who has just done so loses his connection.
func (h *holder) end() {
	if name, err := unix.Getsockname(h.listener); err == nil {
		if name, ok := name.(*unix.SockaddrUnix); ok {
			os.Remove(name.Name) // while nobody else could be there
		}
	}
	os.Exit(0)
}
