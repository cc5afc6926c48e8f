package ctr

import (
	"context"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// Bits of libvserver's context capabilities.
const (
	setUtsname    = 1 << 0
	setRlimit     = 1 << 1
	rawICMP       = 1 << 8
	syslogCap     = 1 << 12
	secureMount   = 1 << 16
	secureRemount = 1 << 17
	binaryMount   = 1 << 18
	quotaCtl      = 1 << 20
	adminMapper   = 1 << 21
	adminCloop    = 1 << 22
)

// ccaps is what the container's root may, beside its capabilities: what another system call would need a
// capability for that is worth more.
var ccaps = words{
	file: "ccaps",
	kept: func(s *spec) *uint64 { return &s.ccaps },
}

func init() { // what the words do leads back to them
	ccaps.list = []word{
		{name: "set_utsname", bit: setUtsname, when: heard},
		{name: "set_rlimit", bit: setRlimit, when: heard},
		{name: "raw_icmp", bit: rawICMP, do: (*Ctr).pings, may: (*Ctr).ownNet},
		{name: "syslog", bit: syslogCap, when: heard},
		{name: "secure_mount", bit: secureMount, when: heard},
		{name: "secure_remount", bit: secureRemount, when: heard},
		{name: "binary_mount", bit: binaryMount, when: heard},
		{name: "quota_ctl", bit: quotaCtl, when: heard},
		{name: "admin_mapper", bit: adminMapper, do: (*Ctr).mapper, may: func(c *Ctr) error {
			return c.allowed(c.set.config().Mapper, "admin_mapper")
		}},
		{name: "admin_cloop", bit: adminCloop, do: (*Ctr).cloop, may: func(c *Ctr) error {
			return c.allowed(len(c.set.config().Loops) > 0, "admin_cloop")
		}},
	}
}

func (c *Ctr) readCcaps(ctx context.Context) (string, error) { return ccaps.read(c, ctx) }

func (c *Ctr) setCcaps(ctx context.Context, line string) error { return ccaps.write(c, ctx, line) }

// A Config is what the machine's administrator wants. It is not changed but replaced.
type Config struct {
	Users      bool              // all users may make containers
	Accounting bool              // containers enter all hierarchies of version 1, so that what they use is counted
	RawICMP    bool              // ccaps raw_icmp gives raw sockets, not only those that ping
	Mapper     bool              // ccaps admin_mapper may be given
	Loops      []string          // the devices that ccaps admin_cloop gives, one to a container
	Runtimes   map[string]string // more names of runtimes, and the programs that they are of
}

func (cs *Containers) config() *Config {
	if c := cs.Config.Load(); c != nil {
		return c
	}
	return new(Config)
}

// allowed says that the configuration allows it, and only to containers of who runs the server: it is as good as root.
func (c *Ctr) allowed(is bool, word string) error {
	switch {
	case !is:
		return fs.Err(unix.EPERM, "the configuration does not allow it")
	case c.owner.Uid != 0 || c.spec.from("user") == "new":
		return fs.ErrPerm
	}
	return nil
}

// heardWords are those that do something only where the container's calls are heard.
const heardWords = setUtsname | setRlimit | syslogCap | secureMount | secureRemount | binaryMount | quotaCtl

// asks says whether somebody has to hear the calls of a container that is made so.
func (s *spec) asks(raw bool) bool {
	return s.ccaps&heardWords != 0 || raw && s.ccaps&rawICMP != 0 || s.flagged(ignegNice|virtMem) || !s.flagged(rebootKill) || len(s.names) > 0
}

// ours is the file whose words are for containers that are made here only.
func (s *spec) ours() string {
	switch {
	case s.ccaps != 0:
		return "ccaps"
	case len(s.names) > 0:
		return "uname"
	case s.flagged(virtMem|virtUptime|virtCPU|virtLoad|hideMount|persistent|prolific|ignegNice) || !s.flagged(rebootKill):
		return "flags"
	}
	return ""
}

// twist is how its filter differs.
func (s *spec) twist(asks bool) (t ns.Twist) {
	if asks {
		t |= ns.Asking
	}
	if s.flagged(hideMount) {
		t |= ns.HidingMounts
	}
	if s.flagged(prolific) {
		t |= ns.Prolific
	}
	return t
}

// ownNet says that the container's network is its own. Called with the lock.
func (c *Ctr) ownNet() error {
	if from := c.spec.from("net"); from != "new" {
		return fs.Err(unix.EPERM, "its network is that of %q", from)
	}
	return nil
}

// pings lets all in the container use the datagram sockets that ping uses, or nobody: see icmp(7), ping_group_range.
func (c *Ctr) pings(ctx context.Context, on bool) error {
	r, err := c.current()
	if err != nil {
		return nil // what starts asks for it
	}
	return r.pings(on)
}

func (r *run) pings(on bool) error {
	who := "1 0"
	if on {
		who = "0 2147483647"
	}
	return ns.SetSysctl(r.job.Process(), "ipv4/ping_group_range", who)
}

// mapper gives the container the device by which logical volumes are made; its root needs the capability sys_admin too.
func (c *Ctr) mapper(ctx context.Context, on bool) error { return c.device(ctx, "mapper/control", on) }

// cloop gives the container a loop device that no other has.
func (c *Ctr) cloop(ctx context.Context, on bool) error {
	c.mu.Lock()
	name := c.spec.loop
	c.mu.Unlock()
	if on {
		var err error
		if name, err = c.set.freeLoop(); err != nil {
			return err
		}
	}
	if err := c.device(ctx, name, on); err != nil {
		return err
	}
	return c.change(func(s *spec) error {
		s.loop = ""
		if on {
			s.loop = name
		}
		return nil
	})
}

// freeLoop gives a loop device that the configuration names and no container has.
func (cs *Containers) freeLoop() (string, error) {
	var taken []string
	for _, c := range cs.all() {
		c.mu.Lock()
		taken = append(taken, c.spec.loop)
		c.mu.Unlock()
	}
	for _, name := range cs.config().Loops {
		if !slices.Contains(taken, name) {
			return name, nil
		}
	}
	return "", fs.ErrNoFree
}

// device gives the container a device of the host's /dev, or takes it away, at once where it runs.
func (c *Ctr) device(ctx context.Context, name string, on bool) error {
	if on {
		if fi, err := os.Stat("/dev/" + name); err != nil {
			return err
		} else if fi.Mode()&os.ModeDevice == 0 {
			return fmt.Errorf("/dev/%s: %w", name, unix.ENODEV)
		}
	}
	r, err := c.current()
	if err != nil {
		return nil // what starts asks for it
	}
	return r.device(ctx, name, on)
}

func (r *run) device(ctx context.Context, name string, on bool) error {
	if !on {
		return ns.Uncover(ctx, r.inside(), "/dev/"+name)
	}
	return ns.LendDevice(ctx, r.inside(), name)
}

// devices are those that the container has by its words. Called with the lock.
func (s *spec) devices() (all []string) {
	if s.ccaps&adminMapper != 0 {
		all = append(all, "mapper/control")
	}
	if s.ccaps&adminCloop != 0 {
		all = append(all, s.loop)
	}
	return all
}

// lend gives a new run what ccaps and flags say that it has.
func (c *Ctr) lend(ctx context.Context, r *run) error {
	c.mu.Lock()
	s := c.spec
	c.mu.Unlock()
	if s.ccaps&rawICMP != 0 {
		if err := r.pings(true); err != nil {
			return fmt.Errorf("ccaps: raw_icmp: %w", err)
		}
	}
	for _, name := range s.devices() {
		if err := r.device(ctx, name, true); err != nil {
			return fmt.Errorf("ccaps: /dev/%s: %w", name, err)
		}
	}
	return c.coverAll(ctx, r)
}
