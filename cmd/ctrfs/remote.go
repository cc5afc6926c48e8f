package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	iofs "io/fs"
	"log"
	"os"
	"os/user"
	"path"
	"slices"
	"strings"
	"time"

	"ctrfs/fs"
)

// A remote is a tree at the other end of a connection; names are rooted and clean. Where the tree is ctrfs its errors
// have the server's words in both dialects.
type remote interface {
	open(name string, how fs.How) (remoteFile, error)
	stat(name string) (dir, error)
	list(name string) ([]dir, error)
}

// A remoteFile is an open file. Each call is one message, if p is not longer than most.
type remoteFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// most is what one message carries whatever was agreed on: both clients ask for 64 kB.
const most = 32 << 10

// A dir is what is known of a file.
type dir struct {
	name           string
	uid, gid, muid string
	path           uint64
	version        uint32
	mode           iofs.FileMode
	atime, mtime   int64 // seconds
	length         uint64
}

// String gives what stat prints, Plan 9's form: %D of fcall(3).
func (d dir) String() string {
	kind, mode := "", uint32(d.mode.Perm())
	if d.mode.IsDir() {
		kind, mode = "d", mode|1<<31
	}
	return fmt.Sprintf("'%s' '%s' '%s' '%s' q (%.16x %d %s) m %#o at %d mt %d l %d t 0 d 0",
		d.name, d.uid, d.gid, d.muid, d.path, d.version, kind, mode, d.atime, d.mtime, d.length)
}

// A call is one run of a remote verb.
type call struct {
	remote
	ends                int // how many answers without bytes end a file
	long, self, byMtime bool
	in                  io.Reader
	out                 io.Writer
}

// remoteVerbs are those of 9p(1) and their flags.
var remoteVerbs = []struct {
	name, flags string
	do          func(c *call, name string) error
}{
	{"ls", "ldt", (*call).ls},
	{"rdwr", "", (*call).rdwr},
	{"read", "", (*call).read},
	{"stat", "", (*call).show},
	{"write", "l", (*call).write},
}

// runRemote carries out a remote verb, and says whether args are one. It does not care for interrupts: they end the
// program, and the server sees that its client is gone.
func runRemote(args []string) (is bool, err error) {
	for _, v := range remoteVerbs {
		if len(args) == 0 || v.name != args[0] {
			continue
		}
		c := &call{in: os.Stdin, out: os.Stdout}
		set := flag.NewFlagSet("ctrfs "+v.name, flag.ExitOnError)
		a := set.String("a", "", "the server's `address`")
		old := set.Bool("2", false, "speak 9P2000, not 9P2000.L")
		for _, f := range v.flags {
			switch f {
			case 'l':
				set.BoolVar(&c.long, "l", false, "long listing; write: a message for each line")
			case 'd':
				set.BoolVar(&c.self, "d", false, "the directory itself, not what is in it")
			case 't':
				set.BoolVar(&c.byMtime, "t", false, "newest first")
			}
		}
		set.Parse(apart(args[1:], v.flags+"2"))
		if set.NArg() == 0 {
			set.Usage()
			os.Exit(2)
		}
		conn, err := dial(context.Background(), *a)
		if err != nil {
			return true, err
		}
		defer conn.Close()
		if *old {
			log.SetOutput(io.Discard) // go9p's client logs that the connection is closed
			c.ends = 1
			me := "none"
			if u, err := user.Current(); err == nil {
				me = u.Username
			}
			c.remote, err = attach2000(conn, me)
		} else {
			c.ends = 2 // the first may only be the end of a batch
			c.remote, err = attachL(conn, uint32(os.Geteuid()))
		}
		if err != nil {
			return true, fmt.Errorf("attach: %w", err)
		}
		var errs []error
		for _, name := range set.Args() {
			name = path.Clean("/" + name)
			if err := v.do(c, name); err != nil {
				errs = append(errs, fmt.Errorf("%s %q: %w", v.name, name, err))
			}
		}
		return true, errors.Join(errs...)
	}
	return false, nil
}

