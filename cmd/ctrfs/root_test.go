package main

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ctrfs/fs"
	"ctrfs/proc"
	"ctrfs/proc/ctr"
)

// Each file and each verb has a line in the manual, and each line a file or a verb; the synopsis names every file.
func TestManual(t *testing.T) {
	root := rootVerbs.Usages()
	for _, f := range rootFiles {
		root = append(root, f.Name)
		if !strings.Contains(manual, "\n.I dir\\fB/"+f.Name+"\\fP\n") && f.Name != "proc" && f.Name != "ctr" {
			t.Errorf("not in the synopsis: %s", f.Name)
		}
	}
	for section, there := range map[string][]string{
		"The root":               root,
		"/proc":                  append(proc.Files(), "clone"),
		"Verbs of /proc/N/ctl":   proc.Verbs(),
		"/ctr":                   ctr.Files(),
		"Verbs of /ctr/NAME/ctl": ctr.Verbs(),
	} {
		_, text, _ := strings.Cut(manual, "\n.SS "+section+"\n")
		text, _, _ = strings.Cut(text, "\n.S")
		var told []string
		for _, m := range regexp.MustCompile(`(?m)^\.T[PQ]\n\.B (.*)$`).FindAllStringSubmatch(text, -1) {
			told = append(told, m[1])
		}
		slices.Sort(told)
		slices.Sort(there)
		if got, want := strings.Join(told, "\n"), strings.Join(there, "\n"); got != want {
			t.Errorf("%s: the manual has\n%s\nthe tables have\n%s", section, got, want)
		}
	}
	for dir, files := range map[string][]string{"proc/\\fIN": proc.Files(), "ctr/\\fINAME": ctr.Files()} {
		slices.Sort(files)
		if line := ".I dir\\fB/" + dir + "\\fB/\\fR{\\fB" + strings.Join(files, " ") + "\\fR}\n"; !strings.Contains(manual, line) {
			t.Errorf("not in the synopsis: %s", line)
		}
	}
}

func TestPlain(t *testing.T) {
	const page = `.TH X 4
.\" a comment
.SH NAME
x \- it
.SH SYNOPSIS
.nf
\fBx\fR [ \fB\-a\fI addr\fR ]

.I dir/a
\fIdir\fR/{one two three four five six seven eight nine ten eleven twelve thirteen fourteen}
.fi
.SS "Two words"
.B bold
and
.IR read (2),
which is a line that is longer than what there is room for.
.PP
A \fBlast\fP 'line'.
.TP
.B tag
what it
means
.RS
.TP
.B verb x|y
inside
.RE
.TP
.B more
.TQ
.B still
.EX
$ echo   \e
.EE
.SH END
`
	const want = `NAME
    x - it

SYNOPSIS
    x [ -a addr ]

    dir/a
    dir/{one two three four five six seven eight nine ten eleven twelve thirteen
    fourteen}

Two words
    bold and read(2), which is a line that is longer than what there is room
    for.

    A last 'line'.
    tag
        what it means
        verb x|y
            inside
    more
    still
        $ echo   \

END
`
	if got := plain(page); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if text := plain(manual); strings.Contains(text, "\n.") || strings.Contains(text, `\f`) {
		t.Errorf("macros left:\n%s", text)
	}
}

// What is root's is also the group ctrfs-admin's, where there is one.
func TestAdmin(t *testing.T) {
	s, err := newServer(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.uid, s.gid = 0, 0
	admin := &fs.Client{Uid: 7, Gid: 7, Groups: []uint32{70, 77}}
	enter := func(name string, how fs.How) error {
		ctx := fs.WithClient(context.Background(), admin)
		n, err := fs.Look(ctx, s.root(), name)
		if err != nil {
			t.Fatal(err)
		}
		h, err := fs.Enter(ctx, n, how)
		if err == nil {
			h.Close(ctx)
		}
		return err
	}
	for _, there := range []bool{false, true} {
		s.admin = func() (uint32, bool) { return 77, there }
		want := fs.ErrPerm
		if there {
			want = nil
		}
		if err := enter("ctl", fs.Read|fs.Write); err != want {
			t.Errorf("ctl, group there %v: %v", there, err)
		}
		if err := enter("stats", fs.Read); err != want {
			t.Errorf("stats, group there %v: %v", there, err)
		}
	}
}
