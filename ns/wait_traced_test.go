package ns

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	// Traces the process that it is told and says so; ends at the end of its input.
	roles["tracer"] = func() error {
		runtime.LockOSThread()
		var pid int
		if _, err := fmt.Scan(&pid); err != nil {
			return err
		}
		if _, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0); e != 0 {
			return e
		}
		fmt.Println("traced")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	}
}

// A process that is killed while it is traced is a zombie that its parent cannot have until the tracer lets go of it.
func TestWaitTraced(t *testing.T) {
	needsRoot(t)
	atEnd(t)
	for _, reap := range []bool{false, true} {
		for _, zombie := range []bool{false, true} { // the wait begins before the end, or after it
			t.Run(fmt.Sprintf("reap=%v zombie=%v", reap, zombie), func(t *testing.T) {
				p, in := child(t, "exit 1")
				defer in.Close()
				tracer := exec.Command("/proc/self/exe")
				tracer.Env = append(os.Environ(), "NS_TEST_ROLE=tracer")
				tracer.Stderr = os.Stderr
				tell, err := tracer.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				out, err := tracer.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := tracer.Start(); err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(tell, p.Pid())
				if line, _ := bufio.NewReader(out).ReadString('\n'); line != "traced\n" {
					t.Fatalf("tracer says %q", line)
				}
				got := make(chan string, 1)
				begin := func() {
					if reap {
						if err := Reap(p); err != nil {
							t.Error(err)
						}
					}
					go func() {
						x, err := Wait(withTimeout(t), p)
						got <- fmt.Sprint(x, err)
					}()
					want := 1
					if reap {
						want = 2
					}
					for _, known := Exited(p); !known && !watched(p, want); _, known = Exited(p) {
						runtime.Gosched()
					}
				}
				if !zombie {
					begin()
				}
				if err := p.Signal(unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				untilEnd(t, p, false)
				if zombie {
					begin()
				}
				tell.Close()
				if err := tracer.Wait(); err != nil {
					t.Error(err)
				}
				if s := <-got; s != "signal: KILL <nil>" {
					t.Errorf("end is %q", s)
				}
				if reap {
					untilEnd(t, p, true)
				} else if err := Reap(p); err != nil {
					t.Errorf("reap: %v", err)
				}
			})
		}
	}
}
