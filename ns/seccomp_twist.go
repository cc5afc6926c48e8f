package ns

import (
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A Twist is what a filter does otherwise than Docker's default profile.
type Twist uint8

const (
	// Asking lets a listener answer calls that Linux-VServer answered otherwise than Linux does. See Listener.
	Asking Twist = 1 << iota
	// HidingMounts refuses the calls that tell of mounts without proc.
	HidingMounts
	// Prolific allows name spaces to be made and entered.
	Prolific
)

// asked are the calls that a listener is asked, where nothing else is said always. Who has the capability
// asks the kernel, as he does without a listener.
const (
	asked      = "uname sysinfo setrlimit setpriority reboot"
	askedMount = "mount umount umount2"
	askedNames = "sethostname setdomainname"
	askedQuota = "quotactl quotactl_fd"
)

const sysAdmin = 1 << unix.CAP_SYS_ADMIN

// twists are rules that come before the profile's.
var twists = []struct {
	twist Twist
	rules []rule
}{
	{Asking, []rule{
		{calls: strings.Join([]string{askedMount, askedNames, askedQuota, "syslog"}, " "), caps: sysAdmin},
		{calls: "syslog", caps: 1 << unix.CAP_SYSLOG},
		{calls: strings.Join([]string{asked, askedMount, askedNames, askedQuota, "syslog"}, " "), verdict: notify},
		{calls: "prlimit64", verdict: notifyLimit},
		{calls: "socket", verdict: notifyRaw},
		{calls: "fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr", caps: sysAdmin},
		{calls: "fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr", verdict: noSys}, // mount(8) then calls mount(2)
	}},
	{HidingMounts, []rule{{calls: "statmount listmount", verdict: refuse}}},
	{Prolific, []rule{{calls: "clone clone3 unshare setns"}}},
}

// An abiCall is a call as a filter's listener hears of it.
type abiCall struct {
	audit, nr uint32
}

// askedNow gives the names of the calls that can be asked, of all ABIs of this machine.
var askedNow = sync.OnceValue(func() map[abiCall]string {
	all := make(map[abiCall]string)
	for _, a := range abis[runtime.GOARCH] {
		for _, n := range a.numberings {
			numbers := n.parse()
			for _, r := range twists[0].rules {
				for name := range strings.FieldsSeq(r.calls) {
					if nr, ok := numbers[name]; ok {
						all[abiCall{a.audit, nr}] = name
					}
				}
			}
		}
	}
	return all
})
