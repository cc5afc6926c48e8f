package ctr

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/ctl"
	"ctrfs/fs"
)

// nameMax is the longest name that uname(2) can tell, in bytes.
const nameMax = 64

// uname is libvserver's vx_uname: what the container is called here, and what uname(2) says in it, which for all but two
// fields is what it says everywhere.
func (c *Ctr) uname(ctx context.Context) (string, error) {
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		return "", err
	}
	name, err := c.get(func() string { return fs.Quote(c.name) })
	if err != nil {
		return "", err
	}
	own := func(read func(context.Context) (string, error)) string {
		text, err := read(ctx)
		if err != nil {
			return "-\n" // it has no name space now
		}
		return text
	}
	var b strings.Builder
	b.WriteString("context " + name)
	field := func(key string, value []byte) {
		b.WriteString(key + " " + fs.Quote(unix.ByteSliceToString(value)) + "\n")
	}
	field("sysname", kernel.Sysname[:])
	b.WriteString("nodename " + own(c.hostname))
	field("release", kernel.Release[:])
	field("version", kernel.Version[:])
	field("machine", kernel.Machine[:])
	b.WriteString("domainname " + own(c.domainname))
	return b.String(), nil
}

// setUname sets a field, `FIELD VALUE`.
func (c *Ctr) setUname(ctx context.Context, line string) error {
	words, err := ctl.Words(line)
	if err != nil {
		return err
	}
	if len(words) != 2 {
		return fmt.Errorf("uname: not FIELD VALUE: %q", line)
	}
	field, value := words[0], words[1]
	if len(value) > nameMax {
		return fmt.Errorf("uname: %s: longer than %d bytes: %q", field, nameMax, value)
	}
	switch field {
	case "context":
		return c.rename(value)
	case "nodename":
		return c.setHostname(ctx, ctl.Quote(value))
	case "domainname":
		return c.setDomainname(ctx, ctl.Quote(value))
	case "sysname", "release", "version", "machine":
		return fs.Err(unix.EOPNOTSUPP, "uname: %s: Linux has one for all containers, and nothing here answers uname(2) in its place", field)
	}
	return fmt.Errorf("uname: no such field: %q", field)
}
