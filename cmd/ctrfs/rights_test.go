package main

import (
	"cmp"
	"errors"
	"net"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"ctrfs/fs/styx"
	"ctrfs/proc"
	"ctrfs/proc/ctr"
)

// The rights of everybody in every file, from the contract and not from the code: its mode, who reads it, who writes it,
// and what he writes. Who is R root, A the user whose things are looked at, B another one of A's group, G one of
// ctrfs-admin, N nobody, who comes by TCP. After the slash is what differs where the thing is root's: there A has no rights
// but B's, and g stands for G; b is B where it is not. With `?` they only open it, since it blocks or has an effect; with `!` they are let in and
// answered with an error that is not of rights. Who is not named is refused; root may open all and is refused what cannot be.
const (
	rootRights = `
		help       0444 RABGN  -
		version    0444 RABGN  -
		error      0444 RABGN  -
		events     0444 RABGN? -
		ps         0444 RABGN  -
		stats      0440 RG     -
		ctl        0660 RG     RG trace off`
	processRights = `
		args       0444 RABG   -
		ctl        0600 RA     RA nice 19
		ctr        0444 RABGN  -
		cwd        0400 RA     -
		env        0400 RA     -
		exception  0444 RABGN  -
		exe        0400 RA     -
		exitstatus 0444 RABGN! -
		fd         0400 RA     -
		hostname   0444 RABGN  -
		limits     0644 RABGN  RA?
		note       0200 -      RA CONT
		noteid     0444 RABGN  -
		notepg     0200 -      RA CONT
		ns         0400 RA     -
		nsgrp      0400 RA     -
		pgrp       0444 RABGN  -
		root       0400 RA     -
		status     0444 RABGN  -
		stopped    0400 RA?    -
		wait       0444 RABGN? -`
	clonedRights = `
		data       0600 RA?    RA x
		stderr     0400 RA?    -
		stdin      0200 -      RA x
		stdout     0400 RA?    -`
	terminalRights = `
		winsize    0600 RA     RA 80 24`
	parkedRights = `
		args       0644 RABG   RA true
		config     0600 RA     RA?
		env        0600 RA     RA A=b`
	containerRights = `
		args       0644/0664 RABGN  RAg /bin/sleep 1000
		bcaps      0644/0664 RABGN  RAg! ~kill
		bundle     0644/0664 RABGN  RAg! /nonesuch
		ccaps      0644/0664 RABGN  RAg! frob
		cgroup     0444      RABGN  -
		config     0600/0660 RAg    RAg?
		console    0600/0660 RAg?   RAg x
		ctl        0600/0660 RAg    RAg rename NAME
		cwd        0644/0664 RABGN  RAg /
		domainname 0644/0664 RABGN  RAg d
		engine     0444      RABGN  -
		env        0600/0660 RAg    RAg A=b
		events     0444      RABGN? -
		exitedat   0444      RABGN! -
		exitstatus 0444      RABGN! -
		flags      0644/0664 RABGN  RAg info_hide
		helper     0600/0660 RAg    RAg /bin/true
		hostname   0644/0664 RABGN  RAg h
		id         0444      RABGN  -
		info       0444      RABGN  -
		labels     0640/0660 RAbg   RAg! k v
		limits     0644/0664 RABGN  RAg memory.max max
		mounts     0644/0664 RABGN  RAg! mount bind / /x
		nsgrp      0644/0664 RABGN  RAg! net new
		pid        0444      RABGN  -
		rootfs     0644/0664 RABGN  RAg! host
		runtime    0644/0664 RABGN  RAg! runc
		stat       0444      RABGN  -
		stats      0444      RABGN  -
		status     0444      RABGN  -
		stderr     0400/0440 RAg?   -
		stdin      0200/0220 -      RAg x
		stdout     0400/0440 RAg?   -
		uname      0644/0664 RABGN  RAg domainname d
		user       0644/0664 RABGN  RAg 0
		wait       0444      RABGN? -
		winsize    0600/0660 RAg    RAg 80 24
		xid        0644/0664 RABGN  RAg! 60000`
)

