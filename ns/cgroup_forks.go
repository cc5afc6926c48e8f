package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Forks counts how many processes and threads the members of groups have made: one by one, by a program in the kernel (see
// bpf(2)), which is where nothing is missed. No group counts that itself.
//
// It needs version 2, Linux 5.7, CAP_BPF and CAP_PERFMON in the initial user namespace, and the initial cgroup namespace.
type Forks struct {
	table int // the kernel's: number of the group to the count
	link  int // the program runs while this is open
}

// maxForks is how many groups are counted; each costs the kernel about 100 bytes at once.
const maxForks = 16384

// CountForks begins to count, in no group yet.
func (c *Cgroups) CountForks() (*Forks, error) {
	f := &Forks{table: -1, link: -1}
	if err := f.begin(c); err != nil {
		f.Close()
		return nil, fmt.Errorf("count forks: %w", err)
	}
	return f, nil
}

func (f *Forks) begin(c *Cgroups) (err error) {
	if c.v2 == nil || c.v2.parent == "" {
		return errors.New("needs cgroup version 2")
	}
	// In another than the initial name space nobody knows how deep our groups lie.
	if link, err := os.Readlink("/proc/self/ns/cgroup"); err != nil || link != "cgroup:[4026531835]" {
		return errors.New("needs the initial cgroup namespace")
	}
	holder := path.Join(c.v2.group(c.v2.parent), c.base)
	if f.table, err = bpfMap(unix.BPF_MAP_TYPE_HASH, 8, 8, maxForks); err != nil {
		return err
	}
	f.link, err = bpfTrace("sched_process_fork", forkProgram(f.table, strings.Count(holder, "/")+1))
	return err
}

// forkProgram counts in the group at the level that the parent is in or below.
func forkProgram(table, level int) []bpfInsn {
	const key = -8
	var p bpfProgram
	p.set(1, level)
	p.call(bpfGetCurrentAncestorGroup)
	p.store64(key, 0)
	p.mapFD(1, table)
	p.address(2, key)
	p.call(bpfMapLookupElem)
	p.when(0, 0, "end")
	p.add1(0, 1)
	p.label("end")
	p.set(0, 0)
	return p.done()
}

// Add begins to count in a group. The error is E2BIG where there are too many.
func (f *Forks) Add(g *Group) error {
	id, err := g.id()
	if err != nil {
		return err
	}
	var none uint64
	_, err = bpf(unix.BPF_MAP_UPDATE_ELEM, &bpfElem{fd: uint32(f.table), key: &id, value: &none})
	return err
}

// Count is how many there were since Add. The error is fs.ErrNotExist for a group that was not added.
func (f *Forks) Count(g *Group) (n uint64, err error) {
	id, err := g.id()
	if err != nil {
		return 0, err
	}
	if _, err := bpf(unix.BPF_MAP_LOOKUP_ELEM, &bpfElem{fd: uint32(f.table), key: &id, value: &n}); err != nil {
		return 0, fs.ErrNotExist
	}
	return n, nil
}

// Remove ends the counting in a group.
func (f *Forks) Remove(g *Group) {
	if id, err := g.id(); err == nil {
		bpf(unix.BPF_MAP_DELETE_ELEM, &bpfElem{fd: uint32(f.table), key: &id})
	}
}

// id is the number by which the kernel knows the group: that of its directory.
func (g *Group) id() (uint64, error) {
	var st unix.Stat_t
	err := at(g.dir, func(fd int) error { return unix.Fstat(fd, &st) })
	return st.Ino, err
}

// Close ends all counting.
func (f *Forks) Close() {
	for _, fd := range []int{f.link, f.table} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
