package ns

import (
	"encoding/binary"
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A connector records how processes end on kernels that do not tell it by a pidfd (before 6.15): the proc connector
// (linux/cn_proc.h) sends a message for every exit on the machine. It works in the initial pid and network
// namespace only and needs CAP_NET_ADMIN; a nil one records nothing.
//
// It is started once and never told to stop: the kernel counts listeners without looking, so one IGNORE
// too many silences everybody's. What is read of a process is trusted only if no thread outlived the leader,
// whose status need not be the group's.
type connector struct {
	fd    int
	byPid map[int][]*heard // guarded by watching.mu
}

// heard is what the connector said about a watch.
type heard struct {
	w     *watch
	since int64 // CLOCK_MONOTONIC; older messages are of the number's last owner
	exit  *Exit
	lost  bool // a message may have been lost, or the answer is not sure
	ended bool // the pidfd said so, and only the message is missing
}

const (
	cnIdxProc       = 1
	cnValProc       = 1
	procCnListen    = 1
	procEventExit   = 0x80000000
	cnHeader        = unix.SizeofNlMsghdr + 20 // nlmsghdr, cn_msg
	cnEvent         = cnHeader                 // what, cpu, timestamp
	cnExit          = cnHeader + 16            // pid, tgid, code
	connectorBuffer = 4 << 20                  // 5,000 ends at once were not lost
)

// exitInfo reports whether the kernel tells the status of every reaped process by its pidfd.
var exitInfo = sync.OnceValue(func() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 15
})

// listen starts a connector.
func listen() (*connector, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, err
	}
	c := &connector{fd: fd, byPid: make(map[int][]*heard)}
	if err := c.begin(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return c, nil
}

func (c *connector) begin() error {
	// Only exits wake us. The words are the kernel's own, the filter reads them as big endian.
	want := procEventExit
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		want = 0x80
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: cnEvent},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(want), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(c.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return err
	}
	if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, connectorBuffer) != nil {
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, connectorBuffer)
	}
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIdxProc}); err != nil {
		return err
	}
	msg := make([]byte, cnHeader+4)
	e := binary.NativeEndian
	e.PutUint32(msg, uint32(len(msg)))
	e.PutUint16(msg[4:], unix.NLMSG_DONE)
	e.PutUint32(msg[16:], cnIdxProc)
	e.PutUint32(msg[20:], cnValProc)
	e.PutUint16(msg[32:], 4)
	e.PutUint32(msg[cnHeader:], procCnListen)
	return unix.Sendto(c.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// add and remove are called with watching.mu held, as is look.
func (c *connector) add(w *watch) {
	if c != nil {
		var now unix.Timespec
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
		c.byPid[w.p.pid] = append(c.byPid[w.p.pid], &heard{w: w, since: now.Nano(), lost: ended(w.fd)})
	}
}

func (c *connector) remove(w *watch) {
	if c == nil {
		return
	}
	pid := w.p.pid
	for i, h := range c.byPid[pid] {
		if h.w == w {
			c.byPid[pid] = append(c.byPid[pid][:i], c.byPid[pid][i+1:]...)
			break
		}
	}
	if len(c.byPid[pid]) == 0 {
		delete(c.byPid, pid)
	}
}

// look is the last answer for a process that has ended: what was heard of it, or that nobody knows. false: wait.
func (c *connector) look(w *watch, hup bool) (Exit, bool) {
	if c != nil {
		for _, h := range c.byPid[w.p.pid] {
			if h.w != w {
				continue
			}
			switch {
			case h.exit != nil && !h.lost:
				return *h.exit, true
			case !h.lost:
				h.ended = true // the message is sent after the pidfd has woken us
				return Exit{}, false
			}
		}
	}
	// Since 6.9 a second event says that a zombie was reaped, and then there may be more to see.
	return unknownExit, ended(w.fd) && (hup || !pidfs())
}

// receive takes what has come, all of it: the epoll tells only of news.
func (c *connector) receive() {
	buf := make([]byte, 4096)
	for {
		n, from, err := unix.Recvfrom(c.fd, buf, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOBUFS:
			c.missed()
			continue
		case err != nil:
			return
		}
		// Anybody who may may send to the group; only the kernel has port 0.
		if sa, ok := from.(*unix.SockaddrNetlink); ok && sa.Pid == 0 {
			c.message(buf[:n])
		}
	}
}

// drain drops what has come while nobody waited.
func (c *connector) drain() {
	if c == nil {
		return
	}
	var one [1]byte
	for {
		_, _, err := unix.Recvfrom(c.fd, one[:], 0)
		if err != nil && err != unix.EINTR && err != unix.ENOBUFS {
			return
		}
	}
}

func (c *connector) message(msg []byte) {
	e := binary.NativeEndian
	if len(msg) < cnExit+16 || e.Uint32(msg[16:]) != cnIdxProc || e.Uint32(msg[cnEvent:]) != procEventExit {
		return
	}
	pid, tgid, code := int(e.Uint32(msg[cnExit:])), int(e.Uint32(msg[cnExit+4:])), e.Uint32(msg[cnExit+8:])
	if pid != tgid {
		return
	}
	at := int64(e.Uint64(msg[cnEvent+8:]))
	s := &watching
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range append([]*heard(nil), c.byPid[pid]...) {
		if at < h.since {
			continue
		}
		exit := unknownExit
		exit.Status, exit.Known = syscall.WaitStatus(code), true
		h.exit = &exit
		if !ended(h.w.fd) { // other threads go on
			h.lost = true
		}
		if h.ended {
			h.w.users++
			s.finish(h.w, h.w.complete(exit))
			s.leaveLocked(h.w)
		}
	}
}

// missed gives up on those whose message may be among the lost.
func (c *connector) missed() {
	s := &watching
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, all := range c.byPid {
		for _, h := range append([]*heard(nil), all...) {
			h.lost = h.lost || h.exit == nil
			if h.ended && h.lost {
				h.w.users++
				s.finish(h.w, h.w.complete(unknownExit))
				s.leaveLocked(h.w)
			}
		}
	}
}
