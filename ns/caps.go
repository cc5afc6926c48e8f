package ns

import (
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A CapSet is a set of capabilities, bit n being capability number n.
// See capabilities(7).
type CapSet uint64

// DefaultCaps is what root in a container has unless it is given more: Docker's
// default set.
const DefaultCaps CapSet = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FSETID |
	1<<unix.CAP_FOWNER | 1<<unix.CAP_MKNOD | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SETGID |
	1<<unix.CAP_SETUID | 1<<unix.CAP_SETFCAP | 1<<unix.CAP_SETPCAP | 1<<unix.CAP_NET_BIND_SERVICE |
	1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_KILL | 1<<unix.CAP_AUDIT_WRITE

// capNames is indexed by capability number. Linux-VServer called number 31
// "context"; in Linux it has always been setfcap.
var capNames = strings.Fields(`chown dac_override dac_read_search fowner fsetid kill setgid setuid
	setpcap linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner
	sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource
	sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin
	syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore`)

// ParseCap gives the set of the one capability named by word: its name in any
// case, with or without CAP_, or its number, which is how String writes a
// capability that is newer than this program.
func ParseCap(word string) (CapSet, error) {
	name := strings.TrimPrefix(strings.ToLower(word), "cap_")
	for i, s := range capNames {
		if s == name {
			return 1 << i, nil
		}
	}
	if n, err := strconv.ParseUint(name, 10, 6); err == nil {
		return 1 << n, nil
	}
	return 0, fmt.Errorf("no such capability: %q", word)
}

// ParseCaps gives the union of the capabilities named by the words of text.
func ParseCaps(text string) (CapSet, error) {
	var set CapSet
	for _, word := range strings.Fields(text) {
		c, err := ParseCap(word)
		if err != nil {
			return 0, err
		}
		set |= c
	}
	return set, nil
}

// Has reports whether every capability of c is in the set.
func (s CapSet) Has(c CapSet) bool { return s&c == c }

// Words gives the names of the set's capabilities, lowest number first.
func (s CapSet) Words() []string {
	words := make([]string, 0, bits.OnesCount64(uint64(s)))
	for ; s != 0; s &= s - 1 {
		n := bits.TrailingZeros64(uint64(s))
		if n < len(capNames) {
			words = append(words, capNames[n])
		} else {
			words = append(words, strconv.Itoa(n))
		}
	}
	return words
}

// String gives the words separated by a space; ParseCaps reads it back.
func (s CapSet) String() string { return strings.Join(s.Words(), " ") }

// KernelCaps is the set of all capabilities that the running kernel has, named
// here or not: what must be gone over to drop "all".
var KernelCaps = sync.OnceValue(func() CapSet {
	last := unix.CAP_LAST_CAP
	if text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && n >= 0 && n < 64 {
			last = n
		}
	}
	return ^CapSet(0) >> (63 - last)
})
