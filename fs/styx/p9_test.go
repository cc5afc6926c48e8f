package styx

import (
	"net"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hugelgupf/p9/p9"
)

// TestP9 holds a conversation with the client of hugelgupf/p9: what it sends must read as it was meant, and what it
// is answered it must understand. Each step is a call and the message that it must send; replies are by type. (The
// client sends no gid to a server of 9P2000.L, and leaves the fid out of Tlock.)
func TestP9(t *testing.T) {
	entries, err := AppendDirent(nil, Qid{QTDir, 0, 6}, 1, 4, "d")
	if err != nil {
		t.Fatal(err)
	}
	readdir := &Msg{Type: Rreaddir, Data: entries}
	replies := make(map[Type]*Msg)
	for _, line := range []string{
		readdir.String(),
		"Rversion msize 65536 version 9P2000.L",
		"Rattach qid 0x1.0.d",
		"Rwalk qids 0x2.0.d 0x3.1",
		"Rlopen qid 0x3.1 iounit 100",
		"Rlcreate qid 0x4.0 iounit 0",
		`Rread data "text\n"`,
		"Rwrite count 3",
		"Rgetattr valid 0x3fff qid 0x3.1 mode 0100640 uid 1 gid 2 nlink 3 rdev 4 size 5 blksize 6 blocks 7 " +
			"atime 8.9 mtime 10.11 ctime 12.13 btime 14.15 gen 16 dataversion 17",
		"Rsetattr", "Rfsync", "Rclunk", "Rremove", "Rrename", "Rrenameat", "Runlinkat", "Rlink",
		"Rstatfs type 1 bsize 2 blocks 3 bfree 4 bavail 5 files 6 ffree 7 fsid 8 namelen 9",
		"Rmkdir qid 0x5.0.d", "Rsymlink qid 0x6.0.L", "Rmknod qid 0x7.0",
		"Rreadlink target /etc/passwd",
		"Rlock status 1",
	} {
		m, err := ParseText(line)
		if err != nil {
			t.Fatal(err)
		}
		replies[m.Type] = m
	}

	clientConn, conn := net.Pipe()
	sent := make(chan string, 10)
	go func() {
		defer conn.Close()
		defer close(sent)
		r := NewReader(conn)
		for {
			b, err := r.Next()
			if err != nil {
				return
			}
			var m Msg
			if err := Parse(b, Linux, &m); err != nil {
				t.Error(err)
				return
			}
			_, fields, _ := strings.Cut(m.String(), " tag ")
			_, fields, _ = strings.Cut(fields, " ")
			sent <- m.Type.String() + " " + fields
			reply := Msg{Type: Rlerror, Ecode: uint32(syscall.ENOTTY)}
			if p := replies[m.Type+1]; p != nil {
				reply = *p
			}
			reply.Tag = m.Tag
			out, err := reply.Append(nil, Linux)
			if err != nil {
				t.Error(err)
			}
			if m.Type == Tversion {
				r.SetMsize(65536)
			}
			if _, err := conn.Write(out); err != nil {
				return
			}
		}
	}()

	var c *p9.Client
	var root, f p9.File
	buf := make([]byte, 10)
	type result = []any
	steps := []struct {
		do   func() (result, error)
		want result
		sent string
	}{
		{func() (_ result, err error) {
			c, err = p9.NewClient(clientConn, p9.WithMessageSize(65536))
			return nil, err
		},
			nil, "Tversion msize 65536 version 9P2000.L.Google.7"},
		{func() (_ result, err error) { root, err = c.Attach("ctr/web"); return nil, err },
			nil, "Tattach fid 1 afid ~0 uname '' aname ctr/web"},
		{func() (_ result, err error) {
			q, g, err := root.Walk([]string{"a", "b c"})
			f = g
			return result{q}, err
		}, result{[]p9.QID{{Type: p9.TypeDir, Path: 2}, {Version: 1, Path: 3}}}, "Twalk fid 1 newfid 2 names a 'b c'"},
		{func() (result, error) { q, m, a, err := f.GetAttr(p9.AttrMaskAll); return result{q, m, a}, err },
			result{p9.QID{Version: 1, Path: 3}, p9.AttrMaskAll, p9.Attr{
				Mode: 0100640, UID: 1, GID: 2, NLink: 3, RDev: 4, Size: 5, BlockSize: 6, Blocks: 7,
				ATimeSeconds: 8, ATimeNanoSeconds: 9, MTimeSeconds: 10, MTimeNanoSeconds: 11, CTimeSeconds: 12, CTimeNanoSeconds: 13,
				BTimeSeconds: 14, BTimeNanoSeconds: 15, Gen: 16, DataVersion: 17}},
			"Tgetattr fid 2 mask 0x3fff"},
		{func() (result, error) {
			return nil, f.SetAttr(p9.SetAttrMask{Size: true, MTime: true}, p9.SetAttr{Permissions: 0600, UID: 1, GID: 2, Size: 3,
				ATimeSeconds: 4, ATimeNanoSeconds: 5, MTimeSeconds: 6, MTimeNanoSeconds: 7})
		}, nil, "Tsetattr fid 2 valid 0x28 mode 0600 uid 1 gid 2 size 3 atime 4.5 mtime 6.7"},
		{func() (result, error) { q, n, err := f.Open(p9.ReadWrite); return result{q, n}, err },
			result{p9.QID{Version: 1, Path: 3}, uint32(100)}, "Tlopen fid 2 flags 0x2"},
		{func() (result, error) { n, err := f.ReadAt(buf, 7); return result{string(buf[:n])}, err },
			result{"text\n"}, "Tread fid 2 offset 7 count 10"},
		{func() (result, error) { n, err := f.WriteAt([]byte("a\x00b"), 1<<40); return result{n}, err },
			result{3}, `Twrite fid 2 offset 1099511627776 data "a\x00b"`},
		{func() (result, error) { return nil, f.FSync() }, nil, "Tfsync fid 2 datasync 0"},
		{func() (result, error) {
			s, err := f.Lock(9, p9.WriteLock, p9.LockFlagsBlock, 1, 2, "host")
			return result{s}, err
		},
			result{p9.LockStatusBlocked}, "Tlock fid 0 type 1 flags 0x1 start 1 length 2 pid 9 client host"},
		{func() (result, error) { s, err := root.StatFS(); return result{s}, err },
			result{p9.FSStat{Type: 1, BlockSize: 2, Blocks: 3, BlocksFree: 4, BlocksAvailable: 5, Files: 6, FilesFree: 7, FSID: 8, NameLength: 9}},
			"Tstatfs fid 1"},
		{func() (result, error) { d, err := root.Readdir(0, 1000); return result{d}, err },
			result{p9.Dirents{{QID: p9.QID{Type: p9.TypeDir, Path: 6}, Offset: 1, Type: 4, Name: "d"}}}, "Treaddir fid 1 offset 0 count 1000"},
		{func() (result, error) { q, err := root.Mkdir("n", 0755, p9.NoUID, 5); return result{q}, err },
			result{p9.QID{Type: p9.TypeDir, Path: 5}}, "Tmkdir fid 1 name n perm 0755 gid ~0"},
		{func() (result, error) { q, err := root.Symlink("/t", "l", p9.NoUID, 5); return result{q}, err },
			result{p9.QID{Type: p9.TypeSymlink, Path: 6}}, "Tsymlink fid 1 name l target /t gid ~0"},
		{func() (result, error) { q, err := root.Mknod("p", 010600, 1, 3, p9.NoUID, 5); return result{q}, err },
			result{p9.QID{Path: 7}}, "Tmknod fid 1 name p perm 010600 major 1 minor 3 gid ~0"},
		{func() (result, error) { s, err := f.Readlink(); return result{s}, err },
			result{"/etc/passwd"}, "Treadlink fid 2"},
		{func() (result, error) { return nil, root.Link(f, "hard") }, nil, "Tlink newdirfid 1 fid 2 name hard"},
		{func() (result, error) { return nil, f.Rename(root, "new") }, nil, "Trename fid 2 newdirfid 1 name new"},
		{func() (result, error) { return nil, root.RenameAt("old", root, "new") }, nil, "Trenameat fid 1 name old newdirfid 1 newname new"},
		{func() (result, error) { return nil, root.UnlinkAt("d", 0x200) }, nil, "Tunlinkat fid 1 name d flags 0x200"},
		{func() (result, error) {
			_, q, n, err := root.Create("f", p9.WriteOnly, 0644, p9.NoUID, 5)
			return result{q, n}, err
		}, result{p9.QID{Path: 4}, uint32(0)}, "Tlcreate fid 1 name f flags 0x1 perm 0644 gid ~0"},
		{func() (result, error) { return nil, f.(interface{ Remove() error }).Remove() }, nil, "Tremove fid 2"},
		{func() (result, error) { return nil, root.Close() }, nil, "Tclunk fid 1"},
	}
	for _, s := range steps {
		got, err := s.do()
		if err != nil {
			t.Fatalf("%s: %v", s.sent, err)
		}
		if x := <-sent; x != s.sent {
			t.Errorf("sent %s, want %s", x, s.sent)
		}
		if !slices.EqualFunc(got, s.want, func(a, b any) bool { return reflect.DeepEqual(a, b) }) {
			t.Errorf("%s: %+v, want %+v", s.sent, got, s.want)
		}
	}
	c.Close()
	for range sent {
		t.Error("sent more than that")
	}
}
