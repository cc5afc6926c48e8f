package main

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The manual's examples do what it shows: what stands between .EX and .EE is a session with bash, of which each line that
// begins with `$ ` is typed. Numbers of processes, times and the parts of a record that are times may be others.
func TestManualExamples(t *testing.T) {
	dir := serveMounted(t)
	examples := regexp.MustCompile(`(?ms)^(?:\.PP\n)?([^\n]*)\n\.EX\n(.*?)^\.EE\n`).FindAllStringSubmatch(manual, -1)
	if len(examples) < 10 {
		t.Fatalf("%d examples", len(examples))
	}
	for _, e := range examples {
		t.Run(e[1], func(t *testing.T) { example(t, dir, escapes.Replace(e[2])) })
	}
}

var varying = []struct{ is, maybe *regexp.Regexp }{
	{regexp.MustCompile(`(?m)^\d+ \d+ \d+ \d+ '`), regexp.MustCompile(`\d+ [\d-]+ [\d-]+ [\d-]+ '`)},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.\\]+Z`), regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`)},
	{regexp.MustCompile(`/proc/\d+`), regexp.MustCompile(`/proc/\d+`)},
}

func example(t *testing.T, dir, session string) {
	script, want := "trap 'kill -KILL $(jobs -p) 2>/dev/null' EXIT\n", regexp.QuoteMeta(session)
	for line := range strings.Lines(session) {
		if cmd, ok := strings.CutPrefix(line, "$ "); ok {
			script += "cat <<'='\n" + line + "=\n" + strings.ReplaceAll(cmd, "/n/ctrfs", dir)
		}
	}
	for _, v := range varying {
		want = v.is.ReplaceAllStringFunc(want, func(string) string { return v.maybe.String() })
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Args[0] = "bash"
	out, _ := cmd.CombinedOutput() // that a command fails may be what is shown
	got := strings.ReplaceAll(string(out), "\r", "")
	got = regexp.MustCompile(`(?m)^bash: line \d+: +\d+ Killed .*\n`).ReplaceAllString(got, "")
	got = regexp.MustCompile(`(?m)^bash: line \d+: `).ReplaceAllString(got, "bash: ")
	if !regexp.MustCompile(`^` + want + `$`).MatchString(got) {
		t.Errorf("it shows\n%s\nand not\n%s", got, session)
	}
}
