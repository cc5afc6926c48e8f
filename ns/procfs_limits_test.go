package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSetLimit(t *testing.T) {
	needsRoot(t)
	park(t, Opt{}) // what the first one opens stays open
	atEnd(t)
	a := Cred{Uid: alice, Gid: alice}
	p := open(t, shell(t, attr(a)).cmd.Process.Pid)
	rootp := open(t, shell(t, nil).cmd.Process.Pid)
	savedp := open(t, shell(t, nil).num("NS_TEST_ROLE=saved exec /proc/%d/exe", os.Getpid()))
	for _, ok := range []struct {
		p *Process
		c Cred
	}{{rootp, Cred{}}, {p, a}} {
		if err := ok.p.SetLimit(withTimeout(t), ok.c, Limit{"NOFILE", 50, 60}); err != nil {
			t.Fatal(err)
		}
		if l, err := ok.p.Limits(); err != nil || l[unix.RLIMIT_NOFILE] != (Limit{"nofile", 50, 60}) {
			t.Errorf("limits %v, %v", l, err)
		}
	}
	for _, c := range []struct {
		p *Process
		c Cred
		l Limit
	}{
		{p, a, Limit{"nofile", 50, Unlimited}},
		{p, Cred{Uid: bob, Gid: bob}, Limit{"nofile", 50, 60}},
		{p, Cred{Uid: alice, Gid: bob}, Limit{"nofile", 50, 60}},
		{rootp, a, Limit{"nofile", 50, 60}},
		{savedp, a, Limit{"nofile", 50, 60}},
	} {
		if err := c.p.SetLimit(withTimeout(t), c.c, c.l); err != fs.ErrPermission {
			t.Errorf("%+v by %+v: %v", c.l, c.c, err)
		}
	}
	if err := rootp.SetLimit(withTimeout(t), Cred{}, Limit{"nofile", 51, 50}); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "soft above hard") {
		t.Errorf("soft above hard: %v", err)
	}
	if err := p.SetLimit(withTimeout(t), a, Limit{"files", 1, 1}); err == nil || err.Error() != `no such limit: "files"` {
		t.Errorf("unknown limit: %v", err)
	}
}

func init() {
	// A process of alice's whose saved uid is root's still.
	roles["saved"] = func() error {
		if err := errors.Join(syscall.Setresgid(alice, alice, alice), syscall.Setresuid(alice, alice, 0)); err != nil {
			return err
		}
		fmt.Println(os.Getpid())
		os.Stdin.Read(make([]byte, 1))
		return nil
	}
}
