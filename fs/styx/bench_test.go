package styx

import "testing"

func benchmark(b *testing.B, text string) {
	m, err := ParseText(text)
	if err != nil {
		b.Fatal(err)
	}
	buf, err := m.Append(nil, Linux)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := Parse(buf, Linux, m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Append", func(b *testing.B) {
		b.ReportAllocs()
		out := make([]byte, 0, len(buf))
		for b.Loop() {
			if _, err := m.Append(out, Linux); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkTwalk(b *testing.B)    { benchmark(b, "Twalk fid 1 newfid 2 names ctr web") }
func BenchmarkTread(b *testing.B)    { benchmark(b, "Tread fid 1 count 8168") }
func BenchmarkRread(b *testing.B)    { benchmark(b, "Rread data 'a line of text of a usual length'") }
func BenchmarkTgetattr(b *testing.B) { benchmark(b, "Tgetattr fid 1 mask 0x7ff") }
func BenchmarkRgetattr(b *testing.B) { benchmark(b, "Rgetattr valid 0x7ff mode 0100444") }

// TestAllocs: a message costs its strings and nothing else.
func TestAllocs(t *testing.T) {
	for text, want := range map[string]float64{
		"Tread fid 1 offset 2 count 3":                0,
		"Twrite fid 1 data x":                         0,
		"Rread data x":                                0,
		"Tclunk fid 1":                                0,
		"Twalk fid 1 newfid 2 names hello world":      2,
		"Tattach fid 1 uname someone aname somewhere": 2,
	} {
		m, err := ParseText(text)
		if err != nil {
			t.Fatal(err)
		}
		buf, err := m.Append(nil, Linux)
		if err != nil {
			t.Fatal(err)
		}
		out := make([]byte, 0, len(buf))
		if got := testing.AllocsPerRun(100, func() {
			if Parse(buf, Linux, m) != nil {
				t.Fatal(text)
			}
			if _, err := m.Append(out, Linux); err != nil {
				t.Fatal(err)
			}
		}); got != want {
			t.Errorf("%s: %v allocations, want %v", text, got, want)
		}
	}
}
