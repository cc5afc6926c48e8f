package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkStart is the start of a program through 9P, from the opening of clone until the message exec is answered, and all
// until its record has been read, beside ns/testdata/spawn.c: posix_spawn in C, and waitpid. They take turns of 10; x-spawn is the
// median of the ratios of neighbouring turns.
func BenchmarkStart(b *testing.B) {
	top := b.TempDir()
	spawn := filepath.Join(top, "spawn")
	if out, err := exec.Command("gcc", "-O2", "-o", spawn, "../../ns/testdata/spawn.c").CombinedOutput(); err != nil {
		lacking(b, fmt.Sprintf("needs gcc: %v\n%s", err, out))
	}
	sock := filepath.Join(top, "sock")
	server := role(b, "ctrfs", "-a", "unix!"+sock)
	launch(b, "listening", server)
	l := dialLine(b, sock)
	defer l.Close()
	l.say("Twalk tag 1 fid 0 newfid 1 names proc")
	const turn = 10
	var took [2][2][]time.Duration // whose, of what
	var ratio [2][]float64
	for b.Loop() {
		var d [2]time.Duration
		for range turn {
			began := time.Now()
			l.say("Twalk tag 1 fid 1 newfid 2 names clone", "Tlopen tag 1 fid 2 flags 2")
			pid := strings.TrimSpace(string(l.say("Tread tag 1 fid 2 offset 0 count 100").Data))
			l.say("Twrite tag 1 fid 2 offset 0 data 'exec /bin/true'")
			d[0] += time.Since(began)
			r := l.say("Twalk tag 1 fid 1 newfid 3 names "+pid+" wait", "Tlopen tag 1 fid 3 flags 0", "Tread tag 1 fid 3 offset 0 count 100")
			if !strings.HasSuffix(string(r.Data), " ''\n") {
				b.Fatalf("wait: %q", r.Data)
			}
			l.say("Tclunk tag 1 fid 3", "Tclunk tag 1 fid 2")
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
			took[0][i], took[1][i] = append(took[0][i], d[i]/turn), append(took[1][i], c[i])
			ratio[i] = append(ratio[i], float64(d[i]/turn)/float64(c[i]))
		}
	}
	for i, what := range []string{"start", "whole"} {
		for j, who := range []string{"ctrfs", "spawn"} {
			d := took[j][i]
			slices.Sort(d)
			b.ReportMetric(float64(d[len(d)/10])/1e3, "µs-p10-"+what+"-"+who)
			b.ReportMetric(float64(d[len(d)/2])/1e3, "µs-"+what+"-"+who)
		}
		slices.Sort(ratio[i])
		b.ReportMetric(ratio[i][len(ratio[i])/10], "x-spawn-p10-"+what)
		b.ReportMetric(ratio[i][len(ratio[i])/2], "x-spawn-"+what)
		b.ReportMetric(ratio[i][len(ratio[i])*9/10], "x-spawn-p90-"+what)
	}
}
