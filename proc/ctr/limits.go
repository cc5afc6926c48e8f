package ctr

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/ns"
	"ctrfs/proc/ctr/oci"
)

// A limit is one that somebody has set: a word of cgroup v2's and its value, for a device in that of io.
type limit struct{ word, value string }

// same says whether l is in the place of m.
func (l limit) same(m limit) bool {
	if l.word == m.word && strings.HasPrefix(l.word, "io.") {
		device, _, _ := strings.Cut(l.value, " ")
		return strings.HasPrefix(m.value, device+" ")
	}
	return l.word == m.word
}

// limits are those that the kernel holds the container to, where it says so, and the others that were set, a line each.
func (c *Ctr) limits(context.Context) (string, error) {
	c.mu.Lock()
	group, kept, gone := c.group, slices.Clone(c.spec.limits), c.gone
	if c.spec.runtime != "" { // which has a group of its own
		group = nil
	}
	c.mu.Unlock()
	if gone {
		return "", errNoCtr
	}
	var b strings.Builder
	line := func(word, values string) {
		for value := range strings.Lines(values) {
			if value = strings.TrimSpace(value); value != "" {
				b.WriteString(word + " " + value + "\n")
			}
		}
	}
	words := ns.LimitWords()
	for _, l := range kept {
		if !slices.Contains(words, l.word) { // hugetlb has a word for each size
			words = append(words, l.word)
		}
	}
	for _, word := range words {
		if group != nil {
			if value, err := group.Get(word); err == nil {
				line(word, value)
				continue
			}
		}
		for _, l := range kept { // a killed container has no cgroup, the next run has it
			if l.word == word {
				line(word, l.value)
			}
		}
	}
	return b.String(), nil
}

// setLimit sets a limit, `WORD VALUE...`: in the cgroup, which is made for it before the first run, so that the kernel itself
// says what it does not take.
func (c *Ctr) setLimit(ctx context.Context, line string) error {
	words, err := ctl.Words(line)
	if err != nil {
		return err
	}
	if len(words) < 2 {
		return fmt.Errorf("limits: not WORD VALUE: %q", line)
	}
	release, err := c.take(ctx, "limit", isNew, isCreated, isRunning, isPaused, isStopped)
	if err != nil {
		return err
	}
	defer release()
	c.mu.Lock()
	group, s, r, kept := c.group, c.state, c.run, c.spec
	c.mu.Unlock()
	l := limit{words[0], strings.Join(words[1:], " ")}
	if by := c.by(&kept); by != nil {
		return c.limitBy(ctx, by, s, &kept, l)
	}
	if s == isNew || s == isStopped {
		if group, err = c.fresh(ctx, group); err != nil {
			return err
		}
		c.mu.Lock()
		c.group = group
		c.mu.Unlock()
	}
	if group == nil {
		return fs.Err(unix.EPERM, "limits: no cgroup may be made")
	}
	if err := group.Set(l.word, l.value); err != nil {
		return err
	}
	c.keepLimit(l)
	if r != nil && (s == isCreated || s == isRunning || s == isPaused) {
		c.watchOOM(r)
	}
	return nil
}

// limit sets all that is kept in a new cgroup.
func (s *spec) limit(group *ns.Group) error {
	for _, l := range s.limits {
		if err := group.Set(l.word, l.value); err != nil {
			return err
		}
	}
	return nil
}

// keepLimit notes that a limit is set.
func (c *Ctr) keepLimit(l limit) error {
	return c.change(func(s *spec) error {
		s.limits = append(slices.DeleteFunc(slices.Clone(s.limits), l.same), l)
		return nil
	})
}

// limitBy sets a limit by the runtime, now if there is a run.
func (c *Ctr) limitBy(ctx context.Context, by *oci.Runtime, now state, s *spec, l limit) error {
	resources, err := ociResources([]limit{l})
	if err != nil {
		return err
	}
	if now != isNew && now != isStopped {
		if !by.Has("update") {
			return fs.Err(unix.EOPNOTSUPP, "limits: %s has no command update", by.Name())
		}
		if err := by.Update(ctx, c.id, resources); err != nil {
			return err
		}
	}
	return c.keepLimit(l)
}
