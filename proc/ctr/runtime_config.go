package ctr

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"ctrfs/fs"
	"ctrfs/ns"
	"ctrfs/proc"
)

// ociGroup is the cgroup of a container that a runtime makes.
func ociGroup(id string) string { return "/" + id }

// forRuntime is config for a runtime: with ids in place of names, version 1's resources, and name spaces that are there already
// by what this program has open.
func (c *Ctr) forRuntime(s *spec, join []ns.Namespace) (*oci.Spec, error) {
	config, err := s.oci(c.owner)
	if err != nil {
		return nil, err
	}
	if config.Root == nil {
		return nil, fs.Err(unix.EOPNOTSUPP, "rootfs %q: a runtime takes a directory", fs.Words(s.rootfs...))
	}
	if config.Process, err = c.processForRuntime(s, config.Process); err != nil {
		return nil, err
	}
	config.Version = "1.0.2"
	config.Linux.CgroupsPath = ociGroup(c.id)
	if config.Linux.Resources, err = ociResources(s.limits); err != nil {
		return nil, err
	}
	for i, space := range config.Linux.Namespaces {
		for _, n := range join {
			if spaceName(n.Kind) == space.Type {
				config.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.File.Fd())
			}
		}
	}
	mounts := config.Mounts
	config.Mounts = nil
	for i, m := range mounts {
		switch {
		case i >= len(kernelMounts):
			m.Options = append(m.Options, "nodev")
			if m.Type == "bind" {
				m.Options = append(m.Options, "rbind")
			}
		case m.Type == "cgroup": // a runtime's own idea of it differs with the version
			continue
		default:
			m.Options = slices.Concat(m.Options, unsaidOptions[m.Destination])
		}
		config.Mounts = append(config.Mounts, m)
	}
	return config, nil
}

// processForRuntime is the program p, whose user has a number.
func (c *Ctr) processForRuntime(s *spec, p *oci.Process) (*oci.Process, error) {
	if len(p.Args) == 0 {
		return nil, errors.New("exec: no command")
	}
	if p.User.Username != "" {
		root, err := c.root(s.rootfs)
		if err != nil {
			return nil, err
		}
		defer closeRoot(root)
		user, err := proc.FindUser(root.Dir, s.user)
		if err != nil {
			return nil, err
		}
		p.User = oci.User{UID: user.Uid, GID: user.Gid, AdditionalGids: user.Groups}
	}
	if p.User.UID != 0 {
		p.Capabilities.Effective, p.Capabilities.Permitted = nil, nil
	}
	return p, nil
}

// ociResources are limits in the words of the runtime specification.
func ociResources(limits []limit) (*oci.LinuxResources, error) {
	if len(limits) == 0 {
		return nil, nil
	}
	r := &oci.LinuxResources{}
	for _, l := range limits {
		if err := addResource(r, l); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func addResource(r *oci.LinuxResources, l limit) error {
	bad := fmt.Errorf("%s: bad value: %q", l.word, l.value)
	number := func(text string) (n int64, err error) {
		if text == "max" {
			return -1, nil
		}
		shift := 0
		if i := strings.IndexAny(text, "KMGT"); i >= 0 && i == len(text)-1 {
			shift = 10 * (1 + strings.IndexByte("KMGT", text[i]))
			text = text[:i]
		}
		n, err = strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || bits.Len64(uint64(n))+shift > 63 {
			return 0, bad
		}
		return n << shift, nil
	}
	memory := func(to **int64) error {
		n, err := number(l.value)
		*to = &n
		return err
	}
	if r.CPU == nil {
		r.CPU = &oci.LinuxCPU{}
	}
	if r.Memory == nil {
		r.Memory = &oci.LinuxMemory{}
	}
	switch l.word {
	case "memory.max":
		return memory(&r.Memory.Limit)
	case "memory.low":
		return memory(&r.Memory.Reservation)
	case "pids.max":
		n, err := number(l.value)
		r.Pids = &oci.LinuxPids{Limit: &n}
		return err
	case "cpu.max":
		quota, period, ok := strings.Cut(l.value, " ")
		if !ok {
			period = "100000"
		}
		q, err := number(quota)
		if err != nil {
			return err
		}
		p, err := strconv.ParseUint(period, 10, 64)
		if err != nil {
			return bad
		}
		r.CPU.Quota, r.CPU.Period = &q, &p
	case "cpu.weight": // the inverse of what runtimes make of shares in version 2
		n, err := strconv.ParseUint(l.value, 10, 64)
		if err != nil || n < 1 || n > 10000 {
			return bad
		}
		shares := 2 + (n-1)*262142/9999
		r.CPU.Shares = &shares
	case "cpuset.cpus":
		r.CPU.Cpus = l.value
	case "cpuset.mems":
		r.CPU.Mems = l.value
	default:
		return fs.Err(unix.EOPNOTSUPP, "%s: the runtime has no word for it", l.word)
	}
	return nil
}
