package ns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of what is read of a process, which may have written it to harm the reader.
const (
	maxText   = 64 << 10 // stat, status, limits, fdinfo
	maxArgs   = 8 << 20  // execve(2) takes at most 6 MiB of arguments and environment
	maxMounts = 32 << 20
	maxFDs    = 1 << 20 // fs.nr_open's default
)

var errLong = errors.New("too long")

// readFile reads a file that holds at most max bytes. It is io/fs.ReadFile without the poller and the
// finalizer of an os.File, at half the price; files of /proc need neither.
func readFile(path string, max int) ([]byte, error) {
	fd, err := openFile(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readFD(fd, max)
}

func openFile(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func readFD(fd, max int) ([]byte, error) {
	buf := make([]byte, 0, 1024)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return buf, nil
		}
		buf = buf[:len(buf)+n]
		if len(buf) > max {
			return nil, errLong
		}
	}
}

// path names a file of the process's directory in /proc.
func (p *Process) path(name string) string {
	return "/proc/" + strconv.Itoa(p.pid) + "/" + name
}

// read reads /proc/PID/name whole, and makes sure that it was this process's.
func (p *Process) read(name string, max int) ([]byte, error) {
	text, err := readFile(p.path(name), max)
	return text, p.verify(name, err)
}

// readAs is read with the rights of c: the file is opened as c.
func (p *Process) readAs(c Cred, name string, max int) ([]byte, error) {
	fd, err := OpenAs(c, p.path(name), unix.O_RDONLY)
	if err != nil {
		return nil, p.verify(name, err)
	}
	defer unix.Close(fd)
	text, err := readFD(fd, max)
	return text, p.verify(name, err)
}

// verify is the end of every access by number: err, or ErrExited if meanwhile the number could have
// become another's.
func (p *Process) verify(name string, err error) error {
	if gone := p.Check(); gone != nil {
		return gone
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ESRCH):
		return ErrExited // a zombie that has no such thing any more
	case errors.Is(err, fs.ErrPermission):
		return fs.ErrPermission
	}
	return fmt.Errorf("process %d: %s: %w", p.pid, name, err)
}

// link reads a symbolic link of /proc/PID as c.
func (p *Process) link(c Cred, name string) (target string, err error) {
	err = As(c, func() error {
		target, err = readlink(p.path(name))
		return err
	})
	if errors.Is(err, unix.ENOENT) && p.Check() == nil {
		return "", ErrExited // a zombie or a kernel thread: it has none
	}
	return target, p.verify(name, err)
}

// readlink follows nothing: the text of a link of /proc is made by the kernel from its own names
// without asking the file system, which may be ours or dead.
func readlink(path string) (string, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Readlink(path, buf)
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
		if len(buf) > unix.PathMax+64 {
			return "", unix.ENAMETOOLONG
		}
		buf = make([]byte, 2*len(buf))
	}
}

// Cwd is the process's current directory, as c may see it.
func (p *Process) Cwd(c Cred) (string, error) { return p.link(c, "cwd") }

// Exe is the file that the process runs.
func (p *Process) Exe(c Cred) (string, error) { return p.link(c, "exe") }

// Root is the process's root directory.
func (p *Process) Root(c Cred) (string, error) { return p.link(c, "root") }

// Args is the argument list. It is empty for a zombie and for a kernel thread.
func (p *Process) Args() ([]string, error) {
	text, err := p.read("cmdline", maxArgs)
	return words(text), err
}

// Environ is the environment that the process was started with, as c may read it.
func (p *Process) Environ(c Cred) ([]string, error) {
	text, err := p.readAs(c, "environ", maxArgs)
	return words(text), err
}

// words splits at NUL bytes. A process that wrote a title over its arguments left padding at the end.
func words(text []byte) []string {
	text = bytes.TrimRight(text, "\x00")
	if len(text) == 0 {
		return nil
	}
	return strings.Split(string(text), "\x00")
}

// Children are the numbers of the process's children, of all its threads.
func (p *Process) Children() ([]int, error) {
	tasks, err := numbers(p.path("task"))
	var pids []int
	for _, tid := range tasks {
		// A thread that ends meanwhile leaves its children to its siblings; the list is one of a moment anyway.
		text, err := readFile(p.path("task/"+strconv.Itoa(tid)+"/children"), maxMounts)
		if err != nil {
			continue
		}
		for _, w := range bytes.Fields(text) {
			if pid, err := decimal(w); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids, p.verify("task", err)
}

// Pids lists the numbers of the processes that c may see; see Visible.
func Pids(c Cred) (pids []int, err error) {
	err = As(c, func() error {
		if pids, err = numbers("/proc"); err == nil {
			pids = visible(pids)
		}
		return err
	})
	return pids, err
}

// Visible leaves those of the numbers whose processes c may see: hidepid= of /proc decides. With hidepid=1 the kernel lists them
// all, but shows nothing of those that c may not trace; he may not see these.
func Visible(c Cred, pids ...int) (seen []int, err error) {
	err = As(c, func() error {
		seen = visible(pids)
		return nil
	})
	return seen, err
}

func visible(pids []int) []int {
	var st unix.Stat_t
	return slices.DeleteFunc(pids, func(pid int) bool {
		return unix.Lstat("/proc/"+strconv.Itoa(pid)+"/stat", &st) != nil
	})
}

// numbers lists the names of a directory that are numbers, in the directory's order.
func numbers(path string) ([]int, error) {
	fd, err := openFile(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return numbersIn(fd)
}

// numbersIn lists them from where the directory that is open has been read to.
func numbersIn(fd int) ([]int, error) {
	var list []int
	var names []string
	buf := make([]byte, 8192)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return list, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			if i, err := decimal([]byte(name)); err == nil {
				list = append(list, i)
			}
		}
		if len(list) > maxFDs<<2 { // more than PID_MAX_LIMIT
			return nil, errLong
		}
	}
}

// decimal reads a number as the kernel writes it.
func decimal(text []byte) (int, error) { return strconv.Atoi(string(text)) }

// field is the rest of the line that begins with key, without blanks around it.
func field(text []byte, key string) []byte {
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			return bytes.TrimSpace(rest)
		}
	}
	return nil
}
