package ns

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestCapWords(t *testing.T) {
	for _, c := range []struct {
		word string
		bit  int
	}{
		{"chown", unix.CAP_CHOWN},
		{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN},
		{"cap_setfcap", 31},
		{"mac_override", unix.CAP_MAC_OVERRIDE},
		{"checkpoint_restore", unix.CAP_CHECKPOINT_RESTORE},
		{"63", 63},
	} {
		got, err := ParseCap(c.word)
		if err != nil || got != 1<<c.bit {
			t.Errorf("ParseCap(%q) = %#x, %v; want bit %d", c.word, uint64(got), err, c.bit)
		}
	}
	for _, word := range []string{"", "cap_", "context", "frob", "64", "-1", "chown mknod"} {
		if got, err := ParseCap(word); err == nil {
			t.Errorf("ParseCap(%q) = %#x, want an error", word, uint64(got))
		}
	}
	if got := len(capNames); got != unix.CAP_LAST_CAP+1 {
		t.Errorf("%d names for %d capabilities", got, unix.CAP_LAST_CAP+1)
	}
	for n := range 64 {
		set := DefaultCaps ^ 1<<n
		if got, err := ParseCaps(set.String()); err != nil || got != set {
			t.Errorf("%#x is written %q and read %#x, %v", uint64(set), set, uint64(got), err)
		}
	}
}

func TestKernelCaps(t *testing.T) {
	var want CapSet
	for n := range 64 {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err == nil {
			want |= 1 << n
		}
	}
	if got := KernelCaps(); got != want {
		t.Errorf("KernelCaps() = %#x, prctl knows %#x", uint64(got), uint64(want))
	}
	if !KernelCaps().Has(DefaultCaps) || DefaultCaps.Has(1<<unix.CAP_SYS_ADMIN) {
		t.Error("DefaultCaps is wrong")
	}
}
