package ns

import (
	"runtime"
	"slices"
	"strings"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// DefaultSeccomp is DefaultFilter in the words of the runtime specification, for those who make filters of those themselves.
func DefaultSeccomp(caps CapSet) *oci.LinuxSeccomp {
	calls := map[verdict][]string{}
	known := map[string]bool{}
	for _, r := range profile {
		if r.caps != 0 && r.caps&caps == 0 {
			continue
		}
		for name := range strings.FieldsSeq(r.calls) {
			if !known[name] { // the first rule that names it decides
				known[name] = true
				calls[r.verdict] = append(calls[r.verdict], name)
			}
		}
	}
	refused, absent := uint(unix.EPERM), uint(unix.ENOSYS)
	s := &oci.LinuxSeccomp{
		DefaultAction: oci.ActErrno, DefaultErrnoRet: &refused,
		Architectures: map[string][]oci.Arch{
			"amd64": {oci.ArchX86_64, oci.ArchX86, oci.ArchX32}, "arm64": {oci.ArchAARCH64, oci.ArchARM},
		}[runtime.GOARCH],
	}
	// Several conditions on one argument are several rules.
	add := func(v verdict, action oci.LinuxSeccompAction, errno *uint, args ...oci.LinuxSeccompArg) {
		if len(calls[v]) == 0 {
			return
		}
		rule := oci.LinuxSyscall{Names: calls[v], Action: action, ErrnoRet: errno}
		if len(args) == 0 {
			s.Syscalls = append(s.Syscalls, rule)
		}
		for _, a := range args {
			one := rule
			one.Args = []oci.LinuxSeccompArg{a}
			s.Syscalls = append(s.Syscalls, one)
		}
	}
	for _, names := range calls {
		slices.Sort(names)
	}
	add(allow, oci.ActAllow, nil)
	add(noSys, oci.ActErrno, &absent)
	add(noNamespace, oci.ActAllow, nil, oci.LinuxSeccompArg{Value: newNamespaces, ValueTwo: 0, Op: oci.OpMaskedEqual})
	add(safeSocket, oci.ActAllow, nil, oci.LinuxSeccompArg{Value: unix.AF_ALG, Op: oci.OpLessThan},
		oci.LinuxSeccompArg{Value: unix.AF_ALG + 1, Op: oci.OpEqualTo}, oci.LinuxSeccompArg{Value: unix.AF_VSOCK, Op: oci.OpGreaterThan})
	var persons []oci.LinuxSeccompArg
	for _, p := range []uint64{0, perLinux32, uname26, perLinux32 | uname26, 0xffffffff} {
		persons = append(persons, oci.LinuxSeccompArg{Value: p, Op: oci.OpEqualTo})
	}
	add(safePersonality, oci.ActAllow, nil, persons...)
	return s
}
