package fuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"ctrfs/fs"
)

const fsType = "fuse.ctrfs"

// Options are what a mount can be besides.
type Options struct {
	// AllowOther lets other users use an ordinary user's mount, if /etc/fuse.conf has user_allow_other. Root's is for
	// all: who may do what is said by the files.
	AllowOther bool
	// Accounts say how much the server may hold for a user; nil: any amount.
	Accounts *fs.Accounts
}

// Mount shows the tree at dir, which must be there, until Unmount is called, somebody else unmounts it, or ctx ends.
// Requests are served in ctx. Root mounts by mount(2), others by fusermount3; what is lacking for that is named.
//
// The server must not use a path below dir itself: it would wait for its own answer.
func Mount(ctx context.Context, tree fs.Dir, dir string, opt Options) (*Mounted, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // as mountinfo has it
	}
	if err != nil {
		return nil, err
	}
	by := byFusermount
	if os.Geteuid() == 0 {
		by = byRoot
	}
	dev, err := by(dir, opt)
	if err != nil {
		return nil, fmt.Errorf("mount %q: %w", dir, err)
	}
	at, err := topmost(dir)
	if err != nil {
		unix.Close(dev)
		return nil, err
	}
	return serve(ctx, tree, dir, at, dev, opt.Accounts)
}

// topmost gives the device number of the mount of a ctrfs at dir, zeros if something else is there, without asking
// the file system itself.
func topmost(dir string) (dev [2]int, err error) {
	at, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != dir, false })
	if err == nil && len(at) > 0 && at[len(at)-1].FSType == fsType {
		dev = [2]int{at[len(at)-1].Major, at[len(at)-1].Minor}
	}
	return dev, err
}

// openDevice opens /dev/fuse, nonblocking: a read that waits would keep it from being closed, which is what ends the
// connection of a mount in use. The runtime's poller does not take it: unmounted it is an error to poll.
func openDevice() (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return -1, errors.New("no /dev/fuse: the kernel lacks the module fuse (CONFIG_FUSE_FS; modprobe fuse)")
	} else if err != nil {
		return -1, fmt.Errorf("open /dev/fuse: %w", err)
	}
	return fd, nil
}

func byRoot(dir string, _ Options) (int, error) {
	fd, err := openDevice()
	if err != nil {
		return -1, err
	}
	err = unix.Mount("ctrfs", dir, fsType, unix.MS_NOSUID|unix.MS_NODEV,
		fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,max_read=%d", fd, maxRead))
	if errors.Is(err, unix.ENODEV) {
		err = errors.New("the kernel lacks the module fuse (CONFIG_FUSE_FS; modprobe fuse)")
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// byFusermount has Debian's set-user-id program mount, which sends the descriptor through the socket whose number it
// finds in _FUSE_COMMFD; see fusermount3(1).
func byFusermount(dir string, opt Options) (int, error) {
	probe, err := openDevice() // its absence is not among what fusermount3 explains
	if err != nil {
		return -1, err
	}
	unix.Close(probe)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "fusermount3"), os.NewFile(uintptr(pair[1]), "fusermount3")
	defer ours.Close()
	words := fmt.Sprintf("fsname=ctrfs,subtype=ctrfs,nosuid,nodev,max_read=%d", maxRead)
	if opt.AllowOther {
		words += ",allow_other"
	}
	err = fusermount(context.Background(), theirs, "-o", words, "--", dir)
	theirs.Close()
	if err != nil {
		return -1, err
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(ours.Fd()), make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fusermount3: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return -1, errors.New("fusermount3 sent no descriptor")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.New("fusermount3 sent no descriptor")
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return -1, err
	}
	return fds[0], nil
}

func fusermount(ctx context.Context, socket *os.File, args ...string) error {
	path, err := exec.LookPath("fusermount3")
	if err != nil {
		return errors.New("fusermount3 is lacking, which ordinary users need (Debian package fuse3)")
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if socket != nil {
		cmd.ExtraFiles = []*os.File{socket}
		cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	}
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(said.String()); text != "" {
			return errors.New(strings.TrimPrefix(text, "fusermount3: "))
		}
		return fmt.Errorf("fusermount3: %w", err)
	}
	return nil
}

// Unmount takes the mount away, also while it is in use: what is blocked ends, what is open is dead. It returns when
// all files are closed, or with ctx's error.
func (m *Mounted) Unmount(ctx context.Context) error {
	at, err := topmost(m.dir)
	select {
	case <-m.done:
		if m.gone && !Dead(m.dir) { // the number may be another's by now
			return m.err
		}
	default:
	}
	switch {
	case err != nil || at != m.on: // somebody was earlier, or has mounted over it
	case os.Geteuid() == 0:
		// FORCE ends the connection whoever else may have the device, DETACH takes away what is busy.
		err = unix.Unmount(m.dir, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	default:
		err = fusermount(ctx, nil, "-u", "-z", "--", m.dir)
	}
	if err != nil {
		err = fmt.Errorf("unmount %q: %w", m.dir, err)
	}
	m.end()
	select {
	case <-m.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err == nil {
		err = m.err
	}
	return err
}

// Dead says whether dir is a mount of a ctrfs that has ended without unmounting it. A living one is asked.
func Dead(dir string) bool {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	up, err := filepath.EvalSymlinks(filepath.Dir(dir)) // the last element cannot be looked at
	if err != nil {
		return false
	}
	at, err := topmost(filepath.Join(up, filepath.Base(dir)))
	if err != nil || at == [2]int{} {
		return false
	}
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == unix.ENOTCONN
}
