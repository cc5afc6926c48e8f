package ctr

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"ctrfs/ctl"
	"ctrfs/fs"
	"ctrfs/ns"
)

// A container as the OCI runtime specification describes one, in both directions. What every container of ours has, whoever makes
// it, is in kernelMounts and ns's lists; the rest is in spec.

// rootfsAnnotation holds a root that is not one directory, which config.json has no words for.
const rootfsAnnotation = "ctrfs.rootfs"

// kernelMounts are in every container; their options are those that all of ours have.
var kernelMounts = []oci.Mount{
	{Destination: "/proc", Type: "proc", Source: "proc", Options: plainOptions},
	{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "mode=755"}},
	{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
	{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: append([]string{"mode=1777"}, plainOptions...)},
	{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: plainOptions},
	{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: readOptions},
	{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: readOptions},
}

var (
	plainOptions = []string{"nosuid", "noexec", "nodev"}
	readOptions  = append([]string{"ro"}, plainOptions...)
)

// unsaidOptions are those that runtimes write of themselves and ours need not have: nobody has asked for them, and what they bound is
// bounded by the container's memory.
var unsaidOptions = map[string][]string{"/dev": {"strictatime", "size=65536k"}, "/dev/shm": {"size=65536k"}}

// checkKernelMount refuses an option that the mount k of ours does not have.
func (s *spec) checkKernelMount(k oci.Mount, options []string) error {
	for i, o := range options {
		switch {
		case slices.Contains(k.Options, o), slices.Contains(unsaidOptions[k.Destination], o):
		case o == "relatime", o == "private", o == "rprivate":
		case (o == "rw" || o == "dev" && k.Destination == "/dev") && !slices.Contains(k.Options, "ro"):
		case o == "gid=5" && k.Type == "devpts" && s.from("user") != "new":
		default:
			return fmt.Errorf("options[%d]: not as %s is mounted in every container: %q", i, k.Destination, o)
		}
	}
	return nil
}

// spaceNames are the kinds of name spaces that have another name in config.json.
var spaceNames = map[string]oci.LinuxNamespaceType{"net": oci.NetworkNamespace, "mnt": oci.MountNamespace}

func spaceName(kind string) oci.LinuxNamespaceType {
	if name := spaceNames[kind]; name != "" {
		return name
	}
	return oci.LinuxNamespaceType(kind)
}

// config is what create would make.
func (c *Ctr) config(context.Context) (string, error) {
	c.mu.Lock()
	s, gone := c.spec, c.gone
	c.mu.Unlock()
	if gone {
		return "", errNoCtr
	}
	out, err := s.oci(c.owner)
	if err != nil {
		return "", err
	}
	text, err := json.MarshalIndent(out, "", "\t")
	return string(text) + "\n", err
}

func (s *spec) oci(owner ns.Cred) (*oci.Spec, error) {
	var caps []string
	for _, word := range s.caps.Words() {
		caps = append(caps, "CAP_"+strings.ToUpper(word))
	}
	p := &oci.Process{
		User: s.ociUser(), Args: s.args, Env: s.env, Cwd: s.cwd, NoNewPrivileges: s.noNewPrivs, OOMScoreAdj: s.oom,
		Capabilities: &oci.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
	}
	for _, l := range s.rlimits {
		p.Rlimits = append(p.Rlimits, oci.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(l.Name), Soft: l.Soft, Hard: l.Hard})
	}
	if s.tty != nil {
		p.Terminal, p.ConsoleSize = true, &oci.Box{Width: uint(s.tty.Cols), Height: uint(s.tty.Rows)}
	}
	out := &oci.Spec{Version: oci.Version, Process: p, Mounts: slices.Clone(kernelMounts), Linux: &oci.Linux{
		MaskedPaths: ns.MaskedPaths(), ReadonlyPaths: ns.ReadonlyPaths(), Seccomp: ns.DefaultSeccomp(s.caps),
	}}
	if s.from("uts") == "new" {
		out.Hostname, out.Domainname = s.hostname, s.domainname
	}
	out.Annotations = map[string]string{}
	for _, l := range s.labels {
		out.Annotations[l.key] = l.value
	}
	if len(s.rootfs) == 1 && strings.HasPrefix(s.rootfs[0], "/") {
		out.Root = &oci.Root{Path: s.rootfs[0], Readonly: s.readonly}
	} else {
		out.Annotations[rootfsAnnotation] = fs.Words(s.rootfs...)
	}
	for _, m := range s.mounts {
		o := oci.Mount{Destination: m.target, Type: m.kind, Source: m.source}
		if m.options != "" {
			o.Options = strings.Split(m.options, ",")
		}
		out.Mounts = append(out.Mounts, o)
	}
	for _, k := range spaces {
		switch from := s.from(k.kind); {
		case from == "new":
			out.Linux.Namespaces = append(out.Linux.Namespaces, oci.LinuxNamespace{Type: spaceName(k.kind)})
		case from != "host":
			out.Linux.Namespaces = append(out.Linux.Namespaces, oci.LinuxNamespace{Type: spaceName(k.kind), Path: from})
		}
	}
	if s.from("user") == "new" {
		var err error
		if out.Linux.UIDMappings, out.Linux.GIDMappings, err = mappings(owner); err != nil {
			return nil, err
		}
	}
	if len(s.limits) > 0 {
		all := map[string]string{}
		for _, l := range s.limits {
			all[l.word] = strings.TrimPrefix(all[l.word]+"\n"+l.value, "\n")
		}
		out.Linux.Resources = &oci.LinuxResources{Unified: all}
	}
	return out, nil
}

