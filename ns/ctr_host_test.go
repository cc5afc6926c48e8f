package ns

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	// On a host whose mounts propagate, as systemd's do.
	roles["shared"] = func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
			return err
		}
		before, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		p, err := Create(context.Background(), Spec{Opt: Opt{Flags: CtrFlags}})
		if err != nil {
			return err
		}
		after, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		if string(after) != string(before) {
			return fmt.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		return p.End()
	}
}

// Mounts of the host: what is below a container's root is not in it.
func init() {
	roles["mounts"] = func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		top, below := os.Args[1], os.Args[2] // directories of the host's root
		for _, dir := range []string{top, below + "/x", "/tmp", "/opt"} {
			if err := unix.Mount("secret", dir, "tmpfs", 0, "mode=0755"); err != nil {
				return err
			}
			if err := os.WriteFile(dir+"/secret", nil, 0644); err != nil {
				return err
			}
		}
		// As in a container of another engine, and a /usr of its own.
		if err := unix.Mount("/etc/hosts", "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
			return err
		}
		if err := unix.Mount("overlay", "/usr", "overlay", 0, "lowerdir=/usr:"+below); err != nil {
			return err
		}
		for _, s := range []Spec{
			{Opt: Opt{Flags: CtrFlags}, Caps: DefaultCaps, Hostname: "web"},
			{Opt: Opt{Flags: CtrFlags | unix.CLONE_NEWUSER}, UidMap: idMap, GidMap: idMap, Caps: DefaultCaps, Hostname: "web"},
		} {
			for _, readOnly := range []bool{false, true} {
				s.ReadOnly = readOnly
				s.Stdio = [3]*os.File{nil, os.Stdout, os.Stderr}
				p, err := Create(context.Background(), s)
				if err != nil {
					return err
				}
				script := `ls -d /*/secret /*/*/secret 2>/dev/null; for d in "$@"; do ls $d; done; grep -c ^root: /etc/passwd; ls -d /bin/ls
					for d in /usr /usr/share; do { echo x >$d/new; } 2>&1 | grep -o "Read-only file system"; done; echo`
				if err := p.Exec(context.Background(), []string{"sh", "-c", script, "sh", top, below}, []string{"PATH=/bin"}); err != nil {
					return err
				}
				waitEnd(p.Pidfd)
				p.End()
			}
		}
		return nil
	}
}

func TestHostMounts(t *testing.T) {
	needsRoot(t)
	var dirs []string
	for range 2 {
		dir, err := os.MkdirTemp("/", "ctrfs-test-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		os.Chmod(dir, 0755)
		dirs = append(dirs, dir)
	}
	if err := os.Mkdir(dirs[1]+"/x", 0755); err != nil {
		t.Fatal(err)
	}
	out := runRole(t, "mounts", &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}, dirs...)
	const ro = "Read-only file system\nRead-only file system\n"
	if want := "x\n1\n/bin/ls\n\nx\n1\n/bin/ls\n" + ro + "\n1\n/bin/ls\n\n1\n/bin/ls\n" + ro + "\n"; out != want {
		t.Errorf("inside:\n%q, want\n%q", out, want)
	}
}

func TestSharedMounts(t *testing.T) {
	needsRoot(t)
	runRole(t, "shared", &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})
}

// A hundred containers, every third of which fails somewhere, leave nothing.
func TestCtrLeavesNothing(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		inside(t, s, "true")
		bad := s // what waits for killed children is opened at the first
		bad.Mounts = []Mount{{Target: "/x", Type: "nonesuch"}}
		if _, err := Create(withTimeout(t), bad); err == nil || err.Error() != "fsopen nonesuch: no such device" {
			t.Fatalf("mount of a file system that there is not: %v", err)
		}
		kinds := []string{"mnt", "pid", "uts", "ipc", "net", "cgroup", "user"}
		before, fds := hostState(t), countFDs(t)
		spaces := map[string]*os.File{} // open, so that no other gets one's number meanwhile
		for i := range 100 {
			c := s
			switch i % 6 {
			case 1:
				c.Mounts = []Mount{{Target: "/x", Type: "nonesuch"}}
			case 4:
				c.Hostname = strings.Repeat("x", 65)
			}
			p, err := Create(withTimeout(t), c)
			if (err != nil) != (i%6 == 1 || i%6 == 4) {
				t.Fatalf("%d: %v", i, err)
			}
			if err != nil {
				continue
			}
			if i%10 == 0 {
				for _, k := range kinds {
					name := fmt.Sprintf("/proc/%d/ns/%s", p.Pid, k)
					f, err := os.Open(name)
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					l, err := os.Readlink(name)
					if err != nil {
						t.Fatal(err)
					}
					if spaces[l] != nil { // all have the same
						f.Close()
					} else {
						spaces[l] = f
					}
				}
			}
			fd, err := unix.FcntlInt(uintptr(p.Pidfd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			if i%6 == 0 {
				p.Close() // parked still
			} else {
				if err := p.Exec(withTimeout(t), []string{"true"}, []string{"PATH=/bin"}); err != nil {
					t.Fatal(err)
				}
				p.Close()
			}
			waitEnd(fd)
			unix.Close(fd)
		}
		if after := hostState(t); after != before {
			t.Errorf("before %s, after %s", before, after)
		}
		ctx := withTimeout(t)
		// None of their namespaces is anybody's any more.
		left := map[string]bool{}
		links, _ := filepath.Glob("/proc/[0-9]*/ns/*")
		for _, f := range links {
			if l, err := os.Readlink(f); err == nil {
				left[l] = true
			}
		}
		own, _ := filepath.Glob("/proc/self/ns/*")
		for _, f := range own {
			l, _ := os.Readlink(f)
			delete(left, l)
		}
		for l, f := range spaces {
			if f.Close(); left[l] {
				t.Errorf("%s has a process still", l)
			}
		}
		for countFDs(t) > fds && ctx.Err() == nil { // those killed are waited for by and by
		}
		if n := countFDs(t); n > fds {
			t.Errorf("%d descriptors before, %d after", fds, n)
		}
	})
}
