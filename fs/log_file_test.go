package fs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

const pumpRole = "FS_TEST_PUMP"

func TestMain(m *testing.M) {
	if os.Getenv(pumpRole) != "" {
		pump()
	}
	os.Exit(m.Run())
}

// pump moves what comes out of the pipe 3 into the log 4.
func pump() {
	l, err := OpenLog(os.NewFile(4, "log"), 1<<20, nil)
	for err == nil {
		var n int
		n, err = l.Splice(3)
		if errors.Is(err, unix.EAGAIN) {
			_, err = unix.Poll([]unix.PollFd{{Fd: 3, Events: unix.POLLIN}}, -1)
			n = 1
		}
		if errors.Is(err, unix.EINTR) {
			err = nil
		}
		if n == 0 {
			os.Exit(0)
		}
	}
	os.Exit(1)
}

// Whenever the program that keeps a log is killed, the next one goes on with the very next byte.
func TestSpliceKilled(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	kept := memfd(t)
	defer kept.Close()
	const numbers = 100_000 // less than is kept
	var sent []byte
	for i := range uint64(numbers) {
		sent = binary.LittleEndian.AppendUint64(sent, i)
	}
	var pump atomic.Pointer[os.Process]
	go func() {
		for p := sent; len(p) > 0; {
			n := min(len(p), 1+rand.IntN(5000))
			if _, err := w.Write(p[:n]); err != nil {
				return // the test has failed
			}
			p = p[n:]
			if rand.IntN(numbers*8/2500/6) == 0 {
				if now := pump.Load(); now != nil {
					now.Kill() // fails where it has ended
				}
			}
		}
		w.Close()
	}()
	kills := 0
	for ended := false; !ended; {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), pumpRole+"=1", "GORACE=atexit_sleep_ms=0")
		cmd.ExtraFiles = []*os.File{r, kept}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pump.Store(cmd.Process)
		err := cmd.Wait()
		if ended = err == nil; !ended {
			kills++
			if cmd.ProcessState.ExitCode() != -1 {
				t.Fatal(err)
			}
		}
	}
	end, _ := kept.Seek(0, io.SeekCurrent)
	got := make([]byte, end)
	if _, err := kept.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("after %d kills %d bytes, want %d", kills, len(got), len(sent))
	}
	t.Logf("%d kills", kills)
}

// A log gives back the memory of what it keeps no more, and is as long as it was for who opens it later.
func TestLogHole(t *testing.T) {
	f := memfd(t)
	l, err := OpenLog(f, 100_000, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx := context.Background()
	line := bytes.Repeat([]byte("0123456789abcde\n"), 1000)
	for range 1000 {
		if err := l.Write(ctx, line); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != 16_000_000 || st.Blocks*512 > 100_000+holeLeast+2*int64(os.Getpagesize()) {
		t.Errorf("%d bytes that take %d", st.Size, st.Blocks*512)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	later, err := OpenLog(os.NewFile(uintptr(fd), "log"), 100_000, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := later.Open(false)
	if _, err := r.Read(ctx, 0, 10); err == nil || err.Error() != "output lost: 15900000 bytes" {
		t.Error(err)
	}
	if b, err := r.Read(ctx, 0, 16); string(b) != string(line[:16]) || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	later.Close()
	if b, err := r.Read(ctx, 0, 16); string(b) != string(line[:16]) || err != nil {
		t.Errorf("closed while somebody reads: %q, %v", b, err)
	}
	r.Close(ctx)
	if _, err := r.Read(ctx, 0, 16); err != errClosed {
		t.Error(err)
	}
}
