package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ctrfs/fs/styx"
	"ctrfs/ns"
)

func TestConf(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "",
		"# nothing\n\n  # still\nUsers\n":      "",
		"runtime 'a b' '/x y'\nusers":          "",
		"users\nfrob\n":                        `f:2: unknown configuration: "frob"`,
		"\n#\nusers yes\n":                     `f:3: wrong #args in configuration: "users yes", usage: users`,
		"admin_cloop\n":                        `f:1: wrong #args in configuration: "admin_cloop", usage: admin_cloop device...`,
		"admin_cloop loop1 sda\n":              `f:1: admin_cloop: not a loop device: "sda"`,
		"admin_cloop loop-control\n":           `f:1: admin_cloop: not a loop device: "loop-control"`,
		"admin_cloop loop1\nadmin_cloop loop1": `f:2: admin_cloop: said twice: "loop1"`,
		"runtime x runc\n":                     `f:1: runtime: not an absolute path: "runc"`,
		"runtime ../x /bin/runc\n":             `f:1: runtime: not a name: "../x"`,
		"runtime x /a\nruntime x /b\n":         `f:2: runtime: said twice: "x"`,
		"users '\n":                            `f:1: unfinished quote in configuration: "'\n"`,
	} {
		c, err := parseConf("f", text)
		switch {
		case want == "" && err != nil, want != "" && (err == nil || err.Error() != want):
			t.Errorf("%q: %v, want %s", text, err, want)
		case want == "" && text != "" && !c.Users:
			t.Errorf("%q: %+v", text, c)
		}
	}
}

// configured is a server of the test with a configuration.
func configured(t *testing.T, text string) *served {
	s := serveHere(t)
	c, err := parseConf("conf", text)
	if err != nil {
		t.Fatal(err)
	}
	s.ctrs.Config.Store(c)
	return s
}

// by is a conversation of another user with it.
func (s *served) by(how *syscall.SysProcAttr) *caller {
	conn, _ := s.peer(how, false)
	c := converse(s.t, conn, styx.Linux)
	if err := c.attach("root", how.Credential.Uid); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// All may make containers where the configuration says so, and nobody takes away another's.
func TestConfUsers(t *testing.T) {
	for text, may := range map[string]bool{"": false, "users": true} {
		s := configured(t, text)
		a, b := s.by(as(uidA, gidAB)), s.by(as(uidB, gidAB))
		for what, err := range map[string]error{"mkdir": a.mkdir("ctr/a"), "clone": b.clone("ctr/clone", "rename b\nhostname x\n")} {
			if may != (err == nil) || !may && !denies(err) {
				t.Errorf("%q: %s: %v", text, what, err)
			}
		}
		if !may {
			continue
		}
		if err := b.rmdir("ctr/a"); !denies(err) {
			t.Errorf("another's was removed: %v", err)
		}
		for _, err := range []error{a.rmdir("ctr/a"), b.rmdir("ctr/b")} {
			if err != nil {
				t.Error(err)
			}
		}
	}
}

// A container is in all hierarchies of version 1 if the configuration says so.
func TestConfAccounting(t *testing.T) {
	for text, more := range map[string]bool{"": false, "accounting": true} {
		s := configured(t, text)
		c := s.by(as(0, 0))
		if err := c.mkdir("ctr/a"); err != nil {
			t.Fatal(err)
		}
		if err := c.echo("ctr/a/ctl", "create"); err != nil {
			t.Fatal(err)
		}
		id, _ := c.cat("ctr/a/id")
		in, err := c.cat("ctr/a/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		hierarchies, own := 0, strings.Count(in, strings.TrimSpace(id))
		for line := range strings.Lines(in) {
			if !strings.HasPrefix(line, "name=") {
				hierarchies++
			}
		}
		if hierarchies > 1 && more != (own == hierarchies) {
			t.Errorf("%q: in %d groups of its own:\n%s", text, own, in)
		}
		c.echo("ctr/a/ctl", "kill")
		if _, err := c.record("ctr/a/wait"); err != nil {
			t.Error(err)
		}
		if err := c.rmdir("ctr/a"); err != nil {
			t.Error(err)
		}
	}
}

// A name that the configuration has is a runtime's, whose program is called.
func TestConfRuntime(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "crun")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho called >"+dir+"/called\nexit 1\n"), 0755); err != nil {
		t.Fatal(err)
	}
	s := configured(t, "runtime mine "+program)
	s.ctrs.State = t.TempDir()
	c := s.by(as(0, 0))
	if err := c.mkdir("ctr/a"); err != nil {
		t.Fatal(err)
	}
	if err := c.echo("ctr/a/runtime", "yours\n"); err == nil || denies(err) {
		t.Errorf("yours: %v", err)
	}
	for file, text := range map[string]string{"runtime": "mine\n", "rootfs": dir + "\n", "args": "/bin/true\n"} {
		if err := c.echo("ctr/a/"+file, text); err != nil {
			t.Fatal(file, err)
		}
	}
	if got, err := c.cat("ctr/a/runtime"); got != "mine\n" {
		t.Errorf("%q, %v", got, err)
	}
	made := c.echo("ctr/a/ctl", "create")
	if _, err := os.Stat(dir + "/called"); err != nil || made == nil {
		said, _ := c.cat("error")
		t.Errorf("%v; create: %v\n%s", err, made, said)
	}
}

