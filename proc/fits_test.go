package proc

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A client cannot make the server keep more than a program could be given.
func TestFits(t *testing.T) {
	s := newSession(t, 1234)
	h, n := s.clone()
	defer h.Close(s.Ctx)
	line := strings.Repeat("a", 100<<10)
	for file, first := range map[string]string{"args": "", "env": "A="} {
		var err error
		for i := 0; i < 30 && err == nil; i++ {
			b := first
			if b != "" {
				b = strings.Repeat("B", i+1) + "="
			}
			fh, e := s.Open(n+"/"+file, 2)
			if e != nil {
				t.Fatal(e)
			}
			_, err = fh.Write(s.Ctx, 0, []byte(b+line+"\n"))
			fh.Close(s.Ctx)
		}
		if !errors.Is(err, unix.E2BIG) {
			t.Errorf("%s takes 3 MB: %v", file, err)
		}
	}
}
