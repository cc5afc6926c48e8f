package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// An addr is where a server listens: unix!PATH, tcp!HOST!PORT (HOST `*`: every one of this machine), or fd!N, a socket
// that was inherited.
type addr struct {
	network, address string
}

// port is that of 9P.
const port = "564"

func parseAddr(s string) (addr, error) {
	network, rest, _ := strings.Cut(s, "!")
	bad := fmt.Errorf("address %q: not unix!PATH, tcp!HOST!PORT or fd!N", s)
	switch {
	case rest == "":
	case network == "unix":
		// Made absolute also because Go takes a first @ for a name in the abstract name space, where there are no
		// permissions.
		path, err := filepath.Abs(rest)
		return addr{network, path}, err
	case network == "tcp":
		host, service, ok := strings.Cut(rest, "!")
		if !ok {
			service = port
		}
		if strings.Contains(service, "!") || service == "" {
			return addr{}, bad
		}
		if host == "*" {
			host = ""
		}
		return addr{network, net.JoinHostPort(host, service)}, nil
	case network == "fd":
		if n, err := strconv.Atoi(rest); err != nil || n < 0 {
			return addr{}, bad
		}
		return addr{network, rest}, nil
	}
	return addr{}, bad
}

// String is what parseAddr understands.
func (a addr) String() string {
	if host, port, err := net.SplitHostPort(a.address); err == nil && a.network == "tcp" {
		return "tcp!" + cmp.Or(host, "*") + "!" + port
	}
	return a.network + "!" + a.address
}

// runDir is where root's server has its socket and its state.
const runDir = "/run/ctrfs"

// defaultAddr is where a user's server listens if nothing else is said.
func defaultAddr(uid int) (addr, error) {
	if uid == 0 {
		return addr{"unix", runDir + "/sock"}, nil
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if !filepath.IsAbs(dir) {
		return addr{}, errors.New("no XDG_RUNTIME_DIR to put a socket in: say -a unix!PATH")
	}
	return addr{"unix", filepath.Join(dir, "ctrfs/sock")}, nil
}

// privateDir makes a directory for sockets, or believes in one that is there only if nobody else could have made it or can
// put something into it.
func privateDir(dir string, perm fs.FileMode) error {
	if err := os.Mkdir(dir, perm); err == nil {
		return os.Chmod(dir, perm) // whatever the umask
	} else if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make %q: %w", dir, cause(err))
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("directory %q: %w", dir, cause(err))
	}
	st := fi.Sys().(*syscall.Stat_t)
	switch {
	case !fi.IsDir():
		return fmt.Errorf("%q: %w", dir, syscall.ENOTDIR)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("directory %q belongs to user %d", dir, st.Uid)
	case fi.Mode()&0022 != 0:
		return fmt.Errorf("directory %q: others may write it", dir)
	}
	return nil
}

// nameSpace is the directory in which plan9port's programs post and find services: see intro(4) there.
func nameSpace(user string) string {
	if ns := os.Getenv("NAMESPACE"); ns != "" {
		return ns
	}
	display := os.Getenv("DISPLAY")
	if display == "" {
		display = ":0"
	}
	if i := strings.LastIndexByte(display, ':'); i >= 0 {
		display = display[:i] + strings.TrimSuffix(display[i:], ".0")
	}
	return "/tmp/ns." + user + "." + strings.ReplaceAll(display, "/", "_")
}

// dial connects to the server at address s; if s is empty, to the user's own or else to root's.
func dial(ctx context.Context, s string) (net.Conn, error) {
	if s != "" {
		a, err := parseAddr(s)
		if err != nil {
			return nil, err
		}
		return a.dial(ctx)
	}
	if a, err := defaultAddr(os.Geteuid()); err == nil {
		if c, err := a.dial(ctx); err == nil || os.Geteuid() == 0 {
			return c, err
		}
	}
	a, _ := defaultAddr(0)
	return a.dial(ctx)
}

func (a addr) dial(ctx context.Context) (net.Conn, error) {
	if a.network == "fd" {
		f, err := a.file()
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return net.FileConn(f)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, a.network, a.address)
	if err != nil {
		return nil, fmt.Errorf("dial %q: %w", a, cause(err))
	}
	return c, nil
}

// file is the inherited descriptor.
func (a addr) file() (*os.File, error) {
	n, err := strconv.Atoi(a.address)
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(n)
	return os.NewFile(uintptr(n), a.String()), nil
}

// cause takes an error of package net or os apart: what we say names the object already.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
