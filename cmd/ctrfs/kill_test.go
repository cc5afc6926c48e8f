package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs/styx"
	"ctrfs/ns"
)

// children are the keeper's: the server, and what it has started. The kernel may leave some out while others end.
func (d *daemon) children() (server *ns.Process, others []*ns.Process) {
	d.t.Helper()
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.Process.Pid))
	for _, file := range tasks {
		b, _ := os.ReadFile(file)
		for pid := range strings.FieldsSeq(string(b)) {
			n, _ := strconv.Atoi(pid)
			p, err := ns.Open(n)
			if err != nil {
				continue // ended and reaped
			}
			args, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			switch name, _, _ := strings.Cut(string(args), "\x00"); {
			case name == "ctrfs-server" && server == nil && p.Alive():
				server = p
			case strings.HasPrefix(name, "ctrfs-") || !p.Alive():
				p.Close()
			default:
				others = append(others, p)
			}
		}
	}
	return server, others
}

// kill kills the server, and waits until it has died of that.
func (d *daemon) kill() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var server *ns.Process
	for server == nil && ctx.Err() == nil {
		var others []*ns.Process
		server, others = d.children()
		for _, p := range others {
			p.Close()
		}
	}
	if server == nil {
		d.t.Error("there is no server to be killed")
		return
	}
	defer server.Close()
	server.Signal(syscall.SIGKILL) // fails only where it has ended
	if exit, err := ns.Wait(ctx, server); err != nil || exit.Known && exit.String() != "signal: KILL" {
		d.t.Errorf("a server that was killed: %v, %v", exit, err)
	}
}

// A killer kills servers at random: each only when it has answered a client, and then at any moment of what the clients do,
// also between a message and its answer. So all that is killed was a server at work, and everybody comes on.
type killer struct {
	d    *daemon
	most int           // to be killed
	over chan struct{} // closed when they are

	mu    sync.Mutex // guards what follows
	died  int        // servers, by us
	busy  bool       // somebody is at it
	steps int        // that the clients do before the next kill; waits: the present server has answered nobody yet
}

const waits = -1

func newKiller(d *daemon, most int) *killer {
	return &killer{d: d, most: most, over: make(chan struct{}), steps: waits}
}

// began is how many had died when a conversation begins. What that hears, if none dies meanwhile, comes from the next.
func (k *killer) began() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.died
}

// step is a message sent, or answered, in a conversation that began when so many had died.
func (k *killer) step(began int, answered bool) {
	k.mu.Lock()
	if began != k.died || k.died == k.most || k.busy || k.steps == waits && !answered {
		k.mu.Unlock()
		return
	}
	if k.steps == waits { // few as often as many
		k.steps = rand.IntN(1 << rand.IntN(10))
	} else {
		k.steps--
	}
	k.busy = k.steps == 0
	kill := k.busy
	k.mu.Unlock()
	if !kill {
		return
	}
	k.d.kill()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.died++
	k.busy, k.steps = false, waits
	if k.died == k.most {
		close(k.over)
	}
}

// done says whether all that were to be killed are.
func (k *killer) done() bool {
	select {
	case <-k.over:
		return true
	default:
		return false
	}
}

// killings is how many servers are to be killed at random; see the mkfile.
func killings() int {
	if n, err := strconv.Atoi(os.Getenv("CTRFS_KILLS")); err == nil {
		return n
	}
	if underRace {
		return 10
	}
	return 25
}

// A survivor is a client that begins again whenever the server dies.
type survivor struct {
	t    *testing.T
	d    *daemon
	sock string
	kill *killer // nil: nobody kills
	died int     // by those before it

	files, overlays int // that the keeper has open, and that are mounted, when there is nothing yet; 0: not known
}

// survive starts a server for a client that will outlive it.
func survive(t *testing.T) *survivor {
	t.Helper()
	s := &survivor{t: t, sock: filepath.Join(t.TempDir(), "sock")}
	s.d = start(t, "listening", "-a", "unix!"+s.sock)
	s.cat("version") // it has begun
	s.files, s.overlays = s.count()
	return s
}

// count counts what may leak, when the keeper has heard all that a server had to say.
func (s *survivor) count() (files, overlays int) {
	s.t.Helper()
	s.d.kill()
	s.cat("version") // the next one is there
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.d.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		s.t.Fatal(err)
	}
	return len(open), strings.Count(string(mounts), " overlay ")
}

// ends looks whether anything is left, of containers with those ids among others, and ends the server.
func (s *survivor) ends(ids ...string) {
	s.t.Helper()
	s.kill = nil
	if files, overlays := s.count(); s.files > 0 && files != s.files || s.overlays > 0 && overlays != s.overlays {
		s.t.Errorf("the keeper has %d files open, and had %d; %d overlays are mounted, and were %d", files, s.files, overlays, s.overlays)
	}
	var names []string
	if err := s.do(func(c *caller) (err error) { names, err = c.list("ctr"); return err }); err != nil || len(names) != 1 {
		s.t.Error("left:", names, err)
	}
	if left := groups(ids...); len(left) > 0 {
		s.t.Error("left:", left)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	server, others := s.d.children()
	server.Close()
	for _, p := range others {
		if err := ns.Await(ctx, p); err != nil {
			args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Pid()))
			s.t.Errorf("left: %d %q", p.Pid(), args)
		}
		p.Close()
	}
	s.d.Process.Signal(syscall.SIGTERM)
	s.d.ends()
}

