package ctr

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ctrfs/fs"
)

// table reads a file of `key value` lines: the keys in their order, and the values that are numbers.
func (s *session) table(file string) (keys []string, values map[string]int) {
	s.T.Helper()
	values = map[string]int{}
	for line := range strings.Lines(s.Read(file)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.Atoi(value)
		if err != nil {
			s.T.Errorf("%s: not a number: %q", file, line)
		}
		keys = append(keys, key)
		values[key] = n
	}
	return keys, values
}

var statKeys = []string{"usecnt", "tasks", "nr_threads", "nr_running", "nr_unintr", "nr_onhold", "nr_forks", "load[0]", "load[1]", "load[2]", "offset", "uptime"}

// The twelve values of vx_stat, of a container whose load and whose forks are known.
func TestStat(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	s.Mkdir("l")
	keys, now := s.table("l/stat")
	if !slices.Equal(keys, statKeys) || now["tasks"] != 0 || now["nr_forks"] != 0 || now["uptime"] <= 0 {
		t.Errorf("of a new one: %v", now)
	}
	const forks = 20
	s.Write("l/ctl", `exec /bin/sh -c 'exec 3<&0; i=0; while [ $i -lt 20 ]; do /bin/true; i=$((i+1)); done; while :; do :; done & { echo up; read x; } <&3 & while :; do :; done'`)
	out, err := s.Open("l/stdout", fs.Read)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := out.Read(s.Ctx, 0, 10); string(b) != "up\n" {
		t.Fatalf("%q, %v", b, err)
	}
	out.Close(s.Ctx)
	c := s.set.names["l"]
	for n := (count{}); n.running != 2; { // the one that reads has to come to it
		if n, err = c.run.count(); err != nil || s.Ctx.Err() != nil {
			t.Fatal(n, err)
		}
	}
	// In another time than the sampler's, which comes when it comes.
	later := time.Now().Add(time.Hour)
	c.mu.Lock()
	c.load = load{last: later}
	c.mu.Unlock()
	for i := range 3 {
		if _, err := c.look(later.Add(time.Duration(i+1) * loadTime)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.look(later.Add(3*loadTime + time.Second)); err != nil { // too soon
		t.Fatal(err)
	}
	keys, now = s.table("l/stat")
	if !slices.Equal(keys, statKeys) {
		t.Errorf("keys %q", keys)
	}
	for i, span := range []float64{60, 300, 900} {
		want := 2 * 2048 * (1 - math.Pow(1-5/span, 3))
		if got := now[statKeys[7+i]]; math.Abs(float64(got)-want) > 3 {
			t.Errorf("load[%d] of two that run is %d, want %.0f", i, got, want)
		}
	}
	for key, want := range map[string]int{"usecnt": 4, "tasks": 3, "nr_threads": 3, "nr_running": 2, "nr_unintr": 0, "nr_onhold": 0, "nr_forks": forks + 2, "offset": 0} {
		if now[key] != want {
			t.Errorf("%s %d, want %d", key, now[key], want)
		}
	}
	s.Write("l/ctl", "pause")
	if _, now = s.table("l/stat"); now["nr_onhold"] != 3 || now["nr_running"] != 0 {
		t.Errorf("paused: %v", now)
	}
	s.Write("l/ctl", "kill")
	s.Read("l/wait")
	if keys, now = s.table("l/stat"); !slices.Equal(keys, statKeys) || now["tasks"] != 0 || now["nr_forks"] != forks+2 {
		t.Errorf("stopped: %v", now)
	}
	s.Rmdir("l")
	check()
}

// A load goes on from what it was, whenever it is looked at.
func TestLoad(t *testing.T) {
	var l load
	begin := time.Now()
	l.last = begin
	l.add(1000, begin.Add(time.Second))
	if want := uint64(1000 * loadOne / 60); l.mean[0] != want {
		t.Errorf("after a second of 1,000: %d, want %d", l.mean[0], want)
	}
	l.add(1<<22, begin.Add(time.Hour)) // as many as Linux can have
	for i, mean := range l.mean {
		if mean != 1<<22*loadOne {
			t.Errorf("load[%d] after an hour: %d", i, mean)
		}
	}
	l.add(0, begin.Add(time.Hour+30*time.Second))
	if l.mean[0] != 1<<21*loadOne {
		t.Errorf("half a minute of nothing: %d", l.mean[0])
	}
}

// What is accounted is told, under version 2's names, and nothing else.
func TestStats(t *testing.T) {
	s := newSession(t)
	s.Mkdir("l")
	if _, err := s.Cat("l/stats"); err == nil || err.Error() != "container is not running" {
		t.Errorf("of a new one: %v", err)
	}
	s.Write("l/ctl", "exec /bin/sh -c 'sleep 1000 & echo up; wait'")
	out, err := s.Open("l/stdout", fs.Read)
	if err != nil {
		t.Fatal(err)
	}
	out.Read(s.Ctx, 0, 10)
	out.Close(s.Ctx)
	_, now := s.table("l/stats")
	if now["processes"] != 2 || now["threads"] != 2 || now["rss"] < 4096 {
		t.Errorf("%v", now)
	}
	for _, key := range []string{"cpu.usage_usec", "net.lo.rx_bytes", "net.lo.tx_dropped"} {
		if _, ok := now[key]; !ok {
			t.Errorf("no %s", key)
		}
	}
	s.Write("l/limits", "memory.max 64M")
	s.Write("l/limits", "pids.max 10")
	s.Say(s.clone("l"), "label x\nexec dd if=/dev/zero of=/root/x bs=1M count=4")
	s.Read("l/proc/x/wait")
	_, now = s.table("l/stats")
	for key, least := range map[string]int{"memory.current": 4 << 20, "memory.peak": 4 << 20, "memory.shmem": 4 << 20, "memory.file": 4 << 20, "pids.current": 2, "memory.anon": 0, "memory.events.oom_kill": 0} {
		if n, ok := now[key]; !ok || n < least {
			t.Errorf("%s %d, %v", key, n, ok)
		}
	}
	if now["memory.current"] > 64<<20 {
		t.Errorf("more memory than there may be: %d", now["memory.current"])
	}
	s.Write("l/ctl", "kill")
	s.Read("l/wait")
	s.Rmdir("l")
}
