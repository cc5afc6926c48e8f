package ns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A pctlVerb is a message and the look at the target that shows that it was done.
type pctlVerb struct {
	name string
	make func(x *target) Pctl
	look func(x *target, before *view) error
	one  bool // for a single thread only
}

// A view is what of a target may change.
type view struct {
	fds    []int
	kinds  map[string][]uint64
	pgrp   int
	mounts int
	cwd    string
	mask   string
}

func (x *target) view() *view {
	v := &view{fds: x.fds(), kinds: make(map[string][]uint64)}
	for _, k := range nsKinds {
		v.kinds[k] = x.kind(k)
	}
	v.pgrp, _ = unix.Getpgid(x.p.pid)
	if text, err := readFile(x.p.path("mountinfo"), maxMounts); err == nil {
		v.mounts = bytes.Count(text, []byte("\n"))
	}
	v.cwd, _ = readlink(x.p.path("cwd"))
	if st, err := x.p.Status(); err == nil {
		v.mask = fmt.Sprintf("%x", st.SigBlk)
	}
	return v
}

// same reports what differs from before, but for what may.
func (v *view) same(before *view, but ...string) error {
	if !slices.Contains(but, "fd") && !slices.Equal(v.fds, before.fds) {
		return fmt.Errorf("descriptors %v, were %v", v.fds, before.fds)
	}
	for k, now := range v.kinds {
		if changed := !slices.Equal(now, before.kinds[k]); changed != slices.Contains(but, k) || len(now) != 1 {
			return fmt.Errorf("namespaces %s %v, were %v", k, now, before.kinds[k])
		}
	}
	if !slices.Contains(but, "pgrp") && v.pgrp != before.pgrp {
		return fmt.Errorf("group %d, was %d", v.pgrp, before.pgrp)
	}
	if !slices.Contains(but, "root") && v.cwd != before.cwd {
		return fmt.Errorf("current directory %s, was %s", v.cwd, before.cwd)
	}
	if v.mask != before.mask && before.mask != "" {
		return fmt.Errorf("signal mask %s, was %s", v.mask, before.mask)
	}
	return nil
}

func unshareVerb(kind string) pctlVerb {
	return pctlVerb{"unshare " + kind, func(*target) Pctl { return Pctl{Unshare: []string{kind}} },
		func(x *target, before *view) error { return x.view().same(before, kind) }, kind == "user"}
}

func lookNewNS(x *target, before *view, but ...string) error {
	now := x.view()
	if now.mounts != 1 || now.cwd != "/" {
		return fmt.Errorf("newns: %d mounts, cwd %s", now.mounts, now.cwd)
	}
	var a, b, c unix.Stat_t
	if unix.Stat(x.p.path("root"), &a) != nil || unix.Stat(x.p.path("cwd"), &b) != nil || unix.Stat(before.cwd, &c) != nil || a.Ino != b.Ino || a.Ino != c.Ino {
		return errors.New("newns: root is not what the current directory was")
	}
	return now.same(before, append(but, "mnt", "root")...)
}

func lookNewPgrp(x *target, before *view, but ...string) error {
	now := x.view()
	if now.pgrp != x.p.pid {
		return fmt.Errorf("newpgrp: group %d", now.pgrp)
	}
	return now.same(before, append(but, "pgrp")...)
}

var pctlVerbs = []pctlVerb{
	{"newfd", func(x *target) Pctl {
		return Pctl{NewFD: true, ForkFD: true, FDs: append(slices.DeleteFunc(x.fds(), func(fd int) bool { return fd == 9 }), 1, 77)}
	}, func(x *target, before *view) error {
		now := x.view()
		if want := slices.DeleteFunc(slices.Clone(before.fds), func(fd int) bool { return fd == 9 }); !slices.Equal(now.fds, want) {
			return fmt.Errorf("newfd: descriptors %v", now.fds)
		}
		return now.same(before, "fd")
	}, false},
	{"forkfd", func(*target) Pctl { return Pctl{ForkFD: true, FDs: []int{9}} },
		func(x *target, before *view) error { return x.view().same(before) }, false},
	{"close", func(*target) Pctl { return Pctl{Close: []int{9}} }, func(x *target, before *view) error {
		if slices.Contains(x.fds(), 9) {
			return errors.New("9 is open")
		}
		return x.view().same(before, "fd")
	}, false},
	{"newpgrp", func(*target) Pctl { return Pctl{NewPgrp: true} },
		func(x *target, before *view) error { return lookNewPgrp(x, before) }, false},
	{"forkns", func(*target) Pctl { return Pctl{ForkNS: true} }, func(x *target, before *view) error {
		text, err := readFile(x.p.path("mountinfo"), maxMounts)
		if err != nil || bytes.Contains(text, []byte("shared:")) || bytes.Contains(text, []byte("master:")) {
			return fmt.Errorf("forkns: mounts are shared, %v", err)
		}
		return x.view().same(before, "mnt")
	}, true},
	{"newns", func(*target) Pctl { return Pctl{NewNS: true, ForkNS: true} },
		func(x *target, before *view) error { return lookNewNS(x, before) }, true},
	unshareVerb("uts"), unshareVerb("ipc"), unshareVerb("net"), unshareVerb("cgroup"),
	{"private, reaper", func(*target) Pctl { return Pctl{Private: true, Reaper: true} }, func(x *target, before *view) error {
		if err := x.p.mayTrace(Cred{Uid: 1}); !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("private: %v", err)
		}
		return x.view().same(before)
	}, false},
	{"uts, ipc, net, newpgrp and newfd", func(x *target) Pctl {
		return Pctl{Unshare: []string{"uts", "ipc", "net"}, NewPgrp: true, NewFD: true, FDs: x.fds()}
	}, func(x *target, before *view) error { return lookNewPgrp(x, before, "uts", "ipc", "net") }, false},
	{"all", func(x *target) Pctl {
		return Pctl{Unshare: []string{"uts", "ipc", "net", "cgroup", "pid", "time"}, NewNS: true, NewPgrp: true, ForkFD: true}
	}, func(x *target, before *view) error {
		return lookNewNS(x, before, "uts", "ipc", "net", "cgroup", "pgrp")
	}, true},
}

