package main

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"ctrfs/fs"
	"ctrfs/fs/styx"

	"github.com/hugelgupf/p9/p9"
	"github.com/knusbaum/go9p/proto"
)

// echo writes its words as one message, as bash's does.
func (c *shell) echo(args []string) error {
	end := "\n"
	if len(args) > 0 && args[0] == "-n" {
		end, args = "", args[1:]
	}
	how, name := fs.How(0), ""
	if n := len(args); n >= 2 && args[n-2] == ">" {
		how, name, args = fs.Write|fs.Trunc, args[n-1], args[:n-2]
	} else if n >= 2 && args[n-2] == ">>" {
		how, name, args = fs.Write, args[n-1], args[:n-2]
	}
	text := strings.Join(args, " ") + end
	if how == 0 {
		_, err := io.WriteString(c.out, text)
		return err
	}
	heard := c.hear(name, text)
	f, err := c.open(name, how)
	if err != nil && err.Error() == fs.ErrNotExist.Error() {
		if made, e := c.create(name); e == nil {
			f, err = made, nil
		}
	}
	if err != nil {
		return err
	}
	if text != "" {
		_, err = f.WriteAt([]byte(text), 0)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	heard(err)
	return err
}

// create makes a file and opens it.
func (c *shell) create(name string) (remoteFile, error) {
	switch r := c.remote.(type) {
	case *remoteL:
		d, err := r.walk(path.Dir(name))
		if err != nil {
			return nil, err
		}
		f, _, _, err := d.Create(path.Base(name), p9.WriteOnly, 0644, p9.NoUID, p9.NoGID)
		if err != nil {
			d.Close()
			return nil, err
		}
		return &fileL{f, r, name}, nil
	case *remote2000:
		f, err := r.client.Create(name, 0644)
		if err != nil {
			return nil, err
		}
		f.Close() // it does not know how much it may write to it
		return r.open(name, fs.Write)
	}
	return nil, nil
}

// ls shows names, with -l the modes too.
func (c *shell) ls(args []string) error {
	c.long = args[0] == "-l"
	name := args[len(args)-1]
	list, err := c.list(name)
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b dir) int { return strings.Compare(a.name, b.name) })
	for _, d := range list {
		if c.long {
			mode := fmt.Sprintf("%04o ", d.mode.Perm())
			if d.mode.IsDir() {
				mode = "d" + mode
			}
			io.WriteString(c.out, mode)
		}
		fmt.Fprintln(c.out, d.name)
	}
	return nil
}

func (c *shell) mkdir(name string) error {
	dir, base := path.Dir(name), path.Base(name)
	switch r := c.remote.(type) {
	case *remoteL:
		d, err := r.walk(dir)
		if err != nil {
			return err
		}
		defer d.Close()
		_, err = d.Mkdir(base, 0777, p9.NoUID, p9.NoGID)
		if err != nil {
			return r.refused(name, err)
		}
	case *remote2000:
		f, err := r.client.Create(name, styx.DMDir|0777)
		if err != nil {
			return err
		}
		return f.Close()
	}
	return nil
}

func (c *shell) rmdir(name string) error {
	dir, base := path.Dir(name), path.Base(name)
	switch r := c.remote.(type) {
	case *remoteL:
		d, err := r.walk(dir)
		if err != nil {
			return err
		}
		defer d.Close()
		const removeDir = 0x200 // AT_REMOVEDIR
		if err := d.UnlinkAt(base, removeDir); err != nil {
			return r.refused(name, err)
		}
	case *remote2000:
		return r.client.Remove(name)
	}
	return nil
}

func (c *shell) mv(from, to string) error {
	dir, base := path.Dir(from), path.Base(from)
	other := path.Base(to)
	switch r := c.remote.(type) {
	case *remoteL:
		d, err := r.walk(dir)
		if err != nil {
			return err
		}
		defer d.Close()
		to, err := r.walk(path.Dir(to))
		if err != nil {
			return err
		}
		defer to.Close()
		if err := d.RenameAt(base, to, other); err != nil {
			return r.refused(from, err)
		}
	case *remote2000:
		untouched := ^uint32(0)
		return r.client.WStat(from, &proto.Stat{
			Type: uint16(untouched & 0xffff), Dev: untouched, Mode: untouched, Atime: untouched, Mtime: untouched,
			Length: ^uint64(0), Qid: proto.Qid{Qtype: 0xff, Vers: untouched, Uid: ^uint64(0)}, Name: other,
		})
	}
	return nil
}
