package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/ctl"
	"ctrfs/ns"
	"ctrfs/proc/ctr"
)

// confFile is root's configuration where no other is named.
const confFile = "/etc/ctrfs.conf"

// confWords are the words of the configuration; see ctrfs(1).
var confWords = ctl.Table[*ctr.Config]{
	ctl.Verb("users", allows(func(c *ctr.Config) *bool { return &c.Users })),
	ctl.Verb("accounting", allows(func(c *ctr.Config) *bool { return &c.Accounting })),
	ctl.Verb("raw_icmp", allows(func(c *ctr.Config) *bool { return &c.RawICMP })),
	ctl.Verb("admin_mapper", allows(func(c *ctr.Config) *bool { return &c.Mapper })),
	ctl.Verb("admin_cloop device...", confLoops),
	ctl.Verb("runtime name path", confRuntime),
}

func allows(what func(*ctr.Config) *bool) func(*ctr.Config, context.Context, []string) error {
	return func(c *ctr.Config, _ context.Context, _ []string) error {
		*what(c) = true
		return nil
	}
}

// confLoops takes names of devices of /dev.
func confLoops(c *ctr.Config, _ context.Context, names []string) error {
	for _, name := range names {
		if name != filepath.Base(name) || !strings.HasPrefix(name, "loop") || name == "loop-control" {
			return fmt.Errorf("admin_cloop: not a loop device: %q", name) // that it is there is asked when it is given
		}
		if slices.Contains(c.Loops, name) {
			return fmt.Errorf("admin_cloop: said twice: %q", name)
		}
		c.Loops = append(c.Loops, name)
	}
	return nil
}

func confRuntime(c *ctr.Config, _ context.Context, args []string) error {
	name, path := args[0], args[1]
	if name == "" || name != filepath.Base(name) || name[0] == '.' {
		return fmt.Errorf("runtime: not a name: %q", name)
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("runtime: not an absolute path: %q", path)
	}
	if c.Runtimes[name] != "" {
		return fmt.Errorf("runtime: said twice: %q", name)
	}
	if c.Runtimes == nil {
		c.Runtimes = map[string]string{}
	}
	c.Runtimes[name] = path
	return nil
}

// parseConf reads the text of a configuration, whose errors name the file and the line. Lines that begin with # say nothing.
func parseConf(file, text string) (*ctr.Config, error) {
	c := new(ctr.Config)
	number := 0
	for line := range strings.Lines(text) {
		number++
		if trimmed := strings.TrimSpace(line); trimmed == "" || trimmed[0] == '#' {
			continue
		}
		if err := confWords.Do(c, context.Background(), line); err != nil {
			return nil, fmt.Errorf("%s:%d: %s", file, number, strings.ReplaceAll(err.Error(), "control message", "configuration"))
		}
	}
	return c, nil
}

// confMost is the size of the longest configuration.
const confMost = 64 << 10

// confText gives the name and the text of the configuration. Who names none and is not root has an empty one, and so has root
// where there is no file.
func (o *options) confText() (file, text string, err error) {
	if file = o.conf; file == "" {
		if os.Geteuid() != 0 {
			return "", "", nil
		}
		file = confFile
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("configuration %q: %w", file, cause(err))
		}
	}()
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0) // of a FIFO it would wait for a writer
	if errors.Is(err, os.ErrNotExist) && o.conf == "" {
		return file, "", nil
	}
	if err != nil {
		return file, "", err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return file, "", errors.New("not a file")
	}
	b, err := io.ReadAll(io.LimitReader(f, confMost+1))
	if err == nil && len(b) > confMost {
		err = fmt.Errorf("longer than %d bytes", confMost)
	}
	return file, string(b), err
}

// readConf gives the configuration and its text.
func (o *options) readConf() (c *ctr.Config, text string, err error) {
	file, text, err := o.confText()
	if err == nil {
		c, err = parseConf(file, text)
	}
	return c, text, err
}

// What the keeper holds is what was found right last: a server that dies is followed by one that has the same configuration,
// whatever has become of the file.
const confHeld = "configuration"

// configure takes the configuration that the keeper holds, or else that of the file.
func (s *server) configure(keeper *ns.Keeper, o *options) error {
	for _, h := range keeper.Held() {
		if h.Name == confHeld && len(h.Files) == 1 {
			defer h.Files[0].Close()
			b, err := io.ReadAll(io.NewSectionReader(h.Files[0], 0, confMost))
			if err != nil {
				return err
			}
			c, err := parseConf(confHeld, string(b))
			s.ctrs.Config.Store(c)
			return err
		}
	}
	c, text, err := o.readConf()
	if err != nil {
		return err
	}
	s.ctrs.Config.Store(c)
	return holdConf(keeper, text)
}

// holdConf has the keeper hold a configuration for the servers that follow, in place of the one before.
func holdConf(keeper *ns.Keeper, text string) error {
	f, err := confMemory(text)
	if err != nil {
		return err
	}
	defer f.Close()
	return keeper.HoldBeside(confHeld, true, nil, f)
}

// confMemory is a file that has the text.
func confMemory(text string) (*os.File, error) {
	f, err := ns.Memfd(confHeld)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
