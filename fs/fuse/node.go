package fuse

import (
	"context"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"

	"ctrfs/fs"
)

// A node is a name that the kernel holds. It keeps its number as long as it is held, whatever is made anew under the
// name: with another number a process whose current directory it is would stand in a deleted one.
type node struct {
	id uint64

	// guarded by Mounted.mu
	is      fs.Node // replaced by each look-up
	up      *node   // nil: the root
	name    string
	kids    map[string]*node
	lookups uint64  // how often the kernel was told of it
	opens   int     // handles
	last    fs.Stat // as it was when it was opened
}

// node gives the node with a number and what it stands for.
func (m *Mounted) node(id uint64) (*node, fs.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[id]
	if n == nil { // the kernel names only what it was told of
		return &node{id: id}, gone{}
	}
	return n, n.is
}

// gone stands for a number that means nothing.
type gone struct{}

func (gone) Stat(context.Context) (fs.Stat, error) { return fs.Stat{}, fs.ErrNotExist }

// path is what errors are noted under.
func (m *Mounted) path(n *node, name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := name
	for ; n != nil && n.up != nil; n = n.up {
		if p != "" {
			p = "/" + p
		}
		p = n.name + p
	}
	return "/" + p
}

// learn gives the number of the node called name in dir, which is found to stand for is.
func (m *Mounted) learn(dir *node, name string, is fs.Node, st fs.Stat) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := dir.kids[name]
	if n == nil || n.last.Mode.Type() != st.Mode.Type() {
		m.lastNode++
		n = &node{id: m.lastNode, up: dir, name: name, kids: map[string]*node{}}
		m.nodes[n.id] = n
		dir.kids[name] = n
	}
	n.is, n.last = is, st
	n.lookups++
	return n.id
}

// forget takes back what the kernel was told.
func (m *Mounted) forget(id, lookups uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[id]
	if n == nil || n.up == nil {
		return
	}
	if n.lookups -= min(lookups, n.lookups); n.lookups == 0 {
		delete(m.nodes, id)
		if n.up.kids[n.name] == n {
			delete(n.up.kids, n.name)
		}
	}
}

// unname makes the next of that name another node: the kernel takes what it has removed for dead.
func (m *Mounted) unname(dir *node, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(dir.kids, name)
}

// rename follows what the kernel does with the names.
func (m *Mounted) rename(dir *node, from string, toDir *node, to string, is fs.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := dir.kids[from]
	delete(dir.kids, from)
	delete(toDir.kids, to)
	if n != nil {
		n.up, n.name, n.is = toDir, to, is
		toDir.kids[to] = n
	}
}

// open gives a number to an open file.
func (m *Mounted) open(n *node, h *handle) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	h.node = n
	n.opens++
	m.lastFh++
	m.handles[m.lastFh] = h
	return m.lastFh
}

// release takes an open file out of the table.
func (m *Mounted) release(fh uint64) *handle {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.handles[fh]
	if h != nil {
		delete(m.handles, fh)
		h.node.opens--
	}
	return h
}

// remembered gives what an open file was when it is gone: cat and others look at their descriptor before they read.
func (m *Mounted) remembered(n *node) (fs.Stat, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return n.last, n.opens > 0
}

type forgetOne struct{ node, lookups uint64 }

func forgets(r *request) []forgetOne {
	in, list := arg[struct {
		fuse.InHeader
		Count, Dummy uint32
	}](r)
	n := min(int(in.Count), len(list)/int(unsafe.Sizeof(forgetOne{})))
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*forgetOne)(unsafe.Pointer(unsafe.SliceData(list))), n)
}
