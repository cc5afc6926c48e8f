package ctr

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/ns"
)

// nameMax is the longest name that uname(2) can tell, in bytes.
const nameMax = 64

// unameFields are what uname(2) tells, in its order.
var unameFields = []string{"sysname", "nodename", "release", "version", "machine", "domainname"}

// uname is libvserver's vx_uname: what the container is called here, and what uname(2) says in it.
func (c *Ctr) uname(ctx context.Context) (string, error) {
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		return "", err
	}
	name, err := c.get(func() string { return fs.Quote(c.name) })
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	own := c.spec.names
	c.mu.Unlock()
	var b strings.Builder
	b.WriteString("context " + name)
	line := func(key string, kernel [65]byte) {
		value, ok := own[key]
		if !ok {
			value = unix.ByteSliceToString(kernel[:])
		}
		b.WriteString(key + " " + fs.Quote(value) + "\n")
	}
	uts := func(key string, read func(context.Context) (string, error)) {
		text, err := read(ctx)
		if err != nil {
			text = "-\n" // it has no name space now
		}
		b.WriteString(key + " " + text)
	}
	line("sysname", kernel.Sysname)
	uts("nodename", c.hostname)
	line("release", kernel.Release)
	line("version", kernel.Version)
	line("machine", kernel.Machine)
	uts("domainname", c.domainname)
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
		return c.change(func(s *spec) error {
			if runs := c.state != isNew && c.state != isStopped; runs && !c.run.asks {
				return fs.Err(unix.EBUSY, "uname: %s: nobody hears its calls: it was made with no word that needs that", field)
			}
			next := maps.Clone(s.names)
			if next == nil {
				next = map[string]string{}
			}
			if next[field] = value; value == "" { // the kernel's
				delete(next, field)
			}
			s.names = next
			return nil
		})
	}
	return fmt.Errorf("uname: no such field: %q", field)
}

// perLinux32 is what personality(2) is called with by who wants to be told of a 32-bit machine.
const perLinux32 = 0x8

// answerUname fills in what uname(2) asked for.
func (c *Ctr) answerUname(r *run, call *ns.Call, names map[string]string) error {
	u, err := ns.Uname(r.job.Process())
	if err != nil {
		return err
	}
	if names["machine"] == "" && narrow(call) {
		copy(u.Machine[:], append([]byte(map[string]string{"amd64": "i686", "arm64": "armv8l"}[runtime.GOARCH]), 0))
	}
	b := make([]byte, 0, 65*len(unameFields))
	for i, f := range [][65]byte{u.Sysname, u.Nodename, u.Release, u.Version, u.Machine, u.Domainname} {
		if value, ok := names[unameFields[i]]; ok {
			f = [65]byte{}
			copy(f[:64], value)
		}
		b = append(b, f[:]...)
	}
	return call.Write(call.Arg(0), b)
}

// narrow says whether who calls wants to be told of a 32-bit machine.
func narrow(call *ns.Call) bool {
	fd, err := call.Open("personality", unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var text [8]byte
	unix.Read(fd, text[:])
	bits, _ := strconv.ParseUint(strings.TrimRight(string(text[:]), "\n"), 16, 32)
	return bits&0xff == perLinux32
}
