package main

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"ctrfs/fs"
	"ctrfs/fs/fuse"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// v9fsOptions are those of which the reasons are: one attach for each user, with his uid; nothing kept, because what is
// read is made anew each time; no question for an attribute before each write; and a buffer that many blocked readers can
// have.
const v9fsOptions = "trans=unix,version=9p2000.L,access=client,cache=none,noxattr,msize=65536,uname=root"

// mount mounts a tree on a directory, which is made if it is not there, and says how that ends: by the kernel's own client,
// through the socket at which the tree is served already, or where there is none by FUSE. What a server that was killed
// has left there goes.
func mount(ctx context.Context, root fs.Dir, accounts *fs.Accounts, sock, dir string) (unmount func(), err error) {
	// The directory itself may be a mount that nobody answers any more: it must not be looked at.
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	parent := filepath.Dir(abs)
	if err := os.MkdirAll(parent, 0755); err != nil {
		return nil, fmt.Errorf("mount %q: %w", dir, err)
	}
	if parent, err = filepath.EvalSymlinks(parent); err != nil {
		return nil, fmt.Errorf("mount %q: %w", dir, err)
	}
	at := filepath.Join(parent, filepath.Base(abs))
	if err := clear(sock, at); err != nil {
		return nil, fmt.Errorf("mount %q: %w", dir, err)
	}
	if err := os.Mkdir(at, 0755); err != nil && !errors.Is(err, iofs.ErrExist) {
		return nil, fmt.Errorf("mount %q: %w", dir, cause(err))
	}
	no9p := v9fs(sock, at)
	if no9p == nil {
		slog.Info("mounted", "at", at, "by", "9p")
		return func() {
			// Lazily: who is in there shall not keep the server from ending.
			// EINVAL: somebody has done it already.
			if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
				slog.Error("unmount", "dir", at, "error", err)
			}
		}, nil
	}
	m, err := fuse.Mount(ctx, root, at, fuse.Options{Accounts: accounts})
	if err != nil {
		return nil, fmt.Errorf("mount %q: neither 9p: %w; nor FUSE: %w", dir, no9p, err)
	}
	slog.Info("mounted", "at", at, "by", "FUSE", "because", no9p)
	return func() {
		ctx, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		if err := m.Unmount(ctx); err != nil {
			slog.Error("unmount", "dir", at, "error", err)
		}
	}, nil
}

// v9fs mounts by the kernel's own client.
func v9fs(sock, at string) error {
	if sock == "" {
		return errors.New("no unix socket to mount by: add -a unix!PATH")
	}
	if os.Geteuid() != 0 {
		return errors.New("only root may mount by 9p")
	}
	err := unix.Mount(sock, at, "9p", unix.MS_NOSUID|unix.MS_NODEV, v9fsOptions)
	switch {
	case errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("the kernel lacks the module 9p (package linux-image-%s; those called cloud have none)", runtime.GOARCH)
	case errors.Is(err, syscall.EPERM):
		return errors.New("only who has CAP_SYS_ADMIN on the host may mount by 9p")
	}
	return err
}

// clear unmounts what dead servers have left at a directory. A mount by v9fs is one if it is of our socket: nobody else has
// that now, and we have not mounted yet.
func clear(sock, at string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(at))
	if err != nil {
		return err
	}
	for len(mounts) > 0 {
		m := mounts[len(mounts)-1] // on top
		mounts = mounts[:len(mounts)-1]
		switch {
		case m.FSType == "9p" && m.Source == sock:
		case m.FSType == "fuse.ctrfs" && fuse.Dead(at):
		default:
			return fmt.Errorf("there is a mount already: %s of %s", m.FSType, m.Source)
		}
		slog.Info("unmount what a dead server has left", "dir", at)
		if os.Geteuid() != 0 {
			err = exec.Command("fusermount3", "-u", "-z", "--", at).Run()
		} else {
			err = unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		if err != nil {
			return fmt.Errorf("unmount what a dead server has left: %w", err)
		}
	}
	return nil
}
