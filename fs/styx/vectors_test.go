package styx

import "strings"

// vectors are messages written out by hand from intro(5) and its pages, diod's protocol.md and Linux's
// net/9p/client.c. Where a dialect is missing the bytes are the same in both.
var vectors = []struct {
	dialects dialects
	text     string
	bytes    string
}{
	{both, "Tversion tag ~0 msize 8192 version 9P2000", "13000000 64 ffff 00200000 0600 395032303030"},
	{both, "Rversion tag ~0 msize 4096 version unknown", "14000000 65 ffff 00100000 0700 756e6b6e6f776e"},
	{plain, "Tauth tag 1 afid 2 uname glenda aname ''", "15000000 66 0100 02000000 0600 676c656e6461 0000"},
	{linux, "Tauth tag 1 afid 2 uname '' aname / nuname 1000", "14000000 66 0100 02000000 0000 0100 2f e8030000"},
	{plain, "Tattach tag 1 fid 0 afid ~0 uname me aname /ctr", "19000000 68 0100 00000000 ffffffff 0200 6d65 0400 2f637472"},
	{linux, "Tattach tag 1 fid 0 afid ~0 uname nobody aname ''", "1d000000 68 0100 00000000 ffffffff 0600 6e6f626f6479 0000 ffffffff"},
	{both, "Rattach tag 1 qid 0x1a.0.d", "14000000 69 0100 80 00000000 1a00000000000000"},
	{plain, "Rerror tag 3 ename 'file does not exist'", "1c000000 6b 0300 1300 66696c6520646f6573206e6f74206578697374"},
	{linux, "Rlerror tag 3 ecode 2", "0b000000 07 0300 02000000"},
	{both, "Tflush tag 2 oldtag 1", "09000000 6c 0200 0100"},
	{both, "Rflush tag 2", "07000000 6d 0200"},
	{both, "Twalk tag 1 fid 1 newfid 2 names hello 'a b'", "1d000000 6e 0100 01000000 02000000 0200 0500 68656c6c6f 0300 612062"},
	{both, "Twalk tag 1 fid 1 newfid 2 names", "11000000 6e 0100 01000000 02000000 0000"},
	{both, "Rwalk tag 1 qids 0x1.0 0x2.5.dA", "23000000 6f 0100 0200 00000000000100000000000000 88050000000200000000000000"},
	{plain, "Topen tag 1 fid 2 mode 0x11", "0c000000 70 0100 02000000 11"},
	{plain, "Ropen tag 1 qid 0x7.0 iounit 0", "18000000 71 0100 00 00000000 0700000000000000 00000000"},
	{plain, "Tcreate tag 1 fid 2 name d perm 020000000755 mode 0x0", "13000000 72 0100 02000000 0100 64 ed010080 00"},
	{both, "Tread tag 1 fid 2 offset 4096 count 8168", "17000000 74 0100 02000000 0010000000000000 e81f0000"},
	{both, `Rread tag 1 data "42\n"`, "0e000000 75 0100 03000000 34320a"},
	{both, `Twrite tag 1 fid 2 offset 0 data "kill\n"`, "1c000000 76 0100 02000000 0000000000000000 05000000 6b696c6c0a"},
	{both, "Rwrite tag 1 count 5", "0b000000 77 0100 05000000"},
	{both, "Tclunk tag 1 fid 2", "0b000000 78 0100 02000000"},
	{plain, "Rstat tag 1 type 0 dev 0 qid 0x3.0 mode 0444 atime 1 mtime 2 length 0 name f uid u gid g muid m",
		"3e000000 7d 0100 3500 3300 0000 00000000 00000000000300000000000000 24010000 01000000 02000000 0000000000000000 0100 66 0100 75 0100 67 0100 6d"},
	{plain, "Twstat tag 1 fid 2 type ~0 dev ~0 qid ~0 mode ~0 atime ~0 mtime ~0 length 0 name '' uid '' gid '' muid ''",
		"3e000000 7e 0100 02000000 3100 2f00 ffff ffffffff ffffffffffffffffffffffffff ffffffff ffffffff ffffffff 0000000000000000 0000 0000 0000 0000"},
	{linux, "Tlopen tag 1 fid 2 flags 0x8041", "0f000000 0c 0100 02000000 41800000"},
	{linux, "Tlcreate tag 1 fid 2 name f flags 0x241 perm 0100644 gid 100", "1a000000 0e 0100 02000000 0100 66 41020000 a4810000 64000000"},
	{linux, "Tgetattr tag 1 fid 2 mask 0x17ff", "13000000 18 0100 02000000 ff17000000000000"},
	{linux, "Tsetattr tag 1 fid 2 valid 0x68 mode 00 uid 0 gid 0 size 0 atime 0.0 mtime 1.2",
		"43000000 1a 0100 02000000 68000000 00000000 00000000 00000000 0000000000000000 0000000000000000 0000000000000000 0100000000000000 0200000000000000"},
	{linux, "Rgetattr tag 1 valid 0x7ff qid 0x3.0 mode 0100444 uid 7 gid 8 nlink 1 rdev 0 size 0 blksize 4096 blocks 0 " +
		"atime 1.0 mtime 2.0 ctime 3.0 btime 0.0 gen 0 dataversion 9",
		"a0000000 19 0100 ff07000000000000 00000000000300000000000000 24810000 07000000 08000000 0100000000000000 " +
			"0000000000000000 0000000000000000 0010000000000000 0000000000000000 0100000000000000 0000000000000000 " +
			"0200000000000000 0000000000000000 0300000000000000 0000000000000000 0000000000000000 0000000000000000 " +
			"0000000000000000 0900000000000000"},
	{linux, "Txattrwalk tag 1 fid 2 newfid 3 name security.capability",
		"24000000 1e 0100 02000000 03000000 1300 73656375726974792e6361706162696c697479"},
	{linux, "Txattrcreate tag 1 fid 2 name u size 3 flags 0x1", "1a000000 20 0100 02000000 0100 75 0300000000000000 01000000"},
	{linux, "Treaddir tag 1 fid 2 offset 3 count 100", "17000000 28 0100 02000000 0300000000000000 64000000"},
	{linux, "Tfsync tag 1 fid 2 datasync 1", "0f000000 32 0100 02000000 01000000"},
	{linux, "Tlock tag 1 fid 2 type 1 flags 0x1 start 0 length 0 pid 9 client h",
		"27000000 34 0100 02000000 01 01000000 0000000000000000 0000000000000000 09000000 0100 68"},
	{linux, "Rgetlock tag 1 type 2 start 0 length 0 pid 9 client h", "1f000000 37 0100 02 0000000000000000 0000000000000000 09000000 0100 68"},
	{linux, "Rstatfs tag 1 type 0x1021997 bsize 4096 blocks 1 bfree 2 bavail 3 files 4 ffree 5 fsid 6 namelen 255",
		"43000000 09 0100 97190201 00100000 0100000000000000 0200000000000000 0300000000000000 0400000000000000 0500000000000000 0600000000000000 ff000000"},
	{linux, "Tlink tag 1 newdirfid 2 fid 3 name n", "12000000 46 0100 02000000 03000000 0100 6e"},
	{linux, "Trenameat tag 1 fid 2 name a newdirfid 3 newname b", "15000000 4a 0100 02000000 0100 61 03000000 0100 62"},
	{linux, "Tunlinkat tag 1 fid 2 name a flags 0x200", "12000000 4c 0100 02000000 0100 61 00020000"},
	{linux, "Tmknod tag 1 fid 2 name p perm 010644 major 1 minor 3 gid 4", "1e000000 12 0100 02000000 0100 70 a4110000 01000000 03000000 04000000"},
	{linux, "Tsymlink tag 1 fid 2 name l target /x gid 4", "16000000 10 0100 02000000 0100 6c 0200 2f78 04000000"},
}

