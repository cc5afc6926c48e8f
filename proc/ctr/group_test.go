package ctr

import (
	"errors"
	"testing"

	"ctrfs/fs"
)

// The group of /ctr's owner is his equal where it is said to be, as ctrfs-admin is root's. The group that he happens to have is
// not: a user's own server, at a socket that others reach, gives none of his rights to his group, nor root's to group 0.
func TestGroup(t *testing.T) {
	for _, owner := range []fs.Client{{Uid: 4321, Gid: 77}, {}} {
		s := newSessionOf(t, &owner)
		s.Mkdir("t")
		other := s.as(fs.Client{Uid: 7, Gid: 7, Groups: []uint32{owner.Gid}})
		for _, s.set.Shared = range []bool{false, true} {
			_, mkdir := fs.Make(other.Ctx, other.Root, "new", 0755)
			_, clone := other.Cat("clone")
			_, _, join := s.set.First(other.Ctx, "t")
			_, stdout := other.Cat("t/stdout")
			for what, err := range map[string]error{
				"mkdir": mkdir, "clone": clone, "join": join, "stdout": stdout,
				"ctl": other.Echo("t/ctl", "closeio"), "env": other.Echo("t/env", "A=b"), "args": other.Echo("t/args", "x"),
				"mv": fs.Move(other.Ctx, other.Root, "t", nil, "t"),
			} {
				if errors.Is(err, fs.ErrPerm) == s.set.Shared {
					t.Errorf("what is user %d's, shared %v: %s: %v", owner.Uid, s.set.Shared, what, err)
				}
			}
		}
		s.Rmdir("t")
	}
}
