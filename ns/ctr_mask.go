package ns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// A hostMask is a name of the host that a container with the host's root does not get to see.
type hostMask struct {
	path     string
	kind     maskKind
	mode     uint32
	uid, gid uint32
}

type maskKind uint8

const (
	maskParent maskKind = iota // a directory on the way to one, as the host's
	maskEmpty                  // a directory without what is in it
	maskAbsent                 // not there
)

// Directories of which a container gets an empty one.
var emptyDirs = []struct {
	path string
	mode uint32
}{
	{"/root", 0700}, {"/home", 0755}, {"/run", 0755}, {"/tmp", 01777}, {"/var", 0755},
	{"/srv", 0755}, {"/mnt", 0755}, {"/media", 0755}, {"/boot", 0755},
}

// Names of /etc that are secret whatever their mode, also those that are made later.
var secretNames = []string{
	"/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/krb5.keytab",
	"/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ecdsa_key", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_dsa_key",
	"/etc/ssl/private", "/etc/docker", "/etc/containers", "/etc/containerd", "/etc/ctrfs",
}

// hostSecrets is what of the host's /etc, and of the names in /, others may not read. To look at
// all of /etc takes milliseconds, so that is done again only when inotify(7) tells of a change.
var hostSecrets = struct {
	turn  chan struct{} // holds a token: who has it may use what follows
	watch int           // inotify; -1 not yet, or there is none
	found *hostRoot
}{turn: make(chan struct{}, 1), watch: -1}

func init() { hostSecrets.turn <- struct{}{} }

func lookAtHost(ctx context.Context) (*hostRoot, error) {
	h := &hostSecrets
	select {
	case <-h.turn:
		defer func() { h.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if h.watch >= 0 {
		var events [4096]byte
		if _, err := unix.Read(h.watch, events[:]); err == unix.EAGAIN {
			return h.found, nil
		}
		unix.Close(h.watch)
		h.watch = -1
	}
	// Watched before it is read, so no change falls between. Without inotify every call looks.
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		watch = -1
	}
	scan := &maskScan{watch: watch, seen: map[string]bool{}}
	if err := scan.host(); err != nil {
		if watch >= 0 {
			unix.Close(watch)
		}
		return nil, err
	}
	if scan.blind && watch >= 0 { // one directory could not be watched
		unix.Close(watch)
		watch = -1
	}
	h.watch, h.found = watch, &hostRoot{scan.masks, scan.top}
	return h.found, nil
}

type maskScan struct {
	watch int
	blind bool
	seen  map[string]bool
	masks []hostMask
	top   []topName
}

func (s *maskScan) add(m hostMask) {
	if !s.seen[m.path] {
		s.seen[m.path] = true
		s.masks = append(s.masks, m)
	}
}

func (s *maskScan) look(dir string) ([]fs.DirEntry, error) {
	if s.watch < 0 {
		s.blind = true
	} else if _, err := unix.InotifyAddWatch(s.watch, dir, unix.IN_CREATE|unix.IN_MOVE|unix.IN_DELETE|unix.IN_ATTRIB|unix.IN_ONLYDIR|unix.IN_DONT_FOLLOW); err != nil {
		s.blind = true
	}
	return os.ReadDir(dir)
}

// host looks at / and /etc. The empty directories come first: a directory that is hidden whole needs nothing in it.
func (s *maskScan) host() error {
	for _, d := range emptyDirs {
		s.add(hostMask{path: d.path, kind: maskEmpty, mode: d.mode})
	}
	s.seen["/etc"], s.seen["/"] = true, true
	top, err := s.look("/")
	if err != nil {
		return err
	}
	for _, e := range top {
		p := "/" + e.Name()
		if e.Name() != "etc" {
			if err := s.judge(p, e); err != nil {
				return err
			}
		}
		switch {
		case s.seen[p] && e.Name() != "etc", p == "/proc", p == "/sys", p == "/dev":
		case e.IsDir():
			s.top = append(s.top, topName{name: e.Name()})
		case e.Type() == fs.ModeSymlink:
			if link, err := os.Readlink(p); err == nil {
				s.top = append(s.top, topName{name: e.Name(), link: link})
			}
		}
	}
	for _, name := range secretNames {
		s.secret(name)
	}
	return s.walk("/etc")
}

func (s *maskScan) walk(dir string) error {
	entries, err := s.look(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		if s.seen[p] && !e.IsDir() {
			continue
		}
		if err := s.judge(p, e); err != nil {
			return err
		}
		if e.IsDir() && !s.absent(p) {
			if err := s.walk(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// judge hides what others may not read, or enter.
func (s *maskScan) judge(p string, e fs.DirEntry) error {
	fi, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	if perm := fi.Mode().Perm(); perm&4 == 0 || fi.IsDir() && perm&1 == 0 {
		s.secret(p)
	}
	return nil
}

func (s *maskScan) absent(p string) bool {
	for _, m := range s.masks {
		if m.path == p && m.kind == maskAbsent {
			return true
		}
	}
	return false
}

// secret hides a name, with the directories on the way to it as they are on the host; where
// there are none there is nothing to hide.
func (s *maskScan) secret(p string) {
	if s.seen[p] {
		return
	}
	var parents []hostMask
	for d := path.Dir(p); !s.seen[d]; d = path.Dir(d) {
		var st unix.Stat_t
		if unix.Lstat(d, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return
		}
		parents = append(parents, hostMask{path: d, kind: maskParent, mode: st.Mode & 07777, uid: st.Uid, gid: st.Gid})
	}
	for i := len(parents) - 1; i >= 0; i-- {
		s.add(parents[i])
	}
	s.add(hostMask{path: p, kind: maskAbsent})
}

// readSmall reads a small regular file of the host.
func readSmall(name string) (string, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return "", fmt.Errorf("%q: not a regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, 16<<10))
	return string(b), err
}
