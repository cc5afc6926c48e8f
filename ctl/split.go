package ctl

import (
	"fmt"
	"strings"
)

// A Line is the words of a line that has some.
type Line struct {
	Number int // from 1
	Words  []string
}

// Split reads lines of words as quote(2) writes them: blanks separate words; within quotes everything stands for itself,
// a newline too, and a quote is written twice. Lines without a word are left out.
func Split(msg string) ([]Line, error) {
	var lines []Line
	for number := 1; msg != ""; number++ {
		start := number
		var words []string
		for {
			msg = strings.TrimLeft(msg, " \t\r")
			if msg == "" || msg[0] == '\n' {
				break
			}
			word, rest, ok := word(msg)
			if !ok {
				return nil, fmt.Errorf("unfinished quote in control message: %q", clip(msg))
			}
			if strings.IndexByte(word, 0) >= 0 {
				return nil, fmt.Errorf("NUL in control message: %q", clip(word))
			}
			number += strings.Count(word, "\n")
			words = append(words, word)
			msg = rest
		}
		if words != nil {
			lines = append(lines, Line{start, words})
		}
		if msg != "" {
			msg = msg[1:] // the newline
		}
	}
	return lines, nil
}

// word takes a word, which is not empty, from the front of s.
func word(s string) (word, rest string, ok bool) {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\'' && quoted && i+1 < len(s) && s[i+1] == '\'':
			b.WriteByte(c)
			i++
		case c == '\'':
			quoted = !quoted
		case !quoted && strings.IndexByte(" \t\r\n", c) >= 0:
			return b.String(), s[i:], true
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", !quoted
}

// Words reads the words of one line, as in a file of words; a message of several lines is an error.
func Words(s string) ([]string, error) {
	lines, err := Split(s)
	switch {
	case err != nil:
		return nil, err
	case len(lines) == 0:
		return nil, nil
	case len(lines) > 1:
		return nil, fmt.Errorf("more than one line: %q", clip(s))
	}
	return lines[0].Words, nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

// Quote writes words so that Words reads them as they are.
func Quote(words ...string) string {
	q := make([]string, len(words))
	for i, w := range words {
		q[i] = "'" + strings.ReplaceAll(w, "'", "''") + "'"
	}
	return strings.Join(q, " ")
}
