package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ctrfs/fs/styx"

	"github.com/moby/sys/mountinfo"
	spec "github.com/opencontainers/runtime-spec/specs-go"
)

// A line is a conversation in 9P2000.L of messages written as text, for a client that costs nothing.
type line struct {
	net.Conn
	t   testing.TB
	buf []byte
}

func dialLine(t testing.TB, sock string) *line {
	c, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	l := &line{c, t, make([]byte, 64<<10)}
	l.say("Tversion msize 65536 version 9P2000.L", "Tattach tag 1 fid 0 afid ~0 uname root aname / nuname 0")
	return l
}

// say sends each message when the one before is answered, and gives the last answer. An error ends the test.
func (l *line) say(msgs ...string) *styx.Msg {
	var r styx.Msg
	for _, text := range msgs {
		m, err := styx.ParseText(text)
		if err != nil {
			l.t.Fatal(text, err)
		}
		frame, err := m.Append(nil, styx.Linux)
		if err == nil {
			_, err = l.Write(frame)
		}
		if err == nil {
			_, err = io.ReadFull(l, l.buf[:4])
		}
		if err != nil {
			l.t.Fatal(text, err)
		}
		n := binary.LittleEndian.Uint32(l.buf)
		if _, err := io.ReadFull(l, l.buf[4:n]); err != nil {
			l.t.Fatal(text, err)
		}
		if err := styx.Parse(l.buf[:n], styx.Linux, &r); err != nil || r.Type == styx.Rlerror {
			l.t.Fatalf("%s: %v, %v", text, &r, err)
		}
	}
	return &r
}

// A contender makes a container, runs /bin/true in it, waits for it and removes it.
type contender struct {
	name string
	run  func()
	took []time.Duration
}

// BenchmarkContainer is a container from its making to its removal: through 9P, and by whatever else is installed, beside
// testdata/bare.c of ns, a clone+exec+wait in C with the same name spaces and nothing more, and with a cgroup made, entered and
// removed. They take turns; x-bare and x-bare-cgroup are the medians of the ratios of neighbouring turns.
func BenchmarkContainer(b *testing.B) {
	if os.Geteuid() != 0 {
		lacking(b, "needs root: name spaces and cgroups")
	}
	top := b.TempDir()
	bare := filepath.Join(top, "bare")
	if out, err := exec.Command("gcc", "-O2", "-o", bare, "../../ns/testdata/bare.c").CombinedOutput(); err != nil {
		lacking(b, fmt.Sprintf("needs gcc: %v\n%s", err, out))
	}
	sock := filepath.Join(top, "sock")
	server := role(b, "ctrfs", "-a", "unix!"+sock)
	launch(b, "listening", server)
	l := dialLine(b, sock)
	defer l.Close()
	ours := contender{name: "ctrfs", run: func() { l.live("b") }}
	l.say("Twalk tag 1 fid 0 newfid 1 names ctr")
	all := []*contender{&ours}
	all = append(all, others(b, top)...)
	var group []string
	if mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2")); err == nil && len(mounts) > 0 {
		group = []string{filepath.Join(mounts[0].Mountpoint, fmt.Sprint("ctrfs-bare-", os.Getpid()))}
	}
	each := func(group ...string) time.Duration {
		out, err := exec.Command(bare, append([]string{"5", "/bin/true"}, group...)...).Output()
		n, e := strconv.Atoi(strings.TrimSpace(string(out)))
		if err != nil || e != nil {
			b.Fatal(err, e)
		}
		return time.Duration(n)
	}
	ratios := map[string][]float64{}
	var limit, limitGroup []time.Duration
	for b.Loop() {
		for _, c := range all {
			base := each()
			limit = append(limit, base)
			rounds := 1
			if c == &ours {
				rounds = 5
			}
			start := time.Now()
			for range rounds {
				c.run()
			}
			d := time.Since(start) / time.Duration(rounds)
			c.took = append(c.took, d)
			ratios["x-bare-"+c.name] = append(ratios["x-bare-"+c.name], float64(d)/float64(base))
			if c == &ours && group != nil {
				base = each(group...)
				limitGroup = append(limitGroup, base)
				ratios["x-bare-cgroup-ctrfs"] = append(ratios["x-bare-cgroup-ctrfs"], float64(d)/float64(base))
			}
		}
	}
	spread := func(name string, d []time.Duration) {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/2].Microseconds()), "µs-"+name)
		b.ReportMetric(float64(d[len(d)/10].Microseconds()), "µs-p10-"+name)
		b.ReportMetric(float64(d[len(d)*9/10].Microseconds()), "µs-p90-"+name)
	}
	spread("bare", limit)
	if group != nil {
		spread("bare-cgroup", limitGroup)
	}
	for _, c := range all {
		spread(c.name, c.took)
	}
	for what, r := range ratios {
		slices.Sort(r)
		b.ReportMetric(r[len(r)/2], what)
	}
}

// others are the peers that are installed.
func others(b *testing.B, top string) (list []*contender) {
	command := func(name string, args ...string) {
		if _, err := exec.LookPath(args[0]); err != nil {
			b.Logf("without %s, which is not installed", name)
			return
		}
		run := func() error {
			out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}
		if err := run(); err != nil {
			b.Logf("without %s: %v", name, err)
			return
		}
		list = append(list, &contender{name: name, run: func() {
			if err := run(); err != nil {
				b.Fatal(name, err)
			}
		}})
	}
	bundle := filepath.Join(top, "bundle")
	root := filepath.Join(bundle, "root")
	for _, d := range []string{"bin", "proc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0755); err != nil {
			b.Fatal(err)
		}
	}
	if out, err := exec.Command("sh", "-c", "cp \"$(command -v busybox)\" "+root+"/bin/true").CombinedOutput(); err != nil {
		b.Logf("without runc and crun: needs busybox: %s", out)
	} else {
		c := spec.Spec{Version: "1.0.2", Root: &spec.Root{Path: "root"}, Hostname: "b",
			Process: &spec.Process{Args: []string{"/bin/true"}, Cwd: "/"},
			Mounts:  []spec.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
			Linux:   &spec.Linux{}}
		for _, kind := range []spec.LinuxNamespaceType{"mount", "pid", "uts", "ipc", "network"} {
			c.Linux.Namespaces = append(c.Linux.Namespaces, spec.LinuxNamespace{Type: kind})
		}
		text, err := json.Marshal(c)
		if err == nil {
			err = os.WriteFile(filepath.Join(bundle, "config.json"), text, 0644)
		}
		if err != nil {
			b.Fatal(err)
		}
		command("runc", "runc", "run", "-b", bundle, "ctrfs-bench")
		command("crun", "crun", "--cgroup-manager=disabled", "run", "-b", bundle, "ctrfs-bench")
	}
	command("bwrap", "bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/bin/true")
	return list
}
