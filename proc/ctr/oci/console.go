package oci

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A console is a socket to which a runtime sends the master of a container's terminal.
type console struct {
	path string
	*net.UnixListener
}

// listen makes one in the bundle.
func listen(bundle string) (*console, error) {
	path := filepath.Join(bundle, "console")
	os.Remove(path) // of a server that was killed
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	return &console{path, l}, err
}

// master takes the terminal, which was sent before the command that sends it has ended.
func (c *console) master() (*os.File, error) {
	c.SetDeadline(time.Now().Add(closing))
	conn, err := c.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("no terminal: %w", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(closing))
	name, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(name, rights)
	if err != nil {
		return nil, fmt.Errorf("no terminal: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errors.New("no terminal was sent"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errors.New("no terminal was sent"), err)
	}
	if _, err := unix.IoctlGetInt(fds[0], unix.TIOCGPTN); err == nil {
		err = unix.SetNonblock(fds[0], true)
	}
	if err != nil {
		unix.Close(fds[0])
		return nil, fmt.Errorf("not a terminal: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}