// apart makes -ld into -l -d, as all Plan 9 programs take it.
func apart(args []string, letters string) []string {
	var out []string
	for i, a := range args {
		if a == "--" || !strings.HasPrefix(a, "-") {
			return append(out, args[i:]...)
		}
		if len(a) > 2 && strings.Trim(a[1:], letters) == "" {
			for _, f := range a[1:] {
				out = append(out, "-"+string(f))
			}
			continue
		}
		out = append(out, a)
		if a == "-a" && i+1 < len(args) {
			return append(append(out, args[i+1]), apart(args[i+2:], letters)...)
		}
	}
	return out
}

func (c *call) ls(name string) error {
	d, err := c.stat(name)
	if err != nil {
		return err
	}
	list := []dir{d}
	if d.mode.IsDir() && !c.self {
		if list, err = c.list(name); err != nil {
			return err
		}
	}
	slices.SortFunc(list, func(a, b dir) int {
		if c.byMtime && a.mtime != b.mtime {
			return cmp.Compare(b.mtime, a.mtime)
		}
		return cmp.Compare(a.name, b.name)
	})
	for _, d := range list {
		if c.long {
			when := time.Unix(d.mtime, 0).Format("2006-01-02 15:04")
			fmt.Fprintf(c.out, "%v %s %s %d %s ", d.mode, fs.Quote(d.uid), fs.Quote(d.gid), d.length, when)
		}
		if _, err := fmt.Fprintln(c.out, fs.Quote(d.name)); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) show(name string) error {
	d, err := c.stat(name)
	if err == nil {
		_, err = fmt.Fprintln(c.out, d)
	}
	return err
}

func (c *call) read(name string) error {
	if d, err := c.stat(name); err == nil && d.mode.IsDir() {
		return fs.ErrIsDir // which 9P2000 would give as the bytes of its messages
	}
	f, err := c.open(name, fs.Read)
	if err != nil {
		return err
	}
	defer f.Close()
	return c.copy(f)
}

// copy copies a file to its end.
func (c *call) copy(f remoteFile) error {
	b := make([]byte, most)
	var off int64
	for empty := 0; empty < c.ends; {
		n, err := f.ReadAt(b, off)
		if err != nil && err != io.EOF {
			return err
		}
		if n == 0 {
			empty++
			continue
		}
		empty = 0
		off += int64(n)
		if _, err := c.out.Write(b[:n]); err != nil {
			return err
		}
	}
	return nil
}

// write makes one message of each read(2) of the input, with -l of each line.
func (c *call) write(name string) error {
	f, err := c.open(name, fs.Write|fs.Trunc)
	if err != nil {
		return err
	}
	err = c.pieces(c.long, func(p []byte, off int64) error {
		_, err := f.WriteAt(p, off)
		return err
	})
	return cmp.Or(err, f.Close()) // some files take or refuse what was written when they are closed
}

// rdwr reads the file, then for each line of the input writes that and reads the file anew, all through one open file,
// as `clone` wants it.
func (c *call) rdwr(name string) error {
	f, err := c.open(name, fs.Read|fs.Write)
	if err != nil {
		return err
	}
	b := make([]byte, most)
	show := func() error {
		n, err := f.ReadAt(b, 0)
		if err != nil && err != io.EOF {
			return err
		}
		_, err = c.out.Write(b[:n])
		return err
	}
	if err = show(); err == nil {
		err = c.pieces(true, func(p []byte, off int64) error {
			if _, err := f.WriteAt(p, off); err != nil {
				return err
			}
			return show()
		})
	}
	return cmp.Or(err, f.Close())
}

// pieces gives the input to do as it comes, or by lines, with the offset of each piece.
func (c *call) pieces(byLine bool, do func(p []byte, off int64) error) error {
	in := bufio.NewReaderSize(c.in, most)
	var off int64
	for {
		var p []byte
		var err error
		if byLine {
			p, err = in.ReadSlice('\n')
		} else if _, err = in.Peek(1); err == nil {
			p, _ = in.Peek(in.Buffered())
			in.Discard(len(p))
		}
		if len(p) > 0 {
			if err := do(p, off); err != nil {
				return err
			}
			off += int64(len(p))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil && err != bufio.ErrBufferFull {
			return err
		}
	}
}
