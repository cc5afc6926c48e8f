package ns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What was put over a file is taken away through no link: it could lead to a mask.
func TestUncoverThroughLink(t *testing.T) {
	needsRoot(t)
	p, err := Create(withTimeout(t), Spec{Opt: Opt{Flags: CtrFlags}, Hostname: "web", Caps: DefaultCaps})
	if err != nil {
		t.Fatal(err)
	}
	defer p.End()
	if err := os.Symlink("/proc", filepath.Join("/proc", strconv.Itoa(p.Pid), "root", "dev", "link")); err != nil {
		t.Fatal(err)
	}
	at := Place{First: open(t, p.Pid)}
	if err := Uncover(withTimeout(t), at, "/dev/link/bus"); !errors.Is(err, unix.ELOOP) {
		t.Error(err)
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p.Pid))
	if err != nil || !strings.Contains(string(mounts), " /proc/bus ") {
		t.Errorf("no mask any more: %v", err)
	}
}
