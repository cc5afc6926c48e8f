package ns

import (
	"errors"
	"io/fs"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSeenInside: root of a user namespace looks into what is in it, and into nothing else, be it of the same users.
func TestSeenInside(t *testing.T) {
	needsRoot(t)
	start := func(flags uintptr, uid uint32) *Process {
		cmd := exec.Command("/bin/sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		if flags != 0 {
			ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 40001, Size: 1}}
			cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
		} else if uid != 0 {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return open(t, cmd.Process.Pid)
	}
	first := start(unix.CLONE_NEWUSER, 0)
	for _, c := range []struct {
		name string
		p    *Process
		want error
	}{
		{"the first", first, nil},
		{"in another", start(unix.CLONE_NEWUSER, 0), fs.ErrPermission},
		{"outside, root's", start(0, 0), fs.ErrPermission},
		{"outside, the user's", start(0, 40001), fs.ErrPermission},
	} {
		if err := SeenInside(withTimeout(t), c.p, first); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}
