// Package fuse serves a tree to a mount of this machine's kernel by FUSE (see fuse(4)), for kernels that lack the 9P
// client. Who asks is whoever made the system call: the kernel tells uid, gid and thread.
//
// The messages' layouts are go-fuse's; the device is read here, because go-fuse's server cannot be ended while its
// mount is busy, holds a buffer of the size asked for under every blocked read, and lets a request overtake the close
// that came before it.
package fuse

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/fs/styx"
)

const (
	maxWrite = 1 << 20 // a message to a ctl file comes whole up to here; the kernel's own limit unless root raised it
	maxRead  = 512 << 10

	// Half of what a request can hold, so that a buffer that begins within a page fits as well and a request shorter
	// than maxRead is surely the last of its read(2).
	_ = uint(maxWrite - 2*maxRead)
)

// A Mounted is a tree that the kernel shows at a directory.
type Mounted struct {
	dir      string
	on       [2]int // the device number of the mount, by which it is known from others at dir
	accounts *fs.Accounts

	dev  int    // /dev/fuse; closing it ends the connection
	stop [2]int // a pipe; closing its writing end ends the wait for requests
	gone bool   // the kernel has ended the connection; read after done
	ctx  context.Context
	end  context.CancelFunc
	done chan struct{} // closed when nothing is served any more
	err  error         // why; read after done

	running sync.WaitGroup // the goroutines that serve

	// Only the goroutine that reads the device uses these; it hands them to the next with the go statement.
	buf     []byte
	closing map[uint32]<-chan struct{} // by user: closed when what he has closed so far is closed

	mu       sync.Mutex // guards what follows
	nodes    map[uint64]*node
	lastNode uint64
	handles  map[uint64]*handle
	lastFh   uint64
	inflight map[uint64]*request
}

// A handle is an open file or directory and who has opened it. What is done through it is done as him, whoever holds
// the descriptor now: a set-user-id program that writes to what it was given speaks for the giver.
type handle struct {
	fs.Handle // nil: a directory
	*listing  // nil: a file
	node      *node
	client    *fs.Client
}

// A request is a message of the kernel's.
type request struct {
	*fuse.InHeader
	m      *Mounted
	msg    []byte // with the header
	ctx    context.Context
	cancel context.CancelFunc
	after  <-chan struct{} // to wait for first; nil: nothing
}

