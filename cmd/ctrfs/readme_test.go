package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The README's examples do on a mount by FUSE what it says; below the kernels that have v9fs testdata/v9fs/readme.sh says
// so, also of an ordinary user.
func TestReadme(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		lacking(t, "needs busybox: package busybox-static")
	}
	dir := serveMounted(t)
	if out, err := exec.CommandContext(t.Context(), "../../testdata/readme.sh", dir).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// serveMounted gives the directory where a server of the test is mounted by FUSE.
func serveMounted(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "needs root: to mount")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		lacking(t, "needs /dev/fuse")
	}
	top := t.TempDir()
	dir := filepath.Join(top, "n")
	t.Cleanup(func() {
		for range mounted(t, dir) {
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	start(t, "mounted", "-a", "unix!"+filepath.Join(top, "sock"), "-m", dir)
	return dir
}
