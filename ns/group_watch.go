package ns

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A GroupWatch tells of every end of a process that is in one of some process groups.
//
// The group is the one at the end itself: a program in the kernel (see bpf(2)) reads it where the process ends. No
// event after that would do, because setpgid(2) makes none, and a parent that waits has often reaped the process, with
// its group, before the proc connector's message is read (44 of 100 times were measured). A group is known by the inode of
// its leader's pidfd, so a number that is given out again is another group.
//
// It needs Linux 6.9 with BTF (CONFIG_DEBUG_INFO_BTF), and CAP_BPF and CAP_PERFMON in the initial user namespace.
type GroupWatch struct {
	groups int      // the kernel's table: inode of the leader to mark
	link   int      // the program runs while this is open
	ring   *os.File // what it has to tell
	read   *atomic.Uint64
	wrote  *atomic.Uint64
	maps   [2][]byte // of the ring: our position; the kernel's, and the records twice
}

// A GroupEnd is the end of a member of the group that was given this mark.
type GroupEnd struct {
	Signal syscall.Signal // which ended it; 0: it ended by itself
	Mark   uint64
}

// MaxGroups is how many groups a GroupWatch takes.
const MaxGroups = 1024

// ringSize is a power of two. The half that ends without a signal may not fill holds one record of each group.
const (
	ringSize   = 64 << 10
	recordSize = 8 + 16 // header, signal, mark
)

var _ [ringSize/2 - MaxGroups*recordSize]byte

// WatchGroups starts a watch of no group.
func WatchGroups() (*GroupWatch, error) {
	w := &GroupWatch{groups: -1, link: -1}
	if err := w.begin(); err != nil {
		w.Close()
		w.unmap()
		return nil, fmt.Errorf("watch process groups: %w", err)
	}
	return w, nil
}

func (w *GroupWatch) begin() error {
	if !pidfs() {
		return errors.New("needs Linux 6.9")
	}
	at, err := groupOffsets()
	if err != nil {
		return err
	}
	if w.groups, err = bpfMap(unix.BPF_MAP_TYPE_HASH, 8, 8, MaxGroups); err != nil {
		return err
	}
	ring, err := bpfMap(unix.BPF_MAP_TYPE_RINGBUF, 0, 0, ringSize)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(ring, true); err != nil { // so that the runtime's poller takes it
		unix.Close(ring)
		return err
	}
	w.ring = os.NewFile(uintptr(ring), "bpf ring")
	page := os.Getpagesize()
	if w.maps[0], err = unix.Mmap(ring, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return err
	}
	if w.maps[1], err = unix.Mmap(ring, int64(page), page+2*ringSize, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return err
	}
	w.read = (*atomic.Uint64)(unsafe.Pointer(&w.maps[0][0]))
	w.wrote = (*atomic.Uint64)(unsafe.Pointer(&w.maps[1][0]))
	w.link, err = bpfTrace("sched_process_exit", groupProgram(at, w.groups, ring))
	return err
}

// Add gives leader's group a mark, in place of the one that it had. The group is told of until a member ends by a
// signal: this end is the last that is told. The error is E2BIG where there are MaxGroups.
func (w *GroupWatch) Add(leader *Process, mark uint64) error {
	key := leader.ID()
	_, err := bpf(unix.BPF_MAP_UPDATE_ELEM, &bpfElem{fd: uint32(w.groups), key: &key, value: &mark})
	return err
}

// Remove takes leader's group out.
func (w *GroupWatch) Remove(leader *Process) {
	key := leader.ID()
	bpf(unix.BPF_MAP_DELETE_ELEM, &bpfElem{fd: uint32(w.groups), key: &key})
}

// Next blocks until there are ends to tell of. After Close it fails, and then frees what is left: it must be called by
// one goroutine until it does.
func (w *GroupWatch) Next() (ends []GroupEnd, err error) {
	raw, err := w.ring.SyscallConn()
	if err == nil {
		err = raw.Read(func(uintptr) bool {
			ends = w.take()
			return len(ends) > 0
		})
	}
	if err != nil {
		w.unmap()
		return nil, err
	}
	return ends, nil
}

// Pending reports whether Next would not block. It is for who calls Next.
func (w *GroupWatch) Pending() bool { return w.read.Load() != w.wrote.Load() }

