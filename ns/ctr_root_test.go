package ns

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// rootDir is a directory of the container's root with just enough in it.
func rootDir(t testing.TB, s Spec) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		lacks(t, "needs busybox-static: %v", err)
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	dir := ownDir(t, s)
	if err := os.Mkdir(dir+"/bin", 0755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/bin/busybox", b, 0755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("busybox", dir+"/bin/sh"); err != nil {
		t.Fatal(err)
	}
	return dir
}

func openDir(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestRootDir(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		dir := rootDir(t, s)
		s.Root.Dir = openDir(t, dir)
		out, code := inside(t, s, "sh", "-c", "busybox ls /; echo x >/made; echo $$; exit 4")
		if out != "bin\ndev\nproc\nsys\n1\n" || code != 4 {
			t.Errorf("says %q, status %d", out, code)
		}
		if b, err := os.ReadFile(dir + "/made"); string(b) != "x\n" {
			t.Errorf("written in the root: %q, %v", b, err)
		}
		s.ReadOnly = true
		if out, _ := inside(t, s, "sh", "-c", "echo x >/again || echo refused"); !strings.Contains(out, "refused") {
			t.Errorf("read-only root: %q", out)
		}
	})
}

func TestRootOverlay(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		low, top := rootDir(t, s), ownDir(t, s)
		os.WriteFile(top+"/top", []byte("top\n"), 0644)
		os.WriteFile(low+"/top", []byte("low\n"), 0644)
		s.Root.Lower = []*os.File{openDir(t, top), openDir(t, low)}
		if out, _ := inside(t, s, "sh", "-c", "busybox cat /top; echo new >/new; busybox cat /new /etc/hostname"); out != "top\nnew\nweb\n" {
			t.Errorf("says %q", out)
		}
		if _, err := os.Stat(top + "/new"); err == nil {
			t.Error("written into the layer")
		}
	})
}

// A root may be read-only, all of it.
func TestReadOnly(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		s.ReadOnly = true
		out, _ := inside(t, s, "sh", "-c", "for d in / /etc /usr /usr/bin /tmp; do echo x >$d/x; done 2>&1 | grep -c 'Read-only file system'; echo x >/dev/shm/x && echo shm")
		if out != "5\nshm\n" {
			t.Errorf("says %q", out)
		}
	})
}

// What is written stays from one run to the next, with who owns it, and goes when it is given up.
func TestScratch(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		s.Root.Scratch = new(Scratch)
		defer s.Root.Scratch.Close()
		script := "echo run >>/etc/runs; cat /etc/runs /srv/f; rm -f /etc/passwd /etc/shadow; cat /etc/passwd; echo file >/srv/f; cp /bin/true /srv/mine && /srv/mine && id -u; stat -c %u /srv/f; ls /dev/shm; touch /dev/shm/x"
		for n, want := range []string{"run\n", "run\nrun\nfile\n", "run\nrun\nrun\nfile\n"} {
			out, _ := inside(t, s, "sh", "-c", "{ "+script+"; } 2>/dev/null")
			if out != want+"0\n0\n" {
				t.Errorf("run %d says %q", n+1, out)
			}
			if n == 1 { // a run that fails loses nothing
				bad := s
				bad.Mounts = []Mount{{Target: "/x", Type: "nonesuch"}}
				if _, err := Create(withTimeout(t), bad); err == nil {
					t.Error("a file system that there is not")
				}
			}
		}
		if strings.Contains(hostState(t), "overlay") {
			t.Error("mounted on the host")
		}
		// Who was killed in the middle of a run has only what he had before it.
		if s.Flags&unix.CLONE_NEWUSER == 0 && void.ns != nil {
			before, err := unix.Dup(int(s.Root.Scratch.root.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			inside(t, s, "touch", "/srv/more")
			s.Root.Scratch.Close()
			s.Root.Scratch.Restore(os.NewFile(uintptr(before), "root"), nil)
			if out, _ := inside(t, s, "ls", "/srv"); out != "f\nmine\nmore\n" {
				t.Errorf("the layer of before: %q", out)
			}
		}
		s.Root.Scratch.Close()
		if out, _ := inside(t, s, "sh", "-c", script); strings.Count(out, "run") != 1 {
			t.Errorf("after Close: %q", out)
		}
	})
}

// A scratch layer holds no more than half of the machine's memory, whatever nobody limits.
func TestScratchSize(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		var m unix.Sysinfo_t
		if err := unix.Sysinfo(&m); err != nil {
			t.Fatal(err)
		}
		out, code := inside(t, s, "stat", "-f", "-c", "%b %S", "/etc")
		var blocks, size uint64
		if _, err := fmt.Sscan(out, &blocks, &size); err != nil || code != 0 {
			t.Fatalf("%q, status %d: %v", out, code, err)
		}
		if n := blocks * size; n == 0 || n > m.Totalram*uint64(m.Unit)/2 {
			t.Errorf("room for %d bytes", n)
		}
	})
}

