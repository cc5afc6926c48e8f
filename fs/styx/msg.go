// Package styx is the 9P messages as bytes, structs and text, in both dialects: 9P2000 (Plan 9, Inferno's Styx)
// and 9P2000.L (Linux v9fs). It knows the format of a message and nothing of a conversation.
package styx

// A Type is the number of a message type: Txxx is even, its Rxxx is one more; see intro(5) and Linux's 9p.h.
type Type uint8

// The message types of 9P2000.L, then those of 9P2000; the first dozen are common.
const (
	Rlerror      Type = 7
	Tstatfs      Type = 8
	Rstatfs      Type = 9
	Tlopen       Type = 12
	Rlopen       Type = 13
	Tlcreate     Type = 14
	Rlcreate     Type = 15
	Tsymlink     Type = 16
	Rsymlink     Type = 17
	Tmknod       Type = 18
	Rmknod       Type = 19
	Trename      Type = 20
	Rrename      Type = 21
	Treadlink    Type = 22
	Rreadlink    Type = 23
	Tgetattr     Type = 24
	Rgetattr     Type = 25
	Tsetattr     Type = 26
	Rsetattr     Type = 27
	Txattrwalk   Type = 30
	Rxattrwalk   Type = 31
	Txattrcreate Type = 32
	Rxattrcreate Type = 33
	Treaddir     Type = 40
	Rreaddir     Type = 41
	Tfsync       Type = 50
	Rfsync       Type = 51
	Tlock        Type = 52
	Rlock        Type = 53
	Tgetlock     Type = 54
	Rgetlock     Type = 55
	Tlink        Type = 70
	Rlink        Type = 71
	Tmkdir       Type = 72
	Rmkdir       Type = 73
	Trenameat    Type = 74
	Rrenameat    Type = 75
	Tunlinkat    Type = 76
	Runlinkat    Type = 77
	Tversion     Type = 100
	Rversion     Type = 101
	Tauth        Type = 102
	Rauth        Type = 103
	Tattach      Type = 104
	Rattach      Type = 105
	Rerror       Type = 107
	Tflush       Type = 108
	Rflush       Type = 109
	Twalk        Type = 110
	Rwalk        Type = 111
	Topen        Type = 112
	Ropen        Type = 113
	Tcreate      Type = 114
	Rcreate      Type = 115
	Tread        Type = 116
	Rread        Type = 117
	Twrite       Type = 118
	Rwrite       Type = 119
	Tclunk       Type = 120
	Rclunk       Type = 121
	Tremove      Type = 122
	Rremove      Type = 123
	Tstat        Type = 124
	Rstat        Type = 125
	Twstat       Type = 126
	Rwstat       Type = 127
)

// A Fid is a client's number for a file, a Tag its number for a request.
type (
	Fid uint32
	Tag uint16
)

const (
	NoFid Fid    = ^Fid(0)    // no fid: afid of an attach without authentication
	NoTag Tag    = ^Tag(0)    // the tag of Tversion
	NoUid uint32 = ^uint32(0) // n_uname not given

	MaxWalk = 16 // names in one Twalk
)

// A Dialect is the version of the protocol that a conversation speaks.
type Dialect uint8

const (
	Plain Dialect = iota // 9P2000
	Linux                // 9P2000.L
)

// Versions as Tversion names them.
const (
	VersionPlain = "9P2000"
	VersionLinux = "9P2000.L"
)

// A Qid is the server's number for a file, unique for ever.
type Qid struct {
	Type    uint8 // QTDir, ... the high byte of Plan 9's mode
	Version uint32
	Path    uint64
}

