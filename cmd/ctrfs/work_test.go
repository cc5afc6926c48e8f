package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

var buildWork = sync.OnceValues(func() (program string, err error) {
	dir, err := os.MkdirTemp("", "work") // for everybody, unlike t.TempDir's
	if err != nil {
		return "", err
	}
	atExit = append(atExit, func() { os.RemoveAll(dir) })
	program = filepath.Join(dir, "work")
	out, err := exec.Command("gcc", "-O2", "-Wall", "-Werror", "-o", program, "../../testdata/work.c", "-lpthread").CombinedOutput()
	os.Stderr.Write(out)
	os.Chmod(dir, 0755)
	return program, err
})

// workProgram is testdata/work.c, compiled.
func workProgram(t testing.TB) string {
	t.Helper()
	program, err := buildWork()
	if err != nil {
		lacking(t, "needs a C compiler: "+err.Error())
	}
	return program
}
