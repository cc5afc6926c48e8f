package ctr

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
	"ctrfs/proc"
)

// refusals are what a config.json can say and ctrfs cannot do, each by its path in it and with the reason.
var refusals = []struct {
	path, why string
	set       func(*oci.Spec) bool
}{
	{"hooks", "nothing runs outside a container for it", func(s *oci.Spec) bool { return s.Hooks != nil && !reflect.ValueOf(*s.Hooks).IsZero() }},
	{"solaris", "this is Linux", func(s *oci.Spec) bool { return s.Solaris != nil }},
	{"windows", "this is Linux", func(s *oci.Spec) bool { return s.Windows != nil }},
	{"vm", "this is Linux", func(s *oci.Spec) bool { return s.VM != nil }},
	{"zos", "this is Linux", func(s *oci.Spec) bool { return s.ZOS != nil }},
	{"freebsd", "this is Linux", func(s *oci.Spec) bool { return s.FreeBSD != nil }},
	{"process.commandLine", "this is Linux", func(s *oci.Spec) bool { return s.Process.CommandLine != "" }},
	{"process.apparmorProfile", "not supported", func(s *oci.Spec) bool { return s.Process.ApparmorProfile != "" }},
	{"process.selinuxLabel", "not supported", func(s *oci.Spec) bool { return s.Process.SelinuxLabel != "" }},
	{"process.scheduler", "not supported", func(s *oci.Spec) bool { return s.Process.Scheduler != nil }},
	{"process.ioPriority", "not supported", func(s *oci.Spec) bool { return s.Process.IOPriority != nil }},
	{"process.execCPUAffinity", "not supported", func(s *oci.Spec) bool { return s.Process.ExecCPUAffinity != nil }},
	{"process.user.umask", "it is 022", func(s *oci.Spec) bool { return s.Process.User.Umask != nil && *s.Process.User.Umask != 022 }},
	{"process.capabilities.ambient", "only root has capabilities", func(s *oci.Spec) bool {
		p := s.Process
		return p.Capabilities != nil && len(p.Capabilities.Ambient) > 0 && (p.User.UID != 0 || p.User.Username != "")
	}},
	{"linux.sysctl", "not supported", func(s *oci.Spec) bool { return len(s.Linux.Sysctl) > 0 }},
	{"linux.cgroupsPath", "a container's cgroup is its own", func(s *oci.Spec) bool { return s.Linux.CgroupsPath != "" }},
	{"linux.rootfsPropagation", "a container's mounts are its own", func(s *oci.Spec) bool {
		return !slices.Contains([]string{"", "private", "rprivate"}, s.Linux.RootfsPropagation)
	}},
	{"linux.mountLabel", "not supported", func(s *oci.Spec) bool { return s.Linux.MountLabel != "" }},
	{"linux.netDevices", "not supported", func(s *oci.Spec) bool { return len(s.Linux.NetDevices) > 0 }},
	{"linux.intelRdt", "not supported", func(s *oci.Spec) bool { return s.Linux.IntelRdt != nil }},
	{"linux.memoryPolicy", "not supported", func(s *oci.Spec) bool { return s.Linux.MemoryPolicy != nil }},
	{"linux.personality", "not supported", func(s *oci.Spec) bool { return s.Linux.Personality != nil }},
	{"linux.timeOffsets", "not supported", func(s *oci.Spec) bool { return len(s.Linux.TimeOffsets) > 0 }},
	{"linux.resources.blockIO", "use linux.resources.unified", func(s *oci.Spec) bool { return s.Linux.Resources.BlockIO != nil }},
	{"linux.resources.network", "not supported", func(s *oci.Spec) bool { return s.Linux.Resources.Network != nil }},
	{"linux.resources.rdma", "use linux.resources.unified", func(s *oci.Spec) bool { return len(s.Linux.Resources.Rdma) > 0 }},
	{"linux.resources.memory", "of it limit, reservation and swap can be set", func(s *oci.Spec) bool {
		m := s.Linux.Resources.Memory
		return m != nil && (m.Kernel != nil || m.KernelTCP != nil || m.Swappiness != nil || m.DisableOOMKiller != nil && *m.DisableOOMKiller || m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate)
	}},
	{"linux.resources.cpu", "there is no realtime share", func(s *oci.Spec) bool {
		c := s.Linux.Resources.CPU
		return c != nil && (c.RealtimePeriod != nil || c.RealtimeRuntime != nil)
	}},
}

