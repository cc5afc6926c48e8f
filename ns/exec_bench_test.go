package ns

import (
	"context"
	"os/exec"
	"testing"
)

// What a start costs over os/exec's, to the end of the program.
func BenchmarkExec(b *testing.B) {
	b.Run("parked", func(b *testing.B) {
		for b.Loop() {
			p, err := Park(context.Background(), Opt{})
			if err != nil {
				b.Fatal(err)
			}
			if err := p.Exec(context.Background(), []string{"/bin/true"}, nil); err != nil {
				b.Fatal(err)
			}
			status(b, p)
			p.Close()
		}
	})
	b.Run("os-exec", func(b *testing.B) {
		for b.Loop() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
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
