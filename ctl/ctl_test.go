package ctl

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

type log []string

func (l *log) note(_ context.Context, args []string) error {
	*l = append(*l, strings.Join(args, "+"))
	return nil
}

func (l *log) fail(context.Context, []string) error { return errors.New("it is broken") }

func (l *log) flags(_ context.Context, words, args []string) error {
	*l = append(*l, strings.Join(words, "|")+":"+strings.Join(args, "+"))
	return nil
}

var verbs = Table[*log]{
	Verb("note [WORD...]", (*log).note),
	Verb("fail", (*log).fail),
	Verb("limit NAME SOFT [HARD]", (*log).note),
	Verb("log debug|info", (*log).note),
	Verb("join N|CTR [KIND...]", (*log).note),
	Flags("newns|forkfd|newpgrp [fd...]", (*log).flags),
	Verb("user U[:G[,G...]]", (*log).note),
	Verb("exec [CMD [ARG...]]", (*log).note),
}

func TestDo(t *testing.T) {
	for _, test := range []struct{ msg, did, err string }{
		{"note", "", ""},
		{"NOTE a 'b c' 'it''s'\n", "a+b c+it's", ""},
		{"note 'two\nlines'\r\nnote ''x\n\n", "two\nlines x", ""},
		{"note a\nfail\nnote b\n", "a", "line 2: it is broken"},
		{"note a\nfrob it\n", "", `line 2: unknown control message: "frob it"`},
		{"frob", "", `unknown control message: "frob"`},
		{"fail", "", "it is broken"},
		{"fail 1", "", `wrong #args in control message: "fail 1", usage: fail`},
		{"limit a", "", `wrong #args in control message: "limit a", usage: limit NAME SOFT [HARD]`},
		{"limit a b", "a+b", ""},
		{"limit a b c", "a+b+c", ""},
		{"limit a b c d", "", `wrong #args in control message: "limit a b c d", usage: limit NAME SOFT [HARD]`},
		{"log info", "info", ""},
		{"log loud", "", `log: not debug or info: "loud"`},
		{"user 1:2,3", "1:2,3", ""},
		{"user 1 2", "", `wrong #args in control message: "user 1 2", usage: user U[:G[,G...]]`},
		{"exec", "", ""},
		{"newns", "newns:", ""},
		{"newpgrp forkfd 3 4 NEWNS", "newns|forkfd|newpgrp:3+4", ""},
		{"Newns|forkfd 3\nnewns newns", "newns|forkfd:3 newns:", ""},
		{"3 newns 4 forkfd", "newns|forkfd:3+4", ""},
		{"newns | forkfd 3", "newns|forkfd:3", ""},
		{"| 3 newns| |forkfd |", "newns|forkfd:3", ""},
		{"newns 3|forkfd", "newns:3|forkfd", ""},
		{"|", "", `unknown control message: "|"`},
		{"3 4", "", `unknown control message: "3 4"`},
		{"newns|frob 3", "", `unknown control message: "newns|frob 3"`},
		{"newns frob", "newns:frob", ""},
		{"exec a b c d", "a+b+c+d", ""},
		{"join 12 mnt uts", "12+mnt+uts", ""},
		{"", "", "empty control message"},
		{" \n\n", "", "empty control message"},
		{"note 'a", "", `unfinished quote in control message: "'a"`},
		{"note a\x00b", "", `NUL in control message: "a\x00b"`},
		{"note 'a\nb'\n\nfail", "a\nb", "line 4: it is broken"},
	} {
		var l log
		err := verbs.Do(&l, context.Background(), test.msg)
		if got := strings.Join(l, " "); got != test.did || text(err) != test.err {
			t.Errorf("%q: did %q, error %q; want %q, %q", test.msg, got, text(err), test.did, test.err)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Whatever words are written come back, and nothing that is written makes Split do anything but answer.
func FuzzSplit(f *testing.F) {
	f.Add("note 'it''s' a", "x\ny")
	f.Add("'", "\x00")
	f.Fuzz(func(t *testing.T, msg, word string) {
		lines, err := Split(msg)
		for _, l := range lines {
			if len(l.Words) == 0 || err != nil {
				t.Fatalf("%q: %v, %v", msg, lines, err)
			}
		}
		if strings.Contains(word, "\x00") {
			return
		}
		got, err := Split(fmt.Sprintf("a %s\nb %s", Quote(word), Quote(word)))
		want := []Line{{1, []string{"a", word}}, {2 + strings.Count(word, "\n"), []string{"b", word}}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %v, %v", word, got, err)
		}
	})
}