// at is an error at a place of a config.json.
func at(where string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", where, err)
}

// parseConfig gives what a config.json says that a container of c's owner is to be. All that it says is in it, or an error that
// names the place.
func parseConfig(c *Ctr, text, base string) (s spec, err error) {
	if !utf8.ValidString(text) { // which the decoder would change
		return s, errors.New("not UTF-8")
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	in := new(oci.Spec)
	if err := d.Decode(in); err != nil {
		return s, err
	}
	if _, err := d.Token(); err != io.EOF {
		return s, errors.New("something follows the object")
	}
	if err := saidTwice(json.NewDecoder(strings.NewReader(text)), ""); err != nil {
		return s, err
	}
	if !strings.HasPrefix(in.Version, "1.") {
		return s, fmt.Errorf("ociVersion: not 1.x: %q", in.Version)
	}
	if in.Process == nil {
		in.Process = &oci.Process{Cwd: "/", Capabilities: &oci.LinuxCapabilities{}}
	}
	if in.Linux == nil {
		in.Linux = new(oci.Linux)
	}
	if in.Linux.Resources == nil {
		in.Linux.Resources = new(oci.LinuxResources)
	}
	for _, r := range refusals {
		if r.set(in) {
			return s, fmt.Errorf("%s: %s", r.path, r.why)
		}
	}
	for _, part := range []func(*Ctr, *spec, *oci.Spec, string) error{
		configRoot, configProcess, configSpaces, configNames, configMounts, configFilter, configPaths, configDevices, configLimits, configLabels,
	} {
		if err := part(c, &s, in, base); err != nil {
			return s, err
		}
	}
	return s, nil
}

func configRoot(_ *Ctr, s *spec, in *oci.Spec, base string) error {
	said, other := in.Annotations[rootfsAnnotation]
	switch {
	case other && in.Root != nil:
		return fmt.Errorf("root: annotations.%s says another", rootfsAnnotation)
	case other:
		words, err := rootWords(said)
		s.rootfs = words
		return at("annotations."+rootfsAnnotation, err)
	case in.Root == nil:
		return errors.New("root: is not there")
	}
	dir := in.Root.Path
	if !path.IsAbs(dir) {
		if base == "" || dir == "" {
			return fmt.Errorf("root.path: not an absolute path: %q", dir)
		}
		dir = path.Join(base, dir)
	}
	s.rootfs, s.readonly = []string{dir}, in.Root.Readonly
	return nil
}

func configProcess(c *Ctr, s *spec, in *oci.Spec, _ string) error {
	p := in.Process
	s.args, s.env, s.cwd, s.noNewPrivs, s.oom = p.Args, p.Env, p.Cwd, p.NoNewPrivileges, p.OOMScoreAdj
	if err := proc.Fits(nil, p.Args); err != nil {
		return at("process.args", err)
	}
	if err := proc.Fits(nil, p.Env); err != nil {
		return at("process.env", err)
	}
	for i, v := range p.Env {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return fmt.Errorf("process.env[%d]: not NAME=VALUE: %q", i, v)
		}
	}
	if !path.IsAbs(p.Cwd) {
		return fmt.Errorf("process.cwd: not an absolute path: %q", p.Cwd)
	}
	if s.oom != nil && (*s.oom < -1000 || *s.oom > 1000) {
		return fmt.Errorf("process.oomScoreAdj: not -1000 to 1000: %d", *s.oom)
	}
	if s.oom != nil && *s.oom < 0 && c.owner.Uid != 0 {
		return at("process.oomScoreAdj", fs.ErrPerm)
	}
	if s.user = p.User.Username; s.user != "" {
		if p.User.UID != 0 || p.User.GID != 0 || len(p.User.AdditionalGids) > 0 {
			return errors.New("process.user.username: uid and gid say another")
		}
	} else if !unsaid(p.User) || s.rootfs[0] != "image" {
		ids := []string{strconv.Itoa(int(p.User.GID))}
		for _, g := range p.User.AdditionalGids {
			ids = append(ids, strconv.Itoa(int(g)))
		}
		s.user = fmt.Sprintf("%d:%s", p.User.UID, strings.Join(ids, ","))
	}
	for i, r := range p.Rlimits {
		l := ns.Limit{Name: strings.ToLower(strings.TrimPrefix(r.Type, "RLIMIT_")), Soft: r.Soft, Hard: r.Hard}
		if !ns.IsLimit(l.Name) || !strings.HasPrefix(r.Type, "RLIMIT_") || l.Soft > l.Hard {
			return fmt.Errorf("process.rlimits[%d]: no such limit: %q %d %d", i, r.Type, r.Soft, r.Hard)
		}
		if slices.ContainsFunc(s.rlimits, func(o ns.Limit) bool { return o.Name == l.Name }) {
			return fmt.Errorf("process.rlimits[%d]: a second time: %q", i, r.Type)
		}
		s.rlimits = append(s.rlimits, l)
	}
	if p.Terminal {
		s.tty = &ns.Winsize{Cols: 80, Rows: 24}
		if z := p.ConsoleSize; z != nil {
			if z.Width > 1<<16-1 || z.Height > 1<<16-1 {
				return fmt.Errorf("process.consoleSize: %d %d", z.Width, z.Height)
			}
			s.tty = &ns.Winsize{Cols: uint16(z.Width), Rows: uint16(z.Height)}
		}
	}
	if p.Capabilities == nil {
		return nil
	}
	var err error
	if s.caps, err = ns.ParseCaps(strings.Join(p.Capabilities.Bounding, " ")); err != nil {
		return at("process.capabilities.bounding", err)
	}
	for name, words := range map[string][]string{
		"effective": p.Capabilities.Effective, "permitted": p.Capabilities.Permitted,
		"inheritable": p.Capabilities.Inheritable, "ambient": p.Capabilities.Ambient,
	} {
		// Who executes a program as root gets what the bounding set has, and others nothing, whatever these say.
		set, err := ns.ParseCaps(strings.Join(words, " "))
		if err == nil && !s.caps.Has(set) {
			err = fmt.Errorf("%s: not in the bounding set", (set &^ s.caps).Words()[0])
		}
		if err != nil {
			return at("process.capabilities."+name, err)
		}
	}
	return nil
}

