package ns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refused is what Docker's default profile refuses to its default capabilities
// with EPERM, of all ABIs: the other side of the profile's list.
const refused = `
	_sysctl acct add_key afs_syscall bdflush bpf break clock_settime clock_settime64 create_module
	delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick ftime get_kernel_syms
	get_mempolicy getpmsg gtty idle init_module io_uring_enter io_uring_register io_uring_setup ioperm
	iopl kcmp kexec_file_load kexec_load keyctl lock lookup_dcookie lsm_get_self_attr
	lsm_list_modules lsm_set_self_attr mbind migrate_pages mount mount_setattr move_mount
	move_pages mpx nfsservctl nice oldfstat oldlstat oldolduname oldstat olduname open_by_handle_at
	open_tree pciconfig_iobase pciconfig_read pciconfig_write perf_event_open pidfd_getfd pivot_root
	process_madvise prof profil putpmsg query_module quotactl quotactl_fd readdir reboot request_key
	security set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday
	sgetmask sigaction signal sigpending sigsuspend ssetmask stime stty swapoff swapon sysfs syslog
	tuxcall ulimit umount umount2 unshare uprobe uselib userfaultfd ustat vhangup vm86 vm86old
	vserver`

// A probe asks a real kernel what filters say to a system call without making
// it: a filter put in before answers EXDEV to every call whose last argument is
// the mark. Of two ERRNOs the kernel takes the younger filter's, and an ERRNO
// beats an ALLOW: so EXDEV comes back exactly for what the younger one allows.
const mark = 0x5ec0c0de

const dataArg5 = dataArg0 + 5*8

var probe = Filter{
	load(dataArg5), jump(unix.BPF_JEQ, mark, 0, 1),
	ret(unix.SECCOMP_RET_ERRNO | uint32(unix.EXDEV)), retAllow,
}

// marked makes f decide about marked calls only, so that the thread can live on
// when f is a filter for other numbers.
func marked(f Filter) Filter {
	return append(Filter{load(dataArg5), jump(unix.BPF_JEQ, mark, 1, 0), retAllow}, f...)
}

// filtered runs do on a thread of its own, which ends afterwards, behind filters.
func filtered(t testing.TB, do func(), filters ...Filter) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread goes with its filters
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		for _, f := range filters {
			if err == nil {
				err = install(f)
			}
		}
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("install the filters: %v", err)
	}
}

func install(f Filter) error {
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0,
		uintptr(unsafe.Pointer(f.Fprog()))); errno != 0 {
		return errno
	}
	return nil
}

func ask(nr, arg0 uint32) unix.Errno {
	_, _, errno := unix.RawSyscall6(uintptr(nr), uintptr(arg0), 0, 0, 0, 0, mark)
	return errno
}

// expect checks the answers to all calls of a numbering, except some, against
// the list refused.
func expect(t *testing.T, n numbering, ask func(nr uint32) unix.Errno, not ...uint32) {
	t.Helper()
	names := make(map[uint32]string)
	for name, nr := range n.parse() {
		names[nr] = name
	}
	no := strings.Fields(refused)
	numbers := slices.Sorted(maps.Keys(names))
	oldest, newest := numbers[0], numbers[len(numbers)-1]
	for nr := n.base; nr < n.base+1024; nr++ {
		name, want := names[nr], unix.EXDEV
		switch {
		case slices.Contains(not, nr):
			continue
		case name == "clone3":
			want = unix.ENOSYS
		case name == "" || slices.Contains(no, name):
			if want = unix.EPERM; nr < oldest || nr > newest {
				want = unix.ENOSYS
			}
		}
		if got := ask(nr); got != want {
			t.Errorf("call %d %s: %v, want %v", nr, name, got, want)
		}
	}
}

// unfiltered is what the kernel lets pass by every filter, and what ends with
// SIGILL outside of a trampoline: uretprobe and uprobe.
var unfiltered = map[string][]uint32{"amd64": {335, 336}}