// A container's root has raw sockets of ICMP by ccaps, without the capability, if the configuration says so.
func TestConfRawICMP(t *testing.T) {
	ask := program(t, "ask")
	for text, want := range map[string]string{"": "raw: Operation not permitted\n", "raw_icmp": "raw: 0\n"} {
		c := configured(t, text).by(as(0, 0))
		if err := c.mkdir("ctr/a"); err != nil {
			t.Fatal(err)
		}
		for _, l := range [][2]string{{"bcaps", "~net_raw\n"}, {"ccaps", "raw_icmp\n"}, {"mounts", "mount bind " + ask + " /ask\n"}, {"ctl", "exec /ask raw\n"}} {
			if err := c.echo("ctr/a/"+l[0], l[1]); err != nil {
				t.Fatal(l, err)
			}
		}
		if got, err := c.drain("ctr/a/stdout"); got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
		c.record("ctr/a/wait")
		c.rmdir("ctr/a")
	}
}

// conf is a file with a configuration.
func conf(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(name, []byte(text), 0644); err != nil {
		t.Fatal(err)
	}
	return name
}

// Devices of the machine are lent as the configuration says, each loop device to one container. The mapper's is a zero here.
func TestConfDevices(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, []byte(strings.Repeat("disk ", 1024)), 0600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--show", "-f", file).Output()
	if err != nil {
		lacking(t, "needs a loop device: "+err.Error())
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", device).CombinedOutput(); err != nil {
			t.Errorf("%v, %s", err, out)
		}
	})
	name := filepath.Base(device)
	s := &survivor{t: t, sock: filepath.Join(t.TempDir(), "sock")}
	dev := t.TempDir()
	s.d = launchAfter(t, `mount -t tmpfs dev `+dev+`; mkdir `+dev+`/mapper `+dev+`/pts `+dev+`/shm; mount --bind /dev/pts `+dev+`/pts
		for i in null zero full random urandom tty ptmx `+name+`; do cp -a /dev/$i `+dev+`/; done; mknod `+dev+`/mapper/control c 1 5; mount --rbind `+dev+` /dev`,
		"listening", "-a", "unix!"+s.sock, "-c", conf(t, "admin_mapper\nadmin_cloop "+name+"\n"))
	do := func(input string, args ...string) string {
		t.Helper()
		cmd := inside(t, s.d, append([]string{args[0], "-a", "unix!" + s.sock}, args[1:]...)...)
		cmd.Stdin = strings.NewReader(input)
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	for _, ctr := range []string{"a", "b"} {
		if got := do("rename "+ctr+"\nccaps admin_mapper\n", "write", "ctr/clone"); got != "" {
			t.Fatal(got)
		}
	}
	read := "read x; head -c 4 /dev/mapper/control | od -An -tx1; head -c 4 /dev/" + name + "; echo"
	if got := do("admin_cloop\n", "write", "ctr/a/ccaps"); got != "" {
		t.Error(got)
	}
	if got := do("admin_cloop\n", "write", "ctr/b/ccaps"); !strings.Contains(got, "admin_cloop: ") {
		t.Errorf("a second container has it: %q", got)
	}
	for _, c := range [][2]string{{"a", " 00 00 00 00\ndisk\n"}, {"b", " 00 00 00 00\n\n"}} {
		if got := do("exec /bin/sh -c '"+read+" 2>/dev/null'\n", "write", "ctr/"+c[0]+"/ctl"); got != "" {
			t.Fatal(got)
		}
		do("\n", "write", "ctr/"+c[0]+"/stdin")
		if got := do("", "read", "ctr/"+c[0]+"/stdout"); got != c[1] {
			t.Errorf("%s: %q, %q", c[0], got, do("", "read", "ctr/"+c[0]+"/stderr"))
		}
		do("", "read", "ctr/"+c[0]+"/wait")
	}
	// While it runs too, and what is taken away can be had by another.
	do("ccaps ~admin_cloop\n", "write", "ctr/a/ctl")
	do("exec /bin/sleep 1000\n", "write", "ctr/b/ctl")
	for label, x := range map[string][2]string{"x": {"admin_cloop", "disk"}, "y": {"~admin_cloop", ""}, "z": {"admin_cloop", "disk"}} {
		if got := do(x[0]+"\n", "write", "ctr/b/ccaps"); got != "" {
			t.Error(got)
		}
		do("label "+label+"\nexec /usr/bin/head -c 4 /dev/"+name+"\n", "write", "ctr/b/proc/clone")
		if got := do("", "read", "ctr/b/proc/"+label+"/stdout"); got != x[1] {
			t.Errorf("%s while it runs: %q, %q", x[0], got, do("", "read", "ctr/b/proc/"+label+"/stderr"))
		}
	}
	do("kill\n", "write", "ctr/b/ctl")
	s.d.Process.Signal(syscall.SIGTERM)
	s.d.ends()
}

