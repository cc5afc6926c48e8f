package ns

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPctlParked: the same verbs, before the program starts.
func TestPctlParked(t *testing.T) {
	needsRoot(t)
	for _, v := range pctlVerbs {
		if v.name == "close" || strings.HasPrefix(v.name, "private") {
			continue // they are about what a parked process has not
		}
		t.Run(v.name, func(t *testing.T) {
			p := park(t, Opt{})
			if err := p.Chdir(withTimeout(t), t.TempDir()); err != nil {
				t.Fatal(err)
			}
			proc, err := Open(p.Pid)
			if err != nil {
				t.Fatal(err)
			}
			defer proc.Close()
			x := &target{t: t, p: proc}
			before := x.view()
			if err := p.Pctl(withTimeout(t), v.make(x)); err != nil {
				t.Fatal(err)
			}
			if err := v.look(x, before); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("newfd without all", func(t *testing.T) {
		p := park(t, Opt{})
		if err := p.Pctl(withTimeout(t), Pctl{NewFD: true, FDs: []int{1}, Unshare: []string{"user"}}); err != nil {
			t.Fatal(err)
		}
		if fds, err := numbers(fmt.Sprintf("/proc/%d/fd", p.Pid)); err != nil || !slices.Equal(fds, []int{1, 3}) {
			t.Errorf("descriptors %v, %v", fds, err)
		}
		if err := p.Exec(withTimeout(t), []string{"true"}, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("undone", func(t *testing.T) {
		p := park(t, Opt{})
		proc, err := Open(p.Pid)
		if err != nil {
			t.Fatal(err)
		}
		defer proc.Close()
		x := &target{t: t, p: proc}
		before := x.view()
		err = p.Pctl(withTimeout(t), Pctl{Unshare: []string{"uts", "net"}, NewNS: true, Close: []int{77}})
		if err == nil || err.Error() != "close 77: bad file descriptor" {
			t.Errorf("%v", err)
		}
		if err := x.view().same(before); err != nil {
			t.Error(err)
		}
		if err := p.Pctl(withTimeout(t), Pctl{Private: true}); err == nil {
			t.Error("private: done")
		}
		if err := p.Pctl(withTimeout(t), Pctl{Close: []int{0, ParkedCtl}}); !errors.Is(err, unix.EBADF) {
			t.Errorf("close of what it waits at: %v", err)
		}
		if err := x.view().same(before); err != nil {
			t.Error(err)
		}
	})
}
