package ns

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Shared is something that processes share: a namespace, or a table of one process.
type Shared struct {
	Kind  string // cgroup ipc mnt net pid time user uts; fd fs vm
	Inode uint64 // of the namespace; of a table, which has none, the lowest pid that uses it
	Count int    // processes that are in it, as far as this process can see
}

var nsKinds = []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}

// Shares says what the process shares with how many. It looks at every process of the machine, about 25 µs each.
// A zombie has hardly anything left, a kernel thread no vm.
func (p *Process) Shares() ([]Shared, error) {
	var list []Shared
	for _, kind := range nsKinds {
		ino, err := nsInode(p.pid, kind)
		if err == unix.ENOENT { // the kernel has no such kind, or the process is a zombie
			continue
		}
		if err != nil {
			return nil, p.verify("ns/"+kind, err)
		}
		list = append(list, Shared{Kind: kind, Inode: ino})
	}
	names := len(list)
	st, err := p.Stat()
	if err != nil {
		return nil, err
	}
	if st.State != 'Z' {
		list = append(list, Shared{Kind: "fd"}, Shared{Kind: "fs"})
		if status, err := p.Status(); err != nil {
			return nil, err
		} else if status.RSS >= 0 {
			list = append(list, Shared{Kind: "vm"})
		}
	}
	pids, err := numbers("/proc")
	if err != nil {
		return nil, fmt.Errorf("processes: %w", err)
	}
	for _, pid := range pids {
		for i := range list {
			s := &list[i]
			if i < names {
				if ino, err := nsInode(pid, s.Kind); err == nil && ino == s.Inode {
					s.Count++
				}
			} else if pid == p.pid || kcmp(p.pid, pid, s.Kind) {
				s.Count++
				if s.Inode == 0 || uint64(pid) < s.Inode {
					s.Inode = uint64(pid)
				}
			}
		}
	}
	return list, p.Check()
}

// nsInode reads a link such as `uts:[4026531838]`.
func nsInode(pid int, kind string) (uint64, error) {
	link, err := readlink("/proc/" + strconv.Itoa(pid) + "/ns/" + kind)
	if err != nil {
		return 0, err
	}
	return parseNS(link)
}

func parseNS(link string) (uint64, error) {
	_, num, _ := strings.Cut(link, ":[")
	ino, err := strconv.ParseUint(strings.TrimSuffix(num, "]"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("namespace %q", link)
	}
	return ino, nil
}

// kcmp reports whether two processes share a table. See kcmp(2); the numbers are enum kcmp_type's.
func kcmp(a, b int, kind string) bool {
	what := map[string]uintptr{"vm": 1, "fd": 2, "fs": 3}[kind]
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), what, 0, 0, 0)
	return errno == 0 && r == 0
}

// Namespace is the number of the process's name space of a kind: see Shared.
func (p *Process) Namespace(kind string) (uint64, error) {
	ino, err := nsInode(p.pid, kind)
	return ino, p.verify("ns/"+kind, err)
}

// OpenNamespace opens the process's name space of a kind, which stays as long as it is open.
func (p *Process) OpenNamespace(kind string) (*os.File, error) {
	return p.open("ns/"+kind, unix.O_RDONLY)
}

// OpenRoot opens the root directory that the process has now, as a place to look for names from.
func (p *Process) OpenRoot() (*os.File, error) {
	return p.open("root", unix.O_PATH|unix.O_DIRECTORY)
}

// open opens a file of the process's directory in /proc.
func (p *Process) open(name string, flags int) (*os.File, error) {
	fd, err := openFile(p.path(name), flags)
	if err = p.verify(name, err); err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
