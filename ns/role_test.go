package ns

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// The test binary again, for what needs a parent, a namespace or a first start of its own.
var roles = map[string]func() error{}

func TestMain(m *testing.M) {
	Tracer()
	if role, ok := roles[os.Getenv("NS_TEST_ROLE")]; ok {
		if err := role(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	for _, f := range atExit {
		f()
	}
	os.Exit(code)
}

var atExit []func() // after the tests

func runRole(t *testing.T, role string, attr *syscall.SysProcAttr, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(withTimeout(t), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "NS_TEST_ROLE="+role)
	cmd.SysProcAttr = attr
	b, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", role, err, b)
	}
	return string(b)
}
