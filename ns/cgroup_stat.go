package ns

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A Number is something that is counted of a group, under the name that version 2 has for it: memory.current, or, of a line
// of a file, cpu.stat's usage_usec as cpu.usage_usec; io.stat's rbytes of device 8:0 as io.8:0.rbytes. Bytes and
// microseconds, as there.
type Number struct {
	Name  string
	Value uint64
}

// A counter says where a number is: in which file, after which key of its lines, "" for a file that has nothing else. Version
// 2 counts the time of every group, with or without the controller.
type counter struct {
	name        string
	file, key   string
	file1, key1 string // the same of version 1; "" where it has none
}

var counters = []counter{
	{"cpu.usage_usec", "cpu.stat", "usage_usec", "", ""},
	{"cpu.user_usec", "cpu.stat", "user_usec", "", ""},
	{"cpu.system_usec", "cpu.stat", "system_usec", "", ""},
	{"cpu.nr_periods", "cpu.stat", "nr_periods", "cpu.stat", "nr_periods"},
	{"cpu.nr_throttled", "cpu.stat", "nr_throttled", "cpu.stat", "nr_throttled"},
	{"cpu.throttled_usec", "cpu.stat", "throttled_usec", "cpu.stat", "throttled_time"},
	{"memory.current", "memory.current", "", "memory.usage_in_bytes", ""},
	{"memory.peak", "memory.peak", "", "memory.max_usage_in_bytes", ""},
	{"memory.anon", "memory.stat", "anon", "memory.stat", "total_rss"},
	{"memory.file", "memory.stat", "file", "memory.stat", "total_cache"},
	{"memory.shmem", "memory.stat", "shmem", "memory.stat", "total_shmem"},
	{"memory.kernel", "memory.stat", "kernel", "memory.kmem.usage_in_bytes", ""},
	{"memory.pgfault", "memory.stat", "pgfault", "memory.stat", "total_pgfault"},
	{"memory.pgmajfault", "memory.stat", "pgmajfault", "memory.stat", "total_pgmajfault"},
	{"memory.swap.current", "memory.swap.current", "", "memory.stat", "total_swap"},
	{"memory.events.max", "memory.events", "max", "memory.failcnt", ""},
	{"memory.events.oom_kill", "memory.events", "oom_kill", "memory.oom_control", "oom_kill"},
	{"pids.current", "pids.current", "", "pids.current", ""},
	{"pids.peak", "pids.peak", "", "pids.peak", ""},
	{"pids.events.max", "pids.events", "max", "pids.events", "max"},
}

// Numbers gives what is counted of the group now. What is not accounted is left out.
func (g *Group) Numbers() (list []Number) {
	texts := map[string]string{} // each file is read once
	value := func(dir *os.File, file, key string) (uint64, bool) {
		if dir == nil || file == "" {
			return 0, false
		}
		name := filepath.Join(dir.Name(), file)
		text, ok := texts[name]
		if !ok {
			text, _ = read(dir, file) // one that is not there counts nothing
			texts[name] = text
		}
		if key != "" {
			text = keyValue(text, key)
		}
		n, err := strconv.ParseUint(text, 10, 64)
		return n, err == nil
	}
	for _, c := range counters {
		if g.cgroups.v2 != nil {
			if n, ok := value(g.dir, c.file, c.key); ok {
				list = append(list, Number{c.name, n})
				continue
			}
		}
		controller, _, _ := strings.Cut(c.name, ".")
		if n, ok := value(g.in(controller), c.file1, c.key1); ok {
			if c.key1 == "throttled_time" { // in nanoseconds
				n /= 1000
			}
			list = append(list, Number{c.name, n})
		}
	}
	list = append(list, g.ioNumbers()...)
	if g.cgroups.v2 != nil {
		for _, of := range []string{"cpu", "memory", "io"} {
			list = append(list, g.pressure(of)...)
		}
	}
	return list
}

// ioNumbers are of each device. See io.stat in cgroup-v2.rst, and blkio-controller.rst.
func (g *Group) ioNumbers() (list []Number) {
	put := func(device, key, value string) {
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			list = append(list, Number{"io." + device + "." + key, n})
		}
	}
	text, err := read(g.dir, "io.stat")
	if err == nil {
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			for _, setting := range f[min(1, len(f)):] {
				key, value, _ := strings.Cut(setting, "=")
				put(f[0], key, value)
			}
		}
	}
	if dir := g.in("io"); dir != nil {
		for _, of := range []struct{ file, unit string }{
			{"blkio.throttle.io_service_bytes_recursive", "bytes"}, {"blkio.throttle.io_serviced_recursive", "ios"},
		} {
			text, _ := read(dir, of.file)
			for line := range strings.Lines(text) {
				if f := strings.Fields(line); len(f) == 3 && (f[1] == "Read" || f[1] == "Write" || f[1] == "Discard") {
					put(f[0], strings.ToLower(f[1][:1])+of.unit, f[2])
				}
			}
		}
	}
	return list
}

// pressure is how long, in microseconds, some or all processes of the group waited for something. See psi.rst.
func (g *Group) pressure(of string) (list []Number) {
	text, err := read(g.dir, of+".pressure")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		total, ok := strings.CutPrefix(f[len(f)-1], "total=")
		if n, err := strconv.ParseUint(total, 10, 64); ok && err == nil {
			list = append(list, Number{of + ".pressure." + f[0] + "_usec", n})
		}
	}
	return list
}

// Threads gives the numbers of the threads of all processes in the group and below it.
func (g *Group) Threads() (all []int, err error) {
	file := "cgroup.threads"
	if g.cgroups.v2 == nil {
		file = "tasks"
	}
	err = walk(g.dir, func(dir *os.File) error {
		tids, err := pidsIn(dir, file)
		all = append(all, tids...)
		return err
	})
	return all, err
}

// ThreadState is the state of a thread as /proc/PID/stat has it, 0 if it has ended.
func ThreadState(tid int) byte {
	text, err := readFile(fmt.Sprintf("/proc/%d/stat", tid), maxText)
	if err != nil {
		return 0
	}
	st, err := parseStat(text)
	if err != nil {
		return 0
	}
	return st.State
}
