package ctr

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	cfs "ctrfs/fs"
	"ctrfs/ns"
)

// What config gives makes of another container the same.
func TestConfigRoundTrip(t *testing.T) {
	for _, client := range []cfs.Client{{}, {Uid: 4321, Gid: 4321}} {
		s := newSessionOf(t, &client)
		s.Mkdir("a")
		for file, text := range map[string]string{
			"args": "/bin/sh -c 'echo \"$A\"'\n", "env": "A=it''s\n", "cwd": "/usr\n", "user": "7:8,9\n", "hostname": "h\n", "domainname": "d\n",
			"rootfs": "/\n", "bcaps": "~chown\n", "labels": "'k 1' 'v\n2'\n",
			"mounts": "mount tmpfs none /x nosuid,size=1m\nmount bind /usr/share /y ro\n",
			"ctl":    "tty 90 20\n",
		} {
			s.Write("a/"+file, text)
		}
		if client.Uid == 0 {
			s.Write("a/nsgrp", "net host\n")
			s.Write("a/limits", "pids.max 100\n")
		}
		a := s.set.names["a"]
		oom := 500
		a.spec.readonly, a.spec.noNewPrivs, a.spec.oom = true, true, &oom
		a.spec.rlimits = []ns.Limit{{Name: "nofile", Soft: 50, Hard: ns.Unlimited}}
		for _, root := range []string{"/\n", "overlay /usr /etc\n", "host\n"} {
			if root != "/\n" {
				s.Write("a/rootfs", root)
			}
			text := s.Read("a/config")
			s.Mkdir("b")
			s.set.names["b"].spec.runtime = "crun" // of which the text says nothing
			s.Write("b/config", text)
			want, got := a.spec, s.set.names["b"].spec
			want.runtime = "crun"
			if client.Uid == 0 {
				want.spaces = map[string]string{"net": "host"}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%+v\n\nwant %+v\n\nof %s", got, want, text)
			}
			if again := s.Read("b/config"); again != text {
				t.Errorf("%s\nwant %s", again, text)
			}
			s.Rmdir("b")
		}
		s.Rmdir("a")
	}
}

