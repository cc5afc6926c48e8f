package ns

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	// A server whose parent waits for its containers, with and without a user namespace, and for what enters them.
	roles["sibling container"] = func() error {
		for _, s := range []Spec{
			{Opt: Opt{Flags: CtrFlags}},
			{Opt: Opt{Flags: CtrFlags | unix.CLONE_NEWUSER}, UidMap: idMap, GidMap: idMap},
		} {
			s.Sibling = true
			s.Caps = DefaultCaps
			s.Stdio = [3]*os.File{nil, os.Stderr, os.Stderr}
			first, err := Create(context.Background(), s)
			if err != nil {
				return err
			}
			if err := first.Exec(context.Background(), []string{"sleep", "1000"}, []string{"PATH=/bin"}); err != nil {
				return err
			}
			in, err := Enter(context.Background(), first.Pidfd, s)
			if err != nil {
				return err
			}
			if err := in.Exec(context.Background(), []string{"sh", "-c", "exit 9"}, []string{"PATH=/bin"}); err != nil {
				return err
			}
			for _, p := range []*Parked{first, in} {
				if err := unix.Waitid(unix.P_PIDFD, p.Pidfd, nil, unix.WEXITED, nil); err != unix.ECHILD {
					return fmt.Errorf("waitid by the server: %v", err)
				}
			}
			fmt.Println(in.Pid, first.Pid)
			in.Close()
			first.Close()
		}
		return nil
	}
}

func TestCtrSibling(t *testing.T) {
	needsRoot(t)
	b := played(t, "sibling container")
	n := 0
	for line := range strings.Lines(string(b)) {
		var in, first int
		if _, err := fmt.Sscan(line, &in, &first); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		n++
		var ws unix.WaitStatus
		if _, err := unix.Wait4(in, &ws, unix.WALL, nil); err != nil || ws.ExitStatus() != 9 {
			t.Errorf("what entered, waited for by the parent: %#x, %v", ws, err)
		}
		unix.Kill(first, unix.SIGKILL) // our child, which nobody else waits for
		if _, err := unix.Wait4(first, &ws, unix.WALL, nil); err != nil || ws.Signal() != unix.SIGKILL {
			t.Errorf("the container, waited for by the parent: %#x, %v", ws, err)
		}
	}
	if n != 2 {
		t.Errorf("said %q", b)
	}
}
