package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ctrfs/fs"
	"ctrfs/fs/srv"
	"ctrfs/fs/styx"
	"ctrfs/ns"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"golang.org/x/tools/txtar"
	rsc "rsc.io/script"
)

// TestScripts runs the shell sessions of testdata over each dialect, its commands other people's clients. What a session
// writes as `cat /f` or `echo words >/f` means on the tree what it means in a shell on a mount of it; a command in the
// background has opened its file when the next one begins.
func TestScripts(t *testing.T) {
	defer goleak.VerifyNone(t)
	files, err := filepath.Glob("../../testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	messages.heard, messages.ran = map[message]bool{}, 0
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		for _, d := range []styx.Dialect{styx.Linux, styx.Plain} {
			t.Run(name+"/"+d.String(), func(t *testing.T) { runScript(t, file, ar, d) })
		}
	}
	if messages.ran == 2*len(files) { // not if some were chosen
		t.Run("every verb", everyVerb)
	}
}

func runScript(t *testing.T, file string, ar *txtar.Archive, d styx.Dialect) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	messages.ran++
	s := newSession(d)
	defer context.AfterFunc(ctx, s.hangUp)()
	env := []string{"user=root"}
	for _, name := range []string{"work", "ask"} {
		if bytes.Contains(ar.Comment, []byte("$"+name)) {
			env = append(env, name+"="+program(t, name))
		}
	}
	state, err := rsc.NewState(ctx, t.TempDir(), env)
	if err == nil {
		err = state.ExtractFiles(ar)
	}
	if err != nil {
		t.Fatal(err)
	}
	engine := &rsc.Engine{Cmds: s.commands(), Conds: rsc.DefaultConds()}
	engine.Cmds["image"] = boxImage(t)
	engine.Conds["dialect"] = rsc.PrefixCondition("the dialect is the one named", func(_ *rsc.State, name string) (bool, error) {
		return name == d.String(), nil
	})
	engine.Conds["exists"] = rsc.PrefixCondition("the machine has the file, or the program", func(_ *rsc.State, name string) (bool, error) {
		_, err := os.Stat(name)
		if !strings.Contains(name, "/") {
			_, err = exec.LookPath(name)
		}
		return err == nil, nil
	})
	engine.Conds["sysresource"] = rsc.BoolCondition("the server may raise limits", hasCap(unix.CAP_SYS_RESOURCE))
	engine.Conds["root"] = rsc.BoolCondition("the server has root's rights", os.Geteuid() == 0)
	var out strings.Builder
	err = engine.Execute(state, file, bufio.NewReader(bytes.NewReader(ar.Comment)), &out)
	s.interrupt()
	if e := state.CloseAndWait(&out); err == nil {
		err = e
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	s.end()
}

// A session is a server and those of its clients that a script has under way.
type session struct {
	*server
	dialect styx.Dialect
	ctx     context.Context
	cancel  context.CancelFunc
	serving sync.WaitGroup

	mu   sync.Mutex // guards what follows
	taps map[*tap]struct{}
	held map[string]func() // what closes them
}

func newSession(d styx.Dialect) *session {
	ctx, cancel := context.WithCancel(context.Background())
	s := &session{dialect: d, ctx: ctx, cancel: cancel, taps: map[*tap]struct{}{}, held: map[string]func(){}}
	var err error
	if s.server, err = newServer(nil, cancel); err != nil {
		panic(err)
	}
	if s.ctrs.State, err = os.MkdirTemp("", "ctr"); err != nil {
		panic(err)
	}
	s.uid, s.gid = 0, 0
	s.admin = func() (uint32, bool) { return 0, false }
	s.srv.Users = people{}
	return s
}

// people are the users of the scripts.
type people struct{}

func (people) ByName(name string) (uid uint32, ok bool) {
	uid, ok = map[string]uint32{"root": 0, "glenda": 1000}[name]
	return uid, ok
}

func (people) ByUid(uid uint32) (name string, gid uint32, groups []uint32, ok bool) {
	name, ok = map[uint32]string{0: "root", 1000: "glenda"}[uid]
	return name, uid, nil, ok
}

func (p people) Group(gid uint32) (name string, ok bool) {
	name, _, _, ok = p.ByUid(gid)
	return name, ok
}

