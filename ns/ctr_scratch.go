package ns

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Scratch is the scratch layer of a container from one run to the next, and its user namespace, in which
// the layer's files belong to somebody. It is one container's at a time. The layer is in memory, at most half of
// it, counted to the cgroup of who writes it, and mounted nowhere while no container has it.
type Scratch struct {
	root *os.File // the whole root on it: a mount that belongs to no mount namespace
	user *os.File // nil without a user namespace
}

// full reports whether there is something in it.
func (s *Scratch) full() bool { return s != nil && s.root != nil }

// Fill makes it a new root of at most so many bytes in memory, mounted nowhere and without devices, with what f puts into it. It takes
// root. After an error there is nothing in it.
func (s *Scratch) Fill(most int64, f func(root *os.File) error) error {
	s.Close()
	conf, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen tmpfs: %w", err)
	}
	defer unix.Close(conf)
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	most = min(most, int64(info.Totalram)*int64(info.Unit)/2) // what tmpfs has if nobody says more
	for _, o := range [][2]string{{"mode", "0755"}, {"size", fmt.Sprint(most)}} {
		if err := unix.FsconfigSetString(conf, o[0], o[1]); err != nil {
			return fmt.Errorf("tmpfs option %s=%s: %w", o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(conf); err != nil {
		return fmt.Errorf("make tmpfs: %w", err)
	}
	fd, err := unix.Fsmount(conf, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return fmt.Errorf("fsmount tmpfs: %w", err)
	}
	root := os.NewFile(uintptr(fd), "/")
	if err := f(root); err != nil {
		root.Close()
		return err
	}
	s.root = root
	return nil
}

// Full reports whether there is something in it.
func (s *Scratch) Full() bool { return s.full() }

// Close gives it up: when the last container on it has ended too, what it holds is gone.
func (s *Scratch) Close() {
	for _, f := range []*os.File{s.root, s.user} {
		if f != nil {
			f.Close()
		}
	}
	s.root, s.user = nil, nil
}

// Files are what the layer lives in as long as somebody has them open; nil: there is none, or no user namespace.
func (s *Scratch) Files() (root, user *os.File) { return s.root, s.user }

// Restore makes it the layer that lives in files.
func (s *Scratch) Restore(root, user *os.File) { s.root, s.user = root, user }

// keep takes the root that a new container gave in place of the one that it was given, which is now mounted in it: with a copy of
// what is mounted in a namespace nothing can be done in others but once.
func (s *Scratch) keep(root *os.File) {
	if root == nil {
		return
	}
	if s.root != nil {
		s.root.Close()
	}
	s.root = root
}