// A Msg is one message of any type; which fields belong to which type says the table in table.go, and the others
// are zero. It is flat, so that one Msg serves a connection's whole life, and holds what is long and rare behind
// pointers, because one stays alive for each blocked request.
type Msg struct {
	Type Type
	Mode uint8 // Topen, Tcreate: ORead, ...
	Tag  Tag

	// Fid is what the message acts on: the directory in Tlcreate, Tsymlink, Tmknod, Tmkdir, Trenameat and
	// Tunlinkat, the file that gets another name in Tlink.
	Fid       Fid
	Afid      Fid // Tauth, Tattach
	Newfid    Fid // Twalk, Txattrwalk
	Newdirfid Fid // Trename, Trenameat, Tlink: the directory of the new name

	Msize  uint32 // Tversion, Rversion
	Count  uint32 // Tread, Treaddir, Rwrite
	Iounit uint32 // Ropen, Rcreate, Rlopen, Rlcreate
	Flags  uint32 // Tlopen, Tlcreate: O_RDONLY, ...; Tunlinkat, Txattrcreate; Tfsync: datasync
	Perm   uint32 // Tcreate: DMDir, ... and 0777; Tlcreate, Tmkdir, Tmknod: mode as mknod(2) has it
	Gid    uint32 // Tlcreate, Tsymlink, Tmknod, Tmkdir
	NUname uint32 // Tauth, Tattach on 9P2000.L: a uid or NoUid; Parse gives NoUid on 9P2000
	Ecode  uint32 // Rlerror: an errno
	Major  uint32 // Tmknod
	Minor  uint32
	Oldtag Tag   // Tflush
	Status uint8 // Rlock: LockSuccess, ...

	Offset uint64 // Tread, Twrite, Treaddir
	Mask   uint64 // Tgetattr: GetattrMode, ...
	Size   uint64 // Rxattrwalk, Txattrcreate: length of the attribute's value

	Version string // Tversion, Rversion
	Uname   string // Tauth, Tattach
	Aname   string
	Ename   string // Rerror
	Name    string // Tcreate and all of 9P2000.L that names a file or an attribute
	Newname string // Trenameat
	Target  string // Tsymlink, Rreadlink

	Names []string // Twalk
	Qids  []Qid    // Rwalk
	Data  []byte   // Twrite, Rread, Rreaddir
	Qid   Qid      // Rauth, Rattach, Ropen, Rcreate, Rgetattr and what makes a file in 9P2000.L

	Stat    *Dir     // Rstat, Twstat
	Attr    *Attr    // Rgetattr
	SetAttr *SetAttr // Tsetattr
	Statfs  *Statfs  // Rstatfs
	Lock    *Lock    // Tlock, Tgetlock, Rgetlock
}

// A Time is a moment in 9P2000.L: seconds and nanoseconds since 1970.
type Time struct{ Sec, Nsec uint64 }

// An Attr is a file's attributes as stat(2) has them; Valid has a bit (GetattrMode, ...) for each field that is
// meant. The qid goes before it in Rgetattr and is the message's Qid.
type Attr struct {
	Valid                      uint64
	Mode, Uid, Gid             uint32 // Mode with the file type's bits
	Nlink, Rdev                uint64
	Size, Blksize, Blocks      uint64 // bytes, bytes, units of 512 bytes
	Atime, Mtime, Ctime, Btime Time
	Gen, DataVersion           uint64
}

// A SetAttr is the changes that Tsetattr asks for, Valid a bit (SetattrMode, ...) for each.
type SetAttr struct {
	Valid, Mode, Uid, Gid uint32
	Size                  uint64
	Atime, Mtime          Time
}

// A Statfs is the state of a file system; see statfs(2).
type Statfs struct {
	Type, Bsize, Namelen                      uint32
	Blocks, Bfree, Bavail, Files, Ffree, Fsid uint64
}

// A Lock is a record lock as fcntl(2) has it. Length 0 reaches to the end of the file.
type Lock struct {
	Type          uint8  // LockRead, ...
	Flags         uint32 // Tlock: LockBlock, ...
	Start, Length uint64
	Pid           uint32 // the owner, as the client counts
	Client        string // the client's name for itself
}
