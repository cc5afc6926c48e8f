package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"syscall"

	"ctrfs/ns"
)

// heldSocket is what the keeper holds of a listening socket beside it: which file it has.
type heldSocket struct{ Ino uint64 }

// keep listens at an address, by the socket that the keeper holds or else by one that it will hold. What was inherited
// the keeper has anyway.
func (a addr) keep(keeper *ns.Keeper) (net.Listener, error) {
	if a.network == "fd" {
		return a.listen()
	}
	name := "listen " + a.String()
	for _, h := range keeper.Held() {
		if h.Name == name && len(h.Files) == 1 {
			return a.again(h)
		}
	}
	l, err := a.listen()
	if err != nil {
		return nil, err
	}
	var held heldSocket
	if s, ok := l.(*sockFile); ok {
		held.Ino = inode(s.made)
	}
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err == nil {
		err = keeper.HoldBeside(name, true, held, f)
		f.Close()
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// again is the listener of an earlier server.
func (a addr) again(h *ns.Held) (net.Listener, error) {
	var held heldSocket
	if err := json.Unmarshal(h.Text, &held); err != nil {
		return nil, fmt.Errorf("listen %q: %w", a, err)
	}
	l, err := net.FileListener(h.Files[0])
	if err != nil {
		return nil, fmt.Errorf("listen %q: %w", a, cause(err))
	}
	h.Files[0].Close()
	u, ok := l.(*net.UnixListener)
	if !ok {
		return l, nil
	}
	u.SetUnlinkOnClose(false)
	s := &sockFile{UnixListener: u, path: a.address}
	if fi, err := os.Lstat(a.address); err == nil && inode(fi) == held.Ino {
		s.made = fi
	}
	return s, nil
}

func inode(fi os.FileInfo) uint64 { return fi.Sys().(*syscall.Stat_t).Ino }
