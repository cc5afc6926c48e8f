package ns

import (
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	// Says how long uname(2) took, the median of many, and what it gave.
	roles["uname"] = func() error {
		var u unix.Utsname
		took := make([]time.Duration, 1000)
		for i := range took {
			before := time.Now()
			if err := unix.Uname(&u); err != nil {
				return err
			}
			took[i] = time.Since(before)
		}
		slices.Sort(took)
		_, err := os.Stdout.WriteString(unix.ByteSliceToString(u.Release[:]) + " " + took[len(took)/2].String() + "\n")
		return err
	}
}

// listened starts a program in a container whose calls somebody hears; heard gets what they are heard by.
func listened(t testing.TB, heard func(*os.File) error, argv ...string) (p *Parked, out *os.File) {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	s := Spec{Opt: Opt{Flags: CtrFlags, Stdio: [3]*os.File{self, w, w}}, Caps: DefaultCaps, Filter: DefaultFilter(DefaultCaps, Asking), Heard: heard}
	p, err = Create(withTimeout(t), s)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.End() })
	if err := p.Exec(withTimeout(t), argv, []string{"PATH=/usr/bin:/bin", "NS_TEST_ROLE=uname"}); err != nil {
		t.Fatal(err)
	}
	return p, r
}

// release makes uname(2) tell of another kernel.
func release(c *Call) {
	var u unix.Utsname
	if unix.Uname(&u) != nil || c.What != "uname" {
		c.Continue()
		return
	}
	u.Release = [65]byte{}
	copy(u.Release[:], "2.4.1-"+c.What)
	b := make([]byte, 0, 390)
	for _, f := range [][65]byte{u.Sysname, u.Nodename, u.Release, u.Version, u.Machine, u.Domainname} {
		b = append(b, f[:]...)
	}
	c.End(c.Write(c.Arg(0), b))
}

// What a program asks is answered by who listens, also when the one who was asked died before he answered, and by ENOSYS when
// there is nobody any more.
func TestListener(t *testing.T) {
	needsRoot(t)
	serve := func(l *Listener, answer func(*Call)) <-chan error {
		done := make(chan error, 1)
		go func() { done <- l.Serve(answer) }()
		return done
	}
	t.Run("answer", func(t *testing.T) {
		over := make(chan (<-chan error), 1)
		_, out := listened(t, func(f *os.File) error {
			l, err := NewListener(f, nil)
			if err == nil {
				t.Cleanup(l.Close)
				over <- serve(l, release)
			}
			return err
		}, "uname", "-r")
		if b, _ := io.ReadAll(out); string(b) != "2.4.1-uname\n" {
			t.Errorf("uname -r: %q", b)
		}
		if err := <-<-over; err != nil { // nobody is there any more
			t.Error(err)
		}
	})
	t.Run("death", func(t *testing.T) {
		asked, die := make(chan *Listener, 1), make(chan struct{})
		var first <-chan error
		var second *Listener
		_, out := listened(t, func(f *os.File) error {
			l, err := NewListener(f, nil)
			if err != nil {
				return err
			}
			t.Cleanup(l.Close)
			first = serve(l, func(c *Call) {
				asked <- l
				<-die
				c.answered = true // it never will
			})
			return nil
		}, "uname", "-r")
		l := <-asked
		file, memo := l.Files()
		fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		memoFD, err := unix.FcntlInt(memo.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if second, err = NewListener(os.NewFile(uintptr(fd), "listener"), os.NewFile(uintptr(memoFD), "memo")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(second.Close)
		done := serve(second, release)
		out.SetReadDeadline(time.Now().Add(20 * time.Second))
		if b, err := io.ReadAll(out); err != nil {
			close(die)
			t.Fatalf("what the dead one was asked nobody has answered: %v", err)
		} else if string(b) != "2.4.1-uname\n" {
			t.Errorf("uname -r: %q", b)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		close(die)
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		_, out := listened(t, func(f *os.File) error { return f.Close() }, "uname", "-r")
		if b, _ := io.ReadAll(out); !strings.Contains(strings.ToLower(string(b)), unix.ENOSYS.Error()) {
			t.Errorf("uname -r: %q", b)
		}
	})
}

// A call that is answered here is to take about 10 microseconds.
func BenchmarkListener(b *testing.B) {
	needsRoot(b)
	_, out := listened(b, func(f *os.File) error {
		l, err := NewListener(f, nil)
		if err == nil {
			go func() { l.Serve(release); l.Close() }()
		}
		return err
	}, "/proc/self/fd/0")
	text, _ := io.ReadAll(out)
	b.Log(string(text))
}
