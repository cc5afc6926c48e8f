package main

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestGuest runs testdata/v9fs/*.sh, in which Linux is the client, below kernels that have one: the
// installed User-Mode Linux (6.1 on Debian 12), and that of the next release, 6.12: since 6.8 a read
// that waits keeps its file locked.
func TestGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("boots virtual machines: not with -short")
	}
	bin := filepath.Join(t.TempDir(), "ctrfs")
	cmd := exec.Command("go", "build", "-o", bin, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Run("uml", func(t *testing.T) {
		t.Parallel()
		for pkg, file := range map[string]string{"user-mode-linux": "linux.uml", "busybox-static": "/bin/busybox"} {
			if _, err := exec.LookPath(file); err != nil {
				lacking(t, "needs package "+pkg)
			}
		}
		guest(t, bin)
	})
	t.Run("trixie", func(t *testing.T) {
		t.Parallel()
		cache, err := os.UserCacheDir()
		if err == nil {
			_, err = os.Stat(filepath.Join(cache, "ctrfs/uml-trixie"))
		}
		if err != nil && os.Getenv("CI") != "true" {
			t.Skip("needs a kernel: testdata/guest -k trixie true")
		}
		guest(t, bin, "-k", "trixie")
	})
}

// lacking ends a test for want of something that only CI must have.
func lacking(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

var (
	tapLine = regexp.MustCompile(`^(not )?ok \d+ - `)
	tapEnd  = regexp.MustCompile(`^\d+ passed, \d+ failed$`)
)

// guest boots one guest with the flags given for all scripts; each is a subtest. The limits are against what hangs: a guest
// is ten times slower on a machine that is busy.
func guest(t *testing.T, bin string, flags ...string) {
	scripts, err := filepath.Glob("../../testdata/v9fs/*.sh")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	args := append(flags, "-t", "2300", "bash", "-c", `for s; do echo "script $s"; timeout -k 5 600 bash $s; echo "status $?"; done`, "-")
	cmd := exec.CommandContext(ctx, "../../testdata/guest", append(args, scripts...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it has processes of its own to end
	cmd.Env = append(os.Environ(), "CTRFS="+bin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if s, ok := strings.CutPrefix(lines.Text(), "script "); ok {
			t.Run(filepath.Base(s), func(t *testing.T) { script(t, lines) })
		}
	}
	err = cmd.Wait()
	if err != nil {
		t.Errorf("guest: %v", err)
	}
	if t.Failed() || strings.Contains(stderr.String(), "packet tag") {
		t.Errorf("guest's standard error:\n%s", stderr.Bytes())
	}
}

// script reads the checks of one script, to the line that tells its status.
func script(t *testing.T, lines *bufio.Scanner) {
	ended := false
	for lines.Scan() {
		l := lines.Text()
		if status, ok := strings.CutPrefix(l, "status "); ok {
			if !ended || (status != "0") != t.Failed() {
				t.Errorf("the script did not run to its end: status %s", status)
			}
			return
		}
		switch m := tapLine.FindStringSubmatch(l); {
		case m == nil:
			ended = ended || tapEnd.MatchString(l)
			t.Log(l)
		case m[1] != "":
			t.Error(l)
		default:
			t.Log(l)
		}
	}
	t.Errorf("the guest ended within the script: %v", lines.Err())
}
