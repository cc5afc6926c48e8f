package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A host is a server, its keeper and their holder, of which a benchmark is the client.
type host struct {
	testing.TB
	pids []int
	sock string
}

// serveFor starts a server that ends with the benchmark, however long that takes.
func serveFor(b testing.TB) *host {
	if os.Geteuid() != 0 {
		lacking(b, "needs root: name spaces and cgroups")
	}
	h := &host{TB: b, sock: filepath.Join(b.TempDir(), "sock")}
	cmd := exec.Command("/proc/self/exe", "-a", "unix!"+h.sock)
	cmd.Env = append(os.Environ(), "CTRFS_TEST_ROLE=ctrfs")
	launch(b, "listening", cmd)
	h.pids = append(h.pids, cmd.Process.Pid)
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, task := range tasks {
		children, err := os.ReadFile(task)
		if err != nil {
			b.Fatal(err)
		}
		for word := range strings.FieldsSeq(string(children)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				b.Fatal(err)
			}
			h.pids = append(h.pids, pid)
		}
	}
	if len(h.pids) < 2 {
		b.Fatal("a keeper without a server")
	}
	return h
}

// rss is what they have in memory, in kB.
func (h *host) rss() (kB int) {
	for _, pid := range h.pids {
		kB += h.field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
	}
	return kB
}

// kernel is what the kernel has in memory for itself, in kB, whoever needs it.
func (h *host) kernel() (kB int) {
	for _, key := range []string{"Slab", "KernelStack", "PageTables", "Percpu"} {
		kB += h.field("/proc/meminfo", key)
	}
	return kB
}

func (h *host) field(file, key string) (n int) {
	text, err := os.ReadFile(file)
	if err != nil {
		h.Fatal(err)
	}
	_, rest, _ := strings.Cut("\n"+string(text), "\n"+key+":")
	fmt.Sscan(rest, &n)
	return n
}