var rootCred = Cred{}

// TestPctl does every verb to every kind of target.
func TestPctl(t *testing.T) {
	userNS := func() *syscall.SysProcAttr {
		all := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
		return &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: all, GidMappings: all}
	}
	kinds := []struct {
		mode, states string
		attr         func() *syscall.SysProcAttr
	}{
		{"read", "S", nil}, {"poll", "S", nil}, {"select", "S", nil}, {"epoll", "S", nil}, {"sleep", "SRZ", nil}, {"sigtimedwait", "S", nil},
		{"pause", "S", nil}, {"wait", "S", nil}, {"futex", "S", nil}, {"recv", "S", nil}, {"semop", "S", nil}, {"accept", "S", nil}, {"tty", "S", nil},
		{"spin", "RS", nil}, {"threads", "S", nil}, {"spawning", "RSD", nil}, {"strict", "S", nil}, {"kill", "S", nil}, {"errno", "S", nil}, {"trap", "S", nil},
		{"read in a user namespace", "S", userNS}, {"read stopped", "S", nil}, {"threads stopped", "S", nil}, {"spin stopped", "RS", nil},
	}
	for _, k := range kinds {
		mode, where, _ := strings.Cut(k.mode, " ")
		if testing.Short() && !slices.Contains([]string{"epoll", "pause", "threads", "strict", "spin stopped"}, k.mode) {
			continue
		}
		many := mode == "threads" || mode == "spawning"
		for _, v := range pctlVerbs {
			if mode == "spawning" && strings.Contains(v.name, "fd") { // its descriptors come and go
				continue
			}
			if mode == "semop" && (strings.Contains(v.name, "ipc") || v.name == "all") { // its semaphore is gone, then
				continue
			}
			t.Run(k.mode+"/"+v.name, func(t *testing.T) {
				t.Parallel()
				attr := &syscall.SysProcAttr{}
				if k.attr != nil {
					attr = k.attr()
				}
				x := newTarget(t, mode, attr)
				x.settled(k.states)
				if where == "stopped" {
					x.p.Signal(unix.SIGSTOP)
					x.settled("T")
				}
				before := x.view()
				err := x.p.Pctl(withTimeout(t), rootCred, v.make(x))
				// The mask is that of a moment, and so is the number of threads; while a thread waits for signals it has another one.
				if mode == "spawning" || mode == "sigtimedwait" {
					before.mask = ""
				}
				if v.one && many && !(mode == "spawning" && err == nil) {
					if err == nil || !strings.Contains(err.Error(), ": process has ") {
						t.Errorf("process of several threads: %v", err)
					}
					if err := x.view().same(before, "fd"); err != nil && mode != "spawning" {
						t.Errorf("refused: %v", err)
					}
				} else if err != nil {
					t.Error(err)
				} else if err := v.look(x, before); err != nil {
					t.Error(err)
				}
				if where == "stopped" {
					x.settled("T")
					x.p.Signal(unix.SIGCONT)
				}
				x.finish()
			})
		}
	}
}

// TestPctlUndo: a step in the middle fails.
func TestPctlUndo(t *testing.T) {
	for _, mode := range []string{"read", "threads"} {
		t.Run(mode, func(t *testing.T) {
			x := newTarget(t, mode, nil)
			x.settled("S")
			before := x.view()
			m := Pctl{Unshare: []string{"uts", "net", "ipc"}, NewPgrp: true, Close: []int{1234}}
			if mode == "read" {
				m.ForkNS = true
			}
			if err := x.p.Pctl(withTimeout(t), rootCred, m); err == nil || err.Error() != "close 1234: bad file descriptor" || !errors.Is(err, unix.EBADF) {
				t.Errorf("%v", err)
			}
			if err := x.view().same(before); err != nil {
				t.Error(err)
			}
			x.finish()
		})
	}
}

