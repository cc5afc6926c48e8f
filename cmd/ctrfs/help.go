package main

import (
	_ "embed"
	"strings"
)

//go:embed ctrfs.4
var manual string

// A page is a manual page as text, in the making.
type page struct {
	strings.Builder
	left   int      // where paragraphs begin, and their tags
	indent int      // where the present one's text does
	words  []string // of the paragraph
	asIs   bool     // lines are not filled
	tag    bool     // the next line is a paragraph's tag
}

const (
	width = 80 // of a line of text
	step  = 4  // of what stands below something, to the right
)

// plain makes text of a page of man(7) macros, as many of them as our pages use.
func plain(source string) string {
	var p page
	for line := range strings.Lines(source) {
		p.line(strings.TrimSuffix(line, "\n"))
	}
	p.flush()
	return strings.TrimLeft(p.String(), "\n")
}

func (p *page) line(line string) {
	macro, rest := "", line
	if strings.HasPrefix(line, ".") {
		macro, rest, _ = strings.Cut(line[1:], " ")
		glue := " "
		if len(macro) == 2 && strings.Trim(macro, "BIR") == "" {
			glue = "" // BR and the like
		}
		rest = strings.Join(args(rest), glue)
	}
	rest = escapes.Replace(rest)
	switch macro {
	case "SH", "SS":
		p.flush()
		p.WriteString("\n" + rest + "\n")
		p.left, p.indent, p.tag = step, step, false
	case "PP":
		p.flush()
		p.WriteString("\n")
		p.indent = p.left
	case "TP", "TQ":
		p.flush()
		p.tag, p.indent = true, p.left
	case "RS":
		p.flush()
		p.left, p.indent = 2*step, 2*step
	case "RE":
		p.flush()
		p.left, p.indent = step, step
	case "nf", "EX":
		p.flush()
		p.asIs = true
	case "fi", "EE":
		p.asIs = false
	case "", "B", "I", "BR", "RB", "IR", "RI", "BI", "IB":
		if rest == "" && !p.asIs {
			return
		}
		if p.asIs && len(rest) <= width-p.indent {
			p.put(rest)
			return
		}
		if p.tag {
			p.put(rest)
			p.tag = false
			p.indent += step
			return
		}
		p.words = append(p.words, strings.Fields(rest)...)
		if p.asIs {
			p.flush()
		}
	}
}

// flush writes the paragraph.
func (p *page) flush() {
	line := ""
	for _, w := range p.words {
		if line != "" && p.indent+len(line)+1+len(w) > width {
			p.put(line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	if line != "" {
		p.put(line)
	}
	p.words = nil
}

func (p *page) put(line string) {
	if line != "" {
		line = strings.Repeat(" ", p.indent) + line
	}
	p.WriteString(line + "\n")
}

var escapes = strings.NewReplacer(`\fB`, "", `\fI`, "", `\fR`, "", `\fP`, "", `\-`, "-", `\(aq`, "'", `\&`, "", `\e`, `\`)

// args are the words of a macro's line.
func args(s string) (words []string) {
	for s = strings.TrimLeft(s, " "); s != ""; s = strings.TrimLeft(s, " ") {
		var w string
		if s[0] == '"' {
			w, s, _ = strings.Cut(s[1:], `"`)
		} else {
			w, s, _ = strings.Cut(s, " ")
		}
		words = append(words, w)
	}
	return words
}
