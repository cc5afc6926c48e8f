package ns

import (
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Filter is a program of classic BPF over struct seccomp_data, which decides
// about system calls. See seccomp(2).
type Filter []unix.SockFilter

// Fprog gives the filter as the system call takes it.
func (f Filter) Fprog() *unix.SockFprog {
	return &unix.SockFprog{Len: uint16(len(f)), Filter: unsafe.SliceData(f)}
}

// DefaultFilter has the effect of Docker's default profile on a process with
// these capabilities, for the machine's own programs and its 32-bit ones. What
// it refuses answers EPERM, calls newer than the profile ENOSYS, so that
// programs fall back. A machine of an architecture without a table gets nil.
//
// The program is a binary search, and looks at arguments only where they
// decide: for calls that are always allowed the kernel then knows beforehand
// (since 5.11) that it need not run it at all.
func DefaultFilter(caps CapSet, but Twist) Filter { return compile(tables(but), caps) }

// A verdict is what a filter answers to a call.
type verdict uint8

const (
	allow           verdict = iota
	refuse                  // EPERM
	noSys                   // ENOSYS
	noNamespace             // allowed if the first argument asks for no new namespace
	safeSocket              // allowed but for the families AF_ALG and AF_VSOCK
	safePersonality         // allowed for Linux's own, 32-bit and uname26, and to ask
	notify                  // what the listener answers
	notifyLimit             // that, if the third argument points to something
	notifyRaw               // that, for raw sockets of the Internet; else as safeSocket
)

// Offsets in struct seccomp_data.
const (
	dataNr   = 0
	dataArch = 4
	dataArg0 = 16 // its lower half: both architectures are little-endian
	dataArg1 = 24
	dataArg2 = 32
)

const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

var (
	retAllow  = ret(unix.SECCOMP_RET_ALLOW)
	retRefuse = ret(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	retNoSys  = ret(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))
	retNotify = ret(unix.SECCOMP_RET_USER_NOTIF)
)

// code is the program of each verdict. None falls off its end.
var code = [...]Filter{
	allow:       {retAllow},
	refuse:      {retRefuse},
	noSys:       {retNoSys},
	noNamespace: {load(dataArg0), jump(unix.BPF_JSET, newNamespaces, 0, 1), retRefuse, retAllow},
	safeSocket: {load(dataArg0), jump(unix.BPF_JEQ, unix.AF_ALG, 1, 0), jump(unix.BPF_JEQ, unix.AF_VSOCK, 0, 1),
		retRefuse, retAllow},
	safePersonality: {load(dataArg0),
		jump(unix.BPF_JEQ, 0xffffffff, 2, 0), // asks for the present one
		jump(unix.BPF_JSET, ^uint32(perLinux32|uname26), 0, 1), retRefuse, retAllow},
	notify: {retNotify},
	notifyLimit: {load(dataArg2), jump(unix.BPF_JEQ, 0, 0, 2), load(dataArg2 + 4), jump(unix.BPF_JEQ, 0, 1, 0),
		retNotify, retAllow},
	notifyRaw: {load(dataArg0), jump(unix.BPF_JEQ, unix.AF_INET, 1, 0), jump(unix.BPF_JEQ, unix.AF_INET6, 0, 5),
		load(dataArg1), {Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf}, jump(unix.BPF_JEQ, unix.SOCK_RAW, 0, 1),
		retNotify, retAllow,
		jump(unix.BPF_JEQ, unix.AF_ALG, 1, 0), jump(unix.BPF_JEQ, unix.AF_VSOCK, 0, 1), retRefuse, retAllow},
}

// Bits of personality(2).
const (
	perLinux32 = 0x8
	uname26    = 0x20000
)

func ret(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
func load(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: k}
}
func jump(op uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

// A table is an abi ready for use: for each numbering the calls that the
// profile names, in ascending order.
type table struct {
	audit uint32
	calls [][]call
}

// A call is a system call with the rules that name it, in the profile's order.
type call struct {
	nr    uint32
	rules []*rule
}

// tables gives those with the twists, made once: a filter then takes 60 microseconds instead of 700.
func tables(but Twist) []table {
	if t, ok := resolved.Load(but); ok {
		return t.([]table)
	}
	var rules []rule
	for _, t := range twists {
		if but&t.twist != 0 {
			rules = append(rules, t.rules...)
		}
	}
	t := resolve(abis[runtime.GOARCH], append(rules, profile...))
	resolved.Store(but, t)
	return t
}

var resolved sync.Map // of Twist

func resolve(abis []abi, profile []rule) []table {
	var all []table
	for _, a := range abis {
		t := table{audit: a.audit}
		for _, n := range a.numberings {
			numbers := n.parse()
			rules := make(map[uint32][]*rule)
			for i := range profile {
				for name := range strings.FieldsSeq(profile[i].calls) {
					if nr, ok := numbers[name]; ok {
						rules[nr] = append(rules[nr], &profile[i])
					}
				}
			}
			var calls []call
			for _, nr := range slices.Sorted(maps.Keys(rules)) {
				calls = append(calls, call{nr, rules[nr]})
			}
			t.calls = append(t.calls, calls)
		}
		all = append(all, t)
	}
	return all
}

// parse gives the numbers by name.
func (n numbering) parse() map[string]uint32 {
	numbers := make(map[string]uint32)
	var next uint32
	for _, word := range strings.Fields(strings.Join(n.calls, " ")) {
		if k, err := strconv.ParseUint(word, 10, 32); err == nil {
			next = n.base + uint32(k)
			continue
		}
		numbers[word] = next
		next++
	}
	return numbers
}

// verdict is that of the first rule that holds; of none: ok is false.
func (c call) verdict(caps CapSet) (v verdict, ok bool) {
	for _, r := range c.rules {
		if r.caps == 0 || r.caps&caps != 0 {
			return r.verdict, true
		}
	}
	return refuse, false
}

// compile makes the filter: one search for each ABI, behind a test of the
// architecture. A foreign architecture cannot be; who makes it so is killed, as
// libseccomp does.
func compile(tables []table, caps CapSet) Filter {
	if len(tables) == 0 {
		return nil
	}
	f := append(make(Filter, 0, 1024), load(dataArch))
	for _, t := range tables {
		f = append(f, jump(unix.BPF_JEQ, t.audit, 1, 0), skip(0))
		here := len(f)
		f = append(f, load(dataNr)).find(t.ranges(caps))
		f[here-1] = skip(len(f) - here)
	}
	return append(f, ret(unix.SECCOMP_RET_KILL_PROCESS))
}

// A span is the system calls from first to the next span's first.
type span struct {
	first   uint32
	verdict verdict
}

// ranges gives the spans of all numbers, in ascending order from 0.
func (t table) ranges(caps CapSet) []span {
	spans := append(make([]span, 0, 1024), span{0, refuse})
	add := func(first uint32, v verdict) {
		if last := &spans[len(spans)-1]; last.first == first {
			last.verdict = v
		} else {
			spans = append(spans, span{first, v})
		}
	}
	for _, calls := range t.calls {
		var newest uint32
		for _, c := range calls {
			if v, ok := c.verdict(caps); ok {
				add(c.nr, v)
				add(c.nr+1, refuse)
				newest = c.nr
			}
		}
		add(newest+1, noSys)
	}
	return slices.CompactFunc(spans, func(a, b span) bool { return a.verdict == b.verdict })
}

// find appends the program that searches for the number in the accumulator.
func (f Filter) find(spans []span) Filter {
	if len(spans) == 1 {
		return append(f, code[spans[0].verdict]...)
	}
	mid := len(spans) / 2
	here := len(f)
	f = append(f, jump(unix.BPF_JGE, spans[mid].first, 0, 0)).find(spans[:mid])
	if n := len(f) - here - 1; n < 256 {
		f[here].Jt = uint8(n)
	} else { // farther than a conditional jump goes
		f[here].Jf = 1
		f = slices.Insert(f, here+1, skip(n))
	}
	return f.find(spans[mid:])
}

func skip(n int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)}
}
