package ctr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// possible are the capabilities that a container can have: those that this program has, or in a user name space, which begins
// with all, those of the kernel.
func (s *spec) possible() (ns.CapSet, error) {
	if s.from("user") == "new" {
		return ns.KernelCaps(), nil
	}
	self, err := ns.Open(os.Getpid())
	if err != nil {
		return 0, err
	}
	defer self.Close()
	st, err := self.Status()
	return ns.CapSet(st.CapPrm & st.CapBnd), err
}

// bcaps are the capabilities that the processes have at most, a line each, and with ~ those that can be added, which while it
// runs is none: the kernel takes them from each process when it begins.
func (c *Ctr) bcaps(context.Context) (string, error) {
	c.mu.Lock()
	s, state, gone := c.spec, c.state, c.gone
	c.mu.Unlock()
	if gone {
		return "", errNoCtr
	}
	var b strings.Builder
	for _, word := range s.caps.Words() {
		b.WriteString(word + "\n")
	}
	if state != isNew && state != isStopped {
		return b.String(), nil
	}
	possible, err := s.possible()
	for _, word := range (possible &^ s.caps).Words() {
		b.WriteString("~" + word + "\n")
	}
	return b.String(), err
}

// vserverCaps are the bits of libvserver's word that are Linux's capabilities: it had no later ones.
const vserverCaps = 1<<31 - 1

// bcapContext is its last bit, which is another capability in Linux.
const bcapContext = 1 << 31

var errNoContext = fs.Err(unix.EOPNOTSUPP, "bcaps: context: ctrfs does not serve its tree in a container")

// setBcaps adds the words of a line, takes away those with ~, or changes, as FLAGS/MASK in libvserver's bits, those of the mask:
// all of them or none.
func (c *Ctr) setBcaps(_ context.Context, line string) error {
	var set, clear ns.CapSet // the last word about a bit counts
	change := func(on, off ns.CapSet) { set, clear = set&^off|on, clear&^on|off }
	for _, word := range strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' }) {
		if flags, mask, ok := strings.Cut(word, "/"); ok {
			f, err := strconv.ParseUint(strings.TrimPrefix(flags, "0x"), 16, 64)
			m, e := strconv.ParseUint(strings.TrimPrefix(mask, "0x"), 16, 64)
			if err = errors.Join(err, e); err != nil {
				return fmt.Errorf("bcaps: not FLAGS/MASK: %q", word)
			}
			switch on := f & m; {
			case on&bcapContext != 0:
				return errNoContext
			case on&^vserverCaps != 0:
				return fmt.Errorf("bcaps: not bits of a capability: %#x", on&^vserverCaps)
			}
			change(ns.CapSet(f&m), ns.CapSet(m&^f&vserverCaps))
			continue
		}
		name, take := strings.CutPrefix(word, "~")
		if strings.EqualFold(name, "context") {
			if !take {
				return errNoContext
			}
			continue
		}
		bit, err := ns.ParseCap(name)
		switch {
		case err != nil:
			return fmt.Errorf("bcaps: %w", err)
		case !ns.KernelCaps().Has(bit):
			return fs.Err(unix.EOPNOTSUPP, "bcaps: this kernel has no %q", name)
		case take:
			change(0, bit)
		default:
			change(bit, 0)
		}
	}
	return c.whileDown("bcaps", func(s *spec) error {
		possible, err := s.possible()
		if err != nil {
			return err
		}
		if more := set &^ possible; more != 0 {
			return fmt.Errorf("bcaps: %s: this server does not have it itself: %w", more.Words()[0], fs.ErrPerm)
		}
		s.caps = s.caps&^clear | set
		return nil
	})
}
