package ns

import (
	"slices"
	"testing"
	"time"
)

// BenchmarkPctl tells how long a process is stopped by a verb, in microseconds; the time of an operation is that of
// the whole, with the start of the tracer.
func BenchmarkPctl(b *testing.B) {
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
			var times []time.Duration
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
				d, err := x.p.pctl(withTimeout(b), rootCred, v.m)
				if err != nil {
					b.Fatal(err)
				}
				times = append(times, d)
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/10])/1e3, "stopped-p10-µs") // of a busy machine, what it is on a quiet one
			b.ReportMetric(float64(times[len(times)/2])/1e3, "stopped-p50-µs")
			b.ReportMetric(float64(times[len(times)*99/100])/1e3, "stopped-p99-µs")
		})
	}
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
