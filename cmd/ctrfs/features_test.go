package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"ctrfs/fs"
	"ctrfs/fs/fstest"
	"ctrfs/fs/styx"
	"ctrfs/proc"
)

// takenOver is what PCP's process services (9 to 16), libvserver (17 to 115), Inferno's pctl and prog (116 to 131) and gVisor's shim
// for containerd (132 to 160) can do, with the numbers by which the scripts that show them say so: a comment begins with them.
var takenOver = map[int]string{
	9:  "a process is started with pipes or a socket",
	10: "it has a label",
	11: "arguments are quoted",
	12: "its number is known at once",
	13: "its input and output are files",
	14: "its end is waited for, with the status",
	15: "it is ended by a signal",
	16: "an error is a text",

	17:  "a context has a number",
	18:  "info",
	19:  "stat has twelve values",
	20:  "words are set with a mask",
	21:  "a field of uname has 64 bytes",
	22:  "wait tells the exit code and what reboot asked for",
	23:  "a context is made, with flags",
	24:  "a process enters a context",
	25:  "which context a process is in",
	26:  "the number and the first process",
	27:  "what a context does, in numbers",
	28:  "capabilities are set",
	29:  "capabilities are read",
	30:  "context capabilities are set",
	31:  "context capabilities are read",
	32:  "flags are set, some once",
	33:  "flags are read",
	34:  "uname is set",
	35:  "uname is read",
	36:  "kill has four kinds of targets",
	37:  "the end of a context is waited for",
	38:  "the capability chown",
	39:  "the capability dac_override",
	40:  "the capability dac_read_search",
	41:  "the capability fowner",
	42:  "the capability fsetid",
	43:  "the capability kill",
	44:  "the capability setgid",
	45:  "the capability setuid",
	46:  "the capability setpcap",
	47:  "the capability linux_immutable",
	48:  "the capability net_bind_service",
	49:  "the capability net_broadcast",
	50:  "the capability net_admin",
	51:  "the capability net_raw",
	52:  "the capability ipc_lock",
	53:  "the capability ipc_owner",
	54:  "the capability sys_module",
	55:  "the capability sys_rawio",
	56:  "the capability sys_chroot",
	57:  "the capability sys_ptrace",
	58:  "the capability sys_pacct",
	59:  "the capability sys_admin",
	60:  "the capability sys_boot",
	61:  "the capability sys_nice",
	62:  "the capability sys_resource",
	63:  "the capability sys_time",
	64:  "the capability sys_tty_config",
	65:  "the capability mknod",
	66:  "the capability lease",
	67:  "the capability audit_write",
	68:  "the capability audit_control",
	69:  "context is no capability of Linux",
	70:  "set_utsname",
	71:  "set_rlimit",
	72:  "raw_icmp",
	73:  "syslog",
	74:  "secure_mount",
	75:  "secure_remount",
	76:  "binary_mount",
	77:  "quota_ctl",
	78:  "admin_mapper",
	79:  "admin_cloop",
	80:  "info_sched",
	81:  "info_nproc",
	82:  "info_private",
	83:  "info_init",
	84:  "info_hide",
	85:  "info_ulimit",
	86:  "info_nspace",
	87:  "sched_hard",
	88:  "sched_prio",
	89:  "sched_pause",
	90:  "virt_mem",
	91:  "virt_uptime",
	92:  "virt_cpu",
	93:  "virt_load",
	94:  "virt_time",
	95:  "hide_mount",
	96:  "hide_netif",
	97:  "hide_vinfo",
	98:  "state_setup",
	99:  "state_init",
	100: "state_admin",
	101: "sc_helper",
	102: "reboot_kill",
	103: "persistent",
	104: "fork_rss",
	105: "prolific",
	106: "igneg_nice",
	107: "set_init",
	108: "set_reaper",
	109: "uname's context",
	110: "uname's sysname",
	111: "uname's nodename",
	112: "uname's release",
	113: "uname's version",
	114: "uname's machine",
	115: "uname's domainname",

	116: "name space, group and directory are shared with children",
	117: "who shares is a group with a number",
	118: "NEWFD keeps descriptors",
	119: "FORKFD closes descriptors in the old table",
	120: "NEWNS makes the current directory the root",
	121: "FORKNS copies the name space, and splits the directory",
	122: "NODEVS allows no device but some",
	123: "NEWENV is empty",
	124: "FORKENV is a copy",
	125: "NEWPGRP has the process's number",
	126: "descriptors in any order",
	127: "several flags in one message",
	128: "the result is the process's number",
	129: "killgrp ends a group",
	130: "prog's files are found by the number",
	131: "the shell's way to say it",

	132: "what there is is found where it is kept",
	133: "exits are a stream",
	134: "runtime and configuration",
	135: "what a container is created with",
	136: "what a program in it is executed with",
	137: "an exit has a time, an id and a status",
	138: "working directory, bundle, root",
	139: "New",
	140: "Create",
	141: "Start",
	142: "Restore",
	143: "Delete",
	144: "Exec",
	145: "Kill",
	146: "KillAll",
	147: "Resize",
	148: "Stats",
	149: "Status",
	150: "SetExited: once only",
	151: "Wait",
	152: "ExitStatus",
	153: "ExitedAt",
	154: "ID",
	155: "Pid",
	156: "Runtime",
	157: "Stdin, which can be closed",
	158: "Stdio",
	159: "mounts",
	160: "every reader hears of every exit",
}

