package proc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"ctrfs/ns"
)

// maxDatabase bounds what is read of a user database, which in a container is anybody's.
const maxDatabase = 1 << 20

// FindUser reads `U[:G[,G...]]`: numbers, or names in the etc/passwd and etc/group below root. With no group said it is
// the user's own and those that list him; a number that the files do not know has group 0, as OCI runtimes have it.
func FindUser(root *os.File, spec string) (ns.Cred, error) {
	u, g, grouped := strings.Cut(spec, ":")
	id, name, err := idOrName(u)
	if err != nil {
		return ns.Cred{}, fmt.Errorf("user: %w", err)
	}
	c := ns.Cred{Uid: id}
	passwd, err := entries(root, "etc/passwd", user.ParsePasswdFilter, func(e user.User) bool {
		return name != "" && e.Name == name || name == "" && e.Uid == int(id)
	})
	if err != nil {
		return c, err
	}
	switch {
	case len(passwd) > 0:
		c.Uid, c.Gid = uint32(passwd[0].Uid), uint32(passwd[0].Gid)
	case name != "":
		return c, fmt.Errorf("user: no such user: %q", name)
	}
	if !grouped {
		if len(passwd) == 0 {
			return c, nil
		}
		member, err := entries(root, "etc/group", user.ParseGroupFilter, func(e user.Group) bool {
			for _, m := range e.List {
				if m == passwd[0].Name {
					return true
				}
			}
			return false
		})
		for _, e := range member {
			c.Groups = append(c.Groups, uint32(e.Gid))
		}
		return c, err
	}
	for i, word := range strings.Split(g, ",") {
		id, name, err := idOrName(word)
		if err != nil {
			return c, fmt.Errorf("user: group: %w", err)
		}
		if name != "" {
			found, err := entries(root, "etc/group", user.ParseGroupFilter, func(e user.Group) bool { return e.Name == name })
			if err != nil {
				return c, err
			}
			if len(found) == 0 {
				return c, fmt.Errorf("user: no such group: %q", name)
			}
			id = uint32(found[0].Gid)
		}
		if i == 0 {
			c.Gid = id
		} else {
			c.Groups = append(c.Groups, id)
		}
	}
	return c, nil
}

var (
	decimal = regexp.MustCompile(`^[0-9]+$`)
	someone = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*\$?$`)
)

// idOrName reads a number or a name. What is neither is an error, and never looked for as a name: a number too big for
// the kernel could be somebody's name in the file of a hostile image (CVE-2026-46680).
func idOrName(word string) (id uint32, name string, err error) {
	switch {
	case decimal.MatchString(word):
		n, err := strconv.ParseUint(word, 10, 31)
		if err != nil {
			return 0, "", fmt.Errorf("number out of range: %q", word)
		}
		return uint32(n), "", nil
	case someone.MatchString(word) && len(word) <= 256:
		return 0, word, nil
	}
	return 0, "", fmt.Errorf("neither a number nor a name: %q", word)
}

// entries gives the lines of a database below root that are wanted; none where there is no such file.
func entries[T any](root *os.File, path string, parse func(io.Reader, func(T) bool) ([]T, error), want func(T) bool) ([]T, error) {
	fd, err := unix.Openat2(int(root.Fd()), path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxDatabase {
		return nil, fmt.Errorf("%s is not a regular file of at most 1 MiB", path)
	}
	return parse(io.LimitReader(f, maxDatabase), want)
}
