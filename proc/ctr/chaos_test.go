package ctr

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"ctrfs/fs"
)

// The states of the model: those of the tree, and three in which a container was killed and has not ended yet.
const (
	absent        = "absent"
	dyingCreated  = "created, killed"
	dyingRunning  = "running, killed"
	dyingPaused   = "paused, killed"
	noSuch        = "file does not exist"
	alreadyExists = "file already exists"
)

// seen is what a client sees of a state of the model.
func seen(s string) string { return strings.TrimSuffix(s, ", killed") }

// step gives the states in which a container can be after an operation that gave result, each as the table of the
// contract has it.
func step(s, op, result string) (next []string) {
	may := func(want, then string) {
		if result == want {
			next = append(next, then)
		}
	}
	// It may have ended before: one that is only created also by a delete, which ends it first.
	if s == dyingCreated || s == dyingRunning || s == dyingPaused || s == string(isCreated) {
		next = step(string(isStopped), op, result)
	}
	cannot := fmt.Sprintf("cannot %s a %s container", op, seen(s))
	switch {
	case op == "mkdir" && s == absent:
		may("", string(isNew))
	case op == "mkdir":
		may(alreadyExists, s)
	case s == absent:
		may(noSuch, absent)
		may(errNoCtr.Error(), absent) // it was there when its file was opened
	case op == "status":
		may(seen(s), s)
		if s == string(isNew) || s == string(isStopped) {
			may(string(isCreated), s) // a start is under way, which creates it first
		}
	case op == "create" && (s == string(isNew) || s == string(isStopped)):
		may("", string(isCreated))
	case op == "start" && (s == string(isNew) || s == string(isStopped) || s == string(isCreated)):
		may("", string(isRunning))
		may("exec: no command", string(isStopped)) // its args are not set yet
	case op == "start" && s == dyingCreated:
		may("", dyingRunning)
		if result != "" {
			next = append(next, string(isStopped))
		}
	case op == "kill" && s == string(isStopped):
		may("", s)
	case op == "kill" && seen(s) == string(isCreated):
		may("", dyingCreated)
	case op == "kill" && seen(s) == string(isRunning):
		may("", dyingRunning)
	case op == "kill" && seen(s) == string(isPaused):
		may("", dyingPaused)
	case op == "pause" && s == string(isRunning):
		may("", string(isPaused))
	case op == "pause" && s == dyingRunning:
		may("", dyingPaused)
	case op == "resume" && s == string(isPaused):
		may("", string(isRunning))
	case op == "resume" && s == dyingPaused:
		may("", dyingRunning)
	case op == "delete" && seen(s) != string(isRunning) && seen(s) != string(isPaused):
		may("", absent)
	default:
		may(cannot, s)
	}
	return next
}

// do does an operation and gives its error, or what it read.
func (s *session) do(op, name string) string {
	var text string
	var err error
	switch op {
	case "mkdir":
		_, err = fs.Make(s.Ctx, s.Root, name, 0755)
	case "delete":
		err = fs.Delete(s.Ctx, s.Root, name)
	case "status":
		text, err = s.Cat(name + "/status")
		text, _, _ = strings.Cut(text, "\n")
	default:
		err = s.Echo(name+"/ctl", op)
	}
	if err != nil {
		return err.Error()
	}
	return text
}

// end ends and deletes a container, if it is there.
func (s *session) end(name string) {
	s.T.Helper()
	if s.do("status", name) == noSuch {
		return
	}
	s.Write(name+"/ctl", "killall")
	if s.do("status", name) != string(isNew) {
		s.Read(name + "/wait")
	}
	s.Rmdir(name)
}

type input struct{ name, op string }

