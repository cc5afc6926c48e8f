package ctr

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// maxConfig bounds a config.json, as what is written to config is.
const maxConfig = 1 << 20

func (c *Ctr) bundle(context.Context) (string, error) {
	return c.get(func() string {
		if c.spec.bundle == "" {
			return ""
		}
		return fs.Quote(c.spec.bundle)
	})
}

// setBundle makes the container what the config.json of an OCI bundle says, a directory that is opened as the client.
func (c *Ctr) setBundle(ctx context.Context, line string) error {
	dir, err := oneWord("bundle", line)
	if err == nil && !path.IsAbs(dir) {
		err = fmt.Errorf("bundle: not an absolute path: %q", dir)
	}
	if err != nil {
		return err
	}
	client := fs.ClientOf(ctx)
	text, err := readAs(ns.Cred{Uid: client.Uid, Gid: client.Gid, Groups: client.Groups}, path.Join(dir, "config.json"), maxConfig)
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	release, err := c.take(ctx, "configure", isNew)
	if err != nil {
		return err
	}
	defer release()
	if err := c.configure(ctx, string(text), dir); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	return c.change(func(s *spec) error { s.bundle, c.refused = dir, nil; return nil })
}

// readAs reads a regular file of at most so many bytes as somebody.
func readAs(who ns.Cred, name string, most int64) ([]byte, error) {
	fd, err := ns.OpenAs(who, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > most {
		return nil, fmt.Errorf("%q is not a regular file of at most %d bytes", name, most)
	}
	return io.ReadAll(io.LimitReader(f, most))
}
