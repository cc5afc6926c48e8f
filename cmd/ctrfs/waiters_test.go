package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ctrfs/fs/styx"
)

// A crowd is a server with many reads of wait that block, each on a file of its own, on one connection.
type crowd struct {
	t       testing.TB
	d       *daemon
	conn    net.Conn
	in      *styx.Reader
	running []io.Closer // what ends the processes
	pids    []int
	n       int
}

func newCrowd(t testing.TB, processes int) *crowd {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sock")
	c := &crowd{t: t, d: launch(t, "listening", role(t, "ctrfs", "-a", "unix!"+path))}
	for range processes {
		cmd := exec.Command("cat")
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); cmd.Wait() })
		c.running, c.pids = append(c.running, in), append(c.pids, cmd.Process.Pid)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.begin(conn, 8192, uint32(os.Geteuid()))
	return c
}

// begin begins the conversation, as a user.
func (c *crowd) begin(conn net.Conn, msize, uid uint32) {
	c.t.Cleanup(func() { conn.Close() })
	c.conn, c.in = conn, styx.NewReader(conn)
	c.in.SetMsize(msize)
	c.ask(styx.Plain, &styx.Msg{Type: styx.Tversion, Tag: styx.NoTag, Msize: msize, Version: styx.VersionLinux})
	c.ask(styx.Linux, &styx.Msg{Type: styx.Tattach, Afid: styx.NoFid, NUname: uid})
}

// ask sends requests and awaits as many replies.
func (c *crowd) ask(d styx.Dialect, msgs ...*styx.Msg) {
	c.t.Helper()
	c.send(d, msgs...)
	for range msgs {
		if m := c.reply(); m.Type == styx.Rlerror {
			c.t.Fatal(m)
		}
	}
}

func (c *crowd) send(d styx.Dialect, msgs ...*styx.Msg) {
	c.t.Helper()
	var b []byte
	var err error
	for _, m := range msgs {
		if b, err = m.Append(b, d); err != nil {
			c.t.Fatal(err)
		}
	}
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *crowd) reply() *styx.Msg {
	c.t.Helper()
	b, err := c.in.Next()
	m := new(styx.Msg)
	if err == nil {
		err = styx.Parse(b, styx.Linux, m)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// wait makes more reads block, until there are n.
func (c *crowd) wait(n int) {
	c.t.Helper()
	for c.n < n {
		var walks, opens, reads []*styx.Msg
		for ; c.n < n && len(walks) < 100; c.n++ {
			fid, tag := styx.Fid(c.n+1), styx.Tag(c.n)
			names := []string{"proc", strconv.Itoa(c.pids[c.n%len(c.pids)]), "wait"}
			walks = append(walks, &styx.Msg{Type: styx.Twalk, Tag: tag, Newfid: fid, Names: names})
			opens = append(opens, &styx.Msg{Type: styx.Tlopen, Tag: tag, Fid: fid})
			reads = append(reads, &styx.Msg{Type: styx.Tread, Tag: tag, Fid: fid, Count: 100})
		}
		c.ask(styx.Linux, walks...)
		c.ask(styx.Linux, opens...)
		c.send(styx.Linux, reads...)
	}
	c.ask(styx.Linux, &styx.Msg{Type: styx.Tgetattr, Tag: styx.Tag(c.n)}) // behind them
}

// end ends the processes and gives the time until the last read was answered.
func (c *crowd) end() time.Duration {
	c.t.Helper()
	start := time.Now()
	for _, p := range c.running {
		p.Close()
	}
	for range c.n {
		m := c.reply()
		pid := c.pids[int(m.Tag)%len(c.pids)]
		if m.Type != styx.Rread || !strings.HasPrefix(string(m.Data), fmt.Sprint(pid, " ")) || !strings.HasSuffix(string(m.Data), " ''\n") {
			c.t.Fatalf("%s %q", m, m.Data)
		}
	}
	return time.Since(start)
}

// idle says how often the server's threads went to sleep and how long they ran while nothing happened for d.
func (c *crowd) idle(d time.Duration) (sleeps int, ran time.Duration) {
	c.t.Helper()
	count := func() (sleeps int, ran time.Duration) {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", c.d.Process.Pid))
		if err != nil || len(tasks) == 0 {
			c.t.Fatal("no server")
		}
		for _, task := range tasks {
			text, err := os.ReadFile(task + "/status")
			if err != nil {
				continue // a thread that has ended
			}
			_, rest, _ := strings.Cut(string(text), "\nvoluntary_ctxt_switches:")
			n, ns := 0, 0
			fmt.Sscan(rest, &n)
			text, _ = os.ReadFile(task + "/schedstat")
			fmt.Sscan(string(text), &ns)
			sleeps, ran = sleeps+n, ran+time.Duration(ns)
		}
		return sleeps, ran
	}
	before, ranBefore := count()
	if err := exec.Command("sleep", fmt.Sprint(d.Seconds())).Run(); err != nil {
		c.t.Fatal(err)
	}
	after, ranAfter := count()
	return after - before, ranAfter - ranBefore
}

func (c *crowd) memory() int {
	c.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.d.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}
	kb := 0
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	fmt.Sscan(rest, &kb)
	return kb << 10
}

// 10,000 who wait, for one process or for some, cost no more time than one while nothing happens, because nothing is asked
// again and again; and all are answered at the end.
func TestWaiters(t *testing.T) {
	for _, processes := range []int{1, 10} {
		c := newCrowd(t, processes)
		c.wait(1)
		one := c.memory()
		c.wait(10000)
		sleeps := 0
		for range 20 { // what came before takes its time, the collection of garbage too
			if sleeps, _ = c.idle(200 * time.Millisecond); sleeps < 50 {
				break
			}
		}
		if sleeps >= 50 {
			t.Errorf("threads of the server sleep %d times in 0.2 s though nothing happens", sleeps)
		}
		size := (c.memory() - one) / 10000
		t.Logf("%d processes: %d bytes for each who waits; the last is answered after %v", processes, size, c.end())
		c.d.Process.Kill()
	}
}

// BenchmarkWaiters says what those who wait cost: bytes each, and what share of a processor while nothing happens, beside one.
func BenchmarkWaiters(b *testing.B) {
	for b.Loop() {
		c := newCrowd(b, 10)
		c.wait(1)
		c.idle(time.Second)
		_, one := c.idle(2 * time.Second)
		before := c.memory()
		c.wait(10000)
		c.idle(2 * time.Second)
		_, all := c.idle(2 * time.Second)
		b.ReportMetric(float64(c.memory()-before)/10000, "bytes/waiter")
		b.ReportMetric(float64(one.Microseconds())/2, "µs/s-idle-1")
		b.ReportMetric(float64(all.Microseconds())/2, "µs/s-idle-10000")
		b.ReportMetric(float64(c.end().Milliseconds()), "ms-to-all")
		c.d.Process.Kill()
	}
	b.ReportMetric(0, "ns/op")
}
