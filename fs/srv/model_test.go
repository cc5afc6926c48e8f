package srv

import (
	"context"
	"io"
	"net"
	"path"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"ctrfs/fs/styx"
)

// A model is what a conversation is to be: its fids, and the reads that block.
type model struct {
	c     *client
	w     *world
	fids  map[styx.Fid]modelFid
	reads map[styx.Tag]styx.Fid
}

type modelFid struct {
	path string
	open string // "", "r", "w" or "rw"
}

// known are the paths that there are; true: directories.
var known = map[string]bool{"/": true, "/d": true, "/d/name": false, "/hello": false, "/stuck": false, "/ctl": false}

// ask sends a message and wants in reply its error, or, if that is 0, its success; before it, in any order, the
// errors of the reads that it ends.
func (m *model) ask(t *rapid.T, msg *styx.Msg, errno uint32, ends ...styx.Tag) *styx.Msg {
	msg.Tag = 1000
	want := msg.Type + 1
	m.c.send(msg)
	for len(ends) > 0 {
		r := m.c.recv()
		i := slices.Index(ends, r.Tag)
		if i < 0 || r.Type != styx.Rlerror || r.Ecode != 9 {
			t.Fatalf("%s: got %s, want the ends of %v", msg, r, ends)
		}
		ends = slices.Delete(ends, i, i+1)
	}
	r := m.c.recv()
	if r.Tag != msg.Tag || errno == 0 && r.Type != want || errno != 0 && (r.Type != styx.Rlerror || r.Ecode != errno) {
		t.Fatalf("%s: got %s, want error %d", msg, r, errno)
	}
	return r
}

var anyFid = rapid.Map(rapid.IntRange(0, 6), func(n int) styx.Fid { return styx.Fid(n) })

func (m *model) walk(t *rapid.T) {
	fid, newfid := anyFid.Draw(t, "fid"), anyFid.Draw(t, "newfid")
	names := rapid.SliceOfN(rapid.SampledFrom([]string{"d", "name", "hello", "stuck", "ctl", "..", "nothing"}), 0, 3).Draw(t, "names")
	msg := &styx.Msg{Type: styx.Twalk, Fid: fid, Newfid: newfid, Names: names}
	f, ok := m.fids[fid]
	_, used := m.fids[newfid]
	if !ok || newfid != fid && used || newfid == fid && f.open != "" {
		m.ask(t, msg, 9)
		return
	}
	at, went, errno := f.path, 0, uint32(0)
	for _, name := range names {
		to := path.Join(at, name)
		if name != ".." && !known[at] {
			errno = 20
		} else if _, ok := known[to]; !ok {
			errno = 2
		}
		if errno != 0 {
			break
		}
		at, went = to, went+1
	}
	if went > 0 {
		errno = 0
	}
	r := m.ask(t, msg, errno)
	if errno == 0 && len(r.Qids) != went {
		t.Fatalf("%s: %s, want %d qids", msg, r, went)
	}
	if went == len(names) {
		m.fids[newfid] = modelFid{path: at}
	}
}

func (m *model) open(t *rapid.T) {
	fid := anyFid.Draw(t, "fid")
	mode := rapid.SampledFrom([]string{"r", "w", "rw"}).Draw(t, "mode")
	msg := &styx.Msg{Type: styx.Tlopen, Fid: fid, Flags: map[string]uint32{"r": 0, "w": 1, "rw": 2}[mode]}
	f, ok := m.fids[fid]
	switch {
	case !ok || f.open != "":
		m.ask(t, msg, 9)
	case known[f.path] && mode != "r":
		m.ask(t, msg, 21)
	default:
		m.ask(t, msg, 0)
		f.open = mode
		m.fids[fid] = f
	}
}

// read reads what answers, or begins a read that blocks.
func (m *model) read(t *rapid.T) {
	fid := anyFid.Draw(t, "fid")
	tag := styx.Tag(rapid.IntRange(0, 20).Draw(t, "tag"))
	msg := &styx.Msg{Type: styx.Tread, Fid: fid, Count: 100}
	f, ok := m.fids[fid]
	switch {
	case !ok || f.open == "" || f.open == "w":
		m.ask(t, msg, 9)
	case known[f.path]:
		m.ask(t, msg, 21)
	case f.path != "/stuck":
		m.ask(t, msg, 0)
	default:
		_, used := m.reads[tag]
		msg.Tag = tag
		m.c.send(msg)
		if !used {
			m.reads[tag] = fid
		} else if r := m.c.recv(); r.Tag != tag || r.Ecode != 22 {
			t.Fatalf("a tag twice: %s", r)
		}
	}
}

func (m *model) flush(t *rapid.T) {
	tag := styx.Tag(rapid.IntRange(0, 20).Draw(t, "tag"))
	m.ask(t, &styx.Msg{Type: styx.Tflush, Oldtag: tag}, 0)
	delete(m.reads, tag)
}