func configSpaces(c *Ctr, s *spec, in *oci.Spec, _ string) error {
	s.spaces = map[string]string{}
	for _, k := range spaces {
		if k.from != "" {
			s.spaces[k.kind] = "host"
		}
		i := slices.IndexFunc(in.Linux.Namespaces, func(n oci.LinuxNamespace) bool { return n.Type == spaceName(k.kind) })
		if i < 0 {
			if k.from == "" {
				return fmt.Errorf("linux.namespaces: %s: a container has its own", k.kind)
			}
			continue
		}
		s.spaces[k.kind] = cmp.Or(in.Linux.Namespaces[i].Path, "new")
	}
	for i, n := range in.Linux.Namespaces {
		if !slices.ContainsFunc(spaces, func(k space) bool { return spaceName(k.kind) == n.Type }) {
			return fmt.Errorf("linux.namespaces[%d]: not supported: %q", i, n.Type)
		}
		if slices.ContainsFunc(in.Linux.Namespaces[:i], func(o oci.LinuxNamespace) bool { return o.Type == n.Type }) {
			return fmt.Errorf("linux.namespaces[%d]: a second time: %q", i, n.Type)
		}
	}
	for kind, from := range s.spaces {
		if err := c.checkSpace(kind, from); err != nil {
			return at("linux.namespaces", err)
		}
		if from == "new" && kind != "user" || from == "host" && kind == "user" {
			delete(s.spaces, kind) // as it is anyway
		}
	}
	if err := s.checkSpaces(); err != nil {
		return at("linux.namespaces", err)
	}
	if s.from("user") != "new" {
		if len(in.Linux.UIDMappings)+len(in.Linux.GIDMappings) > 0 {
			return errors.New("linux.uidMappings: there is no user name space")
		}
		return nil
	}
	uids, gids, err := mappings(c.owner)
	if err != nil {
		return err
	}
	for name, m := range map[string][2][]oci.LinuxIDMapping{"uid": {in.Linux.UIDMappings, uids}, "gid": {in.Linux.GIDMappings, gids}} {
		if len(m[0]) > 0 && !slices.Equal(m[0], m[1]) {
			return fmt.Errorf("linux.%sMappings: not those that the owner has: %v", name, m[1])
		}
	}
	return nil
}

