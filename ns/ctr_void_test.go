package ns

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Whoever may do everything in a container's mount namespace finds nothing of the host below its root: not even he who takes
// one root after the other away.
func TestNothingBelowTheRoot(t *testing.T) {
	needsRoot(t)
	eachCtr(t, func(t *testing.T, s Spec) {
		p, err := Create(withTimeout(t), s)
		if err != nil {
			t.Fatal(err)
		}
		defer p.End()
		mnt, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", p.Pid))
		if err != nil {
			t.Fatal(err)
		}
		defer mnt.Close()
		done := make(chan error)
		go func() { done <- dig(int(mnt.Fd())) }()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// dig takes the roots of a mount namespace away. Its thread ends with it.
func dig(mnt int) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	const most = 9
	for n := range most {
		if err := unix.Setns(mnt, unix.CLONE_NEWNS); err != nil {
			return err
		}
		var is unix.Statfs_t
		if err := unix.Statfs("/", &is); err != nil {
			return err
		}
		// What a container's root is made of here lies in memory; of the host are its programs.
		if err := unix.Access("/etc/passwd", unix.F_OK); n > 0 && (err != unix.ENOENT || is.Type != unix.TMPFS_MAGIC) {
			return fmt.Errorf("below %d roots: a file system of type %#x; /etc/passwd: %v", n, is.Type, err)
		}
		var before, after unix.Stat_t
		unix.Stat("/", &before)
		if err := unix.Unmount("/", unix.MNT_DETACH); err != nil {
			return nil // nobody can take that away
		}
		if err := unix.Setns(mnt, unix.CLONE_NEWNS); err != nil {
			return err
		}
		if unix.Stat("/", &after); before.Dev == after.Dev && before.Ino == after.Ino {
			return nil
		}
	}
	return fmt.Errorf("more than %d roots", most)
}

// What is so of a container's root is so where the kernel has no void.
func TestWithoutVoid(t *testing.T) {
	needsRoot(t)
	ns := void.ns
	void.asked, void.ns = true, nil
	defer func() { void.asked, void.ns = ns != nil, ns }()
	for name, test := range map[string]func(*testing.T){
		"Ctr": TestCtr, "Root": TestRootDir, "Overlay": TestRootOverlay, "ReadOnly": TestReadOnly, "Scratch": TestScratch,
		"Below": TestNothingBelowTheRoot, "Hostile": TestHostileRoot,
	} {
		t.Run(name, test)
	}
}
