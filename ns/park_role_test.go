package ns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	// A server whose parent waits for its children.
	roles["sibling"] = func() error {
		p, err := Park(context.Background(), Opt{Sibling: true, Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}})
		if err != nil {
			return err
		}
		if err := p.Exec(context.Background(), []string{"nonesuch"}, nil); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("exec nonesuch: %v", err)
		}
		if err := p.Exec(context.Background(), []string{"sh", "-c", "echo ppid $PPID; exit 9"}, nil); err != nil {
			return err
		}
		if err := unix.Waitid(unix.P_PIDFD, p.Pidfd, nil, unix.WEXITED, nil); err != unix.ECHILD {
			return fmt.Errorf("waitid by the server: %v", err)
		}
		fmt.Println("pid", p.Pid)
		return p.Close()
	}
	// A server that ignores signals and has a terminal: descriptor 0.
	roles["terminal"] = func() error {
		signal.Ignore(syscall.SIGUSR2, syscall.SIGPIPE)
		if fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY, 0); err != nil {
			return fmt.Errorf("server without a terminal: %v", err)
		} else {
			unix.Close(fd)
		}
		p, err := Park(context.Background(), Opt{Stdio: [3]*os.File{1: os.Stdout, 2: os.Stderr}})
		if err != nil {
			return err
		}
		if err := p.Exec(context.Background(), []string{"sh", "-c", "grep SigIgn /proc/self/status; (: </dev/tty) 2>/dev/null || echo no terminal"}, nil); err != nil {
			return err
		}
		waitEnd(p.Pidfd)
		return p.Close()
	}
	// In a pid namespace of its own where memfds may not be executed.
	roles["noexec"] = func() error {
		if err := os.WriteFile("/proc/sys/vm/memfd_noexec", []byte("2"), 0); err != nil {
			return err
		}
		if _, err := Park(context.Background(), Opt{}); !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("memfd with memfd_noexec=2: %v", err)
		}
		p, err := Park(context.Background(), Opt{State: os.Args[1], Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}})
		if err != nil {
			return err
		}
		if err := p.Exec(context.Background(), []string{"echo", "from a file"}, nil); err != nil {
			return err
		}
		waitEnd(p.Pidfd)
		return p.Close()
	}
}

// played gives what a role that ends well, and what it started, has said.
func played(t *testing.T, role string) []byte {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Stderr = append(os.Environ(), "NS_TEST_ROLE="+role), os.Stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return b
}

func TestParkSibling(t *testing.T) {
	b := played(t, "sibling")
	var pid int
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	slices.Sort(lines)
	if _, err := fmt.Sscanf(lines[0], "pid %d", &pid); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	if want := fmt.Sprintf("ppid %d", os.Getpid()); lines[1] != want {
		t.Errorf("its parent: %s, want %s", lines[1], want)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err != nil || ws.ExitStatus() != 9 {
		t.Errorf("waited by the parent: %#x, %v", ws, err)
	}
}

func TestParkedHasNoTerminal(t *testing.T) {
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		lacks(t, "needs a terminal: %v", err)
	}
	defer ptmx.Close()
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		lacks(t, "needs /dev/pts of /dev/ptmx: %v", err)
	}
	defer tty.Close()
	cmd := exec.CommandContext(withTimeout(t), "/proc/self/exe")
	cmd.Env = append(os.Environ(), "NS_TEST_ROLE=terminal")
	cmd.Stdin = tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	b, err := cmd.CombinedOutput()
	if want := "SigIgn:\t0000000000000000\nno terminal\n"; err != nil || string(b) != want {
		t.Errorf("%v, %q, want %q", err, b, want)
	}
}

func TestStubWithoutMemfd(t *testing.T) {
	needsRoot(t)
	if _, err := os.Stat("/proc/sys/vm/memfd_noexec"); err != nil {
		lacks(t, "needs Linux 6.3: %v", err)
	}
	// The sysctl is the pid namespace's of the writer.
	got := runRole(t, "noexec", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, t.TempDir())
	if got != "from a file\n" {
		t.Errorf("said %q", got)
	}
}
