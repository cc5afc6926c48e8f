package proc

import (
	"golang.org/x/sys/unix"

	"ctrfs/fs"
)

// What a client can make the server keep for an exec: 2 MiB, as getconf ARG_MAX, and so many words that finding one of
// them stays cheap.
const (
	maxWordBytes = 2 << 20
	maxWords     = 16384
)

// Fits says whether more words can be added to an argument list or an environment; see execve(2), E2BIG.
func Fits(have, more []string) error {
	n := 0
	for _, list := range [][]string{have, more} {
		for _, w := range list {
			n += len(w) + 1
		}
	}
	if n > maxWordBytes || len(have)+len(more) > maxWords {
		return fs.Err(unix.E2BIG, "argument list too long")
	}
	return nil
}
