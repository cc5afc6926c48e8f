package fs

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Quote writes a word as Plan 9's quote(2) does: bare, or if it is empty or holds a blank, a quote or a control byte,
// within quotes. Control bytes become their pictures (U+2400...), bytes that are no UTF-8 U+FFFD, so that no string from
// elsewhere can break a line.
func Quote(s string) string {
	plain := s != ""
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] > ' ' && s[i] != '\'' && s[i] < 0x7f
	}
	if plain {
		return s
	}
	t := Clean(s)
	if t != "" && t == s && !strings.ContainsAny(s, " '") {
		return t
	}
	return "'" + strings.ReplaceAll(t, "'", "''") + "'"
}

// Clean makes a string from elsewhere fit to stand in a line: see Quote.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < ' ':
			return 0x2400 + r
		case r == 0x7f:
			return 0x2421
		case r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029:
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
}

// Words quotes each and joins them by spaces.
func Words(w ...string) string {
	q := make([]string, len(w))
	for i, s := range w {
		q[i] = Quote(s)
	}
	return strings.Join(q, " ")
}

// Time writes a time as the tree does, RFC 3339 in UTC with nanoseconds; `-` for one that nobody knows.
func Time(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000000Z")
}
