package main

import (
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

	"ctrfs/fs/styx"
	"ctrfs/ns"
)

// children are the keeper's: the server, and what it has started.
func (d *daemon) children() (server *ns.Process, others []string) {
	d.t.Helper()
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.Process.Pid))
	for _, file := range tasks {
		b, _ := os.ReadFile(file)
		for pid := range strings.FieldsSeq(string(b)) {
			args, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			if !strings.HasPrefix(string(args), "ctrfs-server\x00") {
				if st, _ := os.ReadFile("/proc/" + pid + "/stat"); !strings.Contains(string(st), ") Z ") && len(st) > 0 {
					others = append(others, pid)
				}
				continue
			}
			n, _ := strconv.Atoi(pid)
			if p, err := ns.Open(n); err == nil && server == nil {
				server = p
			}
		}
	}
	return server, others
}

// kill kills the server, unless there is none at this moment.
func (d *daemon) kill() {
	d.t.Helper()
	if p, _ := d.children(); p != nil {
		p.Signal(syscall.SIGKILL) // fails only where it has ended
		p.Close()
	}
}

// again begins a conversation with whichever server there is; a server that dies meanwhile is no reason to give up.
func again(t testing.TB, sock string) *caller {
	for {
		conn, err := net.Dial("unix", sock)
		if err != nil {
			t.Fatal(err) // the keeper has the socket
		}
		conn.SetDeadline(time.Now().Add(2 * time.Minute))
		c := &caller{t: t, conn: conn, in: styx.NewReader(conn)}
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
			t.Fatal(err)
		}
	}
}

// lost says whether an error is none that a server has answered.
func lost(err error) bool {
	var r *refusal
	return err != nil && !errors.As(err, &r) && err.Error() != "file does not exist"
}

// insist does something again with the next server when one dies of it.
func insist(t testing.TB, sock string, do func(c *caller) error) error {
	for {
		c := again(t, sock)
		err := do(c)
		c.conn.Close()
		if !lost(err) {
			return err
		}
	}
}