// A wrong configuration is refused, at the start by its end and by reload and upgrade so that the server goes on; a server that
// was killed is followed by one that has what it had.
func TestConfReload(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "needs root: to make containers")
	}
	file := conf(t, "users\n")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0644); err != nil {
			t.Fatal(err)
		}
	}
	s := &survivor{t: t, sock: filepath.Join(t.TempDir(), "sock")}
	s.d = start(t, "listening", "-a", "unix!"+s.sock, "-c", file)
	is := func(what string, users bool) {
		t.Helper()
		out, _ := remotely(t, "", "ls", "-ld", "-a", "unix!"+s.sock, "ctr")
		if got := strings.HasPrefix(out, "drwxrwxrwx "); got != users {
			t.Errorf("%s: %s", what, out)
		}
	}
	is("at the start", true)
	server := func() (pid int) {
		p, others := s.d.children()
		for _, o := range append([]*ns.Process{p}, others...) {
			o.Close()
		}
		return p.Pid()
	}
	first := server()
	write("frob\n")
	for _, verb := range []string{"reload", "upgrade"} {
		if err := s.do(func(c *caller) error { return c.echo("ctl", verb) }); err == nil {
			t.Errorf("%s took it", verb)
		}
		if all := s.cat("error"); !strings.Contains(all, verb+": ") || !strings.Contains(all, `1: unknown configuration: "frob"`) {
			t.Errorf("%s: /error has\n%s", verb, all)
		}
	}
	if now := server(); now != first {
		t.Error("another server is there")
	}
	s.d.kill()
	is("after a death, with a wrong file", true)
	write("accounting\n")
	s.d.kill()
	is("after a death", true)
	s.echo("ctl", "reload")
	s.d.await("listening")
	is("reloaded", false)
	write("users\n")
	s.echo("ctl", "upgrade")
	s.d.await("listening")
	is("upgraded", true)
	s.d.Process.Signal(syscall.SIGTERM)
	s.d.ends()

	for text, want := range map[string]string{"users\nfrob\n": file + `:2: unknown configuration: "frob"`, strings.Repeat("#\n", confMost): "longer than 65536 bytes"} {
		write(text)
		out, err := role(t, "ctrfs", "-a", "unix!"+s.sock, "-c", file).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("it began: %v, %s", err, out)
		}
	}
	for _, name := range []string{file + "none", filepath.Dir(file)} {
		if out, err := role(t, "ctrfs", "-V", "-c", name).CombinedOutput(); err == nil {
			t.Errorf("%s: %s", name, out)
		}
	}
}
