package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/ns"
)

// release is what this binary was built from.
func release() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && version == "(devel)" {
			version = s.Value
		}
	}
	return version
}

// features are what ctrfs uses where the kernel has it, each with a question that does nothing but ask.
var features = []struct {
	name, since string
	ask         func() error
}{
	{"pidfd", "5.3", func() error { return withPidfd(func(int) error { return nil }) }},
	{"pidfs", "6.9", func() error { return withPidfd(isPidfs) }},
	{"pidfd-info", "6.13", func() error { return withPidfd(pidfdInfo) }},
	{"peerpidfd", "6.5", hasPeerPidfd},
	{"clone3", "5.3", clone3},
	{"cgroup2", "4.5", cgroup2},
	{"memfd", "3.17", memfd},
	{"mount-api", "5.2", mountAPI},
	{"proc-connector", "2.6.15", procConnector},
	{"stop-events", "5.2", ns.StopEvents},
	{"9p", "2.6.14", func() error { return fileSystem("9p") }},
	{"fuse", "2.6.14", devFuse},
}

// versions is the text of /version.
func versions() string {
	var b strings.Builder
	fmt.Fprintf(&b, "ctrfs %s %s\n", release(), runtime.GOARCH)
	b.WriteString("dialects 9P2000.L 9P2000\n")
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		fmt.Fprintf(&b, "kernel %s\n", unix.ByteSliceToString(u.Release[:]))
	}
	for _, f := range features {
		if err := f.ask(); err != nil {
			fmt.Fprintf(&b, "lacking %s (Linux %s): %v\n", f.name, f.since, cause(err))
		} else {
			fmt.Fprintf(&b, "using %s\n", f.name)
		}
	}
	return b.String()
}

func withPidfd(ask func(fd int) error) error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return ask(fd)
}

func isPidfs(fd int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	if st.Type != unix.PID_FS_MAGIC {
		return errors.New("a pidfd has no inode of its own")
	}
	return nil
}

func pidfdInfo(fd int) error {
	return unix.IoctlPidfdInfo(fd, &unix.PidfdInfo{Mask: unix.PIDFD_INFO_PID})
}

func hasPeerPidfd() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	fd, err := unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// clone3 with arguments of no size is refused by a kernel that knows it.
func clone3() error {
	if _, _, errno := unix.Syscall(unix.SYS_CLONE3, 0, 0, 0); errno != unix.EINVAL {
		return errno
	}
	return nil
}

func cgroup2() error {
	var st unix.Statfs_t
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return nil
		}
	}
	return errors.New("not mounted below /sys/fs/cgroup")
}

func memfd() error {
	fd, err := unix.MemfdCreate("ctrfs", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// mountAPI asks for a mount that is none.
func mountAPI() error {
	if _, err := unix.OpenTree(-1, "", unix.AT_EMPTY_PATH); err != unix.EBADF {
		return err
	}
	return nil
}

func procConnector() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}) // CN_IDX_PROC
}

// fileSystem finds only what is loaded: a mount would load it.
func fileSystem(name string) error {
	text, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == name {
			return nil
		}
	}
	return errors.New("not loaded")
}

func devFuse() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return err
}
