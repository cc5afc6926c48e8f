package ns

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A snapshot is what of a process can be put back.
type snapshot struct {
	kinds     []string
	inodes    []uint64
	files     []*os.File
	root, cwd *os.File // where its mounts change
	pgrp      int
}

// snapshot opens what m will change of the thread tid.
func (m *Pctl) snapshot(tid int) (s *snapshot, err error) {
	s = new(snapshot)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	dir := "/proc/" + strconv.Itoa(tid) + "/"
	open := func(name string, flags int) *os.File {
		fd, e := openFile(dir+name, flags)
		if e != nil {
			if err == nil {
				err = fmt.Errorf("process %d: %s: %w", tid, name, e)
			}
			return nil
		}
		return os.NewFile(uintptr(fd), name)
	}
	for _, k := range m.kinds() {
		ino, e := nsInode(tid, k)
		if e != nil {
			return s, fmt.Errorf("process %d: ns/%s: %w", tid, k, e)
		}
		s.kinds, s.inodes, s.files = append(s.kinds, k), append(s.inodes, ino), append(s.files, open("ns/"+k, unix.O_RDONLY))
		if k == "mnt" {
			s.root, s.cwd = open("root", unix.O_PATH|unix.O_DIRECTORY), open("cwd", unix.O_PATH|unix.O_DIRECTORY)
		}
	}
	pgrp, e := unix.Getpgid(tid)
	if err == nil {
		err = e
	}
	s.pgrp = pgrp
	return s, err
}

// carrier describes the thread tid, of a process with so many threads. Descriptors to be kept are those of the carrier.
func (s *snapshot) carrier(tid, threads int, keep ...int) *carrier {
	c := &carrier{threads: threads, leader: s.pgrp == tid, keep: keep}
	if s.root != nil {
		var st unix.Statx_t
		if unix.Statx(int(s.root.Fd()), "", unix.AT_EMPTY_PATH, 0, &st) == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
			c.own = s.files[slices.Index(s.kinds, "mnt")]
		}
	}
	return c
}

func (s *snapshot) close() {
	for _, f := range append(s.files, s.root, s.cwd) {
		if f != nil {
			f.Close()
		}
	}
}

// undo appends what brings the thread tid back, and reports whether there is anything. A user namespace cannot be left.
func (s *snapshot) undo(p *Plan, tid int) bool {
	for i, k := range s.kinds {
		if ino, err := nsInode(tid, k); err != nil || ino == s.inodes[i] || k == "user" {
			continue
		}
		if k == "mnt" {
			root, cwd := p.Send(int(s.root.Fd())), p.Send(int(s.cwd.Fd()))
			p.Do("undo", unix.SYS_SETNS, p.Send(int(s.files[i].Fd())), unix.CLONE_NEWNS).Try()
			p.rootAt(root, cwd)
			continue
		}
		p.Do("undo", unix.SYS_SETNS, p.Send(int(s.files[i].Fd())), kindFlag(k)).Try()
	}
	if pgrp, err := unix.Getpgid(tid); err == nil && pgrp != s.pgrp {
		p.Do("undo", unix.SYS_SETPGID, 0, s.pgrp).Try()
	}
	return len(p.steps) > 0
}

// stays adds to err what of the thread tid is not as it was.
func (s *snapshot) stays(err error, tids ...int) error {
	left := make(map[string]bool)
	var words []string
	add := func(w string) {
		if !left[w] {
			left[w], words = true, append(words, w)
		}
	}
	for _, tid := range tids {
		for i, k := range s.kinds {
			if ino, e := nsInode(tid, k); e == nil && ino != s.inodes[i] {
				add(k + " namespace")
			}
		}
	}
	if len(tids) > 0 {
		if pgrp, e := unix.Getpgid(tids[0]); e == nil && pgrp != s.pgrp {
			add("process group")
		}
	}
	if len(words) == 0 {
		return err
	}
	return fmt.Errorf("%w; what stays: new %s", err, strings.Join(words, ", "))
}

// mapUser gives a new user namespace of the thread tid the ids of the old one: all of them if it is root's; else only its
// own, and then it may leave no group.
func (m *Pctl) mapUser(tid int) error {
	if m.flags()&unix.CLONE_NEWUSER == 0 {
		return nil
	}
	dir := "/proc/" + strconv.Itoa(tid) + "/"
	text, err := readFile(dir+"status", 1<<20)
	if err != nil {
		return fmt.Errorf("unshare user: %w", err)
	}
	st, err := parseStatus(text)
	if err != nil {
		return fmt.Errorf("unshare user: %w", err)
	}
	root := st.Uid[1] == 0
	same := func(name string, id uint32) error {
		lines := fmt.Sprintf("%d %d 1", id, id)
		if root {
			own, err := readFile("/proc/self/"+name, maxText)
			if err != nil {
				return err
			}
			lines = ""
			for line := range bytes.Lines(own) {
				if f := bytes.Fields(line); len(f) == 3 {
					lines += fmt.Sprintf("%s %s %s\n", f[0], f[0], f[2])
				}
			}
		}
		return os.WriteFile(dir+name, []byte(lines), 0)
	}
	if !root {
		err = os.WriteFile(dir+"setgroups", []byte("deny"), 0)
	}
	if err == nil {
		err = same("uid_map", st.Uid[1])
	}
	if err == nil {
		err = same("gid_map", st.Gid[1])
	}
	if err != nil {
		return fmt.Errorf("unshare user: %w", err)
	}
	return nil
}
