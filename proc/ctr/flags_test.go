package ctr

import (
	"context"
	"os"
	"strings"
	"testing"

	"ctrfs/fs"
	"ctrfs/ns"
)

// each runs f in root's container and in another's.
func each(t *testing.T, f func(t *testing.T, s *session)) {
	root := newSession(t)
	self, err := ns.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	if _, err := ns.Uname(self); err != nil { // it keeps a descriptor, once
		t.Fatal(err)
	}
	check := leaks(t, root)
	for name, s := range map[string]*session{"root": root, "user": root.as(fs.Client{Uid: 4321, Gid: 4321})} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.set.make(s.Ctx, "c"); err != nil { // past the mode of the directory, which is root's
				t.Fatal(err)
			}
			one := *s.Client
			one.T = t
			f(t, &session{&one, s.set})
			s.Rmdir("c")
		})
	}
	check()
}

// A persistent container has the same name spaces in its next run, and its end is not told before it may end.
func TestPersistent(t *testing.T) {
	each(t, func(t *testing.T, s *session) {
		s.Write("c/flags", "persistent")
		s.Write("c/args", "/bin/sh -c 'readlink /proc/self/ns/net /proc/self/ns/uts /proc/self/ns/ipc'")
		run := func() string {
			s.Write("c/ctl", "start")
			c, _ := s.set.find("c")
			<-c.run.done
			return s.Read("c/stdout")
		}
		if first, second := run(), run(); first != second || strings.Count(first, "\n") != 3 {
			t.Errorf("%q, then %q", first, second)
		}
		told := make(chan string, 1)
		go func() {
			text, err := s.Cat("c/wait")
			if err != nil {
				text = err.Error()
			}
			told <- text
		}()
		run()
		c, _ := s.set.find("c")
		ended, end := context.WithCancel(s.Ctx)
		end()
		for range 50 { // who has no time is told what there is to tell, every second time
			if text, err := c.wait(ended); err == nil {
				t.Fatalf("the end was told: %q", text)
			}
		}
		s.Write("c/flags", "~persistent")
		if text := <-told; !strings.Contains(text, "exit_code=0") {
			t.Errorf("wait %q", text)
		}
	})
}

// What root's container may by ccaps another's may too, in its own user name space.
func TestCcapsAs(t *testing.T) {
	each(t, func(t *testing.T, s *session) {
		s.Write("c/ccaps", "set_utsname secure_mount binary_mount")
		s.Write("c/uname", "release 4.0")
		s.Write("c/flags", "virt_uptime virt_load")
		s.Write("c/ctl", `exec /bin/sh -c 'hostname other; hostname; uname -r
			busybox mount -t tmpfs x /mnt && echo y >/mnt/y && cat /mnt/y && stat -c %u /mnt/y; busybox umount /mnt; ls /mnt
			read up rest </proc/uptime; [ ${up%.*} -lt 100 ] && echo young; wc -l </proc/loadavg
			setpriv --reuid 1 --clear-groups hostname third 2>/dev/null || echo refused'`)
		if got := s.Read("c/stdout"); got != "other\n4.0\ny\n0\nyoung\n1\nrefused\n" {
			t.Errorf("%q; %q", got, s.Read("c/stderr"))
		}
		s.Read("c/wait")
	})
}
