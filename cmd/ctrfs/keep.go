package main

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"ctrfs/ns"
)

// takeUp goes on where the server before this one has stopped.
func (s *server) takeUp(keeper *ns.Keeper) error {
	if keeper == nil {
		return nil
	}
	numbers, err := keptNumbers(keeper)
	if err != nil {
		return err
	}
	s.feed.Seq, s.ctrs.Qids = &numbers[0], &numbers[1]
	s.ctrs.Again(s.srv.Accounts, s.machine)
	return nil
}

// keptNumbers are numbers in memory that the keeper has too: what is counted there goes on from server to server, without a
// word said.
func keptNumbers(keeper *ns.Keeper) (*[512]uint64, error) {
	const name = "numbers"
	var f *os.File
	for _, h := range keeper.Held() {
		if h.Name == name && len(h.Files) == 1 {
			f = h.Files[0]
		}
	}
	if f == nil {
		var err error
		if f, err = ns.Memfd(name); err != nil {
			return nil, err
		}
		if err = f.Truncate(4096); err == nil {
			err = keeper.Hold(name, nil, false, nil, f)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	return (*[512]uint64)(unsafe.Pointer(&b[0])), nil
}
