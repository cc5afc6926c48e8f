package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The README's examples do on a mount what it says, as somebody types them who has $PID, a process of his, and $ROOT, a
// root directory.
func TestReadme(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "needs root: to mount")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		lacking(t, "needs /dev/fuse")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		lacking(t, "needs busybox: package busybox-static")
	}
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, examples, _ := strings.Cut(string(text), "## Ten examples\n")
	blocks := regexp.MustCompile(`(?m)^\d+\. .*\n\n((?: {7}.*\n)+)`).FindAllStringSubmatch(examples, -1)
	if len(blocks) != 10 {
		t.Fatalf("%d examples", len(blocks))
	}
	top := t.TempDir()
	dir, root := filepath.Join(top, "n"), filepath.Join(top, "root")
	for _, d := range []string{"bin", "proc", "sys", "dev"} {
		os.MkdirAll(filepath.Join(root, d), 0755)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0755)
	for _, name := range []string{"sleep", "hostname"} {
		os.Symlink("busybox", filepath.Join(root, "bin", name))
	}
	t.Cleanup(func() {
		for range mounted(t, dir) {
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	start(t, "mounted", "-a", "unix!"+filepath.Join(top, "sock"), "-m", dir)

	script := "sleep 1000 & PID=$!; disown\n"
	for i, b := range blocks {
		block := strings.ReplaceAll(strings.ReplaceAll(b[1], "       ", ""), "/n/ctrfs", dir)
		switch i + 1 {
		case 2: // blocks until the next example
			block = "exec 9<" + strings.TrimPrefix(block, "cat ") + "cat <&9 & WAIT=$!\n"
		case 3:
			block += "wait $WAIT\n"
		case 10: // what it is to show is a failure
			block = strings.Replace(block, "\n", " || :\n", 1)
		}
		script += "echo '#'" + string(rune('0'+i+1)) + "\n" + block
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-e", "-c", script)
	cmd.Env = append(os.Environ(), "ROOT="+root)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	want := `^#1
name sleep
(?:.*\n)+?ctr ''
xid 0
sleep 1000
#2
#3
\d+ \S+ \S+ \d+ 'signal: TERM'
#4
b
/tmp
#5
t
\d+ \d+ \d+ \d+ 'exit: 3' exit_code=768 reboot=none
3
#6
#7
web1
#8
\S+Z \d+ present ctr=web state=running
\S+Z \d+ ready
#9
\d+ \d+ \d+ \d+ 'signal: KILL' exit_code=9 reboot=none
#:
\S+Z /ctl 'unknown control message: "frob"'
$`
	if err != nil || !regexp.MustCompile(want).MatchString(out.String()) {
		t.Errorf("%v\n%s\n%s\nwant %s", err, out.String(), errs.String(), want)
	}
}