// ociUser puts a user who is all numbers in numbers; what has to be looked for in the root stays as it is. The form wants
// a user: 0 and 0 is that nobody was said, and root who was said stands in his name where an image may say another.
func (s *spec) ociUser() (u oci.User) {
	text := s.user
	if text == "" {
		return u
	}
	user, groups, ok := strings.Cut(text, ":")
	uid, err := strconv.ParseUint(user, 10, 31)
	if ok && err == nil {
		u.UID = uint32(uid)
		for i, word := range strings.Split(groups, ",") {
			gid, err := strconv.ParseUint(word, 10, 31)
			if err != nil {
				return oci.User{Username: text}
			}
			if i == 0 {
				u.GID = uint32(gid)
			} else {
				u.AdditionalGids = append(u.AdditionalGids, uint32(gid))
			}
		}
		if unsaid(u) && s.rootfs[0] == "image" {
			return oci.User{Username: text}
		}
		return u
	}
	return oci.User{Username: text}
}

// unsaid says whether u is what the form says of a container whose user nobody has said.
func unsaid(u oci.User) bool {
	return u.UID == 0 && u.GID == 0 && len(u.AdditionalGids) == 0 && u.Username == ""
}

// mappings are those of a container with a user name space of its own.
func mappings(owner ns.Cred) (uids, gids []oci.LinuxIDMapping, err error) {
	uidMap, gidMap, err := idMaps(owner)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range []struct {
		text string
		list *[]oci.LinuxIDMapping
	}{{uidMap, &uids}, {gidMap, &gids}} {
		for line := range strings.Lines(m.text) {
			var one oci.LinuxIDMapping
			if _, err := fmt.Sscan(line, &one.ContainerID, &one.HostID, &one.Size); err != nil {
				return nil, nil, err
			}
			*m.list = append(*m.list, one)
		}
	}
	return uids, gids, nil
}

// setConfig makes the container what a config.json says, if all of it can be; else it stays what it was, and is not made
// before it was told anew: a shell does not hear what a close answers.
func (c *Ctr) setConfig(ctx context.Context, text string) error {
	release, err := c.take(ctx, "configure", isNew, isStopped)
	if err != nil {
		return err
	}
	defer release()
	err = c.configure(ctx, text, "")
	c.mu.Lock()
	c.refused = err
	c.mu.Unlock()
	return err
}

// configure takes a config.json; paths that are relative are relative to base, if that is one.
func (c *Ctr) configure(ctx context.Context, text, base string) error {
	next, err := parseConfig(c, text, base)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	c.mu.Lock()
	old, group, state := c.spec, c.group, c.state
	c.mu.Unlock()
	next.runtime = old.runtime
	if slices.Equal(next.rootfs, old.rootfs) {
		next.image = old.image
	}
	next.flags, next.ccaps, next.names, next.helper, next.loop = old.flags, old.ccaps, old.names, old.helper, old.loop // it has no word of these
	if state != isNew {
		for what, same := range map[string]bool{
			"linux.namespaces": maps.Equal(next.spaces, old.spaces), "root": slices.Equal(next.rootfs, old.rootfs),
			"annotations": slices.Equal(next.labels, old.labels),
		} {
			if !same {
				return fmt.Errorf("config: %s: cannot be changed of a %s container", what, state)
			}
		}
	}
	set := func(s spec) {
		c.mu.Lock()
		c.spec = s
		c.mu.Unlock()
	}
	set(next)
	if !slices.Equal(next.limits, old.limits) { // the kernel says what it does not take
		if err = c.ungroup(ctx, group); err == nil {
			group, err = c.fresh(ctx, nil)
		}
		if err != nil {
			set(old)
			return fmt.Errorf("config: linux.resources: %w", err)
		}
		c.mu.Lock()
		c.group = group
		c.mu.Unlock()
	}
	return c.save()
}

// configured is the error of the last config.json, if it was refused.
func (c *Ctr) configured() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// exists is whether this kernel has a file of proc or sysfs.
func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// words reads the annotation of a root.
func rootWords(text string) ([]string, error) {
	words, err := ctl.Words(text)
	if err != nil {
		return nil, err
	}
	return words, checkRootfs(words)
}