// Whom the container does not have is refused, and not root in his place.
func TestUserNotMapped(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		if s.Flags&unix.CLONE_NEWUSER == 0 {
			return
		}
		for _, u := range []Cred{{Uid: 100000}, {Gid: 100000}, {Groups: []uint32{100000}}} {
			s.User = u
			p, err := Create(withTimeout(t), s)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Exec(withTimeout(t), []string{"true"}, []string{"PATH=/bin"}); err == nil {
				t.Errorf("%+v runs", u)
			}
			p.End()
		}
	})
}

// A root that cannot be had is an error, and nothing stays open.
func TestRootErrors(t *testing.T) {
	needsRoot(t)
	gone, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	dir := openDir(t, t.TempDir())
	before := countFDs(t)
	for _, x := range []Spec{
		{Root: Root{Dir: gone}},
		{Root: Root{Lower: []*os.File{dir, gone}}},
		{Root: Root{Dir: dir}, Mounts: []Mount{{Target: "/x", From: dir}, {Target: "/y", From: gone}}},
	} {
		if p, err := Create(withTimeout(t), x); err == nil {
			p.End()
			t.Errorf("%+v: no error", x)
		}
	}
	if after := countFDs(t); after > before { // what others have left is closed by and by
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// A root that wants its proc, sys or dev to be elsewhere is refused, and nothing there is touched.
func TestRootWithLinks(t *testing.T) {
	needsRoot(t)
	for _, name := range []string{"proc", "sys", "dev"} {
		for _, rel := range []bool{false, true} {
			dir, marker := rootDir(t, Spec{}), t.TempDir()
			target := marker
			if rel {
				target = "../../../../../../.." + marker
			}
			if err := os.Symlink(target, dir+"/"+name); err != nil {
				t.Fatal(err)
			}
			before := hostState(t)
			p, err := Create(withTimeout(t), Spec{Opt: Opt{Flags: CtrFlags}, Root: Root{Dir: openDir(t, dir)}})
			if err == nil {
				p.End()
			}
			if want := fmt.Sprintf("open %q: too many levels of symbolic links", name); err == nil || err.Error() != want {
				t.Errorf("%s -> %s: %v, want %s", name, target, err, want)
			}
			if e, err := os.ReadDir(marker); err != nil || len(e) > 0 {
				t.Errorf("%s: the directory outside has %v, %v", name, e, err)
			}
			if after := hostState(t); !strings.HasPrefix(after, before[:strings.Index(before, ",")]) {
				t.Errorf("before %s, after %s", before, after)
			}
		}
	}
}

// Links in a mount's target mean what they mean in the root, also while they change.
func TestMountTarget(t *testing.T) {
	eachCtr(t, testMountTarget)
}

func testMountTarget(t *testing.T, s Spec) {
	dir, marker, vol := rootDir(t, s), ownDir(t, s), ownDir(t, s)
	os.WriteFile(vol+"/f", []byte("volume\n"), 0644)
	os.Symlink(marker, dir+"/link")
	os.MkdirAll(dir+marker, 0755)
	os.Mkdir(dir+"/swap", 0755)
	os.Symlink(marker, dir+"/swapped")
	for _, d := range []string{"/swap", marker} { // and what is on the way to it
		for d = dir + d; d != dir && os.Geteuid() == 0 && s.UidMap == idMap; d = filepath.Dir(d) {
			os.Chown(d, idFirst, idFirst)
		}
	}
	s.Root.Dir = openDir(t, dir)
	s.Mounts = []Mount{
		{Target: "/data", From: openDir(t, vol), Attr: unix.MOUNT_ATTR_RDONLY},
		{Target: "/link/below", From: openDir(t, vol)},
		{Target: "/run", Type: "tmpfs", Data: []string{"size=1m"}},
	}
	out, _ := inside(t, s, "sh", "-c", "busybox cat /data/f "+marker+"/below/f; echo x >/data/g; echo x >/run/x && busybox df /run | busybox tail -1")
	if !strings.HasPrefix(out, "volume\nvolume\n") || !strings.Contains(out, "Read-only") || !strings.Contains(out, "1024") {
		t.Errorf("says %q", out)
	}
	// Under the race only what is inside is ever made or mounted on.
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, dir+"/swap", unix.AT_FDCWD, dir+"/swapped", unix.RENAME_EXCHANGE)
			}
		}
	}()
	s.Flags &= unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID
	s.Hostname = ""
	s.Mounts = []Mount{{Target: "/swap/a/b", From: openDir(t, vol)}}
	rounds := 300
	if os.Geteuid() != 0 {
		rounds = 30 // the same plan: that it is refused nothing
	}
	for range rounds {
		if p, err := Create(withTimeout(t), s); err == nil {
			p.End()
		}
	}
	close(stop)
	<-stopped
	if e, err := os.ReadDir(marker); err != nil || len(e) > 0 {
		t.Errorf("the directory outside has %v, %v", e, err)
	}
}
