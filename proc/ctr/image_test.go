package ctr

import (
	"archive/tar"
	"os"
	"strings"
	"testing"

	cfs "ctrfs/fs"
	"ctrfs/proc/ctr/image"
	it "ctrfs/proc/ctr/image/imagetest"
)

// boxImage makes an image of busybox in all forms, and gives where they are.
func boxImage(t *testing.T, c image.Config) map[string]string {
	t.Helper()
	layout, docker := it.Box(t, c, busyboxText(t))
	dir := t.TempDir()
	it.Dir(t, dir+"/layout", layout)
	os.WriteFile(dir+"/oci.tar", it.Tar(t, layout), 0644)
	os.WriteFile(dir+"/docker.tar", it.Tar(t, docker), 0644)
	return map[string]string{"layout": dir + "/layout", "oci": dir + "/oci.tar", "docker": dir + "/docker.tar"}
}

// A container of an image runs what that says, with what the user says in its place, and keeps what it writes from run to run.
func TestImage(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	for name, file := range boxImage(t, image.Config{
		User: "glenda", Env: []string{"A=image", "B=image", "PATH=/bin"}, Entrypoint: []string{"sh", "-c"},
		Cmd: []string{"id -un; echo $A $B $C $PATH; pwd; cat /etc/motd; echo more >>/tmp/x; cat /tmp/x"}, WorkingDir: "/tmp", Labels: map[string]string{"l": "image", "m": "image"},
	}) {
		s.Mkdir("c")
		s.Write("c/rootfs", "image "+file+" box:1\n")
		s.Write("c/labels", "l mine\n")
		for _, line := range []string{"", "B=mine\n", "C=mine\n"} {
			if line != "" {
				h, err := s.Open("c/env", cfs.Write)
				if err != nil {
					t.Fatal(err)
				}
				s.Say(h, line)
				h.Close(s.Ctx)
			}
		}
		s.Write("c/ctl", "start")
		s.Read("c/wait")
		if got, want := s.Read("c/stdout"), "glenda\nimage mine mine /bin\n/tmp\nhello\nmore\n"; got != want {
			t.Errorf("%s: %q, %q, want %q", name, got, s.Read("c/stderr"), want)
		}
		if got := s.Read("c/labels"); got != "l mine\nm image\n" {
			t.Errorf("%s: labels %q", name, got)
		}
		for _, user := range []string{"", "0:0"} { // the image's stays the image's in a copy, and who was said himself
			want := "1000 1000"
			if user != "" {
				s.Write("c/user", user+"\n")
				want = "0 0"
			}
			s.Mkdir("d")
			s.Write("d/config", s.Read("c/config"))
			s.Write("d/ctl", "exec /bin/sh -c 'echo $(id -u) $(id -g)'")
			s.Read("d/wait")
			if got := s.Read("d/stdout"); got != want+"\n" {
				t.Errorf("%s: a copy of user %q: %q, want %q", name, user, got, want)
			}
			s.Rmdir("d")
		}
		s.Write("c/user", "0\n")
		s.Write("c/cwd", "/etc\n")
		s.Write("c/ctl", "exec /bin/sh -c 'id -u; pwd; cat /tmp/x; ls -d /proc/1 /dev/null'")
		s.Read("c/wait")
		if got, want := s.Read("c/stdout"), "0\n/etc\nmore\n/dev/null\n/proc/1\n"; got != want {
			t.Errorf("%s: again: %q, %q, want %q", name, got, s.Read("c/stderr"), want)
		}
		s.Rmdir("c")
	}
	check()
}

// Root in a user name space has the image's files of root.
func TestImageUser(t *testing.T) {
	s := newSession(t)
	file := boxImage(t, image.Config{Cmd: []string{"sh", "-c", "cat /proc/self/uid_map; ls -ln /bin/busybox | { read mode links uid gid more; echo $uid $gid; }; echo x >/etc/x && cat /etc/x"}})["oci"]
	s.Mkdir("c")
	s.Write("c/rootfs", "image "+file+"\n")
	s.Write("c/nsgrp", "user new\n")
	s.Write("c/ctl", "start")
	s.Read("c/wait")
	got := s.Read("c/stdout")
	if !strings.HasPrefix(strings.TrimSpace(got), "0 ") || !strings.HasSuffix(got, "\n0 0\nx\n") {
		t.Errorf("%q, %q", got, s.Read("c/stderr"))
	}
	s.Rmdir("c")
}

// What is no image, or says what cannot be, leaves no container and nothing else behind.
func TestImageRefused(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	files := boxImage(t, image.Config{})
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		os.WriteFile(dir+"/"+name, text, 0644)
		return dir + "/" + name
	}
	gz, _ := os.ReadFile(files["oci"])
	layout, docker := it.Files(t, image.Config{Env: []string{"HOME"}}, it.Layer(t, nil, tar.Header{Name: "x"}))
	_, out := it.Files(t, image.Config{}, it.Layer(t, nil, tar.Header{Name: "../x"}))
	_, links := it.Files(t, image.Config{}, it.Layer(t, nil, tar.Header{Name: "proc", Typeflag: tar.TypeSymlink, Linkname: "/etc"}))
	for _, x := range []struct{ words, err string }{
		{"image /nonesuch", "no such file or directory"},
		{"image /dev/null", "neither a directory nor an archive"},
		{"image /etc", "neither index.json nor open \"manifest.json\""},
		{"image " + files["oci"] + " box:2", `no image "box:2"`},
		{"image " + write("gz", it.Gzip(gz)), "a compressed archive: unpack it by gunzip(1)"},
		{"image " + write("short", gz[:len(gz)/2]), "unexpected EOF"},
		{"image " + write("env", it.Tar(t, layout)), `its Env is not NAME=VALUE: "HOME"`},
		{"image " + write("env2", it.Tar(t, docker)), `its Env is not NAME=VALUE: "HOME"`},
		{"image " + write("out", it.Tar(t, out)), "not a name in an image"},
		{"image " + write("links", it.Tar(t, links)), `open "proc": too many levels of symbolic links`},
	} {
		s.Mkdir("c")
		s.Write("c/rootfs", x.words+"\n")
		if err := s.Echo("c/ctl", "create"); err == nil || !strings.Contains(err.Error(), x.err) {
			t.Errorf("%s: %v, want %s", x.words, err, x.err)
		}
		if got := s.Read("c/status"); !strings.HasPrefix(got, "new\n") {
			t.Errorf("%s: %s", x.words, got)
		}
		s.Write("c/rootfs", "host\n") // what was unpacked is not there any more
		s.Write("c/ctl", "exec /bin/test -d /usr/share")
		if got := s.Read("c/wait"); !strings.Contains(got, " '' ") {
			t.Errorf("%s: then the host's: %s", x.words, got)
		}
		s.Rmdir("c")
	}
	check()
	mine := s.as(cfs.Client{Uid: 4321, Gid: 4321})
	mine.set.Uid = 4321
	mine.Mkdir("mine")
	if err := mine.Echo("mine/rootfs", "image "+files["oci"]+"\n"); err == nil || !strings.Contains(err.Error(), "for root's containers") {
		t.Errorf("another user: %v", err)
	}
	mine.Rmdir("mine")
}
