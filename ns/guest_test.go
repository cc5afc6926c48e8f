package ns

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// onArm64 are the tests of what each architecture has of its own: the registers of a stopped process, the stub and its
// ways to start, the numbers of calls and filters of them.
const onArm64 = `^Test(Pctl(Join|TracerKilled|Refused|Parked|Undo|ForkFD|Leaderless|May|Chroot)?|Parked.*|ParkSibling|` +
	`Exec(Errors|Long)|Close|RunCancelled|StubInDir|StubWithoutMemfd|StubOutOfReach|Plan|RootDir|RootOverlay|HostileRoot|Filter(Calls|Arguments|Caps|ForReal))$`

// gcc stands for the compiler that the guest has not: it has been there before.
const gcc = `#!/bin/sh
while [ $# -gt 0 ]; do case $1 in -o) out=$2; shift;; *.c) name=$(basename $1 .c);; esac; shift; done
exec cp /programs/$name $out
`

// TestGuest runs some of these tests on an emulated arm64 machine.
func TestGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a virtual machine: not with -short")
	}
	for _, x := range [][2]string{{"qemu-system-aarch64", "qemu-system-arm"}, {"aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu and libc6-dev-arm64-cross"}, {"busybox", "busybox-static"}} {
		if _, err := exec.LookPath(x[0]); err != nil {
			lacks(t, "needs package %s", x[1])
		}
	}
	cache, err := os.UserCacheDir()
	if err == nil {
		_, err = os.Stat(filepath.Join(cache, "ctrfs/arm64"))
	}
	if err != nil {
		lacks(t, "needs a kernel: testdata/guest.arm64 testdata true")
	}
	dir := t.TempDir()
	for _, d := range []string{"bin", "programs", "ns"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/gcc"), []byte(gcc), 0755); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{
		{"go", "test", "-c", "-ldflags=-s -w", "-o", filepath.Join(dir, "ns"), "."},
		{"aarch64-linux-gnu-gcc", "-static", "-O2", "-o", filepath.Join(dir, "programs/target"), "testdata/target.c", "-lpthread"},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "GOARCH=arm64", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", argv[0], err, out)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	// Of targets with many threads those of Undo and Join are enough: emulated, one may take longer to stop than is allowed.
	cmd := exec.CommandContext(ctx, "../testdata/guest.arm64", "-t", "1100", dir,
		"cd /ns && ./ns.test -test.v -test.short -test.run '"+onArm64+"' -test.skip '^TestPctl$/^threads'")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it has processes of its own to end
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, l := range regexp.MustCompile(`(?m)^--- .*`).FindAll(out, -1) {
		t.Logf("%s", l)
	}
}
