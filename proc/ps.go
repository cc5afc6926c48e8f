package proc

import (
	"context"
	"fmt"
	"os"
	"strings"

	"ctrfs/fs"
	"ctrfs/ns"
)

// PS is a line for each process that the client may see: PID PPID USER STATE RSS UTIME STIME CTR ARGS.
func (s *Space) PS(ctx context.Context) (string, error) {
	var b strings.Builder
	err := s.each(ctx, func(p *Proc) {
		if line, err := p.ps(ctx); err == nil { // else it has ended
			b.WriteString(line)
		}
	})
	return b.String(), err
}

func (p *Proc) ps(ctx context.Context) (string, error) {
	st, err := p.Process.Stat()
	if err != nil {
		return "", err
	}
	state := states[st.State]
	if p.isParked() {
		state = "parked"
	}
	var args []string
	if !fs.ClientOf(ctx).None {
		args, _ = p.Process.Args() // it may end meanwhile
	}
	uid, _ := p.Owner()
	name, _ := p.container(ctx)
	line := fmt.Sprintf("%d %d %s %s %d %s %s %s %s", st.Pid, st.Ppid, fs.Quote(ns.UserName(uid)), state,
		st.RSS*int64(os.Getpagesize()), ms(ticks(st.Utime)), ms(ticks(st.Stime)), fs.Quote(name), fs.Words(args...))
	return strings.TrimSuffix(line, " ") + "\n", nil // the kernel's threads have no arguments
}
