package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

// stateFile is the name by which the next keeper of a server with these options finds what outlives this one: of servers that
// listen elsewhere it is another. "": there is no place for it.
func (o *options) stateFile() (string, error) {
	a, err := defaultAddr(os.Geteuid())
	if err != nil {
		return "", nil
	}
	top := filepath.Dir(a.address)
	if err := privateDir(top, topMode()); err != nil {
		return "", err
	}
	dir := filepath.Join(top, "held")
	if err := privateDir(dir, 0700); err != nil {
		return "", err
	}
	var key strings.Builder
	add := func(a addr) {
		fmt.Fprintln(&key, a)
		var st unix.Stat_t
		if n, err := strconv.Atoi(a.address); a.network == "fd" && err == nil && unix.Fstat(n, &st) == nil {
			fmt.Fprintln(&key, st.Ino) // which somebody may pass to the next one too
		}
		if _, port, _ := net.SplitHostPort(a.address); a.network == "tcp" && port == "0" {
			fmt.Fprintln(&key, os.Getpid()) // the next one will have another
		}
	}
	for _, a := range o.addrs {
		add(a)
	}
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		add(addr{"fd", "3"})
	}
	fmt.Fprintln(&key, o.post)
	sum := sha256.Sum256([]byte(key.String()))
	return filepath.Join(dir, hex.EncodeToString(sum[:8])), nil
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
			err = keeper.HoldBeside(name, false, nil, f)
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
