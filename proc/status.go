package proc

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// states are the kernel's letters in words.
var states = map[byte]string{'R': "running", 'S': "sleeping", 'D': "disk", 'T': "stopped", 't': "traced", 'Z': "zombie", 'X': "exited", 'I': "sleeping"}

// status is `key value` a line.
func (p *Proc) status(ctx context.Context) (string, error) {
	var b strings.Builder
	line := func(key, value string) { fmt.Fprintf(&b, "%s %s\n", key, value) }
	exit, ended := ns.Exited(p.Process)
	st, err := p.Process.Stat()
	var more ns.Status
	if err == nil {
		more, err = p.Process.Status()
	}
	switch {
	case err == nil:
		p.living(line, st, more)
	case p.job != nil && ended:
		p.dead(line, exit)
	default:
		return "", err
	}
	name, xid := p.container(ctx)
	line("ctr", fs.Quote(name))
	line("xid", strconv.Itoa(int(xid)))
	label := ""
	if p.job != nil {
		p.space.Processes.mu.Lock()
		label = p.job.label
		p.space.Processes.mu.Unlock()
	}
	line("label", fs.Quote(label))
	if ended {
		line("exit", code(exit))
		line("exitedat", fs.Time(exit.At))
	}
	return b.String(), nil
}

func (p *Proc) living(line func(key, value string), st ns.Stat, more ns.Status) {
	state := states[st.State]
	if p.isParked() {
		state = "parked"
	}
	start := bootTime().Add(ticks(st.Start))
	line("name", fs.Quote(st.Name))
	line("pid", strconv.Itoa(p.Pid()))
	line("nspid", strconv.Itoa(more.NSPid[len(more.NSPid)-1]))
	line("ppid", strconv.Itoa(st.Ppid))
	line("user", fs.Quote(ns.UserName(more.Uid[1])))
	line("group", fs.Quote(ns.GroupName(more.Gid[1])))
	line("state", state)
	line("threads", strconv.Itoa(st.Threads))
	line("start", fs.Time(start))
	line("utime", ms(ticks(st.Utime)))
	line("stime", ms(ticks(st.Stime)))
	line("rtime", ms(time.Since(start)))
	line("rss", strconv.FormatInt(st.RSS*int64(os.Getpagesize()), 10))
}

// dead is what is left of a process that was started here.
func (p *Proc) dead(line func(key, value string), exit ns.Exit) {
	record := exit.Record(p.Pid())
	user := p.job.cred()
	line("name", "-")
	line("pid", strconv.Itoa(p.Pid()))
	line("nspid", strconv.Itoa(p.job.inside))
	line("ppid", "-")
	line("user", fs.Quote(ns.UserName(user.Uid)))
	line("group", fs.Quote(ns.GroupName(user.Gid)))
	line("state", "exited")
	line("threads", "-")
	line("start", "-")
	line("utime", record[1])
	line("stime", record[2])
	line("rtime", record[3])
	line("rss", "-")
}

func ms(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// ticks are hundredths of a second: USER_HZ is 100 wherever Go runs.
func ticks(n uint64) time.Duration { return time.Duration(n) * (time.Second / 100) }

// bootTime is when the machine started, by the clock as it goes now.
func bootTime() time.Time {
	var up unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) // cannot fail
	return time.Now().Add(-time.Duration(up.Nano()))
}
