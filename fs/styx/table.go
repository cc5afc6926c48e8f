package styx

// A field is one field of a message: its name in the text form, the base in which that writes it if it is a number,
// and where its value is. The pointer's type says how the value lies on the wire. What is in a part (Stat, Attr,
// ...) may be asked for only when the part is there.
type field struct {
	key  string
	base int
	at   func(m *Msg) any
}

var (
	tag = &field{"tag", 10, func(m *Msg) any { return (*uint16)(&m.Tag) }}

	mode      = &field{"mode", 16, func(m *Msg) any { return &m.Mode }}
	fid       = &field{"fid", 10, func(m *Msg) any { return (*uint32)(&m.Fid) }}
	afid      = &field{"afid", 10, func(m *Msg) any { return (*uint32)(&m.Afid) }}
	newfid    = &field{"newfid", 10, func(m *Msg) any { return (*uint32)(&m.Newfid) }}
	newdirfid = &field{"newdirfid", 10, func(m *Msg) any { return (*uint32)(&m.Newdirfid) }}
	msize     = &field{"msize", 10, func(m *Msg) any { return &m.Msize }}
	count     = &field{"count", 10, func(m *Msg) any { return &m.Count }}
	iounit    = &field{"iounit", 10, func(m *Msg) any { return &m.Iounit }}
	flags     = &field{"flags", 16, func(m *Msg) any { return &m.Flags }}
	datasync  = &field{"datasync", 10, func(m *Msg) any { return &m.Flags }}
	perm      = &field{"perm", 8, func(m *Msg) any { return &m.Perm }}
	gid       = &field{"gid", 10, func(m *Msg) any { return &m.Gid }}
	nuname    = &field{"nuname", 10, func(m *Msg) any { return &m.NUname }}
	ecode     = &field{"ecode", 10, func(m *Msg) any { return &m.Ecode }}
	major     = &field{"major", 10, func(m *Msg) any { return &m.Major }}
	minor     = &field{"minor", 10, func(m *Msg) any { return &m.Minor }}
	oldtag    = &field{"oldtag", 10, func(m *Msg) any { return (*uint16)(&m.Oldtag) }}
	status    = &field{"status", 10, func(m *Msg) any { return &m.Status }}
	offset    = &field{"offset", 10, func(m *Msg) any { return &m.Offset }}
	mask      = &field{"mask", 16, func(m *Msg) any { return &m.Mask }}
	size      = &field{"size", 10, func(m *Msg) any { return &m.Size }}
	version   = &field{"version", 0, func(m *Msg) any { return &m.Version }}
	uname     = &field{"uname", 0, func(m *Msg) any { return &m.Uname }}
	aname     = &field{"aname", 0, func(m *Msg) any { return &m.Aname }}
	ename     = &field{"ename", 0, func(m *Msg) any { return &m.Ename }}
	name      = &field{"name", 0, func(m *Msg) any { return &m.Name }}
	newname   = &field{"newname", 0, func(m *Msg) any { return &m.Newname }}
	target    = &field{"target", 0, func(m *Msg) any { return &m.Target }}
	names     = &field{"names", 0, func(m *Msg) any { return &m.Names }}
	qids      = &field{"qids", 0, func(m *Msg) any { return &m.Qids }}
	data      = &field{"data", 0, func(m *Msg) any { return &m.Data }}
	qid       = &field{"qid", 0, func(m *Msg) any { return &m.Qid }}

	dirType   = &field{"type", 10, func(m *Msg) any { return &m.Stat.Type }}
	dirDev    = &field{"dev", 10, func(m *Msg) any { return &m.Stat.Dev }}
	dirQid    = &field{"qid", 0, func(m *Msg) any { return &m.Stat.Qid }}
	dirMode   = &field{"mode", 8, func(m *Msg) any { return &m.Stat.Mode }}
	dirAtime  = &field{"atime", 10, func(m *Msg) any { return &m.Stat.Atime }}
	dirMtime  = &field{"mtime", 10, func(m *Msg) any { return &m.Stat.Mtime }}
	dirLength = &field{"length", 10, func(m *Msg) any { return &m.Stat.Length }}
	dirName   = &field{"name", 0, func(m *Msg) any { return &m.Stat.Name }}
	dirUid    = &field{"uid", 0, func(m *Msg) any { return &m.Stat.Uid }}
	dirGid    = &field{"gid", 0, func(m *Msg) any { return &m.Stat.Gid }}
	dirMuid   = &field{"muid", 0, func(m *Msg) any { return &m.Stat.Muid }}

	attrValid       = &field{"valid", 16, func(m *Msg) any { return &m.Attr.Valid }}
	attrMode        = &field{"mode", 8, func(m *Msg) any { return &m.Attr.Mode }}
	attrUid         = &field{"uid", 10, func(m *Msg) any { return &m.Attr.Uid }}
	attrGid         = &field{"gid", 10, func(m *Msg) any { return &m.Attr.Gid }}
	attrNlink       = &field{"nlink", 10, func(m *Msg) any { return &m.Attr.Nlink }}
	attrRdev        = &field{"rdev", 10, func(m *Msg) any { return &m.Attr.Rdev }}
	attrSize        = &field{"size", 10, func(m *Msg) any { return &m.Attr.Size }}
	attrBlksize     = &field{"blksize", 10, func(m *Msg) any { return &m.Attr.Blksize }}
	attrBlocks      = &field{"blocks", 10, func(m *Msg) any { return &m.Attr.Blocks }}
	attrAtime       = &field{"atime", 0, func(m *Msg) any { return &m.Attr.Atime }}
	attrMtime       = &field{"mtime", 0, func(m *Msg) any { return &m.Attr.Mtime }}
	attrCtime       = &field{"ctime", 0, func(m *Msg) any { return &m.Attr.Ctime }}
	attrBtime       = &field{"btime", 0, func(m *Msg) any { return &m.Attr.Btime }}
	attrGen         = &field{"gen", 10, func(m *Msg) any { return &m.Attr.Gen }}
	attrDataVersion = &field{"dataversion", 10, func(m *Msg) any { return &m.Attr.DataVersion }}

	setValid = &field{"valid", 16, func(m *Msg) any { return &m.SetAttr.Valid }}
	setMode  = &field{"mode", 8, func(m *Msg) any { return &m.SetAttr.Mode }}
	setUid   = &field{"uid", 10, func(m *Msg) any { return &m.SetAttr.Uid }}
	setGid   = &field{"gid", 10, func(m *Msg) any { return &m.SetAttr.Gid }}
	setSize  = &field{"size", 10, func(m *Msg) any { return &m.SetAttr.Size }}
	setAtime = &field{"atime", 0, func(m *Msg) any { return &m.SetAttr.Atime }}
	setMtime = &field{"mtime", 0, func(m *Msg) any { return &m.SetAttr.Mtime }}

	fsType    = &field{"type", 16, func(m *Msg) any { return &m.Statfs.Type }}
	fsBsize   = &field{"bsize", 10, func(m *Msg) any { return &m.Statfs.Bsize }}
	fsBlocks  = &field{"blocks", 10, func(m *Msg) any { return &m.Statfs.Blocks }}
	fsBfree   = &field{"bfree", 10, func(m *Msg) any { return &m.Statfs.Bfree }}
	fsBavail  = &field{"bavail", 10, func(m *Msg) any { return &m.Statfs.Bavail }}
	fsFiles   = &field{"files", 10, func(m *Msg) any { return &m.Statfs.Files }}
	fsFfree   = &field{"ffree", 10, func(m *Msg) any { return &m.Statfs.Ffree }}
	fsFsid    = &field{"fsid", 10, func(m *Msg) any { return &m.Statfs.Fsid }}
	fsNamelen = &field{"namelen", 10, func(m *Msg) any { return &m.Statfs.Namelen }}

	lockType   = &field{"type", 10, func(m *Msg) any { return &m.Lock.Type }}
	lockFlags  = &field{"flags", 16, func(m *Msg) any { return &m.Lock.Flags }}
	lockStart  = &field{"start", 10, func(m *Msg) any { return &m.Lock.Start }}
	lockLength = &field{"length", 10, func(m *Msg) any { return &m.Lock.Length }}
	lockPid    = &field{"pid", 10, func(m *Msg) any { return &m.Lock.Pid }}
	lockClient = &field{"client", 0, func(m *Msg) any { return &m.Lock.Client }}
)