// descriptors is how many they have open when what they are about to close is closed, or there are no more than most.
func (h *host) descriptors(most int) (n int) {
	h.Helper()
	for range 500 {
		if n = h.open(); n <= most {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	return n
}

// open is how many they have open.
func (h *host) open() (n int) {
	for _, pid := range h.pids {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			h.Fatal(err)
		}
		n += len(list)
	}
	return n
}

// echo writes to the ctl of a container, with fid 1 at /ctr.
func (l *line) echo(name, text string) {
	l.say("Twalk tag 1 fid 1 newfid 2 names "+name+" ctl", "Tlopen tag 1 fid 2 flags 1",
		"Twrite tag 1 fid 2 offset 0 data '"+text+"'", "Tclunk tag 1 fid 2")
}

// live makes a container, runs /bin/true in it, waits for its end and removes it.
func (l *line) live(name string) {
	l.say("Tmkdir tag 1 fid 1 name " + name + " perm 0755 gid 0")
	l.echo(name, "exec /bin/true")
	r := l.say("Twalk tag 1 fid 1 newfid 2 names "+name+" wait", "Tlopen tag 1 fid 2 flags 0", "Tread tag 1 fid 2 offset 0 count 100")
	if !strings.HasSuffix(string(r.Data), "'' exit_code=0 reboot=none\n") {
		l.t.Fatalf("wait: %q", r.Data)
	}
	l.say("Tclunk tag 1 fid 2", "Tunlinkat tag 1 fid 1 name "+name+" flags 512")
}

// lives has so many lives lived, 8 at a time, and gives how long each took, in the order in which they ended.
func (h *host) lives(rounds int) (took []time.Duration) {
	var mu sync.Mutex // guards took and left
	left := rounds
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			l := dialLine(h, h.sock)
			defer l.Close()
			l.say("Twalk tag 1 fid 0 newfid 1 names ctr")
			for {
				mu.Lock()
				left--
				over := left < 0
				mu.Unlock()
				if over {
					return
				}
				start := time.Now()
				l.live(fmt.Sprint("c", i))
				mu.Lock()
				took = append(took, time.Since(start))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return took
}

// Starts and ends of containers, 8 at a time, leave nothing in the server and its keeper.
func TestManyLives(t *testing.T) {
	h := serveFor(t)
	n := 400
	if testing.Short() {
		n = 80
	}
	h.lives(n)
	rss, descriptors := h.rss(), h.open()
	h.lives(n)
	if d := h.descriptors(descriptors); d > descriptors {
		t.Errorf("%d descriptors, %d before", d, descriptors)
	}
	if now := h.rss(); now > rss+n*8+8192 { // Go's heap and stacks come and go
		t.Errorf("%d kB, %d before", now, rss)
	}
}

// BenchmarkLives is 10,000 lives: x-last is how long the last 1,000 take over the first, and kB what server and keeper have more after
// the last than after the first 1,000.
func BenchmarkLives(b *testing.B) {
	for b.Loop() {
		h := serveFor(b)
		first := h.lives(1000)
		rss, descriptors := h.rss(), h.open()
		last := h.lives(9000)[8000:]
		median := func(d []time.Duration) float64 {
			slices.Sort(d)
			return float64(d[len(d)/2])
		}
		b.ReportMetric(median(first)/1e3, "µs-first")
		b.ReportMetric(median(last)/1e3, "µs-last")
		b.ReportMetric(median(last)/median(first), "x-last")
		b.ReportMetric(float64(h.rss()-rss), "kB")
		b.ReportMetric(float64(h.descriptors(descriptors)-descriptors), "descriptors")
	}
}

// BenchmarkThousand is 1,000 containers at once: what each takes in server and keeper, and in the kernel with its name spaces, cgroup and
// processes; how long the list takes for each that is in it, and a look-up, with 1,000 over with 100.
func BenchmarkThousand(b *testing.B) {
	for b.Loop() {
		h := serveFor(b)
		l := dialLine(h, h.sock)
		l.say("Twalk tag 1 fid 0 newfid 1 names ctr")
		made := 0
		upTo := func(n int) {
			for ; made < n; made++ {
				l.say(fmt.Sprintf("Tmkdir tag 1 fid 1 name c%d perm 0755 gid 0", made))
				l.echo(fmt.Sprint("c", made), "exec /bin/sleep 1000")
			}
		}
		median := func(do func()) time.Duration {
			took := make([]time.Duration, 300)
			for i := range took {
				start := time.Now()
				do()
				took[i] = time.Since(start)
			}
			slices.Sort(took)
			return took[len(took)/2]
		}
		list := func() {
			l.say("Twalk tag 1 fid 1 newfid 2", "Tlopen tag 1 fid 2 flags 65536", "Treaddir tag 1 fid 2 offset 0 count 60000", "Tclunk tag 1 fid 2")
		}
		look := func() { l.say("Twalk tag 1 fid 1 newfid 2 names c50", "Tclunk tag 1 fid 2") }
		upTo(100)
		rss, kernel := h.rss(), h.kernel()
		list100, look100 := median(list), median(look)
		upTo(1000)
		b.ReportMetric(float64(h.rss()-rss)/900, "kB/ctr")
		b.ReportMetric(float64(h.kernel()-kernel)/900, "kB-kernel/ctr")
		list1000, look1000 := median(list), median(look)
		b.ReportMetric(float64(list1000.Nanoseconds())/1e3, "µs-list")
		b.ReportMetric(float64(list1000)/float64(list100)/10, "x-list")
		b.ReportMetric(float64(look1000)/float64(look100), "x-look")
		for i := range made {
			l.echo(fmt.Sprint("c", i), "kill")
		}
		for i := range made {
			l.say(fmt.Sprintf("Twalk tag 1 fid 1 newfid 2 names c%d wait", i), "Tlopen tag 1 fid 2 flags 0", "Tread tag 1 fid 2 offset 0 count 100",
				"Tclunk tag 1 fid 2", fmt.Sprintf("Tunlinkat tag 1 fid 1 name c%d flags 512", i))
		}
		l.Close()
	}
}
