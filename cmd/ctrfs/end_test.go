package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A server that ends leaves no container behind, whoever reads there.
func TestEnd(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "needs root: to make containers")
	}
	path := filepath.Join(t.TempDir(), "sock")
	at := "unix!" + path
	d := start(t, "listening", "-a", at)
	say := func(file, text string) {
		t.Helper()
		if out, err := remotely(t, text, "write", "-a", at, file); err != nil {
			t.Fatal(out, err)
		}
	}
	// One runs and does not hear of TERM, one is only created.
	say("ctr/clone", "rename run\nexec /bin/sh -c 'trap : TERM; while :; do sleep 1000; done'")
	say("ctr/clone", "rename wait\ncreate")
	id, err := remotely(t, "", "read", "-a", at, "ctr/run/id", "ctr/wait/id")
	if err != nil {
		t.Fatal(id, err)
	}
	reader := role(t, "ctrfs", "read", "-a", at, "ctr/run/events", "ctr/run/wait")
	out, err := reader.StdoutPipe()
	if err == nil {
		err = reader.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	d.Process.Signal(syscall.SIGTERM)
	d.ends()
	io.Copy(io.Discard, out)
	reader.Wait()
	for id := range strings.FieldsSeq(id) {
		groups, _ := filepath.Glob("/sys/fs/cgroup/unified/*/" + id)
		more, _ := filepath.Glob("/sys/fs/cgroup/*/" + id)
		if len(groups)+len(more) > 0 {
			t.Errorf("left: %v %v", groups, more)
		}
	}
}