// The directories: who makes something in it, who removes it and gives it another name. What is removed and renamed is
// never gone: `!` is refused for another reason than rights, `?` done and undone. Who is in the bits of a root lists it; in that of
// the host's files only the host's root makes anything.
const dirRights = `
	/              0555      -  -    -
	/proc          0555      -  -    -
	/proc/ROOT     0555      -  R!   -
	/proc/OWN      0555      -  RA!  -
	/proc/PARKED   0555      -  RA!  -
	/ctr           0775      RG -    -
	/ctr/r         0755      -  RG!  RG?
	/ctr/a         0755      -  RA!  RA?
	/ctr/r/proc    0555      -  -    -
	/ctr/a/proc    0555      -  -    -
	/ctr/a/proc/1  0555      -  RA!  -
	/ctr/r/root    0770      R  -    -
	/ctr/a/root    0700      RA -    -`

// A right is a row of those tables.
type right struct {
	name, mode, read, write, text string
}

// rights reads tables; a row replaces one of the same name. Roots says that the things are root's.
func rights(roots bool, tables ...string) (all []right) {
	for line := range strings.Lines(strings.Join(tables, "\n")) {
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		r := right{w[0], w[1], w[2], w[3], strings.Join(w[4:], " ")}
		own, others, _ := strings.Cut(r.mode, "/")
		if r.mode = own; roots && others != "" {
			r.mode = others
		}
		for _, who := range []*string{&r.read, &r.write} {
			if roots && !strings.Contains(*who, "B") {
				*who = strings.NewReplacer("A", "", "b", "", "g", "G").Replace(*who)
			} else if !roots {
				*who = strings.ReplaceAll(*who, "b", "B")
			}
		}
		if i := slices.IndexFunc(all, func(o right) bool { return o.name == r.name }); i >= 0 {
			all[i] = r
		} else {
			all = append(all, r)
		}
	}
	return all
}

const uidA, uidB, uidG, gidAB = 40001, 40002, 40003, 40100

// A place is a directory and the rights in its files.
type place struct {
	path     string
	uid, gid uint32
	rights   []right
	besides  func(name string) bool // what is there too and has rights of its own
}

// matrix is a server with things of root's and of A's, and those who use them.
type matrix struct {
	*served
	who map[string]*caller // by letter
}

// TestRights: everybody may do with every file what the contract says, and nothing else, in both dialects. A file
// that has no row fails, and so does a row that has no file.
func TestRights(t *testing.T) {
	s := serveHere(t)
	world := s.world()
	for _, d := range []styx.Dialect{styx.Linux, styx.Plain} {
		t.Run(d.String(), func(t *testing.T) {
			m := &matrix{&served{s.server, t, s.unix, s.tcp}, map[string]*caller{}}
			for letter, how := range map[string]*syscall.SysProcAttr{
				"R": as(0, 0), "A": as(uidA, gidAB), "B": as(uidB, gidAB), "G": as(uidG, uidG, adminGid),
			} {
				conn, _ := m.peer(how, false)
				m.who[letter] = converse(t, conn, d)
			}
			conn, err := net.Dial("tcp", s.tcp.String())
			if err != nil {
				t.Fatal(err)
			}
			m.who["N"] = converse(t, conn, d)
			for letter, c := range m.who {
				uid := styx.NoUid
				if letter == "R" {
					uid = 0
				}
				if err := c.attach("root", uid); err != nil {
					t.Fatal(letter, err)
				}
			}
			for _, p := range world {
				m.place(p)
			}
			m.dirs(world)
		})
	}
	seen := map[string]bool{}
	for _, p := range world {
		for _, r := range p.rights {
			seen[r.name] = true
		}
	}
	for _, name := range slices.Concat(rootFiles.Names(), proc.Files(), ctr.Files()) {
		if !seen[name] && name != "proc" && name != "ctr" && name != "root" {
			t.Errorf("%s is in a table of the tree and in none of the rights", name)
		}
	}
}

// place tries everything in a directory.
func (m *matrix) place(p place) {
	names, err := m.who["R"].list(p.path)
	if err != nil {
		m.t.Fatal(p.path, err)
	}
	for _, r := range p.rights {
		i := slices.Index(names, r.name)
		if i < 0 {
			m.t.Errorf("%s/%s: is in the rights and not in the tree", p.path, r.name)
			continue
		}
		names = slices.Delete(names, i, i+1)
		for letter, c := range m.who {
			m.file(p, r, letter, c)
		}
	}
	for _, name := range names {
		if !p.besides(name) {
			m.t.Errorf("%s/%s: is in the tree and not in the rights", p.path, name)
		}
	}
}

