package ctr

import (
	"fmt"
	"os"

	"github.com/moby/sys/user"

	"ctrfs/ns"
)

// idMaps are the users and groups of a container that is not root's: its root is its owner, and the others are those that
// /etc/subuid and /etc/subgid give to him. Without root only the first can be had: the rest takes newuidmap(1).
func idMaps(owner ns.Cred) (uids, gids string, err error) {
	uids, gids = fmt.Sprintf("0 %d 1\n", owner.Uid), fmt.Sprintf("0 %d 1\n", owner.Gid)
	if os.Geteuid() != 0 {
		return uids, gids, nil
	}
	for _, m := range []struct {
		file string
		text *string
	}{{"/etc/subuid", &uids}, {"/etc/subgid", &gids}} {
		name := ns.UserName(owner.Uid)
		ranges, err := user.ParseSubIDFileFilter(m.file, func(s user.SubID) bool {
			return s.Name == name || s.Name == fmt.Sprint(owner.Uid)
		})
		if err != nil && !os.IsNotExist(err) {
			return "", "", err
		}
		next := int64(1)
		for _, r := range ranges {
			*m.text += fmt.Sprintf("%d %d %d\n", next, r.SubID, r.Count)
			next += r.Count
		}
	}
	return uids, gids, nil
}
