package proc

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/fs/fstest"
)

// Where /proc hides processes (hidepid=), they are not to be found by their number, nor listed, nor in ps, and neither is what
// others have started here; what one has started oneself is, though it be parked and so nobody's to look into.
func TestHidepid(t *testing.T) {
	fstest.NeedsRoot(t)
	const role = "PROC_TEST_HIDEPID"
	hides := os.Getenv(role)
	if hides == "" {
		for _, hides := range []string{"0", "1", "2", "4"} {
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestHidepid$", "-test.v")
			cmd.Env = append(os.Environ(), role+"="+hides)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("hidepid=%s: %v\n%s", hides, err, out)
			}
		}
		return
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, "hidepid="+hides); err != nil {
		t.Fatal(err)
	}
	start := func(uid uint32) string {
		cmd := exec.Command("/bin/sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return strconv.Itoa(cmd.Process.Pid)
	}
	root := newSession(t, 0)
	user := root.as(4321)
	h, parked := user.clone()
	defer h.Close(user.Ctx)
	h, hers := root.as(4322).clone()
	defer h.Close(root.Ctx)
	h, ended := root.as(4322).clone()
	root.as(4322).Say(h, "exec /bin/true")
	root.as(4322).Read(ended + "/status")
	h.Close(root.Ctx)
	root.Cat(ended + "/exitstatus")
	// That he may see it says nothing of others who come by the same node, as by a FUSE mount.
	n, err := fs.Look(user.Ctx, user.Root, start(4321))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Stat(root.as(4322).Ctx); errors.Is(err, fs.ErrNotExist) == (hides == "0") {
		t.Errorf("another at his node: %v", err)
	}
	for _, p := range []struct {
		what, pid string
		hidden    bool
	}{
		{"root's", start(0), true}, {"another's", start(4322), true}, {"another's parked", hers, true}, {"another's record", ended, true},
		{"his own", start(4321), false}, {"his own parked", parked, false},
	} {
		hidden := p.hidden && hides != "0"
		for _, s := range []*session{user, root} {
			hidden := hidden && s == user
			_, err := fs.Look(s.Ctx, s.Root, p.pid)
			if got := errors.Is(err, fs.ErrNotExist); got != hidden || err != nil && !got {
				t.Errorf("%s: walk: %v", p.what, err)
			}
			_, err = s.Cat(p.pid + "/noteid")
			if got := errors.Is(err, fs.ErrNotExist); got != hidden && p.pid != ended {
				t.Errorf("%s: read: %v", p.what, err)
			}
			list, err := fs.Contents(s.Ctx, s.Root)
			if err != nil {
				t.Fatal(err)
			}
			listed := false
			for _, e := range list {
				listed = listed || e.Name == p.pid
			}
			if listed == hidden {
				t.Errorf("%s: listed: %v", p.what, listed)
			}
			ps, err := root.Root.(*dir).PS(s.Ctx)
			if got := strings.Contains("\n"+ps, "\n"+p.pid+" "); err != nil || got == hidden && p.pid != ended {
				t.Errorf("%s: in ps: %v, %v", p.what, got, err)
			}
		}
	}
}
