// Package fs is a tree of files that are made on demand: nodes that a walk reaches, handles that are open files, and
// tables of rows from which directories are built. It does not know how it is served: fs/srv speaks 9P over it,
// fs/fuse FUSE, and tests call it.
package fs

import (
	"context"
	"io/fs"
	"time"
)

// FileMode is a file's type and permission bits.
type FileMode = fs.FileMode

// A Stat describes a file.
type Stat struct {
	Name     string   // last element of its path
	Qid      uint64   // unique for ever: never that of another object
	Mode     FileMode // type and permissions
	Uid, Gid uint32
	Length   uint64 // 0 for what is made when it is read: Linux 6.12 loops on a file shorter than its length
	Time     time.Time

	Atime, Ctime time.Time // of the last use and of the last change of any kind; zero: as Time
}

// A Node is a name in the tree. What it stands for is looked up at each use, so that a name that was made again is
// reached also by clients that still hold the old one.
type Node interface {
	Stat(ctx context.Context) (Stat, error)
}

// A Dir is a node that has others below it.
type Dir interface {
	Node
	// Walk gives the node called name; fs.ErrNotExist if there is none. The name is never "", ".", ".." and holds no
	// slash or NUL.
	Walk(ctx context.Context, name string) (Node, error)
	// List gives what the client of ctx may see, each once.
	List(ctx context.Context) ([]Entry, error)
}

// An Entry is a line of a directory's listing.
type Entry struct {
	Name string
	Qid  uint64
	Type FileMode // type bits only
	Next uint64   // of a Lister: where the one after it is
}

// A File is a node that can be opened. The server has checked the file's mode.
type File interface {
	Node
	Open(ctx context.Context, how How) (Handle, error)
}

// How says what a file is opened for.
type How uint8

const (
	Read How = 1 << iota
	Write
	Trunc
)

// A Handle is an open file, bound to the object that was there when it was opened. Its methods may be called by
// several requests at once. A call returns soon after its ctx ends, with ctx's error. What may wait asks for ctx.Done
// before it does: by that the server knows that it must not wait too.
type Handle interface {
	// Read gives at most n bytes from offset off, 0 bytes at the end. The caller does not change them.
	Read(ctx context.Context, off int64, n int) ([]byte, error)
	// Write takes p whole, or says how much of it was taken and why no more.
	Write(ctx context.Context, off int64, p []byte) (int, error)
	// Close is called once, when no call is under way; ctx does not end. Its error answers the client's clunk.
	Close(ctx context.Context) error
}

// What some nodes and handles can do besides.
type (
	// A Truncater is emptied by `>`: a handle when opened so, a node by truncate(2). Where there is none, truncation is ignored.
	Truncater interface {
		Truncate(ctx context.Context) error
	}
	// A Setter is a node, or an open file, of which attributes can be set.
	Setter interface {
		Set(ctx context.Context, c Change) error
	}
	// A Pager is a directory that may be too large to be listed at once.
	Pager interface {
		Pages(ctx context.Context) (Lister, error)
	}
	// A Lister is an open directory.
	Lister interface {
		// From gives some of the entries at a place and after it, 0 or an entry's Next; none at the end. Other than a
		// directory's List it may give "." and "..", which stand for what they do.
		From(ctx context.Context, at uint64) ([]Entry, error)
		// Close is called once, when no call is under way.
		Close()
	}
	// A Linker is a directory in which symlink(2) makes something.
	Linker interface {
		Symlink(ctx context.Context, name, target string) (Node, error)
	}
	// A Mover is a directory of which something can be moved to another one, dir.
	Mover interface {
		Move(ctx context.Context, from string, dir Node, to string) error
	}
	// A Maker is a directory in which mkdir(2) makes something.
	Maker interface {
		Mkdir(ctx context.Context, name string, perm FileMode) (Node, error)
	}
	// A Creator is a directory in which a file can be made, which is open then. A name that exists is ErrExist.
	Creator interface {
		Create(ctx context.Context, name string, perm FileMode, how How) (Node, Handle, error)
	}
	// A Link is a node that is a symbolic link.
	Link interface {
		Readlink(ctx context.Context) (string, error)
	}
	// A Remover is a directory of which something can be removed.
	Remover interface {
		Remove(ctx context.Context, name string) error
	}
	// A Renamer is a directory in which something can get another name.
	Renamer interface {
		Rename(ctx context.Context, from, to string) error
	}
	// An Unreader is a handle that goes on from read to read whatever their offsets. It takes back what a read gave that
	// never reached the client, because its request was flushed meanwhile: the next read gives it again.
	Unreader interface {
		Unread(ctx context.Context, p []byte)
	}
)

// A Change is what is to be set of a file, nil what is to stay. A time that is zero is the present one.
type Change struct {
	Mode         *FileMode // permissions, setuid, setgid and sticky
	Uid, Gid     *uint32
	Size         *uint64
	Atime, Mtime *time.Time
}

// A Client is who asks: a proven identity, and what must be known of the way the question came.
type Client struct {
	Uid, Gid uint32
	Groups   []uint32
	None     bool // nothing is proven: reads what all may read, and neither writes nor makes anything
	Pid      int  // the process at the other end, if it speaks for itself (not a mount's kernel); 0: not known

	// Gathers says that a read(2) of the client goes on until one answer has 0 bytes, as v9fs's does: a file that
	// blocks must answer so after each batch, or nothing is seen before the buffer is full.
	Gathers bool
	// Bare says that numbers are read without a newline, as Inferno's os(1) does.
	Bare bool

	Errors  *Errors  // what was refused; shown to this client in /error
	Account *Account // what the server holds for him; nil: any amount
}

type clientKey struct{}

// WithClient gives a context in which c asks.
func WithClient(ctx context.Context, c *Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// ClientOf gives the client that asks in ctx: nobody, if the server has not said.
func ClientOf(ctx context.Context) *Client {
	if c, ok := ctx.Value(clientKey{}).(*Client); ok {
		return c
	}
	return &Client{Uid: ^uint32(0), Gid: ^uint32(0), None: true, Errors: new(Errors)}
}

// In says whether the client is of group gid.
func (c *Client) In(gid uint32) bool {
	if c.None {
		return false
	}
	if c.Gid == gid {
		return true
	}
	for _, g := range c.Groups {
		if g == gid {
			return true
		}
	}
	return false
}

// Root says whether the client may do what root may.
func (c *Client) Root() bool { return c.Uid == 0 && !c.None }

const (
	ModeDir    = fs.ModeDir    // the type of a directory
	ModeSticky = fs.ModeSticky // of a directory: only its owner and the thing's take it away
)
