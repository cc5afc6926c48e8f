package main

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// programs are testdata's, compiled.
var programs = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "work"); err != nil { // for everybody, unlike t.TempDir's
		return "", err
	}
	atExit = append(atExit, func() { os.RemoveAll(dir) })
	for _, name := range []string{"work", "ask"} {
		out, e := exec.Command("gcc", "-O2", "-Wall", "-Werror", "-o", filepath.Join(dir, name), "../../testdata/"+name+".c", "-lpthread").CombinedOutput()
		os.Stderr.Write(out)
		err = cmp.Or(err, e)
	}
	os.Chmod(dir, 0755)
	return dir, err
})

// program is testdata/NAME.c, compiled.
func program(t testing.TB, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		lacking(t, "needs a C compiler: "+err.Error())
	}
	return filepath.Join(dir, name)
}

// workProgram is testdata/work.c, compiled.
func workProgram(t testing.TB) string { return program(t, "work") }

// work is a Go program at work, as testdata/work.c in the kind threads.
func work() {
	var counts [3]atomic.Int64
	var wrong atomic.Bool
	for i := range 2 {
		go func() {
			want := sha256.Sum256(make([]byte, 4096))
			for {
				if sha256.Sum256(make([]byte, 4096)) != want {
					wrong.Store(true)
				}
				counts[i].Add(1)
			}
		}()
	}
	go func() {
		for {
			before := time.Now()
			if now := <-time.After(time.Millisecond); now.Sub(before) < time.Millisecond {
				wrong.Store(true)
			}
			counts[2].Add(1)
		}
	}()
	l, err := net.Listen("unix", "@work-"+strconv.Itoa(os.Getpid()))
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			if c, err := l.Accept(); err == nil {
				go io.Copy(c, c)
			}
		}
	}()
	unix.Dup3(0, 9, 0)
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		for i := range counts {
			for before := counts[i].Load(); counts[i].Load() == before; {
				runtime.Gosched()
			}
		}
		fmt.Println(map[bool]string{false: "right", true: "WRONG"}[wrong.Load()])
	}
}