// end closes the server. It must have no client left.
func (s *session) end() {
	for _, done := range s.held {
		done()
	}
	s.cancel()
	s.serving.Wait()
	s.ctrs.Close(context.Background())
	os.RemoveAll(s.ctrs.State)
}

// A shell is one of the script's commands at the server.
type shell struct {
	call
	tap *tap
	s   *session
}

// attach connects as $user; the peer is one that may claim to be anybody.
func (s *session) attach(state *rsc.State) (*shell, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	s.serving.Go(func() {
		s.srv.Serve(s.ctx, theirs, srv.Peer{Proven: true, Uid: 0, MayClaim: true})
	})
	c := &shell{tap: newTap(ours, s.dialect), s: s}
	s.mu.Lock()
	s.taps[c.tap] = struct{}{}
	s.mu.Unlock()
	name, _ := state.LookupEnv("user")
	c.ends = 2
	if s.dialect == styx.Plain {
		c.ends = 1
		c.remote, err = attach2000(c.tap, name)
	} else if uid, ok := s.srv.Users.ByName(name); ok {
		c.remote, err = attachL(c.tap, uid)
	} else {
		c.remote, err = attachL(c.tap, styx.NoUid)
	}
	if err != nil {
		c.close()
	}
	return c, err
}

func (c *shell) close() {
	c.s.mu.Lock()
	delete(c.s.taps, c.tap)
	c.s.mu.Unlock()
	c.tap.Close()
}

// interrupt is ^C for all that is under way.
func (s *session) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.taps {
		t.interrupt()
	}
}

// hangUp ends what hangs.
func (s *session) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.taps {
		t.Close()
	}
}

// ran makes a command's end of what it has written and its error.
func ran(c *shell, out *bytes.Buffer, err error) (string, string, error) {
	c.close()
	if err != nil {
		return out.String(), err.Error() + "\n", err
	}
	return out.String(), "", nil
}

// command is one that does all at once.
func (s *session) command(args string, min, max int, do func(c *shell, args []string) error) rsc.Cmd {
	return rsc.Command(rsc.CmdUsage{Args: args}, func(state *rsc.State, args ...string) (rsc.WaitFunc, error) {
		if len(args) < min || len(args) > max {
			return nil, rsc.ErrUsage
		}
		c, err := s.attach(state)
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		c.out = &out
		err = do(c, args)
		stdout, stderr, err := ran(c, &out, err)
		return func(*rsc.State) (string, string, error) { return stdout, stderr, err }, nil
	})
}

func (s *session) commands() map[string]rsc.Cmd {
	cmds := map[string]rsc.Cmd{}
	for _, name := range []string{"cmp", "cmpenv", "env", "grep", "help", "skip", "stderr", "stdout", "stop", "wait"} {
		if c, ok := rsc.DefaultCmds()[name]; ok {
			cmds[name] = c
		}
	}
	cmds["cat"] = s.reading("file", 0)
	cmds["head"] = s.reading("file", 1)
	cmds["echo"] = s.command("[-n] word... [>|>> file]", 0, 1000, (*shell).echo)
	cmds["printf"] = s.command("text [>|>> file]", 1, 3, func(c *shell, args []string) error {
		return c.echo(append([]string{"-n", strings.NewReplacer(`\n`, "\n", `\x03`, "\x03").Replace(args[0])}, args[1:]...))
	})
	cmds["start"] = rsc.Command(rsc.CmdUsage{Args: "variable program [arg...]", Summary: "start a process that is not the server's"}, s.start)
	cmds["hold"] = rsc.Command(rsc.CmdUsage{Args: "variable file", Summary: "open a file and keep it; the variable is its first line"}, s.hold)
	cmds["release"] = rsc.Command(rsc.CmdUsage{Args: "variable", Summary: "close what is held"}, s.release)
	cmds["ls"] = s.command("[-l] file", 1, 2, (*shell).ls)
	cmds["stat"] = s.command("file", 1, 1, func(c *shell, args []string) error { return c.show(args[0]) })
	cmds["mkdir"] = s.command("dir", 1, 1, func(c *shell, args []string) error { return c.mkdir(args[0]) })
	cmds["rmdir"] = s.command("dir", 1, 1, func(c *shell, args []string) error { return c.rmdir(args[0]) })
	cmds["mv"] = s.command("from to", 2, 2, func(c *shell, args []string) error { return c.mv(args[0], args[1]) })
	cmds["flush"] = rsc.Command(rsc.CmdUsage{Summary: "interrupt what is in the background"},
		func(*rsc.State, ...string) (rsc.WaitFunc, error) { s.interrupt(); return nil, nil })
	return cmds
}

