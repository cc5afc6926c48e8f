package ns

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A container from its making to its end over a clone+execve+wait in C with the same namespaces and
// nothing more: x-bare is how many times as long it takes. The two take turns, as the machine is
// never quiet.
func BenchmarkCtr(b *testing.B) {
	needsRoot(b)
	bare := b.TempDir() + "/bare"
	if out, err := exec.Command("gcc", "-O2", "-o", bare, "testdata/bare.c").CombinedOutput(); err != nil {
		lacks(b, "needs gcc: %v\n%s", err, out)
	}
	ctx := context.Background()
	var ours, theirs time.Duration
	n := 0
	for b.Loop() {
		start := time.Now()
		for range 10 {
			p, err := Create(ctx, Spec{Opt: Opt{Flags: CtrFlags}, Hostname: "web", Caps: DefaultCaps})
			if err != nil {
				b.Fatal(err)
			}
			if err := p.Exec(ctx, []string{"/bin/true"}, nil); err != nil {
				b.Fatal(err)
			}
			if ws := status(b, p); ws != 0 {
				b.Fatalf("status %#x", ws)
			}
			p.Close()
		}
		ours += time.Since(start)
		out, err := exec.Command(bare, "10", "/bin/true").Output()
		if err != nil {
			b.Fatal(err)
		}
		each, err := strconv.Atoi(strings.TrimSpace(string(out)))
		if err != nil {
			b.Fatal(err)
		}
		theirs += 10 * time.Duration(each)
		n += 10
	}
	b.ReportMetric(float64(ours.Microseconds())/float64(n), "µs/ctr")
	b.ReportMetric(float64(theirs.Microseconds())/float64(n), "µs/bare")
	b.ReportMetric(float64(ours)/float64(theirs), "x-bare")
}

// What each system call of a container's plan costs: the plan itself asks for the time between its steps.
func BenchmarkCtrSteps(b *testing.B) {
	needsRoot(b)
	type cost struct {
		what string
		t    []time.Duration
	}
	var costs []cost
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	s := Spec{Opt: Opt{Flags: CtrFlags}, Hostname: "web", Caps: DefaultCaps}
	s.probe = func(p *Plan) {
		timed := &Plan{files: p.files}
		var stamps []*shared
		stamp := func() {
			at := timed.share(make([]byte, 16))
			timed.Do("clock_gettime", unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, at)
			stamps = append(stamps, at)
		}
		stamp()
		costs = slices.Grow(costs, len(p.steps))
		for i, step := range p.steps[:len(p.steps)-1] { // all but close_range, which would close the pipe
			timed.steps = append(timed.steps, step)
			stamp()
			if len(costs) <= i {
				costs = append(costs, cost{what: step.what})
			}
		}
		fd := timed.Send(int(w.Fd()))
		for _, at := range stamps {
			timed.Do("write", unix.SYS_WRITE, fd, at, 16)
		}
		*p = *timed
	}
	for b.Loop() {
		p, err := Create(context.Background(), s)
		if err != nil {
			b.Fatal(err)
		}
		p.End()
		buf := make([]byte, 16*(len(costs)+1))
		if _, err := io.ReadFull(r, buf); err != nil {
			b.Fatal(err)
		}
		var last time.Duration
		for i := 0; i <= len(costs); i++ {
			now := time.Duration(le.Uint64(buf[16*i:]))*time.Second + time.Duration(le.Uint64(buf[16*i+8:]))
			if i > 0 {
				costs[i-1].t = append(costs[i-1].t, now-last)
			}
			last = now
		}
	}
	var total time.Duration
	median := func(c cost) time.Duration { return c.t[len(c.t)/2] }
	for _, c := range costs {
		slices.Sort(c.t)
		total += median(c)
	}
	b.ReportMetric(float64(total.Microseconds()), "µs/plan")
	slices.SortStableFunc(costs, func(x, y cost) int { return int(median(y) - median(x)) })
	text := ""
	for _, c := range costs[:40] {
		text += fmt.Sprintf("%6.1f %s\n", float64(median(c))/1e3, c.what)
	}
	fmt.Printf("%d steps; the medians of the dearest, in µs:\n%s", len(costs), text) // Logf cuts it short
}