// minimal is a config.json that is taken; set changes something in it, at a path of its keys.
func minimal(t *testing.T, where string, value any) string {
	var all map[string]any
	err := json.Unmarshal([]byte(`{"ociVersion": "1.0.2", "root": {"path": "/"}, "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}},
		"linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}], "resources": {}}}`), &all)
	if err != nil {
		t.Fatal(err)
	}
	keys := strings.Split(where, "/")
	at := all
	for _, k := range keys[:len(keys)-1] {
		if at[k] == nil {
			at[k] = map[string]any{}
		}
		at = at[k].(map[string]any)
	}
	at[keys[len(keys)-1]] = value
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What cannot be done is refused with its place, and the container stays what it was.
func TestConfigRefused(t *testing.T) {
	s := newSession(t)
	s.Mkdir("c")
	before := s.Read("c/config")
	one := []any{map[string]any{}}
	kernel := func(where, kind string, options ...string) any {
		return map[string]any{"destination": where, "type": kind, "source": kind, "options": options}
	}
	for _, x := range []struct {
		where string
		value any
		err   string
	}{
		{"ociVersion", "2.0", `ociVersion: not 1.x`},
		{"frob", 1, `json: unknown field "frob"`},
		{"hooks", map[string]any{"prestart": []any{map[string]any{"path": "/x"}}}, `hooks: `},
		{"solaris", map[string]any{}, `solaris: `},
		{"windows", map[string]any{"layerFolders": nil}, `windows: `},
		{"vm", map[string]any{"kernel": map[string]any{"path": "/x"}}, `vm: `},
		{"zos", map[string]any{}, `zos: `},
		{"freebsd", map[string]any{}, `freebsd: `},
		{"process/commandLine", "x", `process.commandLine: `},
		{"process/apparmorProfile", "x", `process.apparmorProfile: `},
		{"process/selinuxLabel", "x", `process.selinuxLabel: `},
		{"process/scheduler", map[string]any{"policy": "SCHED_OTHER"}, `process.scheduler: `},
		{"process/ioPriority", map[string]any{"class": "IOPRIO_CLASS_BE", "priority": 1}, `process.ioPriority: `},
		{"process/execCPUAffinity", map[string]any{"initial": "0"}, `process.execCPUAffinity: `},
		{"process/user/umask", 0, `process.user.umask: `},
		{"process/capabilities/inheritable", []string{"CAP_CHOWN"}, `process.capabilities.inheritable: `},
		{"process/capabilities/ambient", []string{"CAP_CHOWN"}, `process.capabilities.ambient: `},
		{"process", map[string]any{"cwd": "/", "user": map[string]any{"uid": 1, "gid": 1}, "capabilities": map[string]any{"bounding": []string{"CAP_KILL"}, "ambient": []string{"CAP_KILL"}}}, `process.capabilities.ambient: only root`},
		{"process/capabilities/bounding", []string{"CAP_FROB"}, `process.capabilities.bounding: no such capability: "CAP_FROB"`},
		{"process/capabilities/effective", []string{"CAP_CHOWN"}, `process.capabilities.effective: chown: not in the bounding set`},
		{"process/cwd", "x", `process.cwd: not an absolute path: "x"`},
		{"process/env", []string{"X"}, `process.env[0]: not NAME=VALUE: "X"`},
		{"process/oomScoreAdj", 1001, `process.oomScoreAdj: `},
		{"process/rlimits", []any{map[string]any{"type": "RLIMIT_FROB", "soft": 1, "hard": 1}}, `process.rlimits[0]: no such limit`},
		{"process/rlimits", []any{map[string]any{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}}, `process.rlimits[0]: no such limit`},
		{"root/path", "x", `root.path: not an absolute path: "x"`},
		{"root", nil, `root: is not there`},
		{"annotations", map[string]any{rootfsAnnotation: "host"}, `root: annotations.ctrfs.rootfs says another`},
		{"hostname", strings.Repeat("x", 65), `hostname: `},
		{"mounts", []any{map[string]any{"destination": "x"}}, `mounts[0]: mounts: not an absolute path: "x"`},
		{"mounts", []any{map[string]any{"destination": "/x", "type": "bind", "source": "x"}}, `mounts[0]: mounts: not an absolute path: "x"`},
		{"mounts", []any{map[string]any{"destination": "/x", "type": "tmpfs", "options": []string{"rshared"}}}, `mounts[0]: mounts: rshared: `},
		{"mounts", []any{map[string]any{"destination": "/x", "uidMappings": one}}, `mounts[0].uidMappings: `},
		{"mounts", []any{kernel("/proc", "proc", "nosuid", "hidepid=2")}, `mounts[0].options[1]: not as /proc is mounted in every container: "hidepid=2"`},
		{"mounts", []any{kernel("/proc/", "proc", "bind")}, `mounts[0].options[0]: `},
		{"mounts", []any{kernel("/proc", "proc", "ro")}, `mounts[0].options[0]: `},
		{"mounts", []any{kernel("/sys", "sysfs", "rw")}, `mounts[0].options[0]: `},
		{"mounts", []any{kernel("/dev", "tmpfs", "exec")}, `mounts[0].options[0]: `},
		{"mounts", []any{kernel("/dev", "tmpfs"), kernel("/dev/shm", "tmpfs", "size=1m")}, `mounts[1].options[0]: `},
		{"mounts", []any{kernel("/dev/pts", "devpts", "gid=6")}, `mounts[0].options[0]: `},
		{"mounts", []any{kernel("/sys/fs/cgroup", "cgroup", "rw")}, `mounts[0].options[0]: `},
		{"process/user", map[string]any{"uid": 1, "username": "root"}, `process.user.username: uid and gid say another`},
		{"process/rlimits", []any{map[string]any{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}, map[string]any{"type": "RLIMIT_CPU", "soft": 2, "hard": 2}}, `process.rlimits[1]: a second time: "RLIMIT_CPU"`},
		{"linux/namespaces", []any{map[string]any{"type": "mount"}, map[string]any{"type": "pid"}, map[string]any{"type": "network"}, map[string]any{"type": "network", "path": "/proc/1/ns/net"}}, `linux.namespaces[3]: a second time: "network"`},
		{"linux/devices", []any{map[string]any{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0600}}, `linux.devices[0]: `},
		{"linux/devices", []any{map[string]any{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "uid": 7}}, `linux.devices[0]: `},
		{"linux/sysctl", map[string]string{"a": "b"}, `linux.sysctl: `},
		{"linux/cgroupsPath", "/x", `linux.cgroupsPath: `},
		{"linux/seccomp", map[string]any{"defaultAction": "SCMP_ACT_ALLOW"}, `linux.seccomp: `},
		{"linux/rootfsPropagation", "shared", `linux.rootfsPropagation: `},
		{"linux/mountLabel", "x", `linux.mountLabel: `},
		{"linux/netDevices", map[string]any{"eth0": map[string]any{}}, `linux.netDevices: `},
		{"linux/intelRdt", map[string]any{}, `linux.intelRdt: `},
		{"linux/memoryPolicy", map[string]any{"mode": "x", "nodes": "0"}, `linux.memoryPolicy: `},
		{"linux/personality", map[string]any{"domain": "LINUX32"}, `linux.personality: `},
		{"linux/timeOffsets", map[string]any{"boottime": map[string]any{}}, `linux.timeOffsets: `},
		{"linux/uidMappings", one, `linux.uidMappings: there is no user name space`},
		{"linux/namespaces", []any{map[string]any{"type": "mount"}}, `linux.namespaces: pid: a container has its own`},
		{"linux/namespaces", []any{map[string]any{"type": "mount"}, map[string]any{"type": "pid"}, map[string]any{"type": "time"}}, `linux.namespaces[2]: not supported: "time"`},
		{"linux/namespaces", []any{map[string]any{"type": "mount"}, map[string]any{"type": "pid", "path": "/proc/1/ns/pid"}}, `linux.namespaces: pid: a container has its own`},
		{"linux/devices", []any{map[string]any{"path": "/dev/null", "type": "c", "major": 1, "minor": 5}}, `linux.devices[0]: `},
		{"linux/maskedPaths", []string{"/proc/kcore", "/proc/version"}, `linux.maskedPaths[1]: not among what is masked: "/proc/version"`},
		{"linux/readonlyPaths", []string{"/etc"}, `linux.readonlyPaths[0]: `},
		{"linux/resources/devices", []any{map[string]any{"allow": false, "access": "rwm"}, map[string]any{"allow": true}}, `linux.resources.devices[1]: `},
		{"linux/resources/blockIO", map[string]any{}, `linux.resources.blockIO: `},
		{"linux/resources/network", map[string]any{}, `linux.resources.network: `},
		{"linux/resources/rdma", map[string]any{"x": map[string]any{}}, `linux.resources.rdma: `},
		{"linux/resources/memory/swappiness", 1, `linux.resources.memory: `},
		{"linux/resources/memory/swap", 1, `linux.resources.memory.swap: less than the memory: 1`},
		{"linux/resources/cpu/realtimePeriod", 1, `linux.resources.cpu: `},
		{"linux/resources/unified/frob.max", "1", `linux.resources: `},
	} {
		err := s.Echo("c/config", minimal(t, x.where, x.value))
		if err == nil || !strings.HasPrefix(err.Error(), "config: "+x.err) {
			t.Errorf("%s: %v", x.where, err)
		}
		if after := s.Read("c/config"); after != before {
			t.Fatalf("%s: it is %s", x.where, after)
		}
		if e := s.Echo("c/ctl", "create"); fmt.Sprint(e) != fmt.Sprint(err) {
			t.Errorf("%s: create: %v", x.where, e)
		}
	}
	if err := s.Echo("c/config", strings.ReplaceAll(before, `"CAP_SYS_CHROOT"`, `"CAP_KILL"`)); err == nil || !strings.HasPrefix(err.Error(), "config: linux.seccomp: ") {
		t.Errorf("the filter of other capabilities: %v", err)
	}
	for text, want := range map[string]string{
		`{"hostname": "a", "hostname": "b"}`:                                    `config: "hostname" is said twice`,
		`{"hostname": "a", "HostName": "b"}`:                                    `config: "HostName" is said twice`,
		`{"linux": {"resources": {"unified": {"x": "1", "y": "2", "x": "3"}}}}`: `config: "x" is said twice`,
		`{"hooks": {"poststop": [{"path": "/x", "path": "/y"}]}}`:               `config: "path" is said twice`,
		"{\"hostname\": \"\xff\"}":                                              `config: not UTF-8`,
	} {
		if err := s.Echo("c/config", text); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for _, text := range []string{"", "{", "[]", minimal(t, "hostname", "a") + "x", strings.Repeat(`{"process":`, 100000), `{"ociVersion":"1.0"}`} {
		if err := s.Echo("c/config", text); err == nil && text != "" {
			t.Errorf("%.40q is taken", text)
		}
	}
	if err := s.Echo("c/config", minimal(t, "hostname", strings.Repeat("x", 1<<20))); err != cfs.ErrTooLarge {
		t.Errorf("more than 1 MiB: %v", err)
	}
	for _, r := range refusals {
		if r.why == "" {
			t.Errorf("%s: no reason", r.path)
		}
	}
	s.Write("c/config", minimal(t, "annotations", map[string]string{"a": "b", "A": "b"}))
	s.Write("c/config", minimal(t, "hostname", "good"))
	s.Write("c/ctl", "create")
	s.Rmdir("c")
}

// What runc itself writes is taken, but for a terminal nobody is at; and it is what comes out: seen from inside.
func TestConfigOfRunc(t *testing.T) {
	s := newSession(t)
	if _, err := exec.LookPath("runc"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs runc: package runc")
		}
		t.Skip("needs runc: package runc")
	}
	dir := t.TempDir()
	cmd := exec.Command("runc", "spec")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	busybox(t, dir+"/rootfs")
	text, err := os.ReadFile(dir + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer(`"terminal": true`, `"terminal": false, "oomScoreAdj": 300`, `"path": "rootfs"`, `"path": "`+dir+`/rootfs"`, `1024`, `1000`,
		`"sh"`, `"sh", "-c", "hostname; id; ulimit -n; cat /proc/self/oom_score_adj; grep -e NoNew -e CapBnd /proc/self/status; touch /x"`).Replace(string(text))
	s.Mkdir("c")
	s.Write("c/config", changed)
	s.Write("c/ctl", "start")
	s.Read("c/wait")
	if got, want := s.Read("c/stdout"), "runc\nuid=0 gid=0\n1000\n300\nCapBnd:\t0000000020000420\nNoNewPrivs:\t1\n"; got != want {
		t.Errorf("inside: %q, want %q", got, want)
	}
	if got := s.Read("c/stderr"); !strings.Contains(got, "Read-only file system") {
		t.Errorf("stderr %q", got)
	}
	s.Rmdir("c")
}

// busyboxText is the program busybox.
func busyboxText(t *testing.T) []byte {
	t.Helper()
	bin, err := exec.LookPath("busybox")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs busybox: package busybox-static")
		}
		t.Skip("needs busybox: package busybox-static")
	}
	text, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// busybox makes a root of busybox alone.
func busybox(t *testing.T, root string) {
	t.Helper()
	text := busyboxText(t)
	var err error
	for _, dir := range []string{"bin", "proc", "sys", "dev", "etc"} {
		if err == nil {
			err = os.MkdirAll(root+"/"+dir, 0755)
		}
	}
	if err == nil {
		err = os.WriteFile(root+"/bin/busybox", text, 0755)
	}
	for _, name := range []string{"sh", "hostname", "id", "cat", "grep", "touch", "sleep", "true", "stty", "tty", "unshare"} {
		if err == nil {
			err = unix.Symlink("busybox", root+"/bin/"+name)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
