package ctr

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

// No two containers ever have one number, and each is found by the one that it has.
func TestXids(t *testing.T) {
	s := newSession(t)
	var all sync.WaitGroup
	for i := range 4 {
		name := string(rune('a' + i))
		s.Mkdir(name)
		all.Go(func() {
			for range 200 {
				want := fmt.Sprint(2 + rand.IntN(6))
				if err := s.Echo(name+"/xid", want); err != nil {
					if err.Error() != fmt.Sprintf("xid: another container has %q", want) {
						t.Error(err)
					}
					continue
				}
				if got := s.Read("xid:" + want + "/ctl"); got != name+"\n" {
					t.Errorf("%s was found as %q by its number", name, got)
				}
			}
		})
	}
	all.Wait()
	if n, m := len(s.set.names), len(s.set.xids); n != m {
		t.Errorf("%d containers with %d numbers", n, m)
	}
	for x, c := range s.set.xids {
		if c.xid != x {
			t.Errorf("%s has %d and is found by %d", c.name, c.xid, x)
		}
		s.Rmdir(c.name)
	}
}

// Labels are bounded, whoever writes how many, and a key has one value.
func TestLabels(t *testing.T) {
	s := newSession(t)
	s.Mkdir("l")
	long := strings.Repeat("x", 1000)
	n := 0
	for ; ; n++ {
		if err := s.Echo("l/ctl", fmt.Sprintf("labels k%d %s", n, long)); err != nil {
			if err.Error() != "labels: too long" {
				t.Error(err)
			}
			break
		}
	}
	if n < 60 || n > 65 {
		t.Errorf("%d labels of 1,000 bytes", n)
	}
	for range 200 {
		s.Write("l/ctl", "labels k0 "+long[:1+rand.IntN(999)])
	}
	if got := strings.Count(s.Read("l/labels"), "\n"); got != n {
		t.Errorf("%d labels, want %d", got, n)
	}
	s.Write("l/labels", "a 'b\nc'\n")
	if got := s.Read("l/labels"); got != "a 'b␊c'\n" {
		t.Errorf("labels %q", got)
	}
	s.Rmdir("l")
}
