package ns

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// An FD is an open descriptor of a process.
type FD struct {
	N      int
	Mode   string // r, w or rw
	Type   string // file, pipe, socket, anon_inode, or a namespace's kind
	Dev    string // MAJOR:MINOR of the file system, if the process can see its mount; else -
	Inode  uint64 // 0 unknown (before 5.14, but for pipes and sockets)
	Offset int64
	Path   string
}

// Words are the fields of proc(3)'s fd file.
func (f FD) Words() []string {
	return []string{strconv.Itoa(f.N), f.Mode, f.Type, f.Dev, "(" + strconv.FormatUint(f.Inode, 10), "0", "0)", "0",
		strconv.FormatInt(f.Offset, 10), f.Path}
}

// FDs lists the process's descriptors as c may see them, in the kernel's order. Nothing is asked of the files
// themselves: the file system of one may be served by us, or by nobody any more, and would not answer.
func (p *Process) FDs(c Cred) ([]FD, error) {
	devs := make(map[string]string) // by mnt_id
	if mounts, err := p.mounts(c); err == nil {
		for _, m := range mounts {
			devs[strconv.Itoa(m.ID)] = strconv.Itoa(m.Major) + ":" + strconv.Itoa(m.Minor)
		}
	}
	var list []FD
	err := As(c, func() error {
		fds, err := numbers(p.path("fd"))
		for _, n := range fds {
			num := strconv.Itoa(n)
			target, e1 := readlink(p.path("fd/" + num))
			info, e2 := readFile(p.path("fdinfo/"+num), maxText)
			if e1 == unix.ENOENT || e2 == unix.ENOENT { // closed meanwhile
				continue
			}
			if e1 != nil || e2 != nil && e2 != errLong { // an epoll's or inotify's fdinfo may be of any size
				return unix.EACCES
			}
			list = append(list, parseFD(n, target, info, devs))
		}
		return err
	})
	return list, p.verify("fd", err)
}

func parseFD(n int, target string, info []byte, devs map[string]string) FD {
	fd := FD{N: n, Mode: "r", Type: "file", Dev: "-", Path: target}
	if flags, err := strconv.ParseUint(string(field(info, "flags:")), 8, 64); err == nil {
		switch flags & unix.O_ACCMODE {
		case unix.O_WRONLY:
			fd.Mode = "w"
		case unix.O_RDWR:
			fd.Mode = "rw"
		}
	}
	fd.Offset, _ = strconv.ParseInt(string(field(info, "pos:")), 10, 64)
	fd.Inode, _ = strconv.ParseUint(string(field(info, "ino:")), 10, 64)
	if dev, ok := devs[string(field(info, "mnt_id:"))]; ok {
		fd.Dev = dev
	}
	if kind, rest, ok := strings.Cut(target, ":"); ok && !strings.HasPrefix(target, "/") {
		fd.Type = kind
		if num, ok := strings.CutPrefix(rest, "["); ok && fd.Inode == 0 {
			fd.Inode, _ = strconv.ParseUint(strings.TrimSuffix(num, "]"), 10, 64)
		}
	}
	return fd
}

// Mounts is the process's mount table in the words of namespace(6): `mount [-c] SOURCE TARGET TYPE`, or `bind [-c]
// FROM TARGET` for what shows a part of a file system, FROM then a path within it; -c says that files can be
// made there.
func (p *Process) Mounts(c Cred) ([][]string, error) {
	mounts, err := p.mounts(c)
	if err != nil {
		return nil, err
	}
	lines := make([][]string, len(mounts))
	for i, m := range mounts {
		lines[i] = mountWords(m)
	}
	return lines, nil
}

func mountWords(m *mountinfo.Info) []string {
	w := []string{"mount"}
	if m.Root != "/" {
		w[0] = "bind"
	}
	if !hasOption(m.Options, "ro") && !hasOption(m.VFSOptions, "ro") {
		w = append(w, "-c")
	}
	if m.Root != "/" {
		return append(w, m.Root, m.Mountpoint)
	}
	return append(w, m.Source, m.Mountpoint, m.FSType)
}

func hasOption(options, word string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == word {
			return true
		}
	}
	return false
}

func (p *Process) mounts(c Cred) ([]*mountinfo.Info, error) {
	text, err := p.readAs(c, "mountinfo", maxMounts)
	if err != nil {
		return nil, err
	}
	return mountinfo.GetMountsFromReader(bytes.NewReader(text), nil)
}
