package srv

import (
	"fmt"
	"strings"
	"testing"

	"ctrfs/fs/styx"
)

const both = "9P2000 9P2000.L"

// TestA10 has a test for each row of what Linux's, Plan 9's and Inferno's clients need of a server. Each runs in the
// dialects named.
func TestA10(t *testing.T) {
	for _, row := range []struct {
		name, dialects string
		run            func(t *testing.T, w *world, c *client)
	}{
		{"01_open-flags", "9P2000.L", openFlags},
		{"02_setattr-does-nothing", "9P2000.L", setattrNothing},
		{"03_setattr-of-mode-is-refused", "9P2000.L", setattrMode},
		{"04_wstat-does-nothing", "9P2000", wstatNothing},
		{"05_open-for-truncation", both, openTrunc},
		{"06_offset-and-empty-writes", both, emptyWrites},
		{"07_whole-writes", both, wholeWrites},
		{"08_one-write-one-message", both, oneMessage},
		{"09_never-again", "9P2000.L", neverAgain},
		{"10_last-error", both, lastError},
		{"11_xattr", "9P2000.L", xattr},
		{"12_length-is-0", both, lengthZero},
		{"13_qids", both, qids},
		{"14_ends-and-counts", both, endsAndCounts},
		{"15_wait", both, waitFile},
		{"16_stream", both, stream},
		{"17_flush", both, flushStorm},
		{"18_flush-of-anything", both, flushOfAnything},
		{"19_blocked-reads", both, blockedReads},
		{"20_blocked-read-holds-nothing", both, holdsNothing},
		{"22_walk-from-an-open-fid", both, walkOpen},
		{"23_partial-walk", both, partialWalk},
		{"24_dot-dot", both, dotDot},
		{"25_clunk-frees", both, clunkFrees},
		{"26_readdir", "9P2000.L", readdir},
		{"27_dirread", "9P2000", dirread},
		{"28_getattr", "9P2000.L", getattr},
		{"29_permission", both, permission},
		{"30_attaches", "9P2000.L", attaches},
		{"31_version", both, version},
		{"32_auth", both, auth},
		{"33_error-words", "9P2000", errorWords},
		{"34_odd-messages", both, oddMessages},
		{"35_clone", both, clone},
		{"36_lost-connection", both, lostConnection},
		{"37_made-again", both, madeAgain},
		{"38_msize", both, msize},
	} {
		for _, d := range strings.Fields(row.dialects) {
			t.Run(row.name+"/"+d, func(t *testing.T) {
				w := newWorld()
				c := dial(t, &Server{Root: w, Users: people{}}, asRoot).start(d)
				row.run(t, w, c)
				c.hangUp()
				if n := w.open.Load(); n != 0 {
					t.Errorf("%d files are open after the end", n)
				}
			})
		}
	}
}

// open walks to a file and opens it: "r", "w" or "rw".
func (c *client) open(fid int, path, mode string) {
	c.t.Helper()
	c.must("Twalk fid 0 newfid %d names %s", fid, strings.ReplaceAll(path, "/", " "))
	c.must("%s", c.opening(fid, mode))
}

func (c *client) opening(fid int, mode string) string {
	n := map[string]int{"r": 0, "w": 1, "rw": 2}[mode]
	if c.d == styx.Linux {
		return fmt.Sprintf("Tlopen fid %d flags %d", fid, n)
	}
	return fmt.Sprintf("Topen fid %d mode %d", fid, n)
}

// stat is the message that asks for a file's attributes.
func (c *client) stat(tag, fid int) string {
	if c.d == styx.Linux {
		return fmt.Sprintf("Tgetattr tag %d fid %d mask 0x17ff", tag, fid)
	}
	return fmt.Sprintf("Tstat tag %d fid %d", tag, fid)
}

// refused is an rpc that is to fail with an error that has this errno or text.
func (c *client) refused(errno int, text, format string, args ...any) {
	c.t.Helper()
	m := c.rpc(format, args...)
	ok := m.Type == styx.Rlerror && int(m.Ecode) == errno
	if c.d == styx.Plain {
		ok = m.Type == styx.Rerror && m.Ename == text
	}
	if !ok {
		c.t.Fatalf("%s: %s; want error %d, %s", fmt.Sprintf(format, args...), m, errno, text)
	}
}

func (c *client) text(fid int) string {
	c.t.Helper()
	return string(c.must("Tread fid %d offset 0 count 8000", fid).Data)
}

func (c *client) cat(path string) string {
	c.t.Helper()
	c.open(99, path, "r")
	defer c.must("Tclunk fid 99")
	return c.text(99)
}