// What was started goes on when the server is killed, whoever kills it however often: the next one has its output to the
// byte, its end and its record, also of what ended while there was none.
func TestServerKilled(t *testing.T) {
	top := t.TempDir()
	sock, fifo := filepath.Join(top, "sock"), filepath.Join(top, "fifo")
	if err := syscall.Mkfifo(fifo, 0600); err != nil {
		t.Fatal(err)
	}
	d := start(t, "listening", "-a", "unix!"+sock)
	cat := func(name string) (text string) {
		t.Helper()
		if err := insist(t, sock, func(c *caller) (err error) { text, err = c.cat(name); return err }); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return text
	}
	c := again(t, sock)
	for _, text := range []string{
		"label prints\nexec sh -c 'i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exit 3'\n",
		"label tty\ntty\nexec sh -c 'stty -onlcr; i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; exit 4'\n",
		"label socket\nipc socket\nexec sh -c 'i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; exit 5'\n",
		"label waits\nexec sh -c 'read x <" + fifo + "; exit 6'\n",
		"label child\nkillonclose\nexec sleep 1000\n",
	} {
		f, _, err := c.walk("proc/clone")
		if err == nil {
			if err = c.open(f, styx.ORdwr); err == nil {
				err = c.write(f, text)
			}
		}
		if err != nil {
			t.Fatal(text, err)
		}
	}
	if _, _, err := c.walk("proc/clone"); err != nil {
		t.Fatal(err)
	}
	if err := c.open(c.last, styx.ORdwr); err != nil { // parked
		t.Fatal(err)
	}
	seq := func() (n int) {
		err := insist(t, sock, func(c *caller) error {
			return c.on("events", func(f styx.Fid) error {
				err := c.open(f, styx.ORead)
				if err != nil {
					return err
				}
				b, err := c.readAt(f, 0)
				if err == nil {
					_, err = fmt.Sscan(strings.Fields(string(b))[1], &n)
				}
				return err
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := seq()
	for range 5 {
		d.kill()
		cat("version") // the next one is there
	}
	d.kill()
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	lines := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintln(&b, "line", i)
		}
		return b.String()
	}
	for _, test := range []struct {
		label, status, output string
	}{
		{"prints", "'exit: 3'", lines(20000)},
		{"tty", "'exit: 4'", lines(5000)},
		{"socket", "'exit: 5'", lines(5000)},
		{"waits", "'exit: 6'", ""},
		{"child", "'signal: KILL'", ""},
	} {
		var record, output string
		err := insist(t, sock, func(c *caller) error {
			return c.on("proc/"+test.label+"/wait", func(f styx.Fid) error {
				err := c.open(f, styx.ORead)
				if err == nil {
					var b []byte
					b, err = c.readAt(f, 0)
					record = string(b)
				}
				if err == nil && test.label != "child" {
					output, err = c.drain("proc/" + test.label + "/stdout")
				}
				return err
			})
		})
		if err != nil || !strings.HasSuffix(record, test.status+"\n") || strings.Contains(record, "-") {
			t.Errorf("%s: %q, %v", test.label, record, err)
		}
		if output != test.output {
			t.Errorf("%s: %d bytes of output, want %d", test.label, len(output), len(test.output))
		}
	}
	if after := seq(); after <= before {
		t.Errorf("SEQ %d after %d", after, before)
	}
	if _, others := d.children(); len(others) > 0 {
		t.Error("left:", others)
	}
	d.Process.Signal(syscall.SIGTERM)
	d.ends()
}

// drain reads an output to its end.
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

// killings is how often the server is killed at random.
func killings() int {
	if n, err := strconv.Atoi(os.Getenv("CTRFS_KILLS")); err == nil {
		return n
	}
	return 20
}

// Clients start programs all the time while the server is killed again and again: every program that they were told runs
// ends with its own status, once, and nothing is left.
func TestServerKilledAtRandom(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "sock")
	d := start(t, "listening", "-a", "unix!"+sock)
	done := make(chan struct{})
	var ended, unanswered int
	var mu sync.Mutex // guards both
	var clients sync.WaitGroup
	for who := range 4 {
		clients.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				label, code := fmt.Sprintf("j%d.%d", who, i), rand.IntN(200)
				begun := false
				c := again(t, sock)
				f, _, err := c.walk("proc/clone")
				if err == nil {
					if err = c.open(f, styx.ORdwr); err == nil {
						err = c.write(f, fmt.Sprintf("label %s\nexec sh -c 'echo %d; exit %d'\n", label, code, code))
						begun = err == nil
					}
				}
				if !lost(err) && err != nil {
					t.Error(label, err)
					return
				}
				c.conn.Close()
				var record, output string
				err = insist(t, sock, func(c *caller) error {
					f, _, err := c.walk("proc/" + label + "/wait")
					if err == nil {
						err = c.open(f, styx.ORead)
					}
					if err == nil {
						var b []byte
						b, err = c.readAt(f, 0)
						record = string(b)
					}
					if err == nil {
						output, err = c.drain("proc/" + label + "/stdout")
					}
					return err
				})
				want := fmt.Sprintf("'exit: %d'\n", code)
				if code == 0 {
					want = "''\n"
				}
				mu.Lock()
				switch {
				case begun && (err != nil || !strings.HasSuffix(record, want) || output != fmt.Sprintln(code)):
					t.Errorf("%s: %q %q %v, want %s", label, record, output, err, want)
				case begun:
					ended++
				case err == nil && !strings.HasSuffix(record, want) && !strings.HasSuffix(record, "'signal: KILL'\n"):
					t.Errorf("%s, not answered: %q", label, record)
				default:
					unanswered++
				}
				mu.Unlock()
			}
		})
	}
	for range killings() {
		time.Sleep(time.Duration(rand.IntN(250)) * time.Millisecond) // at any moment of what the clients do
		d.kill()
	}
	close(done)
	clients.Wait()
	t.Logf("%d programs ended, %d starts were not answered", ended, unanswered)
	again(t, sock).conn.Close() // it has taken up all
	for end := time.Now().Add(10 * time.Second); ; {
		_, others := d.children()
		if len(others) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Error("left:", others)
			break
		}
	}
	d.Process.Signal(syscall.SIGTERM)
	d.ends()
}