func serve(ctx context.Context, tree fs.Dir, dir string, on [2]int, dev int, accounts *fs.Accounts) (*Mounted, error) {
	m := &Mounted{
		accounts: accounts, dir: dir, on: on, dev: dev, done: make(chan struct{}),
		buf:      make([]byte, maxWrite+4096),
		closing:  map[uint32]<-chan struct{}{},
		nodes:    map[uint64]*node{fuse.FUSE_ROOT_ID: {id: fuse.FUSE_ROOT_ID, is: tree, kids: map[string]*node{}, lookups: 1}},
		lastNode: fuse.FUSE_ROOT_ID,
		handles:  map[uint64]*handle{},
		inflight: map[uint64]*request{},
	}
	if err := unix.Pipe2(m.stop[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	m.ctx, m.end = context.WithCancel(ctx)
	m.running.Add(1)
	go m.serve()
	go func() {
		<-m.ctx.Done()
		unix.Close(m.stop[1])
		m.running.Wait()
		unix.Close(m.stop[0])
		unix.Close(m.dev)
		for _, h := range m.handles { // what the kernel had no time to release
			h.close(fs.WithClient(context.WithoutCancel(m.ctx), h.client))
		}
		close(m.done)
	}()
	return m, nil
}

// Wait returns when the mount has ended: unmounted by somebody, or the context that it serves in has ended.
func (m *Mounted) Wait() error {
	<-m.done
	return m.err
}

// serve reads one request that is to be answered, lets another goroutine read the next, and answers it: any number of
// them may block. A request is known to the interrupts and closes that follow it before the next is read.
func (m *Mounted) serve() {
	defer m.running.Done()
	for {
		n, err := unix.Read(m.dev, m.buf)
		switch err {
		case nil:
		case unix.EAGAIN:
			ready := []unix.PollFd{{Fd: int32(m.dev), Events: unix.POLLIN}, {Fd: int32(m.stop[0])}}
			if unix.Poll(ready, -1); ready[1].Revents == 0 {
				continue
			}
			return
		case unix.EINTR, unix.ENOENT: // ENOENT: interrupted before it was read
			continue
		default:
			if m.gone = err == unix.ENODEV; !m.gone {
				m.err = fmt.Errorf("read /dev/fuse: %w", err)
			}
			m.end()
			return
		}
		if r := m.accept(m.buf[:n]); r != nil {
			m.running.Add(1)
			go m.serve()
			r.answer()
			return
		}
	}
}

// accept takes a message in the order in which the kernel has sent it; nil if there is no more to do.
func (m *Mounted) accept(msg []byte) *request {
	r := &request{m: m, msg: append(make([]byte, 0, max(len(msg), int(unsafe.Sizeof(fuse.InHeader{})))), msg...)}
	r.InHeader, _ = arg[fuse.InHeader](r)
	switch r.Opcode {
	case opForget:
		in, _ := arg[fuse.ForgetIn](r)
		m.forget(r.NodeId, in.Nlookup)
		return nil
	case opBatchForget:
		for _, f := range forgets(r) {
			m.forget(f.node, f.lookups)
		}
		return nil
	case opInterrupt:
		in, _ := arg[fuse.InterruptIn](r)
		m.mu.Lock()
		old := m.inflight[in.Unique]
		m.mu.Unlock()
		if old != nil {
			old.interrupt()
		}
		return nil
	}
	r.ctx, r.cancel = context.WithCancel(m.ctx)
	uid := r.Uid
	m.mu.Lock()
	m.inflight[r.Unique] = r
	if r.Opcode == opRelease { // it comes without a user
		in, _ := arg[fuse.ReleaseIn](r)
		if h := m.handles[in.Fh]; h != nil {
			uid = h.client.Uid
		}
	}
	m.mu.Unlock()
	r.after = m.closing[uid]
	if r.Opcode == opRelease {
		m.closing[uid] = r.ctx.Done()
	} else if r.after != nil {
		select {
		case <-r.after:
			delete(m.closing, uid)
		default:
		}
	}
	return r
}

// answer does what the request asks for. close(2) has returned before its release is sent: what its user asks next
// waits until the file is closed, and nobody else does.
func (r *request) answer() {
	defer r.cancel()
	if r.after != nil {
		select {
		case <-r.after:
		case <-r.ctx.Done():
		}
	}
	var body []byte
	err := error(syscall.ENOSYS) // the kernel does not ask again, and tells programs what that means for each call
	if op, ok := ops[r.Opcode]; ok {
		body, err = op(r)
	}
	r.m.mu.Lock()
	delete(r.m.inflight, r.Unique)
	r.m.mu.Unlock()
	head := fuse.OutHeader{Unique: r.Unique}
	if err != nil {
		body = nil
		head.Status = -int32(styx.Errno(err))
	}
	head.Length = uint32(unsafe.Sizeof(head)) + uint32(len(body))
	// The only errors are ENOENT, nobody waits any more, and those of a connection that ends.
	unix.Write(r.m.dev, append(append(make([]byte, 0, head.Length), raw(&head)...), body...))
}

// client says who asks, and makes that known in the context for the tree.
func (r *request) client() *fs.Client {
	c := &fs.Client{Uid: r.Uid, Gid: r.Gid, Errors: fs.ErrorsOf(r.Uid), Account: r.m.accounts.Of(r.Uid)}
	if st, err := threadStatus(r.Pid); err == nil {
		c.Pid, c.Groups = st.pid, st.groups
	}
	r.ctx = fs.WithClient(r.ctx, c)
	return c
}

// handle gives the open file with number fh; what is done with it is done as who has opened it.
func (r *request) handle(fh uint64) (*handle, error) {
	r.m.mu.Lock()
	h := r.m.handles[fh]
	r.m.mu.Unlock()
	if h == nil {
		return nil, syscall.EBADF
	}
	r.ctx = fs.WithClient(r.ctx, h.client)
	return h, nil
}

// fail notes in /error what was refused.
func (r *request) fail(path string, err error) error {
	if err != nil && !errors.Is(err, context.Canceled) {
		fs.ClientOf(r.ctx).Errors.Add(path, err)
	}
	return err
}

// arg gives the fixed part of a message, zeros where an older kernel's ends earlier, and what follows it.
func arg[T any](r *request) (*T, []byte) {
	size := int(unsafe.Sizeof(*new(T)))
	if len(r.msg) < size {
		return (*T)(unsafe.Pointer(unsafe.SliceData(append(make([]byte, 0, size), r.msg...)))), nil
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(r.msg))), r.msg[size:]
}

// raw gives the bytes of a fixed part.
func raw[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}