// hostile has what TestMalformed cannot make, for each T-type that holds a string, a list or data.
var hostile = []struct {
	dialect Dialect
	bytes   string
	err     string
}{
	{Plain, "64 ffff 00200000 ffff 39", "Tversion: ends within version"},
	{Plain, "64 ffff 00200000 0200 3900", "Tversion: NUL in version"},
	{Plain, "66 0100 00000000 0100 80 0000", "Tauth: uname is not UTF-8"},
	{Linux, "68 0100 00000000 ffffffff 0000 0200 c328 ffffffff", "Tattach: aname is not UTF-8"},
	{Plain, "68 0100 00000000 ffffffff 0000 0000 ffffffff", "Tattach: 4 bytes too many"},
	{Linux, "68 0100 00000000 ffffffff 0000 0000", "Tattach: ends within nuname"},
	{Plain, "6e 0100 01000000 02000000 1100" + strings.Repeat("0000", 17), "Twalk: 17 names"},
	{Linux, "6e 0100 01000000 02000000 ffff", "Twalk: 65535 names"},
	{Linux, "6e 0100 01000000 02000000 0100 0300 610062", "Twalk: NUL in names"},
	{Linux, "6e 0100 01000000 02000000 0200 0100 61 0300 6162", "Twalk: ends within names"},
	{Plain, "6f 0100 1100" + strings.Repeat("00", 17*13), "Rwalk: 17 qids"},
	{Plain, "72 0100 01000000 0200 61ff 00000000 00", "Tcreate: name is not UTF-8"},
	{Plain, "76 0100 01000000 0000000000000000 ffffffff 61", "Twrite: ends within data"},
	{Plain, "76 0100 01000000 0000000000000000 01000000 6162", "Twrite: 1 bytes too many"},
	{Plain, "7e 0100 01000000 3100 3000 ffff ffffffff ffffffffffffffffffffffffff ffffffff ffffffff ffffffff 0000000000000000 0000 0000 0000 0000",
		"Twstat: the sizes of stat do not agree"},
	{Plain, "7e 0100 01000000 3200 3000 ffff ffffffff ffffffffffffffffffffffffff ffffffff ffffffff ffffffff 0000000000000000 0000 0000 0000 0000",
		"Twstat: the sizes of stat do not agree"},
	{Plain, "7e 0100 01000000 0000", "Twstat: the sizes of stat do not agree"},
	{Plain, "7e 0100 01000000 3100 2f00 ffff ffffffff ffffffffffffffffffffffffff ffffffff ffffffff ffffffff 0000000000000000 ffff 0000 0000 0000",
		"Twstat: ends within name"},
	{Linux, "32 0100 01000000 0000", "Tfsync: ends within datasync"},
	{Linux, "70 0100 01000000 00", "Topen: not a message of 9P2000.L"},
	{Plain, "18 0100 01000000 0000000000000000", "Tgetattr: not a message of 9P2000"},
	{Plain, "62 0100", "unknown message type 98"},
	{Linux, "ff 0100", "unknown message type 255"},
}
