package srv

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/fsimpl/templatefs"
	"github.com/hugelgupf/p9/p9"
	"github.com/knusbaum/go9p"
	go9pfs "github.com/knusbaum/go9p/fs"
	"go.uber.org/goleak"

	"ctrfs/fs"
	"ctrfs/fs/styx"
)

// The sizes of all benchmarks: a Tread is 23 bytes, its Rread 100.
const (
	treadSize = 23
	rreadSize = 100
)

var content = strings.Repeat("x", rreadSize-headerSize-4)

// servers are the programs compared, each serving the connection it is given: one directory with the file f.
var servers = map[string]func(net.Conn){
	"echo": func(c net.Conn) { // knows nothing but the sizes: what the socket and the scheduler cost
		in, out := make([]byte, 64<<10), make([]byte, 64<<10)
		for have := 0; ; {
			n, err := c.Read(in[have:])
			if err != nil {
				return
			}
			have += n
			if _, err := c.Write(out[:have/treadSize*rreadSize]); err != nil {
				return
			}
			have %= treadSize
		}
	},
	"ctrfs": func(c net.Conn) {
		(&Server{Root: benchTree()}).Serve(context.Background(), c, asRoot)
	},
	"p9": func(c net.Conn) { p9.NewServer(p9Tree{}).Handle(c, c) },
	"go9p": func(c net.Conn) {
		tree, root := go9pfs.NewFS("glenda", "glenda", 0777)
		root.AddChild(go9pfs.NewStaticFile(tree.NewStat("f", "glenda", "glenda", 0444), []byte(content)))
		go9p.ServeReadWriter(c, c, tree.Server())
	},
}

type benchSubject struct{}

func (benchSubject) Owner() (uid, gid uint32) { return 0, 0 }
func (benchSubject) Qid() uint64              { return 256 }

func benchTree() fs.Dir {
	text := func(benchSubject, context.Context) (string, error) { return content, nil }
	return fs.Table[benchSubject]{
		fs.Text("f", 0444, text),
		fs.Answer("wait", 0444, func(_ benchSubject, ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}),
	}.Dir("/", 0555, func(context.Context) (benchSubject, error) { return benchSubject{}, nil })
}

type p9Tree struct{}

func (p9Tree) Attach() (p9.File, error) { return p9Dir{}, nil }

type p9Dir struct {
	templatefs.NoopFile
}

var p9QID = map[bool]p9.QID{true: {Type: p9.TypeDir, Path: 1}, false: {Path: 2}}

func (p9Dir) Walk(names []string) ([]p9.QID, p9.File, error) {
	if len(names) == 0 {
		return nil, p9Dir{}, nil
	}
	return []p9.QID{p9QID[false]}, &p9File{}, nil
}

func (p9Dir) GetAttr(p9.AttrMask) (p9.QID, p9.AttrMask, p9.Attr, error) {
	return p9QID[true], p9.AttrMask{Mode: true}, p9.Attr{Mode: p9.ModeDirectory | 0755}, nil
}

type p9File struct {
	templatefs.NoopFile
}

func (f *p9File) Walk(names []string) ([]p9.QID, p9.File, error) { return nil, f, nil }
func (*p9File) Open(p9.OpenFlags) (p9.QID, uint32, error)        { return p9QID[false], 0, nil }
func (*p9File) ReadAt(p []byte, off int64) (int, error) {
	return copy(p, content[min(off, int64(len(content))):]), nil
}
func (*p9File) GetAttr(p9.AttrMask) (p9.QID, p9.AttrMask, p9.Attr, error) {
	return p9QID[false], p9.AttrMask{Mode: true}, p9.Attr{Mode: p9.ModeRegular | 0444}, nil
}

// TestMain is the benchmark's server too, in the process that runs for that. In the end no goroutine may be left.
func TestMain(m *testing.M) {
	if name := os.Getenv("SRV_TEST_SERVER"); name != "" {
		c, err := net.FileConn(os.NewFile(3, "socket"))
		if err != nil {
			panic(err)
		}
		servers[name](c)
		return
	}
	goleak.VerifyTestMain(m, others...)
}

// spawn starts a server in a process of its own.
func spawn(t testing.TB, name string) *net.UnixConn {
	t.Helper()
	c, _ := start(t, name)
	return c
}

