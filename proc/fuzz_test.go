package proc

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	spec "github.com/opencontainers/runtime-spec/specs-go"

	"ctrfs/ctl"
	"ctrfs/fs"
)

// Whatever words are shown, they are read as the same words again, as far as they can be shown; in one line.
func FuzzWords(f *testing.F) {
	f.Add("it's", "", "a b\nc\x00\x7f\u2028\xff")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		in := []string{a, b, c}
		line := fs.Words(in...)
		if strings.ContainsAny(line, "\n\r\x00\x1b\u2028") {
			t.Errorf("shown as %q", line)
		}
		out, err := ctl.Words(line)
		for i := range in {
			in[i] = fs.Clean(in[i])
		}
		if err != nil || !slices.Equal(in, out) {
			t.Errorf("%q is shown as %q and read as %q, %v", in, line, out, err)
		}
	})
}

// Nobody becomes root, or -1, by what a database of a foreign root says of a number that is none, and no text is too much.
func FuzzFindUser(f *testing.F) {
	f.Add("root:x:0:0::/:/bin/sh\nweb:x:33:34::/:\n", "adm:x:4:web,x\n", "web:adm,5")
	f.Add("4294967296:x:0:0::/:\n99999999999:x:0:0::/:\n-1:x:0:0::/:\n:x:0:0::\n", ":::\n", "4294967296")
	f.Add(strings.Repeat("x", 70000), strings.Repeat("a:", 10000), "1000")
	dir := f.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0755); err != nil {
		f.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { root.Close() })
	f.Fuzz(func(t *testing.T, passwd, group, who string) {
		for name, text := range map[string]string{"passwd": passwd, "group": group} {
			if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0644); err != nil {
				t.Fatal(err)
			}
		}
		c, err := FindUser(root, who)
		if err != nil {
			return
		}
		for _, id := range append([]uint32{c.Uid, c.Gid}, c.Groups...) {
			if id > 1<<31-1 {
				t.Errorf("%q is %+v", who, c)
			}
		}
		name, _, _ := strings.Cut(who, ":")
		if decimal.MatchString(name) && strings.Trim(name, "0") != "" && c.Uid == 0 {
			t.Errorf("%q is root", who)
		}
	})
}

// What a config says in messages says the same once they are read, and what is no config is refused.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"cwd":"/a b","args":["x"],"env":["A='b\nc'"],"user":{"uid":1,"gid":2,"umask":18,"additionalGids":[3]},"terminal":true,"rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":2}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var in spec.Process
		if json.Unmarshal(text, &in) != nil {
			return
		}
		msg, err := messages(&in)
		if err != nil {
			return
		}
		lines, err := ctl.Split(msg)
		if err != nil {
			t.Fatalf("%q: %v", msg, err)
		}
		envs := 0
		for _, l := range lines {
			if l.Words[0] == "env" {
				if envs < len(in.Env) && (len(l.Words) != 2 || l.Words[1] != in.Env[envs]) {
					t.Errorf("env %q is %q", in.Env[envs], l.Words)
				}
				envs++
			}
			if l.Words[0] == "dir" && l.Words[1] != in.Cwd {
				t.Errorf("cwd %q is %q", in.Cwd, l.Words)
			}
		}
		if envs != len(in.Env) {
			t.Errorf("%d of %d variables", envs, len(in.Env))
		}
	})
}
