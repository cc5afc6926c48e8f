package ctr

import (
	"encoding/json"
	"reflect"
	"testing"

	"ctrfs/ns"
	"ctrfs/proc/ctr/image"
)

// Whatever a container has been told to be, the next server knows.
func TestKeptSpec(t *testing.T) {
	if a, b := reflect.TypeFor[spec](), reflect.TypeFor[keptSpec](); a.NumField() != b.NumField() {
		t.Errorf("%d fields are kept, of %d", b.NumField(), a.NumField())
	}
	s := spec{
		args: []string{"a", ""}, env: []string{"b=c"}, cwd: "d", user: "e", hostname: "f", domainname: "g", rootfs: []string{"h"},
		caps: 5, spaces: map[string]string{"net": "host"}, limits: []limit{{"i", "j"}}, mounts: []mount{{"k", "l", "m", "n"}},
		tty: &ns.Winsize{Cols: 1, Rows: 2}, labels: []label{{"o", "p\n"}},
		noNewPrivs: true, readonly: true, oom: new(int), bundle: "q", runtime: "r", image: &image.Config{User: "s"}, rlimits: []ns.Limit{{Name: "nofile", Soft: 1, Hard: 2}},
		flags: 1 << 52, ccaps: 6, names: map[string]string{"release": "7"}, helper: []string{"q"}, loop: "loop1",
	}
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("the test has nothing for %s", v.Type().Field(i).Name)
		}
	}
	b, err := json.Marshal(s.kept())
	if err != nil {
		t.Fatal(err)
	}
	var k keptSpec
	if err := json.Unmarshal(b, &k); err != nil {
		t.Fatal(err)
	}
	if got := k.spec(); !reflect.DeepEqual(got, s) {
		t.Errorf("%+v, want %+v", got, s)
	}
}
