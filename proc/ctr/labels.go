package ctr

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/ctl"
	"ctrfs/fs"
)

// A label is what somebody wants to find at a container again.
type label struct{ key, value string }

// maxLabels bounds the keys and values of a container's labels, in bytes.
const maxLabels = 64 << 10

func (c *Ctr) labels(context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return "", errNoCtr
	}
	var b strings.Builder
	for _, l := range c.spec.labels {
		b.WriteString(fs.Words(l.key, l.value) + "\n")
	}
	return b.String(), nil
}

func (c *Ctr) clearLabels(context.Context) error {
	return c.whileNew("labels", func(s *spec) error { s.labels = nil; return nil })
}

func (c *Ctr) addLabel(_ context.Context, line string) error {
	words, err := ctl.Words(line)
	if err != nil {
		return err
	}
	if len(words) != 2 || words[0] == "" {
		return fmt.Errorf("labels: not KEY VALUE: %q", line)
	}
	return c.whileNew("labels", func(s *spec) error {
		n := len(words[0]) + len(words[1])
		all := slices.DeleteFunc(slices.Clone(s.labels), func(l label) bool {
			if l.key == words[0] {
				return true
			}
			n += len(l.key) + len(l.value)
			return false
		})
		if n > maxLabels {
			return fs.Err(unix.E2BIG, "labels: too long")
		}
		s.labels = append(all, label{words[0], words[1]})
		return nil
	})
}

// whileNew changes what can be changed before the container was ever made only.
func (c *Ctr) whileNew(what string, f func(*spec) error) error {
	return c.change(func(s *spec) error {
		if c.state != isNew {
			return fmt.Errorf("cannot change the %s of a %s container", what, c.state)
		}
		return f(s)
	})
}
