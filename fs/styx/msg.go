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

// A Qid is the server's number for a file, unique for ever.
type Qid struct {
	Type    uint8 // QTDir, ... the high byte of Plan 9's mode
	Version uint32
	Path    uint64
}
