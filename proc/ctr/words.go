package ctr

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
)

// A word is one of libvserver's, a bit of flags or ccaps.
type word struct {
	name string
	bit  uint64
	when when
	not  string                                  // why Linux cannot do it
	off  string                                  // why it cannot be taken away
	do   func(*Ctr, context.Context, bool) error // what is to be done beside keeping it, at once
	now  func(*Ctr) bool                         // whether it is set, of what is kept elsewhere. Called with the lock
	may  func(*Ctr) error                        // whether it may be set
}

// A when is when a word can be set and taken away.
type when uint8

const (
	always when = iota
	down        // while the container does not run, since the kernel takes it at the start
	heard       // then, and while it runs if it was started with a listener
	once        // it is taken away, and never set again
)

// words is the words of a file.
type words struct {
	file string
	list []word
	kept func(*spec) *uint64
	take func(c *Ctr, ctx context.Context, off uint64) error // takes away those that are taken once
}

// changes reads a line that sets the words in it, takes away those with ~, and changes, as FLAGS/MASK, the bits of the
// mask. The last word about a bit counts.
func changes(file, line string, bit func(name string, on bool) (uint64, error)) (set, clear uint64, err error) {
	for _, w := range strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' }) {
		var on, off uint64
		if flags, mask, ok := strings.Cut(w, "/"); ok {
			f, err := strconv.ParseUint(strings.TrimPrefix(flags, "0x"), 16, 64)
			m, e := strconv.ParseUint(strings.TrimPrefix(mask, "0x"), 16, 64)
			if errors.Join(err, e) != nil {
				return 0, 0, fmt.Errorf("%s: not FLAGS/MASK: %q", file, w)
			}
			on, off = f&m, m&^f
		} else {
			name, take := strings.CutPrefix(w, "~")
			b, err := bit(strings.ToLower(name), !take)
			if err != nil {
				return 0, 0, err
			}
			if on = b; take {
				on, off = 0, b
			}
		}
		set, clear = set&^off|on, clear&^on|off
	}
	return set, clear, nil
}

// now gives the bits that are set. Called with the lock.
func (ws *words) now(c *Ctr) uint64 {
	bits := *ws.kept(&c.spec)
	for _, w := range ws.list {
		if w.now != nil {
			bits &^= w.bit
			if w.now(c) {
				bits |= w.bit
			}
		}
	}
	return bits
}

// refused says why a word cannot be changed now. Called with the lock.
func (ws *words) refused(c *Ctr, w *word, on bool) error {
	runs := c.state != isNew && c.state != isStopped
	switch {
	case on && w.not != "":
		return fs.Err(unix.EOPNOTSUPP, "%s: %s: %s", ws.file, w.name, w.not)
	case !on && w.off != "":
		return fs.Err(unix.EOPNOTSUPP, "%s: ~%s: %s", ws.file, w.name, w.off)
	case on && w.when == once:
		return fs.Err(unix.EPERM, "%s: %s: it can be taken away once, and not be set again", ws.file, w.name)
	case runs && w.when == down:
		return fs.Err(unix.EBUSY, "%s: %s: the kernel takes it when the container is made", ws.file, w.name)
	case runs && w.when == heard && !c.run.asks:
		return fs.Err(unix.EBUSY, "%s: %s: nobody hears its calls: it was made with no word that needs that", ws.file, w.name)
	case on && w.may != nil:
		if err := w.may(c); err != nil {
			return fmt.Errorf("%s: %s: %w", ws.file, w.name, err)
		}
	}
	return nil
}

// read gives a line for each word that is set, and with ~ for each that could be.
func (ws *words) read(c *Ctr, _ context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return "", errNoCtr
	}
	var b strings.Builder
	now, aliases := ws.now(c), uint64(0)
	for _, w := range ws.list {
		switch {
		case aliases&w.bit != 0:
		case now&w.bit != 0:
			b.WriteString(w.name + "\n")
		case ws.refused(c, &w, true) == nil:
			b.WriteString("~" + w.name + "\n")
		}
	}
	return b.String(), nil
}

// write changes the words of a line: all of them or none.
func (ws *words) write(c *Ctr, ctx context.Context, line string) error {
	set, clear, err := changes(ws.file, line, func(name string, _ bool) (uint64, error) {
		for _, w := range ws.list {
			if w.name == name {
				return w.bit, nil
			}
		}
		return 0, fmt.Errorf("%s: no such word: %q", ws.file, name)
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	now := ws.now(c)
	on, off := set&^now, clear&now
	known, last := uint64(0), uint64(0)
	for i := range ws.list {
		w := &ws.list[i]
		known |= w.bit
		if w.when == once {
			last |= w.bit
		}
		if bit := (on | off) & w.bit; bit != 0 && err == nil {
			err = ws.refused(c, w, on&bit != 0)
		}
	}
	switch {
	case c.gone:
		err = errNoCtr
	case on&^known != 0:
		err = fmt.Errorf("%s: no word has the bits %#x", ws.file, on&^known)
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	var undo []func()
	for _, w := range ws.list {
		if (on|off)&w.bit == 0 || w.do == nil {
			continue
		}
		set := on&w.bit != 0
		if err := w.do(c, ctx, set); err != nil {
			for _, f := range undo {
				f()
			}
			return fmt.Errorf("%s: %s: %w", ws.file, w.name, err)
		}
		undo = append(undo, func() { w.do(c, context.WithoutCancel(ctx), !set) }) // it has just been so
	}
	if err := c.change(func(s *spec) error {
		kept := ws.kept(s)
		*kept = *kept&^(off&^last) | on
		return nil
	}); err != nil {
		return err
	}
	if off &= last; off != 0 {
		return ws.take(c, ctx, off)
	}
	return nil
}
