package srv

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ctrfs/fs/styx"
)

// TestDialogues holds the conversations in testdata. A T line is sent; R lines that stand together may come in any
// order; `*` is any word and `...` the rest of the line. `! end` makes wait answer, `! log TEXT` adds to the log,
// `! blocked N` waits until N requests block, `peer NAME` at the start says who talks.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { dialogue(t, string(text)) })
	}
}

func dialogue(t *testing.T, text string) {
	w := newWorld()
	s := &Server{Root: w, Users: people{}}
	peer := asRoot
	var c *client
	var want []string
	replies := func() {
		t.Helper()
		for range want {
			got := c.recv().String()
			i := 0
			for i < len(want) && !match(got, want[i]) {
				i++
			}
			if i == len(want) {
				t.Fatalf("got\n\t%s\nwant one of\n\t%s", got, strings.Join(want, "\n\t"))
			}
			want[i] = want[len(want)-1]
			want = want[:len(want)-1]
		}
	}
	for n, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if name, ok := strings.CutPrefix(line, "peer "); ok {
			peer = map[string]Peer{"root": asRoot, "glenda": asGlenda, "mount": asMount, "nobody": asNobody}[name]
			continue
		}
		if c == nil {
			c = dial(t, s, peer)
		}
		if line[0] == 'R' {
			want = append(want, line)
			continue
		}
		replies()
		t.Logf("%d: %s", n+1, line)
		if line[0] == 'T' {
			c.say(line)
			continue
		}
		switch word, rest, _ := strings.Cut(strings.TrimPrefix(line, "! "), " "); word {
		case "end":
			close(w.end)
		case "log":
			w.log.TryWrite([]byte(rest + "\n"))
		case "blocked":
			w.blocked(t, len(rest))
		default:
			t.Fatalf("line %d: %s", n+1, line)
		}
	}
	replies()
	c.c.(interface{ CloseWrite() error }).CloseWrite()
	if b, err := c.r.Next(); err == nil {
		m := new(styx.Msg)
		styx.Parse(b, c.d, m)
		t.Errorf("and then came %s", m)
	}
	c.hangUp()
	if n := w.open.Load(); n != 0 {
		t.Errorf("%d files are still open", n)
	}
}

func match(got, want string) bool {
	g, w := strings.Fields(got), strings.Fields(want)
	for i := range w {
		if w[i] == "..." {
			return true
		}
		if i >= len(g) || w[i] != "*" && w[i] != g[i] {
			return false
		}
	}
	return len(g) == len(w)
}
