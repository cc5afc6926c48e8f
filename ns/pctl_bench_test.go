package ns

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// BenchmarkPctl tells how long a process is stopped by a verb, in microseconds, and by testdata/tracer.c, which does the
// least, one call and no more: with the same process, in turns; its first stop, as a verb's is, and its fifth, warm. The
// time of an operation is that of the whole, with the start of both tracers.
func BenchmarkPctl(b *testing.B) {
	tracer := compileC(b, "tracer")
	for _, v := range []struct {
		name, mode string
		m          Pctl
		fresh      bool // a target for each, because the second time is another matter
	}{
		{"newfd", "read", Pctl{NewFD: true, FDs: []int{0, 1, 2, 9}}, false},
		{"forkfd", "read", Pctl{ForkFD: true}, false},
		{"newpgrp", "read", Pctl{NewPgrp: true}, true},
		{"close", "read", Pctl{Close: []int{9}}, true},
		{"uts", "read", Pctl{Unshare: []string{"uts"}}, false},
		{"net", "read", Pctl{Unshare: []string{"net"}}, false},
		{"forkns", "read", Pctl{ForkNS: true}, false},
		{"newns", "read", Pctl{NewNS: true}, true},
		{"threads-newfd", "threads", Pctl{NewFD: true, FDs: []int{0, 1, 2, 9}}, false},
		{"threads-uts", "threads", Pctl{Unshare: []string{"uts"}}, false},
	} {
		b.Run(v.name, func(b *testing.B) {
			var times, least, warm []time.Duration
			x := newTarget(b, v.mode, nil)
			b.ResetTimer()
			for i := range b.N {
				if v.fresh && i > 0 {
					b.StopTimer()
					x.in.Close()
					x.cmd.Wait()
					x = newTarget(b, v.mode, nil)
					b.StartTimer()
				}
				out, err := exec.Command(tracer, strconv.Itoa(x.p.pid), "5").Output()
				if err != nil {
					b.Fatal(err)
				}
				var d [5]time.Duration
				if _, err := fmt.Sscan(string(out), &d[0], &d[1], &d[2], &d[3], &d[4]); err != nil {
					b.Fatal(err)
				}
				least, warm = append(least, d[0]), append(warm, d[4])
				stopped, err := x.p.pctl(withTimeout(b), rootCred, v.m)
				if err != nil {
					b.Fatal(err)
				}
				times = append(times, stopped)
			}
			for who, d := range map[string][]time.Duration{"stopped": times, "c": least, "c-warm": warm} {
				slices.Sort(d)
				b.ReportMetric(float64(d[len(d)/10])/1e3, who+"-p10-µs") // of a busy machine, what it is on a quiet one
				b.ReportMetric(float64(d[len(d)/2])/1e3, who+"-p50-µs")
				b.ReportMetric(float64(d[len(d)*99/100])/1e3, who+"-p99-µs")
			}
		})
	}
}

// compileC gives the program testdata/NAME.c.
func compileC(b *testing.B, name string) string {
	prog := filepath.Join(b.TempDir(), name)
	if out, err := exec.Command("gcc", "-O2", "-o", prog, "testdata/"+name+".c").CombinedOutput(); err != nil {
		lacks(b, "needs gcc: %v\n%s", err, out)
	}
	return prog
}

// BenchmarkPctlParked does what can be compared to a parked process.
func BenchmarkPctlParked(b *testing.B) {
	for _, v := range []struct {
		name string
		m    Pctl
	}{{"newfd", Pctl{NewFD: true, FDs: []int{0, 1, 2}}}, {"uts", Pctl{Unshare: []string{"uts"}}}, {"forkns", Pctl{ForkNS: true}}} {
		b.Run(v.name, func(b *testing.B) {
			needsRoot(b)
			p := park(b, Opt{})
			for b.Loop() {
				if err := p.Pctl(withTimeout(b), v.m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