// verdict reports an outcome that is not as the rights of some say.
func (m *matrix) verdict(what, letter, rights string, err error) {
	m.t.Helper()
	named := strings.Contains(rights, letter)
	var refused *refusal
	switch {
	case err != nil && !errors.As(err, &refused):
		m.t.Fatalf("%s: %s: %v", letter, what, err)
	case named && strings.HasSuffix(rights, "!") && (err == nil || denies(err)),
		named && !strings.HasSuffix(rights, "!") && err != nil,
		!named && (err == nil || letter != "R" && !denies(err)):
		m.t.Errorf("%s: %s: %v; the rights are %s", letter, what, err, rights)
	}
}

// file tries everything with a file.
func (m *matrix) file(p place, r right, letter string, c *caller) {
	at := strings.TrimSuffix(p.path, "/") + "/" + r.name
	writes := strings.Trim(r.write, "!?")
	f, _, err := c.walk(at)
	if err != nil {
		m.t.Fatal(letter, at, err)
	}
	if err := c.is(f, r.mode, p.uid, p.gid); err != nil {
		m.t.Errorf("%s: stat %s: %v", letter, at, err)
	}
	m.verdict("touch "+at, letter, "R"+writes, c.change(f, "mtime"))
	if letter != "R" && !strings.HasSuffix(r.write, "!") { // root may empty what cannot be
		m.verdict("empty "+at, letter, writes, c.change(f, "length"))
	}
	for _, what := range []string{"mode", "uid", "name", "create", "mkdir", "remove"} { // the last takes the fid away
		if err := c.change(f, what); err == nil {
			m.t.Errorf("%s: %s %s: done", letter, what, at)
		}
	}
	m.verdict("read "+at, letter, r.read, c.on(at, func(f styx.Fid) error {
		err := c.open(f, styx.ORead)
		if err == nil && !strings.HasSuffix(r.read, "?") {
			_, err = c.readAt(f, 0)
		}
		return err
	}))
	m.verdict("write "+at, letter, r.write, c.on(at, func(f styx.Fid) error {
		err := c.open(f, styx.OWrite)
		if err == nil && !strings.HasSuffix(r.write, "?") {
			err = c.write(f, strings.ReplaceAll(cmp.Or(r.text, "x"), "NAME", path.Base(p.path))+"\n")
		}
		return err
	}))
}

// dirs tries everything with the directories.
func (m *matrix) dirs(world []place) {
	owners := map[string]place{}
	for _, p := range world {
		owners[p.path] = p
	}
	names := strings.NewReplacer("ROOT", world[2].path[6:], "OWN", world[3].path[6:], "PARKED", world[4].path[6:])
	for _, r := range rights(false, dirRights) {
		at := names.Replace(r.name)
		p, ok := owners[at]
		if !ok {
			m.t.Fatalf("no place %s", at)
		}
		for letter, c := range m.who {
			if err := c.on(at, func(f styx.Fid) error { return c.is(f, r.mode, p.uid, p.gid) }); err != nil {
				m.t.Errorf("%s: stat %s: %v", letter, at, err)
			}
			lists := map[string]string{"0770": "RG", "0700": "RA"}[r.mode]
			names, err := c.list(at)
			m.verdict("list "+at, letter, cmp.Or(lists, "RABGN"), err)
			if err == nil && len(names) == 0 {
				m.t.Errorf("%s: list %s: nothing", letter, at)
			}
			if lists != "" {
				err := c.to(at, "create")
				m.verdict("create in "+at, letter, r.read, err)
				if err == nil {
					m.verdict("remove "+at+"/new", letter, r.read, c.to(at+"/new", "remove"))
				}
			}
			for _, what := range []string{"mode", "uid", "create"} {
				if lists != "" && what == "create" {
					continue
				}
				if err := c.to(at, what); !denies(err) {
					m.t.Errorf("%s: %s %s: %v", letter, what, at, err)
				}
			}
			err = c.to(at, "mkdir")
			m.verdict("mkdir "+at, letter, r.read, err)
			if err == nil {
				m.verdict("remove "+at+"/new", letter, r.read, c.to(at+"/new", "remove"))
			}
			if at == "/" {
				continue
			}
			m.verdict("remove "+at, letter, r.write, c.to(at, "remove"))
			err = c.to(at, "name")
			m.verdict("rename "+at, letter, r.text, err)
			if err == nil {
				m.verdict("rename "+at+" back", letter, r.text, c.on(path.Dir(at)+"/new", func(f styx.Fid) error { return c.rename(f, path.Base(at)) }))
			}
		}
	}
}
