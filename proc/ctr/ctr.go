// Package ctr is containers as files: a directory for each container, with a ctl file that makes it live and die, and
// clone, which makes a new one.
package ctr

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"ctrfs/fs"
	"ctrfs/ns"
	"ctrfs/proc"
	"ctrfs/proc/ctr/image"
)

// Containers is the containers of the machine.
type Containers struct {
	Processes *proc.Processes
	Cgroups   *ns.Cgroups
	Feed      *fs.Feed
	Log       *slog.Logger
	Uid, Gid  uint32 // the owner of /ctr, who may make containers, and its group
	Shared    bool   // what is the owner's is the group's too
	State     string // the directory where runtimes keep what they know, made if it is not there

	// Config is what the administrator wants; nil: nothing.
	Config atomic.Pointer[Config]

	// Qids counts containers, so that none has the number of another, ever; nil: from 0.
	Qids *uint64

	mu    sync.Mutex // guards what follows, *Qids, and the name and the number of each container
	names map[string]*Ctr
	xids  map[uint32]*Ctr
	ids   map[string]*Ctr
	runs  int           // that go on
	idle  chan struct{} // closed when none does

	forks forkCount
}

// A Ctr is a container of ours.
type Ctr struct {
	set     *Containers
	id      string
	qid     uint64
	owner   ns.Cred
	account *fs.Account // his, with filesEach descriptors on it; nil: none are
	made    time.Time

	space *proc.Space

	turn    chan struct{} // has a token while a verb changes the state
	scratch ns.Scratch    // used by who has the turn

	mu        sync.Mutex // guards what follows; it is taken before Containers.mu
	name      string
	xid       uint32
	state     state
	spec      spec
	run       *run // the present or the last one
	load      load
	forks     uint64        // in groups before this one
	group     *ns.Group     // nil before the first run, after one whose processes were killed by it, and where none may be made
	next      chan struct{} // closed when there is a run, or the container is gone
	gone      bool
	refused   error          // what is wrong with the last config.json
	held      bool           // the file that opening clone gave is open
	unwritten bool           // and nothing was written to it yet
	bound     bool           // it is killed when that is closed
	files     []string       // what the keeper has of the scratch layer
	spaces    []ns.Namespace // that are kept for the next run

	busy    int           // verbs of its processes under way
	idle    chan struct{} // closed when there is none; made by pause, which waits for that
	pausing bool          // and lets none begin

	saving sync.Mutex // held while the keeper is told, so that it hears the news last
}

// A spec is what the next start will run.
type spec struct {
	args, env            []string
	cwd, user            string
	hostname, domainname string
	rootfs               []string
	caps                 ns.CapSet
	limits               []limit
	spaces               map[string]string // kind to where it is from; what is not said is new. It is not changed but replaced
	mounts               []mount
	tty                  *ns.Winsize // nil: no terminal
	runtime              string      // "": none
	labels               []label

	image  *image.Config // what the root says that is not said here; nil: it is no image
	bundle string        // of which the rest is, as it was

	// these are said by config only
	noNewPrivs, readonly bool // readonly: a root that is one directory
	oom                  *int // nil: as this program's
	rlimits              []ns.Limit
	flags, ccaps         uint64            // libvserver's, but for those that are kept elsewhere
	names                map[string]string // what uname(2) tells otherwise than the kernel. It is not changed but replaced
	helper               []string
	loop                 string // the device that ccaps gave
}

// A state is where in its life a container is.
type state string

const (
	isNew     state = "new"
	isCreated state = "created"
	isRunning state = "running"
	isPaused  state = "paused"
	isStopped state = "stopped"
)

var (
	errNoCtr      = fs.Err(syscall.ENOENT, "container does not exist")
	errNotRunning = fs.Err(syscall.ESRCH, "container is not running")
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Context numbers that nobody chose are given from here up, as Linux-VServer's dynamic ones.
const (
	firstXid = 49152
	lastXid  = 65535
)

// filesEach is how many descriptors are on the account for a container, at most, without those of its processes: its scratch
// layer and user namespace, its cgroup with those of five controllers of version 1, and the watch of its memory.
const filesEach = 9

// make makes a container in the state new for the client of ctx; its name is its number if none is given.
func (cs *Containers) make(ctx context.Context, name string) (*Ctr, error) {
	client := fs.ClientOf(ctx)
	if client.None {
		return nil, fs.ErrPerm
	}
	if err := checkName(name); err != nil && name != "" {
		return nil, err
	}
	if err := client.Account.Take(fs.Descriptors, filesEach); err != nil {
		return nil, err
	}
	var id [32]byte
	rand.Read(id[:])
	c := &Ctr{
		set:     cs,
		id:      hex.EncodeToString(id[:]),
		owner:   ns.Cred{Uid: client.Uid, Gid: client.Gid, Groups: client.Groups},
		account: client.Account,
		made:    time.Now(),
		turn:    make(chan struct{}, 1),
		state:   isNew,
		next:    make(chan struct{}),
		load:    load{last: time.Now()},
		spec:    spec{env: []string{defaultPath}, cwd: "/", rootfs: []string{"host"}, caps: ns.DefaultCaps, flags: newFlags},
	}
	if c.owner.Uid != 0 {
		c.spec.spaces = map[string]string{"user": "new"}
	}
	cs.mu.Lock()
	cs.begin()
	*cs.Qids++
	c.qid = 1<<63 | (*cs.Qids+1)<<8
	c.space = c.members()
	for x := uint32(firstXid); x <= lastXid && c.xid == 0; x++ {
		if cs.xids[x] == nil {
			c.xid = x
		}
	}
	if name == "" {
		name = strconv.Itoa(int(c.xid))
	}
	err := error(nil)
	switch {
	case c.xid == 0:
		err = fs.ErrNoFree
	case cs.names[name] != nil:
		err = fs.ErrExist
	default:
		c.name, c.spec.hostname = name, hostName(name)
		cs.names[name], cs.xids[c.xid], cs.ids[c.id] = c, c, c
	}
	cs.mu.Unlock()
	if err == nil {
		err = c.save()
	}
	if err != nil {
		c.account.Give(fs.Descriptors, filesEach)
		return nil, err
	}
	c.tell("create")
	return c, nil
}

// begin is called with the lock before anything is made.
func (cs *Containers) begin() {
	if cs.names == nil {
		cs.names, cs.xids, cs.ids = map[string]*Ctr{}, map[uint32]*Ctr{}, map[string]*Ctr{}
	}
	if cs.Qids == nil {
		cs.Qids = new(uint64)
	}
}

// checkName says whether a container may be called so. A colon belongs to the names of other engines' containers.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || name == "clone" || len(name) > 255 || !utf8.ValidString(name) ||
		fs.Clean(name) != name || strings.ContainsAny(name, "/:@") {
		return fmt.Errorf("not a container's name: %q", name)
	}
	return nil
}

