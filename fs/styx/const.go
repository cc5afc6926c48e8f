package styx

// The type byte of a Qid; see intro(5).
const (
	QTDir     = 0x80
	QTAppend  = 0x40
	QTExcl    = 0x20
	QTMount   = 0x10
	QTAuth    = 0x08
	QTTmp     = 0x04
	QTSymlink = 0x02
	QTLink    = 0x01
	QTFile    = 0
)

// The bits of a 9P2000 mode above 0777: the Qid's type, 24 bits up.
const (
	DMDir     = QTDir << 24
	DMAppend  = QTAppend << 24
	DMExcl    = QTExcl << 24
	DMMount   = QTMount << 24
	DMAuth    = QTAuth << 24
	DMTmp     = QTTmp << 24
	DMSymlink = QTSymlink << 24
)

// Topen's and Tcreate's mode; see open(5).
const (
	ORead   = 0
	OWrite  = 1
	ORdwr   = 2
	OExec   = 3
	OTrunc  = 0x10
	OCexec  = 0x20
	ORclose = 0x40
)

// The mask of Tgetattr and Attr.Valid.
const (
	GetattrMode = 1 << iota
	GetattrNlink
	GetattrUid
	GetattrGid
	GetattrRdev
	GetattrAtime
	GetattrMtime
	GetattrCtime
	GetattrIno
	GetattrSize
	GetattrBlocks
	GetattrBtime
	GetattrGen
	GetattrDataVersion

	GetattrBasic = GetattrBtime - 1 // what stat(2) knows
)

// SetAttr.Valid. A time without its ...Set bit is the server's present time.
const (
	SetattrMode = 1 << iota
	SetattrUid
	SetattrGid
	SetattrSize
	SetattrAtime
	SetattrMtime
	SetattrCtime
	SetattrAtimeSet
	SetattrMtimeSet
)

// Lock.Type, Lock.Flags and Rlock's Status.
const (
	LockRead   = 0
	LockWrite  = 1
	LockUnlock = 2

	LockBlock   = 1
	LockReclaim = 2

	LockSuccess = 0
	LockBlocked = 1
	LockError   = 2
	LockGrace   = 3
)