// TestPctlForkFD: the descriptors that move are closed for those who stay with the old table.
func TestPctlForkFD(t *testing.T) {
	x := newTarget(t, "shared", nil)
	x.settled("S")
	children, err := x.p.Children()
	if err != nil || len(children) != 1 {
		t.Fatalf("children %v, %v", children, err)
	}
	defer unix.Kill(children[0], unix.SIGKILL)
	before := x.view()
	if err := x.p.Pctl(withTimeout(t), rootCred, Pctl{ForkFD: true, FDs: []int{9, 55}}); err != nil {
		t.Fatal(err)
	}
	if err := x.view().same(before); err != nil {
		t.Error(err)
	}
	if kcmp(x.p.pid, children[0], "fd") {
		t.Error("the table is shared")
	}
	fds, err := numbers(fmt.Sprintf("/proc/%d/fd", children[0]))
	if want := slices.DeleteFunc(slices.Clone(before.fds), func(fd int) bool { return fd == 9 }); err != nil || !slices.Equal(fds, want) {
		t.Errorf("old table has %v, %v, want %v", fds, err, want)
	}
	x.finish()
}

// TestPctlLeaderless: the first thread has ended, its process not.
func TestPctlLeaderless(t *testing.T) {
	x := newTarget(t, "leaderless", nil)
	x.settled("Z")
	if err := x.p.Pctl(withTimeout(t), rootCred, Pctl{Unshare: []string{"uts", "net"}}); err != nil {
		t.Fatal(err)
	}
	own, _ := nsInode(os.Getpid(), "uts")
	if k := x.kind("uts"); len(k) != 1 || k[0] == own {
		t.Errorf("uts namespaces %v, ours %d", k, own)
	}
}

// TestPctlMay: who may is what ptrace says to the client.
func TestPctlMay(t *testing.T) {
	user := Cred{Uid: 1000, Gid: 1000}
	asUser := func(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
		attr.Credential = &syscall.Credential{Uid: 1000, Gid: 1000}
		return attr
	}
	fd9 := Pctl{Close: []int{9}}
	for _, c := range []struct {
		name string
		attr *syscall.SysProcAttr
		pre  func(t *testing.T, x *target)
		m    Pctl
		want string // "" is allowed
	}{
		{"own", asUser(&syscall.SysProcAttr{}), nil, fd9, ""},
		{"own group", asUser(&syscall.SysProcAttr{}), nil, Pctl{NewPgrp: true, ForkFD: true}, ""},
		{"root's", nil, nil, fd9, "permission denied"},
		{"another's", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1001, Gid: 1000}}, nil, fd9, "permission denied"},
		{"another group's", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1001}}, nil, fd9, "permission denied"},
		{"own, not dumpable", asUser(&syscall.SysProcAttr{}), func(t *testing.T, x *target) {
			if err := x.p.Pctl(withTimeout(t), rootCred, Pctl{Private: true}); err != nil {
				t.Fatal(err)
			}
		}, fd9, "permission denied"},
		{"own, with a capability", asUser(&syscall.SysProcAttr{AmbientCaps: []uintptr{unix.CAP_NET_RAW}}), nil, fd9, "permission denied"},
		{"own, name space", asUser(&syscall.SysProcAttr{}), nil, Pctl{ForkNS: true}, "forkns: process has not the capability sys_admin"},
		{"own, user namespace", asUser(&syscall.SysProcAttr{}), nil, Pctl{ForkNS: true, Unshare: []string{"user", "uts"}}, ""},
		{"root's, nodevs", nil, nil, Pctl{NoDevs: true}, "permission denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTarget(t, "read", c.attr)
			x.settled("S")
			if c.pre != nil {
				c.pre(t, x)
			}
			before := x.view()
			err := x.p.Pctl(withTimeout(t), user, c.m)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || err.Error() != c.want):
				t.Errorf("%v, want %q", err, c.want)
			case c.want != "":
				if err := x.view().same(before); err != nil {
					t.Error(err)
				}
			}
			if slices.Contains(c.m.Unshare, "user") {
				if m, err := os.ReadFile(x.p.path("uid_map")); err != nil || strings.Join(strings.Fields(string(m)), " ") != "1000 1000 1" {
					t.Errorf("uid_map %q, %v", m, err)
				}
				if err := x.view().same(before, "user", "uts", "mnt"); err != nil {
					t.Error(err)
				}
			}
			x.finish()
		})
	}
}

// TestPctlChroot: a root that is no mount can be left for the current directory all the same.
func TestPctlChroot(t *testing.T) {
	needsRoot(t)
	root := t.TempDir()
	if out, err := exec.Command("gcc", "-static", "-O2", "-w", "-o", root+"/target", "testdata/target.c", "-lpthread").CombinedOutput(); err != nil {
		lacks(t, "a static C library: %s", out)
	}
	x := startTarget(t, &syscall.SysProcAttr{Chroot: root}, "/target", "read")
	x.settled("S")
	before := x.view()
	if err := x.p.Pctl(withTimeout(t), rootCred, Pctl{NewNS: true}); err != nil {
		t.Fatal(err)
	}
	now := x.view()
	if now.mounts != 1 || now.cwd != "/" {
		t.Errorf("%d mounts, cwd %s", now.mounts, now.cwd)
	}
	if err := now.same(before, "mnt", "root"); err != nil {
		t.Error(err)
	}
	x.finish()
}
