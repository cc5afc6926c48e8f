package ns

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPlan(t *testing.T) {
	p := park(t, Opt{})
	ctx := withTimeout(t)
	dir := t.TempDir()
	os.WriteFile(dir+"/f", []byte("text"), 0644)
	f, err := os.Open(dir + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	plan := &Plan{}
	fd := plan.Send(int(f.Fd()))
	pid := plan.Do("getpid", unix.SYS_GETPID)
	failed := plan.Do("open", unix.SYS_OPENAT, unix.AT_FDCWD, dir+"/nonesuch", 0, 0).Try()
	closed := plan.Do("close what was not opened", unix.SYS_CLOSE, failed).Try()
	out := plan.Do("open", unix.SYS_OPENAT, unix.AT_FDCWD, dir+"/out", unix.O_CREAT|unix.O_WRONLY, 0644)
	copied := plan.Do("sendfile", unix.SYS_SENDFILE, out, fd, 0, 100)
	plan.Do("writev", unix.SYS_WRITEV, out, []any{" and more", 9, []byte("!"), 1}, 2)
	// A step's result within a structure: pollfd is not of words, so dup2's number in an iovec.
	zero := plan.Do("getppid", unix.SYS_SETPGID, 0, 0)
	plan.Do("writev of nothing", unix.SYS_WRITEV, out, []any{"x", zero}, 1)
	if err := p.Run(ctx, plan); err != nil {
		t.Fatal(err)
	}
	if pid.Result() != p.Pid || copied.Result() != 4 || fd.Result() != 4 || !errors.Is(closed.Err(), unix.EBADF) {
		t.Errorf("pid %d, copied %d, fd %d, close: %v", pid.Result(), copied.Result(), fd.Result(), closed.Err())
	}
	if b, _ := os.ReadFile(dir + "/out"); string(b) != "text and more!" {
		t.Errorf("written: %q", b)
	}

	plan = &Plan{}
	plan.Do(`mount "/srv/x"`, unix.SYS_CHDIR, "/srv/nonesuch")
	never := plan.Do("never", unix.SYS_EXIT_GROUP, 3)
	err = p.Run(ctx, plan)
	if err == nil || err.Error() != `mount "/srv/x": no such file or directory` || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	_ = never
	plan = &Plan{}
	plan.Do("nonsense", 9999)
	if err := p.Run(ctx, plan); err == nil || err.Error() != "nonsense: function not implemented" {
		t.Errorf("error %v", err)
	}
	plan = &Plan{}
	for range 1000 {
		plan.Do("getpid", unix.SYS_GETPID)
	}
	if err := p.Run(ctx, plan); err != errPlanTooLong {
		t.Errorf("long plan: %v", err)
	}
	plan = &Plan{}
	plan.Do("exit", unix.SYS_EXIT_GROUP, 3)
	if err := p.Run(ctx, plan); err != io.EOF {
		t.Errorf("a plan that ends the process: %v", err)
	}
}
