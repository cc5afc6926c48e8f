package ns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Plan is a list of system calls with their arguments, carried out in order by a process
// that does nothing else: a Parked one. The first call that fails ends the plan.
type Plan struct {
	steps []*Step
	files []int    // sent with the plan, in the order of their steps
	given *os.File // what a step of it gave us
	done  int      // how many steps succeeded when it was last run
}

// A Step is one system call of a Plan.
type Step struct {
	what   string
	nr     uint64
	args   []any
	flags  uint64
	uses   []uint64 // addresses that the result is copied to, while the plan is laid out
	result int64
}

// Flags of a step, as the interpreter knows them.
const (
	stepTry   = 1 << iota // go on after an error
	stepSplit             // answer and end unless the result is 0
	stepLoad              // no call: the result is the int32 at the address a0
)

// Do appends the system call nr. what names it with its object, as the error of its failure
// will: `mount "/srv/x"`. An argument is a number; a string or bytes, passed as their
// address; a []string, passed as a list that ends in a null pointer; an []any, passed as the
// address of a structure of 64-bit words, each an argument again; or a former step, which
// stands for its result, -1 if that step failed.
func (p *Plan) Do(what string, nr uintptr, args ...any) *Step {
	s := &Step{what: what, nr: uint64(nr), args: args}
	p.steps = append(p.steps, s)
	return s
}

// Send sends the descriptor fd in the same message as the plan. The step's result is its
// number in the process that carries out the plan, the lowest free one, close-on-exec.
// The descriptor must stay open until the plan has been run.
func (p *Plan) Send(fd int) *Step {
	s := &Step{what: "receive a descriptor", flags: stepLoad, args: []any{uint64(stubControl + 16 + 4*len(p.files))}}
	p.files = append(p.files, fd)
	p.steps = append(p.steps, s)
	return s
}

// A shared argument is laid out once, however many steps have it.
type shared struct {
	value any
	in    *layout
	at    uint64
}

func (p *Plan) share(a any) *shared { return &shared{value: a} }

// Try lets the plan go on when the step fails.
func (s *Step) Try() *Step { s.flags |= stepTry; return s }

// Split is for a step that makes a child with the parent's open descriptors (fork, clone3):
// the child goes on with the plan, the parent ends with status 127.
func (s *Step) Split() *Step { s.flags |= stepSplit; return s }

// Result gives what the call returned when the plan was last run.
func (s *Step) Result() int { return int(s.result) }

// Err gives the error of the step when the plan was last run.
func (s *Step) Err() error {
	if s.result >= 0 || s.result < -4095 {
		return nil
	}
	return fmt.Errorf("%s: %w", s.what, unix.Errno(-s.result))
}

// The layout of a plan for the interpreter: entries of ten words (number, six arguments, flags,
// address of a list of uses that ends in 0, result), one whose number is -1, then the data.
const (
	entrySize  = 80
	entryArgs  = 8
	entryFlags = 56
	entryUses  = 64
	entryRes   = 72
)

var (
	le              = binary.LittleEndian
	errPlanTooLong  = errors.New("plan too long")
	errTooManyFiles = errors.New("plan has too many descriptors")
)

// layout writes the data of a plan, which stand at address at.
type layout struct {
	at   uint64
	data []byte
	err  error // a string that would be cut short
}

func (l *layout) put(b ...byte) uint64 {
	a := l.at + uint64(len(l.data))
	l.data = append(l.data, b...)
	l.data = append(l.data, make([]byte, -len(b)&7)...)
	return a
}

// words puts a structure of arguments.
func (l *layout) words(args []any) uint64 {
	w := make([]byte, 8*len(args))
	for i, a := range args {
		le.PutUint64(w[8*i:], l.value(a))
	}
	at := l.put(w...)
	for i, a := range args {
		if s, ok := a.(*Step); ok {
			s.uses = append(s.uses, at+uint64(8*i))
		}
	}
	return at
}

func (l *layout) value(a any) uint64 {
	switch a := a.(type) {
	case int:
		return uint64(a)
	case uint32:
		return uint64(a)
	case uint64:
		return a
	case uintptr:
		return uint64(a)
	case string:
		if strings.IndexByte(a, 0) >= 0 {
			l.err = fmt.Errorf("%q: %w", a, unix.EINVAL)
		}
		return l.put(append([]byte(a), 0)...)
	case []byte:
		return l.put(a...)
	case []string:
		w := make([]any, len(a)+1)
		for i, s := range a {
			w[i] = s
		}
		w[len(a)] = 0
		return l.words(w)
	case []any:
		return l.words(a)
	case *shared:
		if a.in != l {
			a.in, a.at = l, l.value(a.value)
		}
		return a.at
	case *Step:
		return ^uint64(0)
	}
	panic(fmt.Sprintf("ns: argument of type %T in a plan", a)) // a mistake of the program, not of a user
}

// bytes lays the plan out for a table at address at, its data at dataAt, or behind the table if
// that is 0.
func (p *Plan) bytes(at, dataAt uint64) (table, data []byte, err error) {
	table = make([]byte, entrySize*(len(p.steps)+1))
	if dataAt == 0 {
		dataAt = at + uint64(len(table))
	}
	l := &layout{at: dataAt}
	for _, s := range p.steps {
		s.uses = s.uses[:0]
	}
	for i, s := range p.steps {
		e := table[i*entrySize:]
		le.PutUint64(e, s.nr)
		for j, a := range s.args {
			o := entryArgs + 8*j
			le.PutUint64(e[o:], l.value(a))
			if from, ok := a.(*Step); ok {
				from.uses = append(from.uses, at+uint64(i*entrySize+o))
			}
		}
		le.PutUint64(e[entryFlags:], s.flags)
	}
	for i, s := range p.steps {
		if len(s.uses) > 0 {
			w := make([]byte, 0, 8*len(s.uses)+8)
			for _, a := range s.uses {
				w = le.AppendUint64(w, a)
			}
			le.PutUint64(table[i*entrySize+entryUses:], l.put(le.AppendUint64(w, 0)...))
		}
	}
	le.PutUint64(table[len(p.steps)*entrySize:], ^uint64(0))
	return table, l.data, l.err
}

// failed says whether it was at this step that the plan ended, or at a later one.
func (p *Plan) failed(s *Step) (at, later bool) {
	i := slices.Index(p.steps, s)
	return i >= 0 && i == p.done, i >= 0 && i < p.done
}

// take reads the results out of a table that came back, and gives the error of the step that
// ended it.
func (p *Plan) take(table []byte) error {
	n := len(table)/entrySize - 1
	p.done = max(n, 0)
	for i, s := range p.steps[:min(n+1, len(p.steps))] {
		s.result = int64(le.Uint64(table[i*entrySize+entryRes:]))
	}
	if n < 0 || n > len(p.steps) {
		return fmt.Errorf("reply of %d bytes to a plan of %d steps", len(table), len(p.steps))
	}
	if n < len(p.steps) {
		return p.steps[n].Err()
	}
	return nil
}