// end clunks or removes.
func (m *model) end(t *rapid.T) {
	fid := anyFid.Draw(t, "fid")
	typ := rapid.SampledFrom([]styx.Type{styx.Tclunk, styx.Tremove}).Draw(t, "type")
	f, ok := m.fids[fid]
	var ends []styx.Tag
	for tag, of := range m.reads {
		if of == fid {
			ends = append(ends, tag)
		}
	}
	errno := uint32(0)
	switch {
	case !ok:
		errno = 9
	case typ == styx.Tremove && f.path == "/":
		errno = 1
	case typ == styx.Tremove && f.path == "/d/name":
		errno = 13
	case typ == styx.Tremove && f.path == "/d":
		typ = styx.Tclunk
	case typ == styx.Tremove:
		errno = 13
	}
	m.ask(t, &styx.Msg{Type: typ, Fid: fid}, errno, ends...)
	delete(m.fids, fid)
	for _, tag := range ends {
		delete(m.reads, tag)
	}
}

func (m *model) version(t *rapid.T) {
	m.ask(t, &styx.Msg{Type: styx.Tversion, Msize: 8192, Version: styx.VersionLinux}, 0)
	m.fids, m.reads = map[styx.Fid]modelFid{}, map[styx.Tag]styx.Fid{}
	m.ask(t, &styx.Msg{Type: styx.Tattach, Fid: 0, Afid: styx.NoFid, NUname: styx.NoUid}, 0)
	m.fids[0] = modelFid{path: "/"}
}

// TestModel does by chance what a client may do, and the conversation is as the model of its fids and tags says.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld()
		s := &Server{Root: w}
		m := &model{c: dial(t, s, asRoot), w: w}
		m.version(rt)
		m.c.d = styx.Linux
		rt.Repeat(map[string]func(*rapid.T){
			"walk": m.walk, "walk again": m.walk, "open": m.open, "read": m.read, "flush": m.flush, "end": m.end, "version": m.version,
			"": func(t *rapid.T) {
				open := 0
				for _, f := range m.fids {
					if f.open != "" && (f.path == "/stuck" || f.path == "/hello") {
						open++
					}
				}
				if n := int(w.open.Load()); n != open {
					t.Fatalf("%d files are open, want %d", n, open)
				}
			},
		})
		m.c.hangUp()
		if w.open.Load() != 0 || s.count.fids.Load() != 0 {
			rt.Fatalf("%d files and %d fids at the end", w.open.Load(), s.count.fids.Load())
		}
	})
}

// FuzzSession: whatever bytes come, the conversation ends when they do, with nothing left.
func FuzzSession(f *testing.F) {
	for _, d := range []styx.Dialect{styx.Plain, styx.Linux} {
		for _, s := range [][]string{
			{"Twalk fid 0 newfid 1 names stuck", "Topen fid 1 mode 2", "Tlopen fid 1 flags 2", "Tread tag 1 fid 1 offset 0 count 9", "Twrite tag 2 fid 1 offset 0 data x", "Tflush tag 3 oldtag 1", "Tclunk tag 4 fid 1"},
			{"Topen fid 0 mode 0", "Tread fid 0 offset 0 count 900", "Tlopen fid 0 flags 0", "Treaddir fid 0 offset 0 count 900", "Tremove fid 0"},
			{"Twalk fid 0 newfid 1 names d", "Twstat fid 1 name e", "Trename fid 1 newdirfid 0 name e", "Tgetattr fid 1 mask 1", "Tstat fid 1", "Tsetattr fid 1 valid 8"},
			{"Twalk fid 0 newfid 1 names deaf", "Tlopen fid 1 flags 0", "Topen fid 1 mode 0", "Tread tag 1 fid 1 offset 0 count 1", "Tversion msize 8192 version 9P2000"},
		} {
			var b []byte
			for _, line := range append([]string{"Tversion msize 8192 version " + d.String(), "Tattach fid 0 uname root aname ''"}, s...) {
				m, err := styx.ParseText(line)
				if err != nil {
					f.Fatal(err)
				}
				if x, err := m.Append(b, d); err == nil {
					b = x
				}
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newWorld()
		close(w.end) // nothing is deaf for ever
		s := &Server{Root: w, Users: people{}}
		x, y := net.Pipe()
		served := make(chan error)
		go func() { served <- s.Serve(context.Background(), y, asMount) }()
		go io.Copy(io.Discard, x)
		x.SetWriteDeadline(time.Now().Add(10 * time.Second))
		x.Write(b)
		x.Close()
		select {
		case <-served:
		case <-time.After(10 * time.Second):
			t.Fatal("it goes on")
		}
		if w.open.Load() != 0 || s.count.fids.Load() != 0 {
			t.Fatalf("%d files and %d fids at the end", w.open.Load(), s.count.fids.Load())
		}
	})
}

// others are goroutines that other people's clients leave.
var others = []goleak.Option{
	goleak.IgnoreAnyFunction("github.com/knusbaum/go9p/client.(*Client).worker"),
}
