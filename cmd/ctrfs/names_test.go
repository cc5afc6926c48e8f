package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/fs/styx"
)

// Whatever a process, its files, mounts and environment, or a container is called, every line stays one line, of words that can
// be told apart, and nothing in it commands a terminal.
func TestHostileNames(t *testing.T) {
	const hostile = "a\n\x1b[31m'\xff \x7f\u2028\u0085\\\u00e9\tb"
	s := serveHere(t)
	dir := filepath.Join(t.TempDir(), hostile)
	prog := filepath.Join(dir, hostile)
	sh, err := os.ReadFile("/bin/sh")
	for _, err := range []error{err, os.Mkdir(dir, 0755), os.WriteFile(prog, sh, 0755), os.Mkdir(filepath.Join(dir, "m"+hostile), 0755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("unshare", "-m", "/bin/sh", "-c", `mount -t tmpfs "$H" "$D/m$H" && cd "$D" && exec "$P" -c 'echo; read x' "$H" '' "it's"`)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "H=" + hostile, "D=" + dir, "P=" + prog}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "f"+hostile))
	if err == nil {
		cmd.ExtraFiles = []*os.File{f}
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil { // it runs
		t.Fatal(err)
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	conn, _ := s.peer(as(0, 0), false)
	c := converse(t, conn, styx.Linux)
	if err := c.attach("", 0); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.to("/ctr", "mkdir"))
	quoted := "'" + strings.ReplaceAll(hostile, "'", "''") + "'"
	must(c.echo("/ctr/new/args", "/bin/sh -c 'hostname -F /dev/stdin; read x' "+quoted+"\n"))
	must(c.echo("/ctr/new/env", "'A="+strings.ReplaceAll(hostile, "'", "''")+"'\n"))
	must(c.echo("/ctr/new/hostname", quoted+"\n"))
	must(c.echo("/ctr/new/domainname", quoted+"\n"))
	must(c.echo("/ctr/new/ctl", "create"))
	clone, _, err := c.walk("/proc/clone")
	must(err)
	must(c.open(clone, styx.ORdwr))
	label := strings.ReplaceAll(hostile, "\xff", "") // which could be walked to by nobody
	must(c.write(clone, "label '"+strings.ReplaceAll(label, "'", "''")+"'"))
	if err := c.write(clone, "label "+quoted); err == nil {
		t.Error("a label is not UTF-8")
	}
	if err := c.echo("/proc/"+pid+"/ctl", quoted); err == nil { // /error has it
		t.Error("a hostile verb is taken")
	}
	text, err := c.readAt(clone, 0)
	must(err)
	mine := strings.TrimSpace(string(text))

	shown := fs.Clean(hostile)
	for name, want := range map[string]struct {
		lines int // -1: any number
		has   string
	}{
		"/ps": {-1, shown}, "/error": {-1, `\x1b[31m`}, "/proc/" + pid + "/args": {1, shown}, "/proc/" + pid + "/env": {-1, "H=" + shown},
		"/proc/" + pid + "/cwd": {1, shown}, "/proc/" + pid + "/exe": {1, shown + "/" + shown}, "/proc/" + pid + "/fd": {-1, "f" + shown},
		"/proc/" + pid + "/ns": {-1, "m" + shown}, "/proc/" + pid + "/status": {-1, string([]rune(shown)[:8])},
		"/proc/" + mine + "/status": {-1, fs.Clean(label)}, "/ctr/new/args": {1, shown}, "/ctr/new/env": {2, "A=" + shown},
		"/ctr/new/hostname": {1, shown}, "/ctr/new/domainname": {1, shown}, "/ctr/new/proc/1/hostname": {1, shown},
	} {
		text, err := c.cat(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		lines, err := ctl.Split(text)
		if err != nil || len(lines) != strings.Count(text, "\n") || want.lines >= 0 && len(lines) != want.lines {
			t.Errorf("%s: %d lines, want %d, %v:\n%q", name, len(lines), want.lines, err, text)
		}
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && unicode.IsControl(r) || r == '\u2028' }) {
			t.Errorf("%s: %q", name, text)
		}
		if !slices.ContainsFunc(lines, func(l ctl.Line) bool {
			return slices.ContainsFunc(l.Words, func(w string) bool { return strings.Contains(w, want.has) })
		}) {
			t.Errorf("%s: no word has %q:\n%s", name, want.has, text)
		}
	}
	if _, _, err := c.walk("/proc/" + label); err != nil {
		t.Errorf("walk to the label: %v", err)
	}
	if err := c.on("/ctr", func(f styx.Fid) error {
		_, err := c.ask(&styx.Msg{Type: styx.Tmkdir, Fid: f, Name: hostile, Perm: 0755})
		return err
	}); err == nil {
		t.Error("a container is called so")
	}
}

// A name that is made again is another thing: a container that got an old one's name, a process that got an old one's label. It and its
// files have other qids.
func TestNameAgain(t *testing.T) {
	s := serveHere(t)
	for _, d := range []styx.Dialect{styx.Linux, styx.Plain} {
		conn, _ := s.peer(as(0, 0), false)
		c := converse(t, conn, d)
		if err := c.attach("root", 0); err != nil {
			t.Fatal(err)
		}
		made := func(what string) (remove func() error) {
			f, _, err := c.walk("/" + what + "/clone")
			if what == "ctr" {
				err = c.to("/ctr", "mkdir")
				remove = func() error { return c.to("/ctr/new", "remove") }
			} else {
				if err == nil {
					err = c.open(f, styx.OWrite)
				}
				if err == nil {
					err = c.write(f, "label new")
				}
				remove = func() error { return c.clunk(f) }
			}
			if err != nil {
				t.Fatal(what, err)
			}
			return remove
		}
		for _, what := range []string{"ctr", "proc"} {
			qids := map[styx.Qid]string{}
			for range 3 {
				remove := made(what)
				names, err := c.list("/" + what + "/new")
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range append(names, ".") {
					_, qid, err := c.walk("/" + what + "/new/" + name)
					if err != nil {
						t.Fatal(err)
					}
					if old := qids[qid]; old != "" {
						t.Errorf("%s: /%s/new/%s has the qid of %s: %v", d, what, name, old, qid)
					}
					qids[qid] = name
				}
				if err := remove(); err != nil {
					t.Fatal(err)
				}
				if _, _, err := c.walk("/" + what + "/new"); err == nil {
					t.Errorf("%s: /%s/new is still there", d, what)
				}
			}
		}
	}
}
