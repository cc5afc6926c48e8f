package ctr

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
)

// number is the context number.
func (c *Ctr) number(context.Context) (string, error) {
	return c.get(func() string { return fmt.Sprint(c.xid) })
}

// setXid gives the container the context number that its owner wants.
func (c *Ctr) setXid(_ context.Context, line string) error {
	word, err := oneWord("xid", line)
	if err != nil {
		return err
	}
	var n uint32
	if _, err := fmt.Sscanf(word, "%d", &n); err != nil || fmt.Sprint(n) != word || n < 2 || n > lastXid {
		return fmt.Errorf("xid: not a number from 2 to %d: %q", lastXid, word)
	}
	return c.whileNew("xid", func(*spec) error {
		cs := c.set
		cs.mu.Lock()
		defer cs.mu.Unlock()
		if other := cs.xids[n]; other != nil && other != c {
			return fs.Err(unix.EEXIST, "xid: another container has %q", word)
		}
		delete(cs.xids, c.xid)
		cs.xids[n], c.xid = c, n
		return nil
	})
}
