package ns

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A start is a program from its parking on: until it runs, and until it has ended.
func start(b *testing.B, park func() (*Parked, error)) (d [2]time.Duration) {
	began := time.Now()
	p, err := park()
	if err != nil {
		b.Fatal(err)
	}
	if err := p.Exec(b.Context(), []string{"/bin/true"}, nil); err != nil {
		b.Fatal(err)
	}
	d[0] = time.Since(began)
	if ws := status(b, p); ws != 0 {
		b.Fatalf("status %#x", ws)
	}
	p.Close()
	d[1] = time.Since(began)
	return d
}

// versus measures starts beside a program in C, testdata/NAME.c, that says in ns how long one of so many took, in each of phases. They
// take turns of 10, as the machine is never quiet; x-NAME is the median of the ratios of neighbouring turns.
func versus(b *testing.B, name string, phases []string, park func() (*Parked, error), args ...string) {
	program := compileC(b, name)
	const turn = 10
	ours, theirs := make([][]time.Duration, len(phases)), make([][]time.Duration, len(phases))
	ratio := make([][]float64, len(phases))
	for b.Loop() {
		var d [2]time.Duration
		for range turn {
			one := start(b, park)
			d[0] += one[0]
			d[1] += one[1]
		}
		out, err := exec.Command(program, append([]string{fmt.Sprint(turn), "/bin/true"}, args...)...).Output()
		if err != nil {
			b.Fatal(err)
		}
		words := strings.Fields(string(out))
		for i := range phases {
			c, err := strconv.Atoi(words[i])
			if err != nil {
				b.Fatal(err)
			}
			mine := d[len(d)-len(phases)+i] / turn
			ours[i], theirs[i] = append(ours[i], mine), append(theirs[i], time.Duration(c))
			ratio[i] = append(ratio[i], float64(mine)/float64(c))
		}
	}
	for i, what := range phases {
		for who, d := range map[string][]time.Duration{"parked": ours[i], name: theirs[i]} {
			slices.Sort(d)
			b.ReportMetric(float64(d[len(d)/10])/1e3, "µs-p10-"+what+"-"+who)
			b.ReportMetric(float64(d[len(d)/2])/1e3, "µs-"+what+"-"+who)
		}
		slices.Sort(ratio[i])
		b.ReportMetric(ratio[i][len(ratio[i])/2], "x-"+name+"-"+what)
		b.ReportMetric(ratio[i][len(ratio[i])/10], "x-"+name+"-p10-"+what)
		b.ReportMetric(ratio[i][len(ratio[i])*9/10], "x-"+name+"-p90-"+what)
	}
}

// BenchmarkExec is the start of a program by Park and Exec, and all to its end, beside posix_spawn in C.
func BenchmarkExec(b *testing.B) {
	versus(b, "spawn", []string{"start", "whole"}, func() (*Parked, error) { return Park(b.Context(), Opt{}) })
}

// BenchmarkEnter is a program inside a container, from the entering to its end, beside fork, setns, fork and execve in C.
func BenchmarkEnter(b *testing.B) {
	needsRoot(b)
	groups, err := FindCgroups("ctrfs-bench")
	if err != nil {
		b.Fatal(err)
	}
	defer groups.Close()
	group, err := groups.MakeGroup("enter")
	if err != nil {
		b.Fatal(err)
	}
	s := Spec{Opt: Opt{Flags: CtrFlags, Cgroup: group}, Caps: DefaultCaps, Filter: DefaultFilter(DefaultCaps, 0)}
	first, err := Create(b.Context(), s)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		first.End()
		group.Remove(context.Background())
	}()
	if err := first.Exec(b.Context(), []string{"/bin/sleep", "1000"}, nil); err != nil {
		b.Fatal(err)
	}
	dir, err := group.Dir()
	if err != nil {
		b.Fatal(err)
	}
	versus(b, "enter", []string{"whole"}, func() (*Parked, error) { return Enter(b.Context(), first.Pidfd, s) },
		strconv.Itoa(first.Pid), dir.Name()+"/cgroup.procs")
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
