package oci

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What criu says of a failure is its first complaint that has something to do with it.
func TestCriuSaid(t *testing.T) {
	const rlimit = "(00.477070) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
	for _, c := range []struct{ log, want string }{
		{"", "failed"},
		{"(00.224662) Warn  (criu/kerndat.c:1642): CRIU was built without libnftables support\n" + rlimit, "failed"},
		{rlimit + "Error (criu/util.c:642): execvp(\"iptables-restore\", ...) failed: No such file or directory\n" +
			"(00.588246) Error (criu/util.c:657): exited, status=1\n(00.769199) Error (criu/cr-dump.c:2128): Dumping FAILED.\n",
			`failed: criu: (criu/util.c:642): execvp("iptables-restore", ...) failed: No such file or directory`},
		{"Error (criu/util.c:642): exited, status=1\nError (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds\n" +
			"Error (criu/crtools.c:260): Could not initialize kernel features detection.\n",
			"failed: criu: (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds"},
		{rlimit + "(01.510341)      1: Error (criu/files-reg.c:2175): File count\x1b has bad size 4 (expect 0)\n" +
			"(01.546794) Error (criu/cr-restore.c:2324): Restoring FAILED.\n",
			"failed: criu: (criu/files-reg.c:2175): File count\u241b has bad size 4 (expect 0)"},
	} {
		image := t.TempDir()
		if err := os.WriteFile(filepath.Join(image, "dump.log"), []byte(c.log), 0600); err != nil {
			t.Fatal(err)
		}
		if err := criuSaid(errors.New("failed"), image, "dump.log"); err.Error() != c.want {
			t.Errorf("%q, want %q", err, c.want)
		}
	}
}
