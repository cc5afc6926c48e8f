package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// launchAfter starts a server when a script has changed its own mount namespace, and waits until it says something.
func launchAfter(t *testing.T, script, until string, args ...string) *daemon {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "needs root: mounts")
	}
	shell := exec.Command("/bin/sh", append([]string{"-ec", "mount --make-rprivate /; " + script + `; exec /proc/self/fd/3 "$@"`, "sh"}, args...)...)
	shell.Env = role(t, "ctrfs").Env
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	shell.ExtraFiles = []*os.File{self}
	shell.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return launch(t, until, shell)
}

// inside is this program as who is in the server's mount namespace calls it: only he is its root.
func inside(t *testing.T, d *daemon, args ...string) *exec.Cmd {
	proc := fmt.Sprintf("/proc/%d/", d.Process.Pid)
	cmd := exec.CommandContext(t.Context(), "nsenter", append([]string{"--mount=" + proc + "ns/mnt", proc + "exe"}, args...)...)
	cmd.Env = d.Env
	return cmd
}

// Where no cgroup can be written a container says so when it is to begin, has not begun and can be removed; all else goes on.
func TestNoCgroups(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "sock")
	d := launchAfter(t, `grep -E '^\S+ \S+ cgroup2? ' /proc/mounts | while read a m z; do mount -o remount,bind,ro $m; done`, "listening", "-a", "unix!"+sock)
	do := func(input string, args ...string) string {
		t.Helper()
		cmd := inside(t, d, append([]string{args[0], "-a", "unix!" + sock}, args[1:]...)...)
		cmd.Stdin = strings.NewReader(input)
		out, err := cmd.CombinedOutput()
		if err != nil && len(out) == 0 {
			t.Fatal(args, err)
		}
		return string(out)
	}
	for _, verb := range []string{"create\n", "exec /bin/true\n", "limits memory.max 1G\n"} {
		if got := do(verb, "write", "ctr/clone"); !strings.Contains(got, "no cgroup may be made") {
			t.Errorf("%q: %s", verb, got)
		}
	}
	// What was to start has not, the others are gone.
	for _, x := range [][3]string{
		{"", "ls ctr", "49152\nclone\n"}, {"", "read ctr/49152/exitstatus", "128\n"}, {"start\n", "write ctr/49152/ctl", `ctrfs: write "/ctr/49152/ctl": make cgroup`},
		{"delete\n", "write ctr/49152/ctl", ""}, {"", "ls ctr", "clone\n"},
	} {
		if got := do(x[0], strings.Fields(x[1])...); !strings.HasPrefix(got, x[2]) || x[2] == "" && got != "" {
			t.Errorf("%s: %s", x[1], got)
		}
	}
	if got := do("label j\nexec /bin/echo x\n", "write", "proc/clone"); got != "" {
		t.Errorf("a process: %s", got)
	}
}

// Where there is no room for its socket a server says so, ends and leaves nothing.
func TestNoRoom(t *testing.T) {
	dir := t.TempDir()
	script := "mount -t tmpfs -o nr_inodes=2 none " + dir + // for itself, and the lock
		`; /proc/self/fd/3 "$@" || { echo status $? left $(ls -A ` + dir + `) >&2; exit; }`
	d := launchAfter(t, script, "listen \"unix!"+dir+"/sock\": no space left on device", "-a", "unix!"+dir+"/sock")
	if got := <-d.said; got != "status 1 left" {
		t.Error(got)
	}
}