// A row is a message type: its name, the dialects that have it, its fields in the order of the wire, and the part
// of a Msg that they need, if any.
type row struct {
	name   string
	in     dialects
	fields []*field
	part   func(m *Msg, renew bool) bool
}

type dialects uint8

const (
	plain dialects = 1 << Plain
	linux dialects = 1 << Linux
	both           = plain | linux
)

// The parts of a Msg: each says whether it is there; if renew is set, a new one is put there.
var (
	stat    = part(func(m *Msg) **Dir { return &m.Stat })
	attr    = part(func(m *Msg) **Attr { return &m.Attr })
	setAttr = part(func(m *Msg) **SetAttr { return &m.SetAttr })
	statfs  = part(func(m *Msg) **Statfs { return &m.Statfs })
	lock    = part(func(m *Msg) **Lock { return &m.Lock })
)

func part[T any](at func(m *Msg) **T) func(m *Msg, renew bool) bool {
	return func(m *Msg, renew bool) bool {
		p := at(m)
		if renew {
			*p = new(T)
		}
		return *p != nil
	}
}

// statFields are the fields of a stat record after its size; Twstat and Rstat have the record with a second size
// before it, which the codec adds.
var statFields = []*field{dirType, dirDev, dirQid, dirMode, dirAtime, dirMtime, dirLength, dirName, dirUid, dirGid, dirMuid}