// start runs a program until the script ends, and puts its number into a variable.
func (s *session) start(state *rsc.State, args ...string) (rsc.WaitFunc, error) {
	if len(args) < 2 {
		return nil, rsc.ErrUsage
	}
	cmd := exec.Command(args[1], args[2:]...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.serving.Go(func() { cmd.Wait() })
	context.AfterFunc(s.ctx, func() { cmd.Process.Kill() })
	for { // execve has answered a moment before the kernel shows what it made
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid)); err != nil || len(line) > 0 {
			break
		}
	}
	return nil, state.Setenv(args[0], fmt.Sprint(cmd.Process.Pid))
}

// hold opens a file, reads what it is called by, and keeps it open.
func (s *session) hold(state *rsc.State, args ...string) (rsc.WaitFunc, error) {
	if len(args) != 2 {
		return nil, rsc.ErrUsage
	}
	c, err := s.attach(state)
	if err != nil {
		return nil, err
	}
	f, err := c.open(args[1], fs.Read|fs.Write)
	if err == nil {
		line := make([]byte, 256)
		var n int
		if n, err = f.ReadAt(line, 0); errors.Is(err, io.EOF) {
			err = nil
		}
		s.mu.Lock()
		s.held[args[0]] = func() { f.Close(); c.close() }
		s.mu.Unlock()
		if err == nil {
			first, _, _ := strings.Cut(string(line[:n]), "\n")
			err = state.Setenv(args[0], strings.TrimSpace(first))
		}
	} else {
		c.close()
	}
	return nil, err
}

func (s *session) release(_ *rsc.State, args ...string) (rsc.WaitFunc, error) {
	if len(args) != 1 {
		return nil, rsc.ErrUsage
	}
	s.mu.Lock()
	done := s.held[args[0]]
	delete(s.held, args[0])
	s.mu.Unlock()
	if done == nil {
		return nil, fmt.Errorf("not held: %s", args[0])
	}
	done()
	return nil, nil
}

// reading is a command that reads a file to its end, or so many lines: `cat FILE`, `head [-n N] FILE`.
func (s *session) reading(args string, lines int) rsc.Cmd {
	usage := rsc.CmdUsage{Args: args, Async: true}
	return rsc.Command(usage, func(state *rsc.State, args ...string) (rsc.WaitFunc, error) {
		lines := lines
		if lines > 0 && len(args) == 3 && args[0] == "-n" {
			fmt.Sscan(args[1], &lines)
			args = args[2:]
		}
		if len(args) != 1 {
			return nil, rsc.ErrUsage
		}
		c, err := s.attach(state)
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		f, err := c.open(args[0], fs.Read)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err == nil {
				c.out = &limited{&out, lines}
				err = c.copy(f)
				if errors.Is(err, io.ErrShortWrite) {
					err = nil
				}
				f.Close()
			}
		}()
		return func(*rsc.State) (string, string, error) {
			<-done
			return ran(c, &out, err)
		}, nil
	})
}

// limited takes so many lines, any number if that is 0.
type limited struct {
	*bytes.Buffer
	lines int
}

func (l *limited) Write(p []byte) (int, error) {
	for n, b := range p {
		l.WriteByte(b)
		if b == '\n' && l.lines > 0 {
			if l.lines--; l.lines == 0 {
				return n, io.ErrShortWrite
			}
		}
	}
	return len(p), nil
}

// hasCap says whether this program has a capability.
func hasCap(n int) bool {
	self, err := ns.Open(os.Getpid())
	if err != nil {
		return false
	}
	defer self.Close()
	st, err := self.Status()
	return err == nil && ns.CapSet(st.CapEff).Has(1<<n)
}
