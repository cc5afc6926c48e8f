package ns

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// In stub_GOARCH.s.

func interp()
func text() unsafe.Pointer
func clone3(args unsafe.Pointer, size uintptr, table unsafe.Pointer) int

// Addresses in the stub: its text, the table that it receives (stubRoom bytes), the message
// header with the control data behind it, and the data of plans that fill no message.
const (
	stubText    = 0x400000
	stubTable   = 0x500000
	stubRoom    = 0x10000
	stubControl = 0x510100
	stubData    = 0x520000
	stubMaxData = 4 << 20 // argument lists and environments end at a quarter of the stack's limit, 2 MiB as a rule
	stubMaxFDs  = 252     // what fits in 0x400 bytes of control data; SCM_MAX_FD is 253
)

// stubELF gives the interpreter as an executable file: an ELF header, three program headers and
// a copy of our own text.
func stubELF() []byte {
	code := unsafe.Slice((*byte)(text()), 1024)
	n := bytes.Index(code, []byte("end."))
	machine := map[string]uint16{"amd64": 62, "arm64": 183}[runtime.GOARCH]
	const head = 64 + 3*56
	var b bytes.Buffer
	w := func(v ...any) {
		for _, x := range v {
			binary.Write(&b, le, x) // to a bytes.Buffer, of fixed sizes: cannot fail
		}
	}
	segment := func(kind, flags uint32, at, filesz, memsz, align uint64) {
		w(kind, flags, uint64(0), at, at, filesz, memsz, align)
	}
	w([16]byte{0x7f, 'E', 'L', 'F', 2 /* 64 bits */, 1 /* little endian */, 1})
	w(uint16(2) /* ET_EXEC */, machine, uint32(1), uint64(stubText+head), uint64(64), uint64(0), uint32(0))
	w(uint16(64), uint16(56), uint16(3), uint16(0), uint16(0), uint16(0))
	segment(1, 5, stubText, head+uint64(n), head+uint64(n), 0x10000)
	segment(1, 6, stubTable, 0, stubData+stubMaxData-stubTable, 0x10000)
	segment(0x6474e551, 6, 0, 0, 0, 16) // PT_GNU_STACK: a stack that cannot be executed
	w(code[:n])
	return b.Bytes()
}

// stubFile gives a descriptor of the stub, for execveat: a sealed memfd, or, where memfds may
// not be executed (vm.memfd_noexec=2), a file without a name in the directory state.
func stubFile(state string) (int, error) {
	fd, err := unix.MemfdCreate("parked", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3 there is no MFD_EXEC, and all are executable
		fd, err = unix.MemfdCreate("parked", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		if state == "" {
			return -1, fmt.Errorf("memfd_create: %w", err)
		}
		return stubInDir(state)
	}
	if _, err = unix.Write(fd, stubELF()); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("memfd: %w", err)
	}
	return fd, nil
}

// Memfd makes a file in memory that cannot be executed, as vm.memfd_noexec=2 wants it; see memfd_create(2).
func Memfd(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func stubInDir(dir string) (int, error) {
	f, err := os.CreateTemp(dir, "parked")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	if err := f.Chmod(0500); err != nil {
		return -1, err
	}
	if _, err := f.Write(stubELF()); err != nil {
		return -1, err
	}
	// Opened anew for reading: what is open for writing cannot be executed (ETXTBSY).
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %q: %w", f.Name(), err)
	}
	return fd, nil
}
