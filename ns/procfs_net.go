package ns

import (
	"fmt"
	"strconv"
	"strings"
)

// A Link is what went through a network interface, as /proc/PID/net/dev has it. See netdevice(7).
type Link struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Links gives the interfaces of the process's network namespace.
func (p *Process) Links() ([]Link, error) {
	text, err := p.read("net/dev", maxFDs)
	if err != nil {
		return nil, err
	}
	return parseLinks(string(text))
}

func parseLinks(text string) (all []Link, err error) {
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !ok || len(f) == 0 { // the two lines of the head have none
			continue
		}
		l := Link{Name: strings.TrimSpace(name)}
		if len(f) < 16 {
			return nil, fmt.Errorf("not a line of net/dev: %q", line)
		}
		for i, to := range map[int]*uint64{0: &l.RxBytes, 1: &l.RxPackets, 2: &l.RxErrors, 3: &l.RxDropped,
			8: &l.TxBytes, 9: &l.TxPackets, 10: &l.TxErrors, 11: &l.TxDropped} {
			if *to, err = strconv.ParseUint(f[i], 10, 64); err != nil {
				return nil, fmt.Errorf("not a line of net/dev: %q", line)
			}
		}
		all = append(all, l)
	}
	return all, nil
}