// TestFilterCalls asks the kernel about every call of every ABI, also of the
// other architecture's: its filter is told that its numbers are this machine's.
func TestFilterCalls(t *testing.T) {
	for goarch, list := range abis {
		for _, a := range list {
			tables := resolve([]abi{{abis[runtime.GOARCH][0].audit, a.numberings}}, profile)
			filter := compile(tables, DefaultCaps)
			if len(filter) > 4096 {
				t.Errorf("%s: %d instructions", goarch, len(filter))
			}
			for _, n := range a.numberings {
				if n.base == 0xf0000 && runtime.GOARCH == "amd64" {
					continue // ARM's own calls: below x32's, but not asked about one by one
				}
				filtered(t, func() {
					expect(t, n, func(nr uint32) unix.Errno { return ask(nr, 0) }, unfiltered[runtime.GOARCH]...)
				}, probe, marked(filter))
			}
		}
	}
}

func TestFilterArguments(t *testing.T) {
	cases := []struct {
		name string
		nr   uint32
		arg  uint32
		want unix.Errno
	}{
		{"fork", unix.SYS_CLONE, uint32(unix.SIGCHLD), unix.EXDEV},
		{"thread", unix.SYS_CLONE, unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD, unix.EXDEV},
		{"clone NEWUSER", unix.SYS_CLONE, unix.CLONE_NEWUSER, unix.EPERM},
		{"clone NEWNS", unix.SYS_CLONE, unix.CLONE_NEWNS, unix.EPERM},
		{"clone NEWCGROUP", unix.SYS_CLONE, unix.CLONE_NEWCGROUP | uint32(unix.SIGCHLD), unix.EPERM},
		{"socket UNIX", unix.SYS_SOCKET, unix.AF_UNIX, unix.EXDEV},
		{"socket ALG", unix.SYS_SOCKET, unix.AF_ALG, unix.EPERM},
		{"socket NFC", unix.SYS_SOCKET, unix.AF_NFC, unix.EXDEV},
		{"socket VSOCK", unix.SYS_SOCKET, unix.AF_VSOCK, unix.EPERM},
		{"socket XDP", unix.SYS_SOCKET, unix.AF_XDP, unix.EXDEV},
		{"personality LINUX", unix.SYS_PERSONALITY, 0, unix.EXDEV},
		{"personality LINUX32", unix.SYS_PERSONALITY, 8, unix.EXDEV},
		{"personality UNAME26", unix.SYS_PERSONALITY, 0x20000, unix.EXDEV},
		{"personality both", unix.SYS_PERSONALITY, 0x20008, unix.EXDEV},
		{"personality ask", unix.SYS_PERSONALITY, 0xffffffff, unix.EXDEV},
		{"personality NO_RANDOMIZE", unix.SYS_PERSONALITY, 0x40000, unix.EPERM},
		{"personality SVR4", unix.SYS_PERSONALITY, 1, unix.EPERM},
	}
	filtered(t, func() {
		for _, c := range cases {
			if got := ask(c.nr, c.arg); got != c.want {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
		// The kernel takes an int of it: upper bits change nothing.
		if _, _, got := unix.RawSyscall6(unix.SYS_SOCKET, 1<<32|unix.AF_ALG, 0, 0, 0, 0, mark); got != unix.EPERM {
			t.Errorf("socket ALG with an upper bit: %v, want EPERM", got)
		}
	}, probe, DefaultFilter(DefaultCaps, 0))
}

func TestFilterCaps(t *testing.T) {
	cases := []struct {
		nr   uint32
		arg  uint32
		caps string // each of these alone allows the call
	}{
		{unix.SYS_BPF, 0, "sys_admin bpf"},
		{unix.SYS_PERF_EVENT_OPEN, 0, "sys_admin perfmon"},
		{unix.SYS_SYSLOG, 0, "sys_admin syslog"},
		{unix.SYS_MOUNT, 0, "sys_admin"},
		{unix.SYS_UNSHARE, 0, "sys_admin"},
		{unix.SYS_SETNS, 0, "sys_admin"},
		{unix.SYS_CLONE, unix.CLONE_NEWUSER, "sys_admin"},
		{unix.SYS_CLONE3, 0, "sys_admin"},
		{unix.SYS_LSM_LIST_MODULES, 0, "sys_admin"},
		{unix.SYS_OPEN_BY_HANDLE_AT, 0, "dac_read_search"},
		{unix.SYS_REBOOT, 0, "sys_boot"},
		{unix.SYS_CHROOT, 0, "sys_chroot"},
		{unix.SYS_FINIT_MODULE, 0, "sys_module"},
		{unix.SYS_ACCT, 0, "sys_pacct"},
		{unix.SYS_PIDFD_GETFD, 0, "sys_ptrace"},
		{unix.SYS_CLOCK_SETTIME, 0, "sys_time"},
		{unix.SYS_VHANGUP, 0, "sys_tty_config"},
		{unix.SYS_SET_MEMPOLICY_HOME_NODE, 0, "sys_nice"},
		{unix.SYS_KEXEC_LOAD, 0, ""},
		{unix.SYS_ADD_KEY, 0, ""},
		{unix.SYS_USERFAULTFD, 0, ""},
	}
	for n := range unix.CAP_LAST_CAP + 1 {
		bit := CapSet(1) << n
		filtered(t, func() {
			for _, c := range cases {
				caps, err := ParseCaps(c.caps)
				if err != nil {
					t.Error(err)
				}
				if got := ask(c.nr, c.arg) == unix.EXDEV; got != caps.Has(bit) {
					t.Errorf("call %d with %v: allowed is %v", c.nr, bit, got)
				}
			}
		}, probe, DefaultFilter(bit, 0))
	}
}

// TestFilterForReal makes calls, with nothing but the default filter: a
// dangerous one each and a program.
func TestFilterForReal(t *testing.T) {
	filtered(t, func() {
		if err := unix.Unshare(unix.CLONE_NEWUSER); err != unix.EPERM {
			t.Errorf("unshare: %v", err)
		}
		if err := unix.Mount("none", "/nonexistent", "tmpfs", 0, ""); err != unix.EPERM {
			t.Errorf("mount: %v", err)
		}
		if _, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0); err != unix.EPERM {
			t.Errorf("socket: %v", err)
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); errno != unix.ENOSYS {
			t.Errorf("clone3: %v", errno)
		}
		if _, _, errno := unix.RawSyscall(471, 0, 0, 0); errno != unix.ENOSYS {
			t.Errorf("a call newer than the profile: %v", errno)
		}
		if out, err := exec.Command(os.Args[0], "-test.run=^$").CombinedOutput(); err != nil {
			t.Errorf("a Go program: %v\n%s", err, out)
		}
	}, DefaultFilter(DefaultCaps, 0))
}

// TestFilter386 runs a 32-bit program that makes every call, marked, and writes
// the errors.
func TestFilter386(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("needs an amd64 machine")
	}
	prog := filepath.Join(t.TempDir(), "calls")
	if err := os.WriteFile(prog, elf386(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(prog).Run(); errors.Is(err, unix.ENOEXEC) {
		return // a kernel that runs no 32-bit programs has none to filter
	}
	filtered(t, func() {
		out, err := exec.Command(prog).Output()
		if err != nil || len(out) != 1024 {
			t.Errorf("32-bit program: %d bytes, %v", len(out), err)
			return
		}
		expect(t, abis["amd64"][1].numberings[0], func(nr uint32) unix.Errno { return unix.Errno(out[nr]) })
	}, probe, DefaultFilter(DefaultCaps, 0))
}

// elf386 is a program that makes calls 0..1023 with the mark and writes their
// errors, a byte each, to descriptor 1. Without filters it would end at the
// second (exit), with status 0.
func elf386() []byte {
	const buf = 0x8049000
	le := binary.LittleEndian
	code := []byte{0x31, 0xff} // xor edi,edi
	loop := len(code)
	code = append(code, 0x89, 0xf8, 0x31, 0xdb, 0x31, 0xc9, 0x31, 0xd2, 0x31, 0xf6)  // eax=edi; ebx=ecx=edx=esi=0
	code = append(le.AppendUint32(append(code, 0xbd), mark), 0xcd, 0x80, 0xf7, 0xd8) // ebp=mark; int 0x80; neg eax
	code = append(le.AppendUint32(append(code, 0x88, 0x87), buf), 0x47)              // [edi+buf]=al; inc edi
	code = le.AppendUint32(append(code, 0x81, 0xff), 1024)                           // cmp edi,1024
	code = append(code, 0x75, byte(loop-len(code)-2))                                // jne loop
	code = append(code, 0xb8, 4, 0, 0, 0, 0xbb, 1, 0, 0, 0)                          // write(1,
	code = le.AppendUint32(append(code, 0xb9), buf)                                  // buf,
	code = append(le.AppendUint32(append(code, 0xba), 1024), 0x31, 0xed, 0xcd, 0x80) // 1024)
	code = append(code, 0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80)                    // exit(0)

	return elf32(code)
}

// elf32 is a 32-bit program of a page of code and a page of data.
func elf32(code []byte) []byte {
	const at, head = 0x8048000, 52 + 32
	var b bytes.Buffer
	b.WriteString("\x7fELF\x01\x01\x01" + strings.Repeat("\x00", 9))
	binary.Write(&b, le, []uint16{2, 3})                                                      // ET_EXEC, EM_386
	binary.Write(&b, le, []uint32{1, at + head, 52, 0, 0})                                    // version, entry, phoff, shoff, flags
	binary.Write(&b, le, []uint16{52, 32, 1, 0, 0, 0})                                        // sizes and counts
	binary.Write(&b, le, []uint32{1, 0, at, at, head + uint32(len(code)), 0x2000, 7, 0x1000}) // PT_LOAD rwx
	b.Write(code)
	return b.Bytes()
}

// TestCallNumbers compares the numbers with those of x/sys's generated files.
func TestCallNumbers(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		lacks(t, "the go command and the source of golang.org/x/sys")
	}
	row := regexp.MustCompile(`(?m)^\s+SYS_(\w+)\s*=\s*(\d+)$`)
	for file, n := range map[string]numbering{
		"amd64": abis["amd64"][0].numberings[0],
		"386":   abis["amd64"][1].numberings[0],
		"arm64": abis["arm64"][0].numberings[0],
		"arm":   abis["arm64"][1].numberings[0],
	} {
		text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "zsysnum_linux_"+file+".go"))
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := n.parse(), make(map[string]uint32)
		for _, m := range row.FindAllStringSubmatch(string(text), -1) {
			nr, _ := strconv.Atoi(m[2])
			theirs[strings.ToLower(m[1])] = uint32(nr)
		}
		for name, nr := range ours {
			if theirs[name] != nr && (file != "arm" || name != "memfd_secret") {
				t.Errorf("%s: %s is %d, x/sys says %d", file, name, nr, theirs[name])
			}
		}
		for name, nr := range theirs {
			if _, ok := ours[name]; !ok && nr <= 466 && name != "syscall_mask" && name != "arch_specific_syscall" {
				t.Errorf("%s: %s = %d is missing", file, name, nr)
			}
		}
	}
}

// TestProfileNames finds misspelled names: every one is a call of some ABI.
func TestProfileNames(t *testing.T) {
	known := make(map[string]bool)
	for _, list := range abis {
		for _, a := range list {
			for _, n := range a.numberings {
				for name := range n.parse() {
					known[name] = true
				}
			}
		}
	}
	for _, r := range profile {
		for name := range strings.FieldsSeq(r.calls + refused) {
			if !known[name] {
				t.Errorf("no such system call: %q", name)
			}
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	for _, c := range []struct {
		name    string
		filters []Filter
	}{
		{"none", nil},
		{"default", []Filter{DefaultFilter(DefaultCaps, 0)}},
	} {
		b.Run(c.name, func(b *testing.B) {
			filtered(b, func() {
				for b.Loop() {
					unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
				}
			}, c.filters...)
		})
		b.Run(c.name+"/socket", func(b *testing.B) { // an argument is looked at
			filtered(b, func() {
				for b.Loop() {
					unix.RawSyscall(unix.SYS_SOCKET, 0, 0, 0)
				}
			}, c.filters...)
		})
	}
}

func BenchmarkDefaultFilter(b *testing.B) {
	for b.Loop() {
		DefaultFilter(DefaultCaps, 0)
	}
}