// What many clients do with some containers at once is as if they had done it one after the other.
func TestHistories(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	names := []string{"a", "b"}
	model := (&porcupine.NondeterministicModel{
		Partition: func(all []porcupine.Operation) (parts [][]porcupine.Operation) {
			for _, n := range names {
				parts = append(parts, slices.DeleteFunc(slices.Clone(all), func(o porcupine.Operation) bool { return o.Input.(input).name != n }))
			}
			return parts
		},
		Init: func() []any { return []any{absent} },
		Step: func(state, in, out any) (next []any) {
			for _, s := range step(state.(string), in.(input).op, out.(string)) {
				next = append(next, s)
			}
			return next
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%v: %v", in, out) },
	}).ToModel()
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	for range rounds {
		for _, n := range names {
			s.Mkdir(n)
			s.Write(n+"/args", "/bin/sleep 1000")
			s.Rmdir(n)
		}
		var mu sync.Mutex // guards ops
		var ops []porcupine.Operation
		var all sync.WaitGroup
		for c := range 6 {
			all.Go(func() {
				for range 20 {
					in := input{names[rand.IntN(len(names))], []string{"mkdir", "create", "start", "kill", "delete", "pause", "resume", "status", "status"}[rand.IntN(9)]}
					call := time.Now()
					out := s.do(in.op, in.name)
					end := time.Now()
					if in.op == "mkdir" && out == "" {
						s.Echo(in.name+"/args", "/bin/sleep 1000")
					}
					mu.Lock()
					ops = append(ops, porcupine.Operation{ClientId: c, Input: in, Output: out, Call: call.UnixNano(), Return: end.UnixNano()})
					mu.Unlock()
				}
			})
		}
		all.Wait()
		switch r, _ := porcupine.CheckOperationsVerbose(model, ops, 20*time.Second); r {
		case porcupine.Illegal:
			for _, o := range ops {
				t.Logf("%d %d-%d %v: %q", o.ClientId, o.Call, o.Return, o.Input, o.Output)
			}
			t.Fatal("no order of these operations explains their results")
		case porcupine.Unknown:
			t.Error("not decided in time")
		}
		for _, n := range names {
			s.end(n)
		}
	}
	check()
}

// leaks notes what is there; called again, it fails if something is left.
func leaks(t *testing.T, s *session) func() {
	count := func() map[string]int {
		n := map[string]int{}
		fds, _ := os.ReadDir("/proc/self/fd")
		n["descriptors"] = len(fds)
		n["goroutines"] = runtime.NumGoroutine()
		mounts, _ := os.ReadFile("/proc/self/mountinfo")
		n["mounts"] = strings.Count(string(mounts), "\n")
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/ctrfs-test/*/")
		n["cgroups"] = len(groups)
		links := map[string]bool{}
		procs, _ := filepath.Glob("/proc/[0-9]*/status")
		mine := fmt.Sprintf("PPid:\t%d\n", os.Getpid())
		for _, p := range procs {
			if b, _ := os.ReadFile(p); strings.Contains(string(b), mine) {
				links[p] = true
			}
		}
		n["children"] = len(links)
		s.set.mu.Lock()
		n["containers"] = len(s.set.names) + len(s.set.xids) + len(s.set.ids)
		s.set.mu.Unlock()
		return n
	}
	// The first container makes what is kept for good.
	s.Mkdir("first")
	s.Write("first/ctl", "exec /bin/true")
	s.Read("first/wait")
	s.Rmdir("first")
	before := count()
	return func() {
		t.Helper()
		var after map[string]int
		for range 500 { // what ends, ends in its own time
			after = count()
			more := ""
			for k, n := range after {
				if n > before[k] {
					more = k
				}
			}
			if more == "" {
				return
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-s.Ctx.Done():
			}
		}
		t.Errorf("left: %v, before: %v", after, before)
	}
}

// follow reads all events and checks their order until ctx ends.
func follow(ctx context.Context, t *testing.T, s *session) {
	h, err := s.set.Feed.Open(fs.WithClient(ctx, &fs.Client{Errors: new(fs.Errors)}), nil, func(context.Context) []fs.Event { return nil })
	if err != nil {
		t.Error(err)
		return
	}
	defer h.Close(context.Background())
	ended := map[string]string{}
	var text []byte
	last := 0
	for off := int64(0); ; {
		b, err := h.Read(ctx, off, 8192)
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			return
		}
		off += int64(len(b))
		text = append(text, b...)
		for {
			line, rest, ok := strings.Cut(string(text), "\n")
			if !ok {
				break
			}
			text = []byte(rest)
			f := strings.Fields(line)
			var seq int
			if fmt.Sscan(f[1], &seq); seq <= last && f[2] != "ready" || len(f) > 6 {
				t.Errorf("after %d: %s", last, line)
			}
			last = seq
			pid := ""
			for _, w := range f {
				if strings.HasPrefix(w, "pid=") {
					pid = w
				}
			}
			switch f[2] {
			case "lost":
				t.Errorf("%s", line)
			case "start":
				if ended[pid] != "" {
					t.Errorf("it has ended: %s\n%s", line, ended[pid])
				}
			case "exit":
				if ended[pid] != "" {
					t.Errorf("twice: %s\n%s", line, ended[pid])
				}
				ended[pid] = line
			}
		}
	}
}

// Many clients do whatever they can with four names, and nothing is left at the end.
func TestChaos(t *testing.T) {
	s := newSession(t)
	check := leaks(t, s)
	ctx, stop := context.WithCancel(s.Ctx)
	var reader sync.WaitGroup
	reader.Go(func() { follow(ctx, t, s) })
	length := 10 * time.Second
	if testing.Short() {
		length = 2 * time.Second
	}
	end := time.Now().Add(length)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for time.Now().Before(end) && s.Ctx.Err() == nil {
				name := string(rune('a' + rand.IntN(4)))
				switch rand.IntN(17) {
				case 0, 1:
					fs.Make(s.Ctx, s.Root, name, 0755)
				case 2:
					fs.Delete(s.Ctx, s.Root, name)
				case 3:
					s.Echo(name+"/ctl", "create")
				case 4, 5:
					s.Echo(name+"/ctl", "exec /bin/sh -c 'trap : TERM; while :; do sleep 1 & wait; done'")
				case 6:
					s.Echo(name+"/ctl", "stop 0")
				case 7:
					s.Echo(name+"/ctl", "kill TERM 0")
				case 8:
					s.Echo(name+"/ctl", "killall")
				case 9:
					fs.Move(s.Ctx, s.Root, name, nil, string(rune('a'+rand.IntN(4))))
				case 10, 11:
					if h, err := s.Open(name+"/proc/clone", fs.Write); err == nil {
						h.Write(s.Ctx, 0, []byte("nowait\nexec /bin/sh -c 'echo x; exec sleep 0.01'"))
						h.Close(s.Ctx)
					}
				case 12:
					s.Echo(name+"/proc/1/ctl", "exec /bin/sleep 1000")
				case 13:
					s.Echo(name+"/ctl", "pause")
				case 14:
					s.Echo(name+"/ctl", "resume")
				case 15:
					s.Echo(name+"/ctl", "restart")
				case 16:
					for _, f := range files.Names() {
						switch f {
						case "proc", "wait", "events", "stdin", "stdout", "stderr":
						default:
							s.Cat(name + "/" + f)
						}
					}
				}
			}
		})
	}
	all.Wait()
	for _, name := range []string{"a", "b", "c", "d"} {
		s.end(name)
	}
	stop()
	reader.Wait()
	check()
}
