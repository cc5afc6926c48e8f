package ns

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Unlimited is a limit that is none.
const Unlimited = uint64(unix.RLIM_INFINITY & (1<<64 - 1))

// A Limit is a resource limit. See getrlimit(2) for the units.
type Limit struct {
	Name       string
	Soft, Hard uint64
}

// rlimits are getrlimit(2)'s names, by number, with the words of /proc/PID/limits.
var rlimits = [16]struct{ name, label string }{
	unix.RLIMIT_CPU:     {"cpu", "Max cpu time"},
	unix.RLIMIT_FSIZE:   {"fsize", "Max file size"},
	unix.RLIMIT_DATA:    {"data", "Max data size"},
	unix.RLIMIT_STACK:   {"stack", "Max stack size"},
	unix.RLIMIT_CORE:    {"core", "Max core file size"},
	unix.RLIMIT_RSS:     {"rss", "Max resident set"},
	unix.RLIMIT_NPROC:   {"nproc", "Max processes"},
	unix.RLIMIT_NOFILE:  {"nofile", "Max open files"},
	unix.RLIMIT_MEMLOCK: {"memlock", "Max locked memory"},
	unix.RLIMIT_AS:      {"as", "Max address space"},
	unix.RLIMIT_LOCKS:   {"locks", "Max file locks"},
	11:                  {"sigpending", "Max pending signals"},
	12:                  {"msgqueue", "Max msgqueue size"},
	13:                  {"nice", "Max nice priority"},
	14:                  {"rtprio", "Max realtime priority"},
	15:                  {"rttime", "Max realtime timeout"},
}

// Limits reads the process's resource limits.
func (p *Process) Limits() ([]Limit, error) {
	text, err := p.read("limits", maxText)
	if err != nil {
		return nil, err
	}
	limits, err := parseLimits(text)
	if err != nil {
		return nil, fmt.Errorf("process %d: limits: %w", p.pid, err)
	}
	return limits, nil
}

func parseLimits(text []byte) ([]Limit, error) {
	limits := make([]Limit, 0, len(rlimits))
	for _, r := range rlimits {
		f := bytes.Fields(field(text, r.label))
		if len(f) < 2 {
			return nil, fmt.Errorf("no line %q", r.label)
		}
		soft, err := ParseLimit(string(f[0]))
		if err != nil {
			return nil, err
		}
		hard, err := ParseLimit(string(f[1]))
		if err != nil {
			return nil, err
		}
		limits = append(limits, Limit{r.name, soft, hard})
	}
	return limits, nil
}

// ParseLimit reads a number or `unlimited`.
func ParseLimit(word string) (uint64, error) {
	if word == "unlimited" {
		return Unlimited, nil
	}
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("neither a number nor unlimited: %q", word)
	}
	return n, nil
}

// IsLimit says whether a limit is called so.
func IsLimit(name string) bool {
	return slices.ContainsFunc(rlimits[:], func(r struct{ name, label string }) bool { return r.name == name })
}

// SetLimit sets a limit of the process for c, as prlimit(2) would let c do it: c must be all of the process's user and
// group ids, and only root raises a hard limit. The kernel asks for the real uid, which no thread of ours may have (see
// As), so the call is made by a parked process of c's.
func (p *Process) SetLimit(ctx context.Context, c Cred, l Limit) error {
	resource := -1
	for i, r := range rlimits {
		if r.name == strings.ToLower(l.Name) {
			resource = i
		}
	}
	if resource < 0 {
		return fmt.Errorf("no such limit: %q", l.Name)
	}
	if l.Soft > l.Hard {
		return fmt.Errorf("limit %s: soft above hard: %w", l.Name, unix.EINVAL)
	}
	set := func() error {
		return unix.Prlimit(p.pid, resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil)
	}
	if euid := uint32(unix.Geteuid()); c.Uid != euid {
		if euid != 0 {
			return fs.ErrPermission
		}
		his, err := Park(ctx, Opt{Cred: &c})
		if err != nil {
			return err
		}
		defer his.End()
		set = func() error {
			return his.do(ctx, func(plan *Plan) {
				plan.Do("prlimit", unix.SYS_PRLIMIT64, p.pid, resource, []any{l.Soft, l.Hard}, 0)
			})
		}
	}
	if err := p.Check(); err != nil { // prlimit takes a number only; a reuse between here and there needs 4 million forks
		return err
	}
	err := set()
	switch {
	case errors.Is(err, unix.EPERM):
		err = fs.ErrPermission
	case errors.Is(err, unix.ESRCH):
		err = ErrExited
	case err != nil:
		err = fmt.Errorf("limit %s: %w", l.Name, err)
	}
	return cmp.Or(p.Check(), err)
}
