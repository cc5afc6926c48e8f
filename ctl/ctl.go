// Package ctl reads the messages that are written to a ctl file and carries out the verbs that they name. A set of verbs
// is a table, and a verb's usage line is its grammar.
package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A verb is a word that a subject understands, or several that stand together.
type verb[T any] struct {
	name     string
	flags    []string // in place of name
	usage    string
	min, max int        // arguments; max -1: any number
	choice   [][]string // the literal words that an argument may be, nil: anything
	do       func(T, context.Context, []string) error
}

// A Table is the verbs of a subject.
type Table[T any] []verb[T]

// Verb makes a row: usage is the verb and its arguments, as in the manual. An argument is a word; `[x]` may be left out,
// `x...` may be repeated, `a|b` in lower case are the words that it may be. It panics at a usage that it cannot read.
func Verb[T any](usage string, do func(subject T, ctx context.Context, args []string) error) verb[T] {
	words := strings.Fields(usage)
	v := verb[T]{name: words[0], usage: usage, do: do}
	for _, w := range words[1:] {
		opened := strings.HasPrefix(w, "[")
		if opened {
			w = strings.TrimRight(w[1:], "]")
		}
		w, many := strings.CutSuffix(w, "...")
		if w == "" {
			panic("ctl: usage: " + usage)
		}
		var choice []string
		if strings.Contains(w, "|") && strings.ToLower(w) == w {
			choice = strings.Split(w, "|")
		}
		v.choice = append(v.choice, choice)
		if !opened && v.min == len(v.choice)-1 {
			v.min++
		}
		if many {
			v.max = -1
		}
	}
	if v.max == 0 {
		v.max = len(v.choice)
	}
	return v
}

// Flags makes a row of words of which several may stand in one message, in any order, `|` between them or not, together
// with arguments that are none of them: `newns|newfd [fd...]`. do gets the words that were said, each once, in the order of
// the usage, and the arguments.
func Flags[T any](usage string, do func(subject T, ctx context.Context, words, args []string) error) verb[T] {
	v := Verb[T](usage, nil)
	v.flags = strings.Split(v.name, "|")
	v.do = func(subject T, ctx context.Context, said []string) error {
		words, args := v.split(said)
		return do(subject, ctx, words, args)
	}
	return v
}

// split tells the flags in a message from its arguments.
func (v *verb[T]) split(said []string) (words, args []string) {
	var heard []string
	for _, w := range said {
		if parts := joined(w); v.has(parts) {
			heard = append(heard, parts...)
		} else {
			args = append(args, w)
		}
	}
	for _, f := range v.flags {
		if slices.Contains(heard, f) {
			words = append(words, f)
		}
	}
	return words, args
}

// joined gives the words of `newns|newfd`; a `|` by itself, or at either end, joins them too.
func joined(w string) []string {
	return strings.FieldsFunc(strings.ToLower(w), func(r rune) bool { return r == '|' })
}

// says tells whether w is flags of this row.
func (v *verb[T]) says(w string) bool {
	parts := joined(w)
	return len(parts) > 0 && v.has(parts)
}

func (v *verb[T]) has(words []string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(v.flags, w) })
}

// Usages gives the usage line of each verb, for the manual and its test.
func (t Table[T]) Usages() []string {
	var u []string
	for _, v := range t {
		u = append(u, v.usage)
	}
	return u
}

// A step is a verb with its arguments, ready to be carried out.
type step[T any] struct {
	verb *verb[T]
	line int
	args []string
}

// Do carries out msg, a verb and its arguments on each line. All is parsed before anything is done; the first failure
// ends it. Where there are several lines the error names the line.
func (t Table[T]) Do(subject T, ctx context.Context, msg string) error {
	lines, err := Split(msg)
	if err != nil {
		return err
	}
	var steps []step[T]
	for _, l := range lines {
		v, err := t.find(l.Words)
		if err != nil {
			return at(lines, l.Number, err)
		}
		args := l.Words[1:]
		if v.flags != nil {
			args = l.Words
		}
		steps = append(steps, step[T]{v, l.Number, args})
	}
	if len(steps) == 0 {
		return errors.New("empty control message")
	}
	for _, s := range steps {
		if err := s.verb.do(subject, ctx, s.args); err != nil {
			return at(lines, s.line, err)
		}
	}
	return nil
}

func at(lines []Line, n int, err error) error {
	if len(lines) < 2 {
		return err
	}
	return fmt.Errorf("line %d: %w", n, err)
}

// find gives the verb of a line, its arguments checked against the usage.
func (t Table[T]) find(words []string) (*verb[T], error) {
	name := strings.ToLower(words[0])
	for i := range t {
		v := &t[i]
		if v.says(name) {
			return v, nil
		}
		if v.name != name {
			continue
		}
		if n := len(words) - 1; n < v.min || v.max >= 0 && n > v.max {
			return nil, fmt.Errorf("wrong #args in control message: %q, usage: %s", strings.Join(words, " "), v.usage)
		}
		for j, w := range words[1:] {
			if j < len(v.choice) && v.choice[j] != nil && !slices.Contains(v.choice[j], w) {
				return nil, fmt.Errorf("%s: not %s: %q", v.name, strings.Join(v.choice[j], " or "), w)
			}
		}
		return v, nil
	}
	for i := range t { // flags may stand behind what they are about
		v := &t[i]
		if slices.ContainsFunc(words, v.says) {
			return v, nil
		}
	}
	return nil, fmt.Errorf("unknown control message: %q", strings.Join(words, " "))
}
