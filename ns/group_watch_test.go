package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// groupWatch is a watch whose ends come by a channel, which is closed when it has ended.
func groupWatch(t testing.TB) (*GroupWatch, <-chan GroupEnd) {
	t.Helper()
	needsRoot(t)
	w, err := WatchGroups()
	if err != nil {
		lacks(t, "needs BPF with BTF: %v", err)
	}
	told := make(chan GroupEnd, 10000)
	go func() {
		defer close(told)
		for {
			ends, err := w.Next()
			if err != nil {
				return
			}
			for _, e := range ends {
				told <- e
			}
		}
	}()
	t.Cleanup(func() {
		w.Close()
		for range told {
		}
	})
	return w, told
}

// The group is the one at the end, though the parent reaps at once and setpgid makes no event.
func TestGroupWatch(t *testing.T) {
	atEnd(t)
	w, told := groupWatch(t)
	s := shell(t, &syscall.SysProcAttr{Setpgid: true})
	s.do("exec 2>/dev/null")
	leader := open(t, s.num("echo $$"))
	if err := w.Add(leader, 7); err != nil {
		t.Fatal(err)
	}
	next := func(want GroupEnd) {
		t.Helper()
		select {
		case got := <-told:
			if got != want {
				t.Errorf("told %+v, not %+v", got, want)
			}
		case <-withTimeout(t).Done():
			t.Fatalf("not told %+v", want)
		}
	}
	s.ask("sh -c 'exit 3'; echo done")
	next(GroupEnd{0, 7})
	// Others: in no group of ours, in one of their own by setsid, and by setpgid after exec and after fork.
	exec.Command("sh", "-c", "kill -TERM $$").Run()
	s.ask("setsid -w sh -c 'kill -TERM $$'; echo done")
	s.ask("perl -e 'setpgrp; kill TERM => $$'; echo done")
	s.ask(`perl -e 'unless (fork) { setpgrp; kill TERM => $$ } wait'; echo done`)
	// A child that waits for nothing, and is reaped at once.
	for sig := range 100 {
		sig = []int{1, 9, 11, 15}[sig%4]
		if err := w.Add(leader, uint64(100+sig)); err != nil {
			t.Fatal(err)
		}
		s.ask("ulimit -c 0; sh -c 'kill -%d $$'; echo done", sig)
		for {
			got := <-told
			if got.Signal != 0 {
				if want := (GroupEnd{syscall.Signal(sig), uint64(100 + sig)}); got != want {
					t.Fatalf("told %+v, not %+v", got, want)
				}
				break
			}
		}
		// After this end nothing is told.
		s.ask("sh -c 'kill -KILL $$'; echo done")
	}
	select {
	case got := <-told:
		t.Errorf("told %+v of a group that has its end", got)
	default:
	}
}

// What a group that has gone was given is not its number's next owner's.
func TestGroupSignal(t *testing.T) {
	s := shell(t, &syscall.SysProcAttr{Setpgid: true})
	leader := open(t, s.num("sh -c 'sleep 1000 & echo $!'"))
	if err := SignalGroupAs(Cred{}, leader, 0); err != ErrExited {
		t.Errorf("signal to the group of who leads none: %v", err)
	}
	group := open(t, s.cmd.Process.Pid)
	if err := SignalGroupAs(Cred{Uid: 1234, Gid: 1234}, group, unix.SIGKILL); err != fs.ErrPermission {
		t.Errorf("signal as another user: %v", err)
	}
	if err := SignalGroupAs(Cred{}, group, unix.SIGTERM); err != nil {
		t.Error(err)
	}
	wantExit(t, leader, "signal: TERM")
}

// The kernel refuses it to ordinary users, and takes no more than there is room for.
func TestGroupWatchRefused(t *testing.T) {
	needsRoot(t)
	err := As(Cred{Uid: 1234, Gid: 1234}, func() error {
		w, err := WatchGroups()
		if err == nil {
			w.Close()
			w.unmap()
		}
		return err
	})
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("watch as an ordinary user: %v", err)
	}
	w, _ := groupWatch(t)
	for i := range MaxGroups + 1 {
		err := w.Add(&Process{id: uint64(1)<<60 + uint64(i)}, 1)
		if (err != nil) != (i == MaxGroups) {
			t.Fatalf("group %d: %v", i, err)
		}
	}
}

func TestBTF(t *testing.T) {
	for _, text := range []string{"", "\x9f\xeb\x01\x00\x18\x00\x00\x00", "\x9f\xeb\x01\x00\x18\x00\x00\x00\x00\x00\x00\x00\x0c\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x04\x00\x00\x00\x00"} {
		if err := btfOffsets([]byte(text), map[string]*int{"a.b": new(int)}); err == nil {
			t.Errorf("taken: %q", text)
		}
	}
	text, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		lacks(t, "needs BTF: %v", err)
	}
	if err := btfOffsets(text, map[string]*int{"pid.frob": new(int)}); fmt.Sprint(err) != "types of the kernel: no pid.frob" {
		t.Errorf("a member that is not there: %v", err)
	}
}
