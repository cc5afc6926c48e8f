package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ctrfs/fs/srv"
	"ctrfs/fs/styx"
	"ctrfs/ns"

	"golang.org/x/sys/unix"
)

// A number of a process that comes again is another's: what was opened of the old one says that it has exited, or tells its
// record, and the new one has another qid. In a pid name space of its own, where nobody else takes the number.
func TestReuse(t *testing.T) {
	const role = "CTRFS_TEST_REUSE"
	if os.Geteuid() != 0 {
		lacking(t, "needs root: a pid name space")
	}
	if os.Getenv(role) == "" {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^TestReuse$", "-test.v", fmt.Sprint("-test.short=", testing.Short()))
		cmd.Env = append(os.Environ(), role+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	for _, err := range []error{unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, "")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	s, err := newServer(nil, stop)
	if err != nil {
		t.Fatal(err)
	}
	r := &reuse{t: t, qids: map[styx.Qid]bool{}}
	for _, d := range []styx.Dialect{styx.Linux, styx.Plain} {
		ours, theirs, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.srv.Serve(ctx, theirs, srv.Peer{Proven: true, MayClaim: true})
		}()
		c := converse(t, ours, d)
		t.Cleanup(func() { ours.Close(); <-done })
		if err := c.attach("root", 0); err != nil {
			t.Fatal(err)
		}
		r.callers = append(r.callers, c)
	}
	rounds := 1000
	if underRace || testing.Short() {
		rounds = 50
	}
	for r.again < rounds && !t.Failed() {
		r.foreign()
	}
	for r.again < rounds+rounds/10 && !t.Failed() {
		r.cloned()
	}
}

type reuse struct {
	t       *testing.T
	callers []*caller
	qids    map[styx.Qid]bool // of the processes that have been
	now     *exec.Cmd         // has the number that is to come again
	rounds  int
	again   int // how often a number has come again
}

// A held is a file that is open, or would be: what is asked of it once its process's number is another's, and the answer.
type held struct {
	name, write string // what is written; "" to read
	want        string // of the answer; "" the error that the process has exited
}

// start starts a process that has the number pid, any if that is 0 or could not be had; a thread of ours may have it.
func (r *reuse) start(pid int) *exec.Cmd {
	for range 3 {
		if pid != 0 {
			if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
				r.t.Fatal(err)
			}
		}
		cmd := exec.Command("/bin/sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			r.t.Fatal(err)
		}
		if pid == 0 || cmd.Process.Pid == pid {
			return cmd
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	return r.start(0)
}

// foreign is a round with a process that is not the server's.
func (r *reuse) foreign() {
	if r.now == nil {
		r.now = r.start(0)
		r.t.Cleanup(func() { r.now.Process.Kill(); r.now.Wait() })
	}
	files := []held{{name: "ctl", write: "kill\n"}, {name: "note", write: "kill\n"}, {name: "notepg", write: "kill\n"}, {name: "limits", write: "core 0\n"}}
	names, err := r.callers[0].list(fmt.Sprint("/proc/", r.now.Process.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, name := range names {
		switch name {
		case "note", "notepg":
		case "wait":
			files = append(files, held{name: name, want: " 'signal: KILL'"})
		case "stopped":
			files = append(files, held{name: name, want: "exited"})
		default:
			files = append(files, held{name: name})
		}
	}
	r.round(r.now.Process.Pid, files, func() {
		r.now.Process.Kill()
		r.now.Wait()
	})
}

// cloned is a round with one that the server has started, whose record stays.
func (r *reuse) cloned() {
	r.now.Process.Kill()
	r.now.Wait()
	c := r.callers[0]
	f, _, err := c.walk("/proc/clone")
	var text []byte
	if err == nil {
		err = c.open(f, styx.ORdwr)
	}
	if err == nil {
		err = c.write(f, "label it\nexec /bin/sleep 1000")
	}
	if err == nil {
		text, err = c.readAt(f, 0)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		r.t.Fatal(err)
	}
	files := []held{{name: "ctl", write: "kill\n"}, {name: "note", write: "kill\n"}}
	for _, name := range []string{"args", "ctl", "ctr", "cwd", "env", "exe", "fd", "hostname", "limits", "noteid", "ns", "nsgrp", "pgrp", "root"} {
		files = append(files, held{name: name})
	}
	for name, want := range map[string]string{
		"wait": " 'signal: KILL'", "status": "\nexit 137\n", "exitstatus": "137", "exception": "KILL", "stopped": "exited",
		"stdout": "end", "stderr": "end", "data": "end",
	} {
		files = append(files, held{name: name, want: want})
	}
	r.round(pid, files, func() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			r.t.Fatal(err)
		}
		if _, err := c.cat(fmt.Sprintf("/proc/%d/wait", pid)); err != nil {
			r.t.Fatal(err)
		}
	})
	if err := c.clunk(f); err != nil {
		r.t.Fatal(err)
	}
}

// round opens files of a process, ends it, gives its number to another, and asks the files. It is a quarter of them, so that
// many rounds do not take long.
func (r *reuse) round(pid int, files []held, end func()) {
	r.rounds++
	dir, some := fmt.Sprint("proc/", pid), files[:0]
	for i, h := range files {
		if i%4 == r.rounds%4 {
			some = append(some, h)
		}
	}
	each := func(c *caller, what string, msg func(i int, h held, f styx.Fid) *styx.Msg) ([]*styx.Msg, []error) {
		var msgs []*styx.Msg
		for i, h := range some {
			msgs = append(msgs, msg(i, h, styx.Fid(1000+i)))
		}
		replies, errs := c.all(msgs)
		if what != "" {
			for i, err := range errs {
				if err != nil {
					r.t.Fatalf("%s: %s %s/%s: %v", c.d, what, dir, some[i].name, err)
				}
			}
		}
		return replies, errs
	}
	for _, c := range r.callers {
		replies, _ := each(c, "walk", func(_ int, h held, f styx.Fid) *styx.Msg {
			return &styx.Msg{Type: styx.Twalk, Newfid: f, Names: []string{"proc", strconv.Itoa(pid), h.name}}
		})
		for _, reply := range replies {
			r.qids[reply.Qids[1]], r.qids[reply.Qids[2]] = true, true
		}
		each(c, "open", func(_ int, h held, f styx.Fid) *styx.Msg {
			if h.write != "" {
				return c.opening(f, styx.OWrite)
			}
			return c.opening(f, styx.ORead)
		})
	}
	end()
	r.now = r.start(pid)
	for _, c := range r.callers {
		replies, errs := each(c, "", func(_ int, h held, f styx.Fid) *styx.Msg {
			if h.write != "" {
				return &styx.Msg{Type: styx.Twrite, Fid: f, Data: []byte(h.write)}
			}
			return &styx.Msg{Type: styx.Tread, Fid: f, Count: 8192}
		})
		for i, h := range some {
			text, err := "", errs[i]
			if err == nil {
				text = string(replies[i].Data)
			}
			var gone *refusal
			switch {
			case h.want == "" && (!errors.As(err, &gone) || gone.errno != syscall.ESRCH && gone.words != ns.ErrExited.Error()),
				h.want == "end" && (err != nil || text != ""),
				h.want != "" && h.want != "end" && (err != nil || !strings.Contains(text, h.want)):
				r.t.Errorf("%s: %s of process %d: %q, %v; want %q", c.d, h.name, pid, text, err, h.want)
			}
		}
		each(c, "clunk", func(_ int, _ held, f styx.Fid) *styx.Msg { return &styx.Msg{Type: styx.Tclunk, Fid: f} })
	}
	if r.now.Process.Pid == pid {
		r.successor(dir)
	}
}

// successor looks whether the new one lives and is another.
func (r *reuse) successor(dir string) {
	for _, c := range r.callers {
		f, qid, err := c.walk(dir)
		if err != nil || r.qids[qid] {
			r.t.Fatalf("%s: %v, which is the old one's, %v", dir, qid, err)
		}
		c.clunk(f)
	}
	if text, err := r.callers[0].cat(dir + "/status"); err != nil || strings.Contains(text, "exit") {
		r.t.Errorf("%s: what was written to the old one's files has reached it: %s, %v", dir, text, err)
	}
	r.again++
}