// table is the protocol: intro(5) and the pages after it for 9P2000, diod's protocol.md and Linux's
// net/9p/client.c for 9P2000.L.
var table = [128]row{
	Rlerror:      {"Rlerror", linux, []*field{ecode}, nil},
	Tstatfs:      {"Tstatfs", linux, []*field{fid}, nil},
	Rstatfs:      {"Rstatfs", linux, []*field{fsType, fsBsize, fsBlocks, fsBfree, fsBavail, fsFiles, fsFfree, fsFsid, fsNamelen}, statfs},
	Tlopen:       {"Tlopen", linux, []*field{fid, flags}, nil},
	Rlopen:       {"Rlopen", linux, []*field{qid, iounit}, nil},
	Tlcreate:     {"Tlcreate", linux, []*field{fid, name, flags, perm, gid}, nil},
	Rlcreate:     {"Rlcreate", linux, []*field{qid, iounit}, nil},
	Tsymlink:     {"Tsymlink", linux, []*field{fid, name, target, gid}, nil},
	Rsymlink:     {"Rsymlink", linux, []*field{qid}, nil},
	Tmknod:       {"Tmknod", linux, []*field{fid, name, perm, major, minor, gid}, nil},
	Rmknod:       {"Rmknod", linux, []*field{qid}, nil},
	Trename:      {"Trename", linux, []*field{fid, newdirfid, name}, nil},
	Rrename:      {"Rrename", linux, nil, nil},
	Treadlink:    {"Treadlink", linux, []*field{fid}, nil},
	Rreadlink:    {"Rreadlink", linux, []*field{target}, nil},
	Tgetattr:     {"Tgetattr", linux, []*field{fid, mask}, nil},
	Rgetattr:     {"Rgetattr", linux, []*field{attrValid, qid, attrMode, attrUid, attrGid, attrNlink, attrRdev, attrSize, attrBlksize, attrBlocks, attrAtime, attrMtime, attrCtime, attrBtime, attrGen, attrDataVersion}, attr},
	Tsetattr:     {"Tsetattr", linux, []*field{fid, setValid, setMode, setUid, setGid, setSize, setAtime, setMtime}, setAttr},
	Rsetattr:     {"Rsetattr", linux, nil, nil},
	Txattrwalk:   {"Txattrwalk", linux, []*field{fid, newfid, name}, nil},
	Rxattrwalk:   {"Rxattrwalk", linux, []*field{size}, nil},
	Txattrcreate: {"Txattrcreate", linux, []*field{fid, name, size, flags}, nil},
	Rxattrcreate: {"Rxattrcreate", linux, nil, nil},
	Treaddir:     {"Treaddir", linux, []*field{fid, offset, count}, nil},
	Rreaddir:     {"Rreaddir", linux, []*field{data}, nil},
	Tfsync:       {"Tfsync", linux, []*field{fid, datasync}, nil},
	Rfsync:       {"Rfsync", linux, nil, nil},
	Tlock:        {"Tlock", linux, []*field{fid, lockType, lockFlags, lockStart, lockLength, lockPid, lockClient}, lock},
	Rlock:        {"Rlock", linux, []*field{status}, nil},
	Tgetlock:     {"Tgetlock", linux, []*field{fid, lockType, lockStart, lockLength, lockPid, lockClient}, lock},
	Rgetlock:     {"Rgetlock", linux, []*field{lockType, lockStart, lockLength, lockPid, lockClient}, lock},
	Tlink:        {"Tlink", linux, []*field{newdirfid, fid, name}, nil},
	Rlink:        {"Rlink", linux, nil, nil},
	Tmkdir:       {"Tmkdir", linux, []*field{fid, name, perm, gid}, nil},
	Rmkdir:       {"Rmkdir", linux, []*field{qid}, nil},
	Trenameat:    {"Trenameat", linux, []*field{fid, name, newdirfid, newname}, nil},
	Rrenameat:    {"Rrenameat", linux, nil, nil},
	Tunlinkat:    {"Tunlinkat", linux, []*field{fid, name, flags}, nil},
	Runlinkat:    {"Runlinkat", linux, nil, nil},

	Tversion: {"Tversion", both, []*field{msize, version}, nil},
	Rversion: {"Rversion", both, []*field{msize, version}, nil},
	Tauth:    {"Tauth", both, []*field{afid, uname, aname, nuname}, nil},
	Rauth:    {"Rauth", both, []*field{qid}, nil},
	Tattach:  {"Tattach", both, []*field{fid, afid, uname, aname, nuname}, nil},
	Rattach:  {"Rattach", both, []*field{qid}, nil},
	Rerror:   {"Rerror", plain, []*field{ename}, nil},
	Tflush:   {"Tflush", both, []*field{oldtag}, nil},
	Rflush:   {"Rflush", both, nil, nil},
	Twalk:    {"Twalk", both, []*field{fid, newfid, names}, nil},
	Rwalk:    {"Rwalk", both, []*field{qids}, nil},
	Topen:    {"Topen", plain, []*field{fid, mode}, nil},
	Ropen:    {"Ropen", plain, []*field{qid, iounit}, nil},
	Tcreate:  {"Tcreate", plain, []*field{fid, name, perm, mode}, nil},
	Rcreate:  {"Rcreate", plain, []*field{qid, iounit}, nil},
	Tread:    {"Tread", both, []*field{fid, offset, count}, nil},
	Rread:    {"Rread", both, []*field{data}, nil},
	Twrite:   {"Twrite", both, []*field{fid, offset, data}, nil},
	Rwrite:   {"Rwrite", both, []*field{count}, nil},
	Tclunk:   {"Tclunk", both, []*field{fid}, nil},
	Rclunk:   {"Rclunk", both, nil, nil},
	Tremove:  {"Tremove", both, []*field{fid}, nil},
	Rremove:  {"Rremove", both, nil, nil},
	Tstat:    {"Tstat", plain, []*field{fid}, nil},
	Rstat:    {"Rstat", plain, statFields, stat},
	Twstat:   {"Twstat", plain, append([]*field{fid}, statFields...), stat},
	Rwstat:   {"Rwstat", plain, nil, nil},
}