// take empties the ring. A record that is still being written is announced when it is whole, because it is where
// our position is. See Documentation/bpf/ringbuf.rst.
func (w *GroupWatch) take() (ends []GroupEnd) {
	const busy, discarded = 1 << 31, 1 << 30
	data := w.maps[1][os.Getpagesize():]
	for pos := w.read.Load(); pos < w.wrote.Load(); {
		at := data[pos%ringSize:]
		n := atomic.LoadUint32((*uint32)(unsafe.Pointer(&at[0])))
		if n&busy != 0 {
			break
		}
		if n&discarded == 0 && n == recordSize-8 {
			rec := (*[2]uint64)(unsafe.Pointer(&at[8]))
			ends = append(ends, GroupEnd{syscall.Signal(rec[0]), rec[1]})
		}
		pos += uint64(n&^discarded+8+7) &^ 7
		w.read.Store(pos)
	}
	return ends
}

// Close ends the watch.
func (w *GroupWatch) Close() {
	for _, fd := range []int{w.link, w.groups} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if w.ring != nil {
		w.ring.Close()
	}
}

func (w *GroupWatch) unmap() {
	for _, m := range w.maps {
		if m != nil {
			unix.Munmap(m)
		}
	}
}

// groupProgram is what the kernel runs at every end of a thread, as instructions. r1 points to the tracepoint's
// arguments, the first of which is the task. The last thread tells of the process; two may both be the last, so a mark
// can be told twice.
func groupProgram(at groupOffset, groups, ring int) []bpfInsn {
	const (
		key, mark, signal, tmp = -8, -16, -24, -32 // of the stack; signal and mark are the record
		groupExit              = 4                 // SIGNAL_GROUP_EXIT: else the code may be that of a stop
		pgid                   = 2 * 8             // PIDTYPE_PGID of an array of pointers
	)
	var p bpfProgram
	p.load64(6, 1, 0)
	p.peek(tmp, 8, 6, at.taskSignal)
	p.load64(7, 10, tmp)
	p.peek(tmp, 4, 7, at.live)
	p.load32(1, 10, tmp)
	p.unless(1, 0, "end")
	p.peek(tmp, 8, 7, at.pids+pgid)
	p.load64(8, 10, tmp)
	p.peek(key, 8, 8, at.ino)
	p.mapFD(1, groups)
	p.address(2, key)
	p.call(bpfMapLookupElem)
	p.when(0, 0, "end")
	p.load64(1, 0, 0)
	p.store64(mark, 1)

	p.peek(tmp, 4, 7, at.flags)
	p.load32(9, 10, tmp)
	p.and(9, groupExit)
	p.peek(tmp, 4, 7, at.code)
	p.load32(8, 10, tmp)
	p.and(8, 0x7f)
	p.unless(9, 0, "told")
	p.set(8, 0)
	p.label("told")
	p.store64(signal, 8)
	p.unless(8, 0, "output")
	p.mapFD(1, ring)
	p.set(2, 0) // BPF_RB_AVAIL_DATA
	p.call(bpfRingbufQuery)
	p.above(0, ringSize/2, "end") // there is enough to read, after which all is looked at
	p.label("output")
	p.mapFD(1, ring)
	p.address(2, signal)
	p.set(3, recordSize-8)
	p.set(4, 0)
	p.call(bpfRingbufOutput)
	p.unless(0, 0, "end")
	p.when(8, 0, "end")
	p.mapFD(1, groups)
	p.address(2, key)
	p.call(bpfMapDeleteElem)
	p.label("end")
	p.set(0, 0)
	return p.done()
}

// groupOffset is where the kernel has what the program reads.
type groupOffset struct {
	taskSignal, live, pids, flags, code, ino int
}

var groupOffsets = once(func() (at groupOffset, err error) {
	err = kernelOffsets(map[string]*int{
		"task_struct.signal":            &at.taskSignal,
		"signal_struct.live":            &at.live,
		"signal_struct.pids":            &at.pids,
		"signal_struct.flags":           &at.flags,
		"signal_struct.group_exit_code": &at.code,
		"pid.ino":                       &at.ino,
	})
	return at, err
})

// SignalGroupAs sends sig as c to all members of the group that leader leads or led: fs.ErrPermission if c may signal
// none, ErrExited if there is none. 0 only asks. See PIDFD_SIGNAL_PROCESS_GROUP in pidfd_send_signal(2).
func SignalGroupAs(c Cred, leader *Process, sig syscall.Signal) error {
	const processGroup = 1 << 2
	return leader.use(func(fd int) error {
		return As(c, func() error { return signalError(unix.PidfdSendSignal(fd, sig, nil, processGroup)) })
	})
}
