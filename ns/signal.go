package ns

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The real-time signals as the C library numbers them, which keeps 32 and 33 for itself.
const (
	rtMin = 34
	rtMax = 64
)

// SignalName is the name of a signal without SIG: `KILL`, `RTMIN+3`, or a number that has none.
func SignalName(sig syscall.Signal) string {
	if rtMin <= sig && sig <= rtMax {
		if sig == rtMin {
			return "RTMIN"
		}
		return "RTMIN+" + strconv.Itoa(int(sig-rtMin))
	}
	if name, ok := strings.CutPrefix(unix.SignalName(sig), "SIG"); ok {
		return name
	}
	return strconv.Itoa(int(sig))
}

// ParseSignal reads a signal's number or name, in any case, with or without SIG.
// 0 is one: it only asks whether the process is there. See kill(2).
func ParseSignal(word string) (syscall.Signal, error) {
	if n, err := strconv.ParseUint(word, 10, 8); err == nil && n <= rtMax {
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(word), "SIG")
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	for _, rt := range []struct {
		name string
		base int
	}{{"RTMIN", rtMin}, {"RTMAX", rtMax}} {
		rest, ok := strings.CutPrefix(name, rt.name)
		if !ok {
			continue
		}
		n, sign := 0, rest
		if rest != "" {
			var err error
			if n, err = strconv.Atoi(rest); err != nil || sign[0] != '+' && sign[0] != '-' {
				break
			}
		}
		if n += rt.base; rtMin <= n && n <= rtMax {
			return syscall.Signal(n), nil
		}
	}
	return 0, fmt.Errorf("no such signal: %q", word)
}

// notes are Plan 9's words for signals, as plan9port has them: kill is the note that a program may catch.
var notes = []struct {
	note string
	sig  syscall.Signal
}{
	{"hangup", unix.SIGHUP},
	{"interrupt", unix.SIGINT},
	{"quit", unix.SIGQUIT},
	{"alarm", unix.SIGALRM},
	{"kill", unix.SIGTERM},
	{"sys: kill", unix.SIGKILL},
	{"sys: write on closed pipe", unix.SIGPIPE},
	{"sys: breakpoint", unix.SIGTRAP},
	{"sys: abort", unix.SIGABRT},
	{"sys: fp: trap", unix.SIGFPE},
	{"sys: bus error", unix.SIGBUS},
	{"sys: segmentation violation", unix.SIGSEGV},
	{"sys: illegal instruction", unix.SIGILL},
	{"sys: stop", unix.SIGSTOP},
	{"sys: tstp", unix.SIGTSTP},
	{"sys: cont", unix.SIGCONT},
	{"sys: ttin", unix.SIGTTIN},
	{"sys: ttou", unix.SIGTTOU},
	{"sys: child", unix.SIGCHLD},
	{"sys: usr1", unix.SIGUSR1},
	{"sys: usr2", unix.SIGUSR2},
	{"sys: window size change", unix.SIGWINCH},
}

// Note is the note that stands for a signal; others are `sys: signal N`.
func Note(sig syscall.Signal) string {
	for _, n := range notes {
		if n.sig == sig {
			return n.note
		}
	}
	return "sys: signal " + strconv.Itoa(int(sig))
}

// ParseNote reads a note, or else a signal as ParseSignal does. The word kill is the note's TERM, KILL in
// capitals the signal.
func ParseNote(text string) (syscall.Signal, error) {
	for _, n := range notes {
		if n.note == text {
			return n.sig, nil
		}
	}
	word, ok := strings.CutPrefix(text, "sys: signal ")
	if !ok {
		word = text
	}
	if sig, err := ParseSignal(word); err == nil {
		return sig, nil
	}
	return 0, fmt.Errorf("unknown note: %q", text)
}
