package ns

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// BenchmarkExec is the start of a program by Park and Exec, and all to its end, beside testdata/spawn.c, posix_spawn in C.
// They take turns of 10, as the machine is never quiet; x-spawn is the median of the ratios of neighbouring turns.
func BenchmarkExec(b *testing.B) {
	spawn := compileC(b, "spawn")
	ctx := context.Background()
	const turn = 10
	var ours, theirs [2][]time.Duration // start, whole
	var ratio [2][]float64
	for b.Loop() {
		var d [2]time.Duration
		for range turn {
			began := time.Now()
			p, err := Park(ctx, Opt{})
			if err != nil {
				b.Fatal(err)
			}
			if err := p.Exec(ctx, []string{"/bin/true"}, nil); err != nil {
				b.Fatal(err)
			}
			d[0] += time.Since(began)
			if ws := status(b, p); ws != 0 {
				b.Fatalf("status %#x", ws)
			}
			p.Close()
			d[1] += time.Since(began)
		}
		out, err := exec.Command(spawn, fmt.Sprint(turn), "/bin/true").Output()
		if err != nil {
			b.Fatal(err)
		}
		var c [2]time.Duration
		if _, err := fmt.Sscan(string(out), &c[0], &c[1]); err != nil {
			b.Fatal(err)
		}
		for i := range d {
			ours[i], theirs[i] = append(ours[i], d[i]/turn), append(theirs[i], c[i])
			ratio[i] = append(ratio[i], float64(d[i]/turn)/float64(c[i]))
		}
	}
	for i, what := range []string{"start", "whole"} {
		for who, d := range map[string][]time.Duration{"parked": ours[i], "spawn": theirs[i]} {
			slices.Sort(d)
			b.ReportMetric(float64(d[len(d)/10])/1e3, "µs-p10-"+what+"-"+who)
			b.ReportMetric(float64(d[len(d)/2])/1e3, "µs-"+what+"-"+who)
		}
		slices.Sort(ratio[i])
		b.ReportMetric(ratio[i][len(ratio[i])/2], "x-spawn-"+what)
		b.ReportMetric(ratio[i][len(ratio[i])/10], "x-spawn-p10-"+what)
		b.ReportMetric(ratio[i][len(ratio[i])*9/10], "x-spawn-p90-"+what)
	}
}

func BenchmarkPark(b *testing.B) {
	for b.Loop() {
		p, err := Park(context.Background(), Opt{})
		if err != nil {
			b.Fatal(err)
		}
		p.End()
	}
}
