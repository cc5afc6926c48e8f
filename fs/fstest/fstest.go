// Package fstest uses a tree of files as a client does, without a server between, for the tests of those who make one.
package fstest

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"ctrfs/fs"
)

// A Client is somebody's use of a tree. A method that returns no error ends the test where there is one.
type Client struct {
	T    *testing.T
	Ctx  context.Context // in which he asks
	Root fs.Dir
}

// New is a use of the tree below root by c, who gets errors of his own. It ends with the test, or after a minute.
func New(t *testing.T, root fs.Dir, c *fs.Client) *Client {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return (&Client{t, ctx, root}).As(c)
}

// As is the same tree, used by another.
func (c *Client) As(who *fs.Client) *Client {
	if who.Errors == nil {
		who.Errors = new(fs.Errors)
	}
	return &Client{c.T, fs.WithClient(c.Ctx, who), c.Root}
}

// Open opens the file at a path below the root, `a/b`.
func (c *Client) Open(path string, how fs.How) (fs.Handle, error) {
	var n fs.Node = c.Root
	var err error
	for _, name := range strings.Split(path, "/") {
		if n, err = fs.Look(c.Ctx, n, name); err != nil {
			return nil, err
		}
	}
	return fs.Enter(c.Ctx, n, how)
}

// Cat reads a file to its end.
func (c *Client) Cat(path string) (string, error) {
	h, err := c.Open(path, fs.Read)
	if err != nil {
		return "", err
	}
	defer h.Close(c.Ctx)
	var text []byte
	for {
		b, err := h.Read(c.Ctx, int64(len(text)), 8192)
		if err != nil || len(b) == 0 {
			return string(text), err
		}
		text = append(text, b...)
	}
}

// Read is Cat of what can be read.
func (c *Client) Read(path string) string {
	c.T.Helper()
	text, err := c.Cat(path)
	if err != nil {
		c.T.Fatalf("read %s: %v", path, err)
	}
	return text
}

// Echo writes a text to a file as `>` does, in one write.
func (c *Client) Echo(path, text string) error {
	h, err := c.Open(path, fs.Write|fs.Trunc)
	if err != nil {
		return err
	}
	_, err = h.Write(c.Ctx, 0, []byte(text))
	if e := h.Close(c.Ctx); err == nil {
		err = e
	}
	return err
}

// Write is Echo of what is taken.
func (c *Client) Write(path, text string) {
	c.T.Helper()
	if err := c.Echo(path, text); err != nil {
		c.T.Fatalf("write %q to %s: %v", text, path, err)
	}
}

// Clone opens the file clone of a directory, "" for the root, and gives what reading it gives too.
func (c *Client) Clone(dir string) (h fs.Handle, name string) {
	c.T.Helper()
	h, err := c.Open(strings.TrimPrefix(dir+"/clone", "/"), fs.Read|fs.Write)
	if err != nil {
		c.T.Fatal(err)
	}
	b, err := h.Read(c.Ctx, 0, 256)
	if err != nil {
		c.T.Fatal(err)
	}
	return h, strings.TrimSpace(string(b))
}

// Say writes a message to what is open.
func (c *Client) Say(h fs.Handle, msg string) {
	c.T.Helper()
	if _, err := h.Write(c.Ctx, 0, []byte(msg)); err != nil {
		c.T.Fatalf("%q: %v", msg, err)
	}
}

// Mkdir makes a directory in the root.
func (c *Client) Mkdir(name string) {
	c.T.Helper()
	if _, err := fs.Make(c.Ctx, c.Root, name, 0755); err != nil {
		c.T.Fatal(err)
	}
}

// Rmdir removes one.
func (c *Client) Rmdir(name string) {
	c.T.Helper()
	if err := fs.Delete(c.Ctx, c.Root, name); err != nil {
		c.T.Fatal(err)
	}
}

// NeedsRoot skips the test where it has not root's rights; where CI=true it fails.
func NeedsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}