// dial begins a conversation with whichever server there is; a server that dies meanwhile is no reason to give up.
func (s *survivor) dial() *caller {
	s.t.Helper()
	for {
		var step func(bool)
		if k := s.kill; k != nil {
			began := k.began()
			step = func(answered bool) { k.step(began, answered) }
		}
		conn, err := net.Dial("unix", s.sock)
		if err != nil {
			s.t.Fatal(err) // the keeper has the socket
		}
		conn.SetDeadline(time.Now().Add(2 * time.Minute))
		c := &caller{t: s.t, conn: conn, in: styx.NewReader(conn), step: step}
		c.in.SetMsize(1 << 20)
		if _, err = c.ask(&styx.Msg{Type: styx.Tversion, Tag: styx.NoTag, Msize: 1 << 20, Version: styx.Linux.String()}); err == nil {
			c.d = styx.Linux
			err = c.attach("root", uint32(os.Getuid()))
		}
		if err == nil {
			return c
		}
		conn.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.t.Fatal(err)
		}
	}
}

// lost says whether an error is none that a server has answered.
func lost(err error) bool {
	var r *refusal
	return err != nil && !errors.As(err, &r) && err.Error() != "file does not exist"
}

// once does something in a conversation of its own.
func (s *survivor) once(do func(c *caller) error) error {
	s.t.Helper()
	c := s.dial()
	defer c.conn.Close()
	return do(c)
}

// do does something again with the next server when one dies of it.
func (s *survivor) do(do func(c *caller) error) error {
	s.t.Helper()
	for {
		if err := s.once(do); !lost(err) {
			return err
		}
	}
}

func (s *survivor) cat(name string) (text string) {
	s.t.Helper()
	if err := s.do(func(c *caller) (err error) { text, err = c.cat(name); return err }); err != nil {
		s.t.Errorf("%s: %v", name, err)
	}
	return text
}

func (s *survivor) echo(name, text string) {
	s.t.Helper()
	if err := s.do(func(c *caller) error { return c.echo(name, text) }); err != nil {
		s.t.Errorf("%s: %q: %v", name, text, err)
	}
}

// record reads a file that blocks.
func (s *survivor) record(name string) (text string, err error) {
	s.t.Helper()
	err = s.do(func(c *caller) (err error) { text, err = c.record(name); return err })
	return text, err
}

// output reads an output to its end.
func (s *survivor) output(name string) (text string) {
	s.t.Helper()
	if err := s.do(func(c *caller) (err error) { text, err = c.drain(name); return err }); err != nil {
		s.t.Errorf("%s: %v", name, err)
	}
	return text
}

func (s *survivor) state(name string) string {
	s.t.Helper()
	state, _, _ := strings.Cut(s.cat("ctr/"+name+"/status"), "\n")
	return state
}

// clone opens a clone and writes a message to it.
func (c *caller) clone(name, text string) error {
	f, _, err := c.walk(name)
	if err == nil {
		err = c.open(f, styx.ORdwr)
	}
	if err == nil && text != "" {
		err = c.write(f, text)
	}
	return err
}

func (c *caller) record(name string) (string, error) {
	var text []byte
	err := c.on(name, func(f styx.Fid) error {
		err := c.open(f, styx.ORead)
		if err == nil {
			text, err = c.readAt(f, 0)
		}
		return err
	})
	return string(text), err
}

func (c *caller) drain(name string) (string, error) {
	var text []byte
	err := c.on(name, func(f styx.Fid) error {
		err := c.open(f, styx.ORead)
		for zeros := 0; err == nil && zeros < 2; { // one after each batch, two at the end
			var b []byte
			if b, err = c.readAt(f, len(text)); len(b) == 0 {
				zeros++
			} else {
				zeros = 0
			}
			text = append(text, b...)
		}
		return err
	})
	return string(text), err
}

func (c *caller) mkdir(name string) error {
	f, _, err := c.walk(filepath.Dir(name))
	if err == nil {
		_, err = c.ask(&styx.Msg{Type: styx.Tmkdir, Fid: f, Name: filepath.Base(name), Perm: 0755})
	}
	return err
}

func (c *caller) rmdir(name string) error {
	f, _, err := c.walk(filepath.Dir(name))
	if err == nil {
		_, err = c.ask(&styx.Msg{Type: styx.Tunlinkat, Fid: f, Name: filepath.Base(name), Flags: unix.AT_REMOVEDIR})
	}
	return err
}

// groups are the cgroups of containers.
func groups(ids ...string) (list []string) {
	for _, id := range ids {
		for _, pattern := range []string{"/sys/fs/cgroup/*/ctrfs/", "/sys/fs/cgroup/ctrfs/"} {
			found, _ := filepath.Glob(pattern + strings.TrimSpace(id))
			list = append(list, found...)
		}
	}
	return list
}