func TestFeatures(t *testing.T) {
	scripts, err := filepath.Glob("../../testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[int]bool{}
	for _, name := range scripts {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^# ((?:\d+, )*\d+): `).FindAllStringSubmatch(string(text), -1) {
			for word := range strings.SplitSeq(m[1], ", ") {
				n, _ := strconv.Atoi(word)
				shown[n] = true
				if takenOver[n] == "" {
					t.Errorf("%s: %d is no feature", name, n)
				}
			}
		}
	}
	for n, what := range takenOver {
		if !shown[n] {
			t.Errorf("no script shows %d: %s", n, what)
		}
	}
}

// The guests' script says every verb.
func TestGuestVerbs(t *testing.T) {
	script, err := os.ReadFile("../../testdata/v9fs/verbs.sh")
	if err != nil {
		t.Fatal(err)
	}
	parked := false
	said := map[string]bool{}
	for line := range strings.Lines(string(script)) {
		parked = (parked || line == "\tnew\n") && !strings.Contains(line, "state=running")
		for verb := range procVerbs() {
			if regexp.MustCompile(`[\s'"]` + verb + `[\s'"]`).MatchString(line) {
				said[fmt.Sprint(verb, parked)] = true
			}
		}
	}
	for verb := range procVerbs() {
		for _, state := range []bool{true, false} {
			if !said[fmt.Sprint(verb, state)] {
				t.Errorf("%s: not said to a process that is parked %v", verb, state)
			}
		}
	}
}

// A message is a verb that a script has written to a process's ctl, and what became of it.
type message struct {
	verb    string
	parked  bool // was the process
	refused bool
	d       styx.Dialect
}

var messages struct {
	sync.Mutex
	heard map[message]bool
	ran   int // scripts
}

// procVerbs gives the verbs of a process, each flag by itself: what a message is known by.
func procVerbs() map[string]bool {
	all := map[string]bool{}
	for _, usage := range proc.Verbs() {
		for verb := range strings.SplitSeq(strings.Fields(usage)[0], "|") {
			all[verb] = true
		}
	}
	return all
}

var processCtl = regexp.MustCompile(`^/proc/(\w+)/ctl$`)

// hear takes note of a text that is about to be written, if that is to a process.
func (c *shell) hear(name, text string) func(error) {
	parked := name == "/proc/clone"
	if m := processCtl.FindStringSubmatch(name); m != nil {
		root := fstest.Client{Ctx: fs.WithClient(c.s.ctx, &fs.Client{Errors: new(fs.Errors)}), Root: c.s.srv.Root}
		status, _ := root.Cat("proc/" + m[1] + "/status")
		parked = strings.Contains(status, "\nstate parked\n")
	} else if !parked {
		return func(error) {}
	}
	return func(err error) {
		if err != nil && err.Error() == "permission denied" {
			return
		}
		known, parked := procVerbs(), parked
		messages.Lock()
		defer messages.Unlock()
		for line := range strings.Lines(text) {
			words := strings.FieldsFunc(strings.ToLower(line), func(r rune) bool { return strings.ContainsRune(" |\n", r) })
			for i, w := range words {
				flag := strings.HasPrefix(w, "new") || strings.HasPrefix(w, "fork") || w == "nodevs"
				if known[w] && (i == 0 || flag) {
					messages.heard[message{w, parked, err != nil, c.s.dialect}] = true
				}
			}
			parked = parked && words[0] != "exec"
		}
	}
}

// everyVerb is whether the scripts have said every verb of a process, to one that was parked and to one that ran, and
// that it was taken or, as the manual says, refused.
func everyVerb(t *testing.T) {
	_, verbs, _ := strings.Cut(manual, "\n.SS Verbs of /proc/N/ctl\n")
	_, parkedOnly, _ := strings.Cut(verbs, "\nThese are for a parked process only:\n")
	parkedOnly, _, _ = strings.Cut(parkedOnly, "\n.SS ")
	for verb := range procVerbs() {
		running := regexp.MustCompile(`(?m)^\.T[PQ]\n\.B `+verb+`\b`).FindString(parkedOnly) == "" && !strings.HasSuffix(verb, "env")
		for _, d := range []styx.Dialect{styx.Linux, styx.Plain} {
			if !messages.heard[message{verb, true, verb == "private", d}] {
				t.Errorf("%s: no script says it to a parked process over %s", verb, d)
			}
			if !messages.heard[message{verb, false, !running, d}] {
				t.Errorf("%s: no script says it to a running process over %s", verb, d)
			}
		}
	}
}
