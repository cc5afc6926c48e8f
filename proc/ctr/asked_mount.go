package ctr

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ctrfs/ns"
)

// The mounts that a container makes by ccaps are without devices and set-user-ID bits. It can take away those again, and no
// others: below them lies what it is not to see. For the same reason what is mounted in a directory comes along
// when that is mounted elsewhere, and a proc of its own is the one that it has.

const (
	// mountTime is how long a mount may take. Meanwhile no other call of the container is answered.
	mountTime = 10 * time.Second
	// mountsMost is how many there can be.
	mountsMost = 1024
)

const secureAttrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV

// attrs are the MOUNT_ATTRs of the flags of mount(2).
func attrs(flags uint64) (a uint64) {
	for flag, attr := range map[uint64]uint64{
		unix.MS_RDONLY: unix.MOUNT_ATTR_RDONLY, unix.MS_NOSUID: unix.MOUNT_ATTR_NOSUID, unix.MS_NODEV: unix.MOUNT_ATTR_NODEV,
		unix.MS_NOEXEC: unix.MOUNT_ATTR_NOEXEC, unix.MS_NOATIME: unix.MOUNT_ATTR_NOATIME, unix.MS_NODIRATIME: unix.MOUNT_ATTR_NODIRATIME,
	} {
		if flags&flag != 0 {
			a |= attr
		}
	}
	return a
}

// place is where the caller's mounts are: in the container's name space, or one that it has made of that.
func (a *asking) place(p *ns.Process) ns.Place {
	return ns.Place{First: p, User: a.r.spec.Flags&unix.CLONE_NEWUSER != 0}
}

// mount is mount(2).
func (a *asking) mount(ctx context.Context, may func(uint64) bool) error {
	flags := a.Arg(3)
	const propagation = unix.MS_SHARED | unix.MS_PRIVATE | unix.MS_SLAVE | unix.MS_UNBINDABLE
	switch {
	case flags&(unix.MS_MOVE|propagation) != 0:
		return unix.EPERM
	case flags&unix.MS_REMOUNT != 0:
		if !may(secureRemount) {
			return unix.EPERM
		}
	case !may(secureMount):
		return unix.EPERM
	}
	kind, err := a.Text(a.Arg(2), 256)
	if err != nil && flags&(unix.MS_REMOUNT|unix.MS_BIND) == 0 {
		return err
	}
	to, err := a.Path(a.Arg(1))
	if err != nil {
		return err
	}
	defer to.Close()
	p, err := a.Process()
	if err != nil {
		return err
	}
	defer p.Close()
	at := a.place(p)
	if flags&unix.MS_REMOUNT != 0 {
		now, err := ns.MountAttrs(to)
		switch {
		case err != nil:
			return err
		case now&^attrs(flags) != 0: // who made it may have meant it
			return unix.EPERM
		}
		return at.Restrict(ctx, to, attrs(flags))
	}
	a.mu.Lock()
	full := len(a.r.mounts) >= mountsMost
	a.mu.Unlock()
	var id uint64
	switch {
	case full:
		return unix.ENOSPC
	case flags&unix.MS_BIND != 0:
		from, e := a.Path(a.Arg(0))
		if e != nil {
			return e
		}
		defer from.Close()
		id, err = at.Bind(ctx, from, to, secureAttrs)
	case kind == "proc":
		from, e := a.Find("/proc")
		if e != nil {
			return e
		}
		defer from.Close()
		id, err = at.Bind(ctx, from, to, secureAttrs|attrs(flags))
	case kind == "devpts":
		id, err = at.Make(ctx, kind, to, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC|attrs(flags)&^unix.MOUNT_ATTR_NODEV, "newinstance", "ptmxmode=0666", "mode=0620")
	case kind == "tmpfs" && may(binaryMount):
		text, e := a.Text(a.Arg(4), 4096)
		if e != nil {
			return e
		}
		options := []string{"mode=1777"}
		if a.r.spec.Flags&unix.CLONE_NEWUSER != 0 {
			options = append(options, fmt.Sprint("uid=", a.owner.Uid), fmt.Sprint("gid=", a.owner.Gid))
		}
		for o := range strings.SplitSeq(text, ",") {
			if o != "" {
				options = append(options, o)
			}
		}
		id, err = at.Make(ctx, kind, to, secureAttrs|attrs(flags), options...)
	default:
		return unix.EPERM
	}
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.r.made(id)
	a.mu.Unlock()
	return a.save()
}

// made notes mounts that the container has made. Called with the container's lock.
func (r *run) made(ids ...uint64) {
	if r.mounts == nil {
		r.mounts = map[uint64]bool{}
	}
	for _, id := range ids {
		r.mounts[id] = true
	}
}

// mountIDs gives them. Called with the lock.
func (r *run) mountIDs() []uint64 { return slices.Collect(maps.Keys(r.mounts)) }

// its says whether the container has made a mount.
func (a *asking) its(id uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.r.mounts[id]
}

// unmount is umount(2).
func (a *asking) unmount(ctx context.Context) error {
	from, err := a.Path(a.Arg(0))
	if err != nil {
		return err
	}
	defer from.Close()
	id, root, err := ns.MountID(from)
	switch {
	case err != nil:
		return err
	case !root:
		return unix.EINVAL
	case !a.its(id):
		return unix.EPERM
	}
	p, err := a.Process()
	if err != nil {
		return err
	}
	defer p.Close()
	if err := a.place(p).Unmount(ctx, from); err != nil {
		return err
	}
	a.mu.Lock()
	delete(a.r.mounts, id)
	a.mu.Unlock()
	return a.save()
}

// quotas are the commands of quotactl(2), what each has in memory, its size and whether it is for the kernel.
var quotas = map[uint32]struct {
	size int
	in   bool
}{
	0x800001: {}, 0x800003: {}, // sync, off
	0x800004: {4, false},  // get the format
	0x800005: {24, false}, // get info
	0x800006: {24, true},  // set info
	0x800007: {72, false}, // get a quota
	0x800008: {72, true},  // set a quota
	0x800009: {80, false}, // get the next quota
}

// quota is quotactl_fd(2), of a file system that the container has mounted.
func (a *asking) quota() error {
	cmd := uint32(a.Arg(1))
	what, ok := quotas[cmd>>8]
	if !ok || a.Narrow() {
		return unix.EPERM
	}
	f, err := a.File(int(int32(a.Arg(0))))
	if err != nil {
		return err
	}
	defer f.Close()
	id, _, err := ns.MountID(f)
	if err == nil && !a.its(id) {
		err = unix.EPERM
	}
	if err != nil {
		return err
	}
	b := make([]byte, max(what.size, 8))
	if what.in {
		if b, err = a.Read(a.Arg(3), what.size); err != nil {
			return err
		}
	}
	_, _, e := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), uintptr(cmd), uintptr(uint32(a.Arg(2))), uintptr(unsafe.Pointer(&b[0])), 0, 0)
	runtime.KeepAlive(f)
	switch {
	case e != 0:
		return e
	case what.in || what.size == 0:
		return nil
	}
	return a.Write(a.Arg(3), b[:what.size])
}