func start(t testing.TB, name string) (*net.UnixConn, *exec.Cmd) {
	t.Helper()
	a, b := socketpair(t)
	f, err := b.File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SRV_TEST_SERVER="+name)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	b.Close()
	t.Cleanup(func() { a.Close(); cmd.Process.Kill(); cmd.Wait() })
	return a, cmd
}

// A wire is a raw client: it sends bytes made beforehand and looks at the sizes of what comes only.
type wire struct {
	t     testing.TB
	c     net.Conn
	linux bool
	buf   []byte
}

func frame(t testing.TB, linux bool, format string, args ...any) []byte {
	m, err := styx.ParseText(fmt.Sprintf(format, args...))
	if err != nil {
		t.Fatal(err)
	}
	d := styx.Plain
	if linux {
		d = styx.Linux
	}
	b, err := m.Append(nil, d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *wire) frame(format string, args ...any) []byte { return frame(w.t, w.linux, format, args...) }

// call sends a message and takes its reply, which is to be of the type after it.
func (w *wire) call(req []byte) {
	if _, err := w.c.Write(req); err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for n < 4 || n < int(uint32(w.buf[0])|uint32(w.buf[1])<<8) {
		m, err := w.c.Read(w.buf[n:])
		if err != nil {
			w.t.Fatal(err)
		}
		n += m
	}
	if w.buf[4] != req[4]+1 {
		w.t.Fatalf("%x: reply %x", req, w.buf[:n])
	}
}

// newWire begins a session with fid 1 open on f.
func newWire(t testing.TB, c net.Conn, linux bool) *wire {
	w := &wire{t: t, c: c, linux: linux, buf: make([]byte, 64<<10)}
	version, open := "9P2000", "Topen fid 1 mode 0"
	if linux {
		version, open = "9P2000.L", "Tlopen fid 1 flags 0"
	}
	for _, line := range []string{
		"Tversion msize 65536 version " + version, "Tattach fid 0 uname glenda aname '' nuname ~0",
		"Twalk fid 0 newfid 1 names f", open,
	} {
		w.call(w.frame("%s", line))
	}
	return w
}

// reads keeps window reads under way until n were answered.
func (w *wire) reads(n, window int) {
	var reqs []byte
	for tag := range window {
		reqs = append(reqs, w.frame("Tread tag %d fid 1 offset 0 count 8192", tag)...)
	}
	w.pump(reqs, n, window)
}

// pump keeps window requests of treadSize under way. Only their number matters: as replies come in any order, the
// tags to use again are those that were answered.
func (w *wire) pump(reqs []byte, n, window int) {
	if _, err := w.c.Write(reqs); err != nil {
		w.t.Fatal(err)
	}
	var again []byte
	for sent, got, have := window, 0, 0; got < n; {
		m, err := w.c.Read(w.buf[have:])
		if err != nil {
			w.t.Fatal(err)
		}
		have += m
		k := have / rreadSize
		got += k
		again = again[:0]
		for i := range min(k, n-sent) {
			tag := int(w.buf[i*rreadSize+5])
			again = append(again, reqs[tag*treadSize:(tag+1)*treadSize]...)
		}
		sent += len(again) / treadSize
		have = copy(w.buf, w.buf[k*rreadSize:have])
		if len(again) > 0 {
			if _, err := w.c.Write(again); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// echoes is reads with the echo server, whose replies are zeros: each stands for tag 0.
func (w *wire) echoes(n, window int) {
	w.pump(make([]byte, treadSize*window), n, window)
}

// BenchmarkServers compares a bare socket, this server and two others with one raw client. They take turns of some
// milliseconds, and a metric is the median of the ratios of turns that followed each other, because what else the
// machine does slows both. Metrics named bare are in relation to the echo server's process, c to testdata/pingpong.c.
func BenchmarkServers(b *testing.B) {
	bare := &wire{t: b, c: spawn(b, "echo"), buf: make([]byte, 64<<10)}
	pingpong := filepath.Join(b.TempDir(), "pingpong")
	if out, err := exec.Command("gcc", "-O2", "-o", pingpong, "testdata/pingpong.c").CombinedOutput(); err != nil {
		b.Fatalf("gcc: %v\n%s", err, out)
	}
	type series struct {
		name string
		run  func(n int)
		each time.Duration
	}
	all := []*series{}
	add := func(name string, ns time.Duration, run func(n int)) { all = append(all, &series{name, run, ns}) }
	add("echo/1", 20*time.Microsecond, func(n int) { bare.echoes(n, 1) })
	add("echo/32", time.Microsecond, func(n int) { bare.echoes(n, 32) })
	for _, s := range []struct {
		name  string
		linux bool
	}{{"ctrfs", true}, {"p9", true}, {"go9p", false}} {
		w := newWire(b, spawn(b, s.name), s.linux)
		add(s.name+"/1", 20*time.Microsecond, func(n int) { w.reads(n, 1) })
		add(s.name+"/32", 2*time.Microsecond, func(n int) { w.reads(n, 32) })
		open := "Topen fid 2 mode 0"
		if s.linux {
			open = "Tlopen fid 2 flags 0"
		}
		seq := [][]byte{w.frame("Twalk fid 0 newfid 2 names f"), w.frame("%s", open), w.frame("Tread fid 2 offset 0 count 8192"), w.frame("Tclunk fid 2")}
		add(s.name+"/file", 80*time.Microsecond, func(n int) {
			for range n {
				for _, req := range seq {
					w.call(req)
				}
			}
		})
	}
	took := map[string][]float64{}
	for b.Loop() {
		for range 60 {
			for _, s := range all {
				n := int(5 * time.Millisecond / s.each)
				t := time.Now()
				s.run(n)
				took[s.name] = append(took[s.name], float64(time.Since(t).Nanoseconds())/float64(n))
			}
			for _, window := range []string{"1", "32"} {
				out, err := exec.Command(pingpong, strconv.Itoa(map[string]int{"1": 250, "32": 5000}[window]), window).Output()
				ns, e := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
				if err != nil || e != nil {
					b.Fatal(err, e)
				}
				took["c/"+window] = append(took["c/"+window], ns)
			}
		}
	}
	var log strings.Builder
	for _, name := range slices.Sorted(maps.Keys(took)) {
		l := slices.Sorted(slices.Values(took[name]))
		fmt.Fprintf(&log, "%-10s %8.0f ns, fastest tenth below %.0f\n", name, l[len(l)/2], l[len(l)/10])
	}
	ratio := func(metric, a string, times float64, of string) {
		var l []float64
		for i := range took[a] {
			l = append(l, times*took[a][i]/took[of][i])
		}
		slices.Sort(l)
		fmt.Fprintf(&log, "%-12s %.2f, half of the rounds between %.2f and %.2f\n", metric, l[len(l)/2], l[len(l)/4], l[len(l)*3/4])
		b.ReportMetric(l[len(l)/2], metric)
	}
	ratio("speed1/bare", "echo/1", 1, "ctrfs/1")
	ratio("speed1/c", "c/1", 1, "ctrfs/1")
	ratio("speed1/p9", "p9/1", 1, "ctrfs/1")
	ratio("speed1/go9p", "go9p/1", 1, "ctrfs/1")
	ratio("speed32/bare", "echo/32", 1, "ctrfs/32")
	ratio("speed32/c", "c/32", 1, "ctrfs/32")
	ratio("speed32/p9", "p9/32", 1, "ctrfs/32")
	ratio("speed32/go9p", "go9p/32", 1, "ctrfs/32")
	ratio("file/4bare", "ctrfs/file", 0.25, "echo/1")
	b.Log("\n" + log.String())
	b.ReportMetric(0, "ns/op")
}

// BenchmarkBlocked says what a read that blocks costs the server, all told, each on a fid of its own.
func BenchmarkBlocked(b *testing.B) {
	const n = 10000
	var per float64
	for b.Loop() {
		c, cmd := start(b, "ctrfs")
		w := newWire(b, c, true)
		before := rss(b, cmd.Process.Pid)
		var reqs []byte
		for i := range n {
			w.call(w.frame("Twalk fid 0 newfid %d names wait", i+10))
			w.call(w.frame("Tlopen fid %d flags 0", i+10))
			reqs = append(reqs, w.frame("Tread tag %d fid %d offset 0 count 8192", i+10, i+10)...)
		}
		if _, err := c.Write(reqs); err != nil {
			b.Fatal(err)
		}
		w.call(w.frame("Tread tag 1 fid 1 offset 0 count 8192")) // behind them all
		per = float64(rss(b, cmd.Process.Pid)-before) / n
		c.Close()
		if _, err := io.Copy(io.Discard, c); err == nil {
			b.Fatal("read from a closed connection")
		}
		cmd.Wait()
	}
	b.ReportMetric(per, "bytes/reader")
	b.ReportMetric(0, "ns/op")
}

func rss(t testing.TB, pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}