// hostName makes a host name of a container's name, which may be longer than Linux takes.
func hostName(name string) string {
	if len(name) > 64 {
		return name[:64]
	}
	return name
}

// find gives the container called so: by its name, else by `ctrfs:NAME`, `xid:N`, its id, a prefix of it of 12 characters or
// more, or `id:PART`.
func (cs *Containers) find(name string) (*Ctr, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c := cs.names[name]; c != nil {
		return c, nil
	}
	kind, rest, ok := strings.Cut(name, ":")
	switch {
	case !ok && len(name) >= 12:
		return cs.byID(name, strings.HasPrefix)
	case kind == "ctrfs" && cs.names[rest] != nil:
		return cs.names[rest], nil
	case kind == "xid":
		n, err := strconv.ParseUint(rest, 10, 32)
		if err == nil && cs.xids[uint32(n)] != nil && strconv.FormatUint(n, 10) == rest {
			return cs.xids[uint32(n)], nil
		}
	case kind == "id" && rest != "":
		return cs.byID(rest, strings.Contains)
	}
	return nil, fs.ErrNotExist
}

// byID gives the one container whose id fits. Called with the lock.
func (cs *Containers) byID(part string, fits func(id, part string) bool) (found *Ctr, err error) {
	n := 0
	for _, c := range cs.names {
		if fits(c.id, part) {
			found = c
			n++
		}
	}
	switch n {
	case 0:
		return nil, fs.ErrNotExist
	case 1:
		return found, nil
	}
	return nil, fmt.Errorf("%d containers have an id like %q", n, part)
}

// forget takes the container out of the tree. Called by who has its turn.
func (c *Ctr) forget() {
	c.mu.Lock()
	cs := c.set
	cs.mu.Lock()
	delete(cs.names, c.name)
	delete(cs.xids, c.xid)
	delete(cs.ids, c.id)
	cs.mu.Unlock()
	c.gone = true
	close(c.next)
	c.mu.Unlock()
	c.account.Give(fs.Descriptors, filesEach)
	c.letGo()
	c.unsave()
	c.tell("delete")
}

// rename gives the container another name. Its cgroup and its host name stay.
func (c *Ctr) rename(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	c.mu.Lock()
	cs := c.set
	cs.mu.Lock()
	err := error(nil)
	switch {
	case c.gone:
		err = errNoCtr
	case !c.spec.flagged(stateAdmin):
		err = errSealed
	case cs.names[name] == c:
	case cs.names[name] != nil:
		err = fs.ErrExist
	default:
		delete(cs.names, c.name)
		cs.names[name], c.name = c, name
	}
	cs.mu.Unlock()
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.tell("rename")
	return c.save()
}

// Name is the container's name now.
func (c *Ctr) Name() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.name
}

// Owner is who made it. Root's containers are ctrfs-admin's too.
func (c *Ctr) Owner() (uid, gid uint32) {
	if c.shared() {
		return c.owner.Uid, c.set.Gid
	}
	return c.owner.Uid, c.owner.Gid
}

// Qid is the number of its directory.
func (c *Ctr) Qid() uint64 { return c.qid }

// shared says whether it is root's and so the group ctrfs-admin's too.
func (c *Ctr) shared() bool { return c.set.Shared && c.owner.Uid == c.set.Uid }

// may says whether the client owns the container.
func (c *Ctr) may(client *fs.Client) bool {
	return client.Root() || !client.None && client.Uid == c.owner.Uid || c.shared() && client.In(c.set.Gid)
}

// tell puts an event about the container.
func (c *Ctr) tell(topic string, words ...string) {
	c.set.Feed.Put(c.event(topic, words...))
}

func (c *Ctr) event(topic string, words ...string) fs.Event {
	return fs.Event{Topic: topic, Words: append([]string{"ctr=" + c.Name()}, words...), Of: c.qid}
}
