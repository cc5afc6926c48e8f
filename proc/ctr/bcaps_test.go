package ctr

import (
	"fmt"
	"strings"
	"testing"

	"ctrfs/fs"
	"ctrfs/ns"
)

// Each capability of the kernel can be taken from a container and, where the server has it, given to it; what is started in it
// has the same, and the file says so.
func TestBcaps(t *testing.T) {
	root := newSession(t)
	check := leaks(t, root)
	for _, s := range []*session{root, root.as(fs.Client{Uid: 4321, Gid: 4321})} {
		c, err := s.set.make(s.Ctx, "c") // past the mode of the directory, which is root's
		if err != nil {
			t.Fatal(err)
		}
		s.Write("c/args", "/bin/sleep 1000")
		possible, err := c.spec.possible()
		if err != nil {
			t.Fatal(err)
		}
		want := ns.DefaultCaps
		for n, word := range ns.KernelCaps().Words() {
			bit := ns.CapSet(1) << n
			want ^= bit
			err := error(nil)
			switch {
			case want&bit == 0:
				err = s.Echo("c/bcaps", "~CAP_"+strings.ToUpper(word))
			case n < 31:
				err = s.Echo("c/bcaps", fmt.Sprintf("%#x/%x", uint64(bit), uint64(bit)))
			default:
				err = s.Echo("c/bcaps", word)
			}
			if !possible.Has(want & bit) {
				if err == nil || !strings.HasSuffix(err.Error(), ": permission denied") {
					t.Errorf("%s, which the server has not: %v", word, err)
				}
				want ^= bit
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", word, err)
			}
			if n%4 != 0 && testing.Short() {
				continue
			}
			s.Write("c/ctl", "start")
			st, err := c.run.job.Process().Status()
			if err != nil {
				t.Fatal(err)
			}
			if ns.CapSet(st.CapBnd) != want || ns.CapSet(st.CapEff) != want || ns.CapSet(st.CapPrm) != want || st.CapInh|st.CapAmb != 0 {
				t.Errorf("%s: %+v, want %x", word, st, uint64(want))
			}
			if got := s.Read("c/bcaps"); got != strings.Join(want.Words(), "\n")+"\n" {
				t.Errorf("%s: running, bcaps %q", word, got)
			}
			if n%16 == 0 {
				h := s.clone("c")
				s.Say(h, "label in\nexec grep CapEff: /proc/self/status")
				if got := s.Read("c/proc/in/stdout"); got != fmt.Sprintf("CapEff:\t%016x\n", uint64(want)) {
					t.Errorf("%s: started in it: %q, want %x", word, got, uint64(want))
				}
				s.Read("c/proc/in/wait")
				h.Close(s.Ctx)
			}
			s.Write("c/ctl", "kill")
			s.Read("c/wait")
		}
		if err := c.delete(s.Ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	check()
}

// A line is done whole or not at all, and its last word about a capability counts.
func TestBcapsLine(t *testing.T) {
	s := newSession(t)
	s.Mkdir("c")
	c := s.set.names["c"]
	for _, l := range []struct {
		line, err string
		want      ns.CapSet
	}{
		{"~kill,~chown mknod", "", ns.DefaultCaps &^ (1<<5 | 1<<0)},
		{"~kill frob", `bcaps: no such capability: "frob"`, ns.DefaultCaps},
		{"~kill 63", `bcaps: this kernel has no "63"`, ns.DefaultCaps},
		{"~kill context", errNoContext.Error(), ns.DefaultCaps},
		{"~context", "", ns.DefaultCaps},
		{"~kill kill", "", ns.DefaultCaps},
		{"kill ~kill", "", ns.DefaultCaps &^ (1 << 5)},
		{"0/20", "", ns.DefaultCaps &^ (1 << 5)},
		{"0x80000000/0x80000000", errNoContext.Error(), ns.DefaultCaps},
		{"0/ffffffffffffffff", "", 1 << 31}, // libvserver's words end before setfcap
		{"0/ffffffffffffffff 20/20", "", 1<<31 | 1<<5},
		{"100000000/100000000", "bcaps: not bits of a capability: 0x100000000", ns.DefaultCaps},
		{"1/", `bcaps: not FLAGS/MASK: "1/"`, ns.DefaultCaps},
		{"-1/1", `bcaps: not FLAGS/MASK: "-1/1"`, ns.DefaultCaps},
	} {
		c.spec.caps = ns.DefaultCaps
		err := s.Echo("c/bcaps", l.line)
		if (err == nil) != (l.err == "") || err != nil && err.Error() != l.err || c.spec.caps != l.want {
			t.Errorf("%q: %v, %q; want %q, %q", l.line, err, c.spec.caps, l.err, l.want)
		}
	}
	s.Rmdir("c")
}
