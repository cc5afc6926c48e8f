package proc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ctrfs/fs"
	"ctrfs/ns"
)

// apply changes the process: a parked one by its stub, a running one by a tracer, as the client.
func (p *Proc) apply(ctx context.Context, m ns.Pctl) error {
	if err := m.Check(); err != nil {
		return err
	}
	err := p.use(ctx, "pctl", func(parked *ns.Parked) error { return parked.Pctl(ctx, m) })
	if errors.Is(err, errRunning) {
		return p.Process.Pctl(ctx, cred(ctx), m)
	}
	return err
}

// pctl is Inferno's pctl(2): words in its order, and the descriptors that are moved.
func (p *Proc) pctl(ctx context.Context, words, args []string) error {
	said := func(word string) bool { return slices.Contains(words, word) }
	fds, err := descriptors(words[0], args)
	if err != nil {
		return err
	}
	if len(fds) > 0 && !said("newfd") && !said("forkfd") {
		return fmt.Errorf("%s: descriptors are moved by newfd and forkfd only: %q", words[0], strings.Join(args, " "))
	}
	env := said("newenv") || said("forkenv")
	if env && !p.isParked() { // before anything is done
		return fmt.Errorf("%s: %w", words[slices.IndexFunc(words, func(w string) bool { return strings.HasSuffix(w, "env") })], errRunning)
	}
	m := ns.Pctl{
		NewNS: said("newns"), ForkNS: said("forkns"), NewFD: said("newfd"), ForkFD: said("forkfd"), FDs: fds,
		NewPgrp: said("newpgrp"), NoDevs: said("nodevs"),
	}
	if err := p.apply(ctx, m); err != nil {
		return err
	}
	if said("newenv") {
		return p.change("newenv", func(j *Job) { j.env = nil })
	}
	return nil
}

func descriptors(verb string, words []string) (fds []int, err error) {
	for _, w := range words {
		n, err := strconv.ParseUint(w, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%s: no descriptor: %q", verb, w)
		}
		fds = append(fds, int(n))
	}
	return fds, nil
}

// rfork is pctl in the letters of rc(1).
func (p *Proc) rfork(ctx context.Context, args []string) error {
	letters := map[rune]string{'n': "forkns", 'N': "newns", 'e': "forkenv", 'E': "newenv", 's': "newpgrp", 'f': "forkfd", 'F': "newfd", 'm': "nodevs"}
	var words []string
	for _, l := range args[0] {
		word := letters[l]
		if word == "" {
			return fmt.Errorf("rfork: not one of nNeEsfFm: %q", string(l))
		}
		words = append(words, word)
	}
	for _, pair := range []string{"ns", "env", "fd"} { // Plan 9 refuses what Inferno ranks
		if slices.Contains(words, "new"+pair) && slices.Contains(words, "fork"+pair) {
			return fmt.Errorf("rfork: bad arg in system call: %q", args[0])
		}
	}
	return p.pctl(ctx, words, nil)
}

func (p *Proc) unshare(ctx context.Context, args []string) error {
	return p.apply(ctx, ns.Pctl{Unshare: args})
}

func (p *Proc) closefd(ctx context.Context, args []string) error {
	fds, err := descriptors("close", args)
	if err != nil {
		return err
	}
	return p.apply(ctx, ns.Pctl{Close: fds})
}

func (p *Proc) closefiles(ctx context.Context, _ []string) error {
	return p.apply(ctx, ns.Pctl{NewFD: true})
}

func (p *Proc) private(ctx context.Context, _ []string) error {
	return p.apply(ctx, ns.Pctl{Private: true})
}

// join enters the name spaces and control groups of a process, or of a container's first one.
func (p *Proc) join(ctx context.Context, args []string) error {
	target, done, err := p.target(ctx, args[0])
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	defer done()
	defer target.Close()
	m := ns.Pctl{}
	var kinds []string
	for _, w := range args[1:] {
		switch {
		case w == "set_reaper":
			m.Reaper = true
		case w == "set_init":
			return errors.New("join: set_init: a container has its first process already, and Linux lets no other take its place")
		case slices.Contains(ns.Kinds(), w):
			kinds = append(kinds, w)
		default:
			return fmt.Errorf("join: no such kind of namespace: %q", w)
		}
	}
	if m.Join, err = ns.OpenJoin(cred(ctx), target, kinds, len(kinds) == 0); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	defer m.Join.Close()
	return p.apply(ctx, m)
}

// target is the process called so: by its number, or by the container whose first process it is.
func (p *Proc) target(ctx context.Context, name string) (target *ns.Process, done func(), err error) {
	if n, err := strconv.Atoi(name); err == nil {
		target, err := ns.Open(n)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("no such process: %d", n)
		}
		if f := p.space.Processes.Open; f != nil && err == nil {
			if err = f(target); err != nil {
				target.Close()
			}
		}
		return target, func() {}, err
	}
	if f := p.space.Processes.First; f != nil {
		return f(ctx, name)
	}
	return nil, nil, fmt.Errorf("no such container: %q", name)
}
