package ns

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// running starts a container whose first process waits.
func running(t testing.TB, s Spec) *Parked {
	t.Helper()
	p, err := Create(withTimeout(t), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.End() })
	if err := p.Exec(withTimeout(t), []string{"sleep", "1000"}, []string{"PATH=/bin"}); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEnter(t *testing.T) {
	eachCtr(t, func(t *testing.T, s Spec) {
		s.NoNewPrivs = true
		s.Filter = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
		first := running(t, s)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		s.Stdio[1], s.Stdio[2] = w, w
		uid, dac := "33", "ls: cannot open directory '/root': Permission denied\n"
		s.User = Cred{Uid: 33, Gid: 33}
		if os.Geteuid() != 0 { // nobody is there but root
			uid, dac = "0", ""
			s.User = Cred{}
		}
		s.Cwd = "/usr"
		p, err := Enter(withTimeout(t), first.Pidfd, s)
		if err != nil {
			t.Fatal(err)
		}
		defer p.End()
		w.Close()
		for _, kind := range []string{"mnt", "pid", "uts", "ipc", "net", "cgroup", "user", "pid_for_children"} {
			want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", first.Pid, kind))
			got, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.Pid, kind))
			if err != nil || err2 != nil || got != want {
				t.Errorf("%s namespace %s, %v; want %s, %v", kind, got, err2, want, err)
			}
		}
		fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid))
		if len(fds) != 4 {
			t.Errorf("descriptors %v", fds)
		}
		if err := p.Exec(withTimeout(t), []string{"nonesuch"}, []string{"PATH=/bin"}); err == nil {
			t.Error("exec nonesuch: no error")
		}
		script := `hostname; id -u; pwd; ls -d /proc/1; ls -A /root 2>&1; grep -E 'CapEff|CapBnd|CapInh|NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\t'; exit 6`
		if err := p.Exec(withTimeout(t), []string{"sh", "-c", script}, []string{"PATH=/bin"}); err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r)
		caps := "0000000000000000"
		if uid == "0" {
			caps = "00000000a80425fb"
		}
		want := "web\n" + uid + "\n/usr\n/proc/1\n" + dac + "CapInh:0000000000000000\nCapEff:" + caps + "\nCapBnd:00000000a80425fb\nNoNewPrivs:1\nSeccomp:2\n"
		if string(b) != want {
			t.Errorf("says %q, want %q", b, want)
		}
		if ws := status(t, p); ws.ExitStatus() != 6 {
			t.Errorf("status %#x", ws)
		}
	})
}

func init() {
	// In a container: seizes whatever appears in its pid namespace, and says how many that were when it is asked at
	// descriptor 2, and at its end.
	roles["seizer"] = func() error {
		fmt.Println("ready")
		asked := make(chan bool)
		go func() {
			for b := make([]byte, 1); ; asked <- true {
				if _, err := os.Stderr.Read(b); err != nil {
					close(asked)
					return
				}
			}
		}()
		runtime.LockOSThread()
		seized := 0
		alive := map[int]bool{}
		for first := 2; ; { // the next process has one of the next numbers; threads of ours take some
			select {
			case _, ok := <-asked:
				for pid := 2; ok && pid < first+100; pid++ { // all of them, now
					if _, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0); e == 0 {
						seized++
					}
				}
				fmt.Println(seized)
				if !ok {
					return nil
				}
			default:
			}
			for pid := first; pid < first+6; pid++ {
				switch _, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0); {
				case e == 0:
					seized++
					first = pid + 1
				case e == unix.EPERM:
					alive[pid] = true
				case alive[pid]: // no more
					first = pid + 1
				}
			}
		}
	}
}

// seized counts the processes that the container's root could trace, of so many that entered.
func seized(t *testing.T, s Spec, n int, halting bool, enter func(pidfd int) (*Parked, error)) int {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	var out, in [2]*os.File
	for _, p := range []*[2]*os.File{&out, &in} {
		if p[0], p[1], err = os.Pipe(); err != nil {
			t.Fatal(err)
		}
		defer p[0].Close()
		defer p[1].Close()
	}
	s.Caps = KernelCaps()
	s.Stdio = [3]*os.File{self, out[1], in[0]}
	first, err := Create(withTimeout(t), s)
	if err != nil {
		t.Fatal(err)
	}
	defer first.End()
	if err := first.Exec(withTimeout(t), []string{"/proc/self/fd/0"}, []string{"NS_TEST_ROLE=seizer"}); err != nil {
		t.Fatal(err)
	}
	out[1].Close()
	lines := bufio.NewReader(out[0])
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	var entered []*Parked // a traced one can be waited for when its tracer has ended
	for range n {
		p, err := enter(first.Pidfd)
		if err != nil {
			t.Fatal(err)
		}
		if halting { // until the seizer has tried
			in[1].Write([]byte("x"))
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		unix.PidfdSendSignal(p.Pidfd, unix.SIGKILL, nil, 0)
		entered = append(entered, p)
	}
	in[1].Close()
	b, err := io.ReadAll(lines)
	if err != nil {
		t.Fatal(err)
	}
	first.End()
	for _, p := range entered {
		waitEnd(p.Pidfd)
		p.Close()
	}
	count, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatalf("seizer says %q", b)
	}
	return count
}

// Nobody in the container can look into a process on its way in: it still has what it brings from outside.
func TestEnterUnseen(t *testing.T) {
	needsRoot(t)
	ctx := withTimeout(t)
	s := Spec{Opt: Opt{Flags: CtrFlags | unix.CLONE_NEWUSER}, UidMap: idMap, GidMap: idMap}
	if n := seized(t, s, 500, false, func(pidfd int) (*Parked, error) { return Enter(ctx, pidfd, s) }); n != 0 {
		t.Errorf("%d of 500 were seized", n)
	}
	// The moment that counts is short: after setns, before setresuid. Here it lasts until the seizer has tried.
	halfway := func(unguarded bool) func(pidfd int) (*Parked, error) {
		return func(pidfd int) (*Parked, error) {
			o := Opt{PidNS: pidfd, unguarded: unguarded}
			p, err := o.start(ctx)
			if err != nil {
				return nil, err
			}
			plan := &Plan{}
			plan.begin(&o)
			plan.Do("setns", unix.SYS_SETNS, plan.Send(pidfd), unix.CLONE_NEWUSER)
			return p, p.Run(ctx, plan)
		}
	}
	if n := seized(t, s, 200, true, halfway(false)); n != 0 {
		t.Errorf("%d of 200 were seized halfway", n)
	}
	if n := seized(t, s, 10, true, halfway(true)); n != 10 {
		t.Errorf("%d of 10 were seized without PR_SET_DUMPABLE: the seizer is no good", n)
	}
}