func configNames(_ *Ctr, s *spec, in *oci.Spec, _ string) error {
	s.hostname, s.domainname = in.Hostname, in.Domainname
	for name, text := range map[string]string{"hostname": in.Hostname, "domainname": in.Domainname} {
		if len(text) > nameMax || text != "" && s.from("uts") != "new" {
			return fmt.Errorf("%s: too long, or not the container's own: %q", name, text)
		}
	}
	return nil
}

func configMounts(_ *Ctr, s *spec, in *oci.Spec, base string) error {
	for i, m := range in.Mounts {
		where := fmt.Sprintf("mounts[%d]", i)
		if len(m.UIDMappings)+len(m.GIDMappings) > 0 {
			return fmt.Errorf("%s.uidMappings: not supported", where)
		}
		if k := slices.IndexFunc(kernelMounts, func(k oci.Mount) bool { return k.Destination == path.Clean(m.Destination) && k.Type == m.Type }); k >= 0 {
			if err := s.checkKernelMount(kernelMounts[k], m.Options); err != nil {
				return fmt.Errorf("%s.%w", where, err)
			}
			continue
		}
		one := mount{cmp.Or(m.Type, "none"), cmp.Or(m.Source, "none"), m.Destination, strings.Join(m.Options, ",")}
		if slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") || m.Type == "bind" {
			one.kind = "bind"
			if !path.IsAbs(one.source) && base != "" {
				one.source = path.Join(base, one.source)
			}
		}
		if err := one.check(); err != nil {
			return at(where, err)
		}
		if len(s.mounts) == maxMounts {
			return at("mounts", unix.E2BIG)
		}
		s.mounts = append(s.mounts, one)
	}
	return nil
}

// configFilter refuses a filter that is not the one that the container has.
func configFilter(_ *Ctr, s *spec, in *oci.Spec, _ string) error {
	if f := in.Linux.Seccomp; f != nil && !reflect.DeepEqual(f, ns.DefaultSeccomp(s.caps)) {
		return errors.New("linux.seccomp: not the default filter of process.capabilities.bounding, which a container has that says none")
	}
	return nil
}

// configPaths refuses what is to be masked and is not: the lists are ns's.
func configPaths(_ *Ctr, _ *spec, in *oci.Spec, _ string) error {
	masked := ns.MaskedPaths()
	for i, p := range in.Linux.MaskedPaths {
		if !slices.Contains(masked, path.Clean(p)) && exists(p) {
			return fmt.Errorf("linux.maskedPaths[%d]: not among what is masked: %q", i, p)
		}
	}
	for i, p := range in.Linux.ReadonlyPaths {
		if p = path.Clean(p); !slices.Contains(masked, p) && !slices.Contains(ns.ReadonlyPaths(), p) && exists(p) {
			return fmt.Errorf("linux.readonlyPaths[%d]: not among what is read-only: %q", i, p)
		}
	}
	return nil
}

func configDevices(_ *Ctr, _ *spec, in *oci.Spec, _ string) error {
	for i, d := range in.Linux.Devices {
		if dev, ok := ns.Devices()[d.Path]; !ok || d.Type != "c" || dev != unix.Mkdev(uint32(d.Major), uint32(d.Minor)) {
			return fmt.Errorf("linux.devices[%d]: not among those that a container has: %q", i, d.Path)
		}
		if d.FileMode != nil && d.FileMode.Perm() != 0666 || d.UID != nil && *d.UID != 0 || d.GID != nil && *d.GID != 0 {
			return fmt.Errorf("linux.devices[%d]: a container's are root's, with mode 0666: %q", i, d.Path)
		}
	}
	for i, d := range in.Linux.Resources.Devices {
		if d.Allow {
			return fmt.Errorf("linux.resources.devices[%d]: none can be allowed", i)
		}
	}
	return nil
}

func configLabels(_ *Ctr, s *spec, in *oci.Spec, _ string) error {
	n := 0
	for key, value := range in.Annotations {
		if key == rootfsAnnotation {
			continue
		}
		if n += len(key) + len(value); key == "" || n > maxLabels {
			return fmt.Errorf("annotations: too long, or a key is empty")
		}
		s.labels = append(s.labels, label{key, value})
	}
	slices.SortFunc(s.labels, func(a, b label) int { return strings.Compare(a.key, b.key) })
	return nil
}
