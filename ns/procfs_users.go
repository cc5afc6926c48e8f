package ns

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The databases of this machine's users: its files only, read again after a while.
const (
	usersKept = 60 * time.Second
	maxUsers  = 8 << 20 // bytes of /etc/passwd and of /etc/group
	nogroup   = 65534   // of a user that the files do not have
)

type users struct {
	mu     sync.Mutex // guards what follows
	read   time.Time
	byID   map[uint32]user
	byName map[string]user
	groups map[uint32]string
	gids   map[string]uint32
	member map[string][]uint32 // by user name
}

type user struct {
	name     string
	uid, gid uint32
}

var theUsers users

// UserName is a user's name, or his number in decimal.
func UserName(uid uint32) string {
	theUsers.mu.Lock()
	defer theUsers.mu.Unlock()
	theUsers.fresh()
	if u, ok := theUsers.byID[uid]; ok {
		return u.name
	}
	return strconv.FormatUint(uint64(uid), 10)
}

// GroupName is a group's name, or its number in decimal.
func GroupName(gid uint32) string {
	theUsers.mu.Lock()
	defer theUsers.mu.Unlock()
	theUsers.fresh()
	if g, ok := theUsers.groups[gid]; ok {
		return g
	}
	return strconv.FormatUint(uint64(gid), 10)
}

// GroupID finds a group's number.
func GroupID(name string) (uint32, bool) {
	theUsers.mu.Lock()
	defer theUsers.mu.Unlock()
	theUsers.fresh()
	gid, ok := theUsers.gids[name]
	return gid, ok
}

// UserCred is a user by name, with his groups; false: there is none.
func UserCred(name string) (Cred, bool) {
	theUsers.mu.Lock()
	defer theUsers.mu.Unlock()
	theUsers.fresh()
	u, ok := theUsers.byName[name]
	if !ok {
		return Cred{}, false
	}
	return Cred{u.uid, u.gid, theUsers.member[u.name]}, true
}

// UserIDCred is a user by number. One that the files do not have is in group nogroup only.
func UserIDCred(uid uint32) Cred {
	theUsers.mu.Lock()
	defer theUsers.mu.Unlock()
	theUsers.fresh()
	u, ok := theUsers.byID[uid]
	if !ok {
		return Cred{uid, nogroup, nil}
	}
	return Cred{uid, u.gid, theUsers.member[u.name]}
}

// fresh reads the files if they were not read lately; if that fails, what was known goes on. Called with the lock.
func (s *users) fresh() {
	if !s.read.IsZero() && time.Since(s.read) < usersKept {
		return
	}
	s.read = time.Now()
	passwd, err := readRegular("/etc/passwd", maxUsers)
	if err != nil {
		return
	}
	group, err := readRegular("/etc/group", maxUsers)
	if err != nil {
		return
	}
	s.parse(string(passwd), string(group))
}

// parse takes the first of those that have one name or number, as getpwnam(3) does, and no line that is not
// whole: a parser that takes an empty uid for 0 makes roots.
func (s *users) parse(passwd, group string) {
	s.byID, s.byName = make(map[uint32]user), make(map[string]user)
	s.groups, s.gids, s.member = make(map[uint32]string), make(map[string]uint32), make(map[string][]uint32)
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) != 7 || f[0] == "" {
			continue
		}
		uid, e1 := parseID(f[2])
		gid, e2 := parseID(f[3])
		if e1 != nil || e2 != nil {
			continue
		}
		u := user{f[0], uid, gid}
		if _, ok := s.byID[uid]; !ok {
			s.byID[uid] = u
		}
		if _, ok := s.byName[u.name]; !ok {
			s.byName[u.name] = u
		}
	}
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) != 4 || f[0] == "" {
			continue
		}
		gid, err := parseID(f[2])
		if err != nil {
			continue
		}
		if _, ok := s.groups[gid]; !ok {
			s.groups[gid] = f[0]
		}
		if _, ok := s.gids[f[0]]; !ok {
			s.gids[f[0]] = gid
		}
		for name := range strings.SplitSeq(f[3], ",") {
			if name != "" && len(s.member[name]) < maxGroups {
				s.member[name] = append(s.member[name], gid)
			}
		}
	}
}

// parseID reads a uid or gid; -1 is nobody's.
func parseID(word string) (uint32, error) {
	n, err := strconv.ParseUint(word, 10, 32)
	if err == nil && n == nobodyAtAll {
		err = strconv.ErrRange
	}
	return uint32(n), err
}

// readRegular is readFile for a regular file only: it waits for no FIFO's writer.
func readRegular(path string, max int) ([]byte, error) {
	fd, err := openFile(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%q is no regular file", path)
	}
	return readFD(fd, max)
}
