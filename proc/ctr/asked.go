package ctr

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ctrfs/ns"
)

// Calls that Linux-VServer answered otherwise than Linux does are answered here, as the words of flags and ccaps and the fields of
// uname are now. What is decided about memory of the caller's is also done here: while the kernel would do it
// the memory could be changed.

const listenerPrefix = "listener "

// hear begins to answer the calls of processes that f hears.
func (c *Ctr) hear(r *run, f *os.File) error {
	l, err := ns.NewListener(f, nil)
	if err != nil {
		return err
	}
	name := fmt.Sprint(listenerPrefix, c.id, " ", time.Now().UnixNano())
	file, memo := l.Files()
	if err := c.set.Processes.Keeper.Hold(name, nil, false, nil, file, memo); err != nil {
		l.Close()
		return err
	}
	go c.serve(r, l, name)
	return nil
}

// serve answers until nobody is there who could ask.
func (c *Ctr) serve(r *run, l *ns.Listener, name string) {
	if err := l.Serve(func(call *ns.Call) { c.answer(r, call) }); err != nil {
		c.set.Log.Error("listen", "ctr", c.Name(), "error", err)
	}
	c.set.Processes.Keeper.Drop(name)
	l.Close()
}

// hearAgain goes on with what the keeper has held.
func (cs *Containers) hearAgain(all map[string]*Ctr) {
	for _, h := range cs.Processes.Keeper.Held() {
		rest, ok := strings.CutPrefix(h.Name, listenerPrefix)
		if !ok {
			continue
		}
		id, _, _ := strings.Cut(rest, " ")
		err := errors.New("of no container")
		if c := all[id]; c != nil && c.run != nil && c.run.job != nil && len(h.Files) == 2 && h.Files[0] != nil && h.Files[1] != nil {
			var l *ns.Listener
			if l, err = ns.NewListener(h.Files[0], h.Files[1]); err == nil {
				go c.serve(c.run, l, h.Name)
			}
		}
		if err != nil {
			cs.Processes.Keeper.Drop(h.Name)
			cs.Log.Error("take up", "held", h.Name, "error", err)
		}
	}
}

// answer answers a call.
func (c *Ctr) answer(r *run, call *ns.Call) {
	c.mu.Lock()
	flags, caps, names := c.spec.flags, c.spec.ccaps, c.spec.names
	c.mu.Unlock()
	ask := &asking{c, r, call}
	may := func(bit uint64) bool { return caps&bit != 0 && ask.root() }
	switch call.What {
	case "uname":
		if len(names) > 0 {
			call.End(c.answerUname(r, call, names))
			return
		}
	case "sysinfo":
		if flags&virtMem != 0 {
			call.End(ask.sysinfo())
			return
		}
	case "setrlimit", "prlimit64":
		if may(setRlimit) {
			call.End(ask.rlimit())
			return
		}
	case "setpriority":
		if flags&ignegNice != 0 && ask.raises() {
			call.Return(0)
			return
		}
	case "reboot":
		if flags&rebootKill == 0 {
			call.End(ask.reboot())
			return
		}
	case "socket":
		if c.set.config().RawICMP && may(rawICMP) && ask.socket() {
			return
		}
	default:
		call.End(ask.privileged(may))
		return
	}
	call.Continue() // the kernel has the last word about it
}

// An asking is a call of a container's process.
type asking struct {
	*Ctr
	r *run
	*ns.Call
}

// privileged answers what the filter would have refused.
func (a *asking) privileged(may func(uint64) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), mountTime)
	defer cancel()
	switch a.What {
	case "sethostname", "setdomainname":
		if may(setUtsname) {
			return a.setName()
		}
	case "syslog":
		if may(syslogCap) { // there is a log, which is empty
			return nil
		}
	case "mount":
		return a.mount(ctx, may)
	case "umount", "umount2":
		if may(secureMount) {
			return a.unmount(ctx)
		}
	case "quotactl_fd":
		if may(quotaCtl) {
			return a.quota()
		}
	}
	return unix.EPERM
}

// status is what the kernel tells of who calls.
func (a *asking) status() (st ns.Status, err error) {
	p, err := a.Process()
	if err != nil {
		return st, err
	}
	defer p.Close()
	return p.Status()
}

// root says whether the container's root calls.
func (a *asking) root() bool {
	st, err := a.status()
	want := uint32(0)
	if a.r.spec.Flags&unix.CLONE_NEWUSER != 0 {
		want = a.owner.Uid
	}
	return err == nil && st.Uid[1] == want
}

// own says whether who calls is in the name space of a kind that the container has of its own.
func (a *asking) own(p *ns.Process, kind string) error {
	flag := map[string]uint64{"uts": unix.CLONE_NEWUTS, "net": unix.CLONE_NEWNET}[kind]
	theirs, err := p.Namespace(kind)
	first, e := a.r.job.Process().Namespace(kind)
	if err = errors.Join(err, e); err == nil && (a.r.spec.Flags&flag == 0 || theirs != first) {
		err = unix.EPERM
	}
	return err
}

// setName is sethostname(2) and setdomainname(2).
func (a *asking) setName() error {
	n := a.Arg(1)
	if n > nameMax {
		return unix.EINVAL
	}
	b, err := a.Read(a.Arg(0), int(n))
	if err != nil {
		return err
	}
	p, err := a.Process()
	if err != nil {
		return err
	}
	defer p.Close()
	if err := a.own(p, "uts"); err != nil {
		return err
	}
	if a.What == "sethostname" {
		return ns.SetHostname(p, string(b))
	}
	return ns.SetDomainname(p, string(b))
}

// rlimit is setrlimit(2) and prlimit(2).
func (a *asking) rlimit() error {
	pid, resource, at, old := a.Pid(), int(a.Arg(0)), a.Arg(1), uint64(0)
	if a.What == "prlimit64" {
		resource, at, old = int(a.Arg(1)), a.Arg(2), a.Arg(3)
		if n := int(int32(a.Arg(0))); n != 0 {
			var err error
			if pid, err = a.outside(context.Background(), n); err != nil || pid == 0 {
				return unix.ESRCH
			}
		}
	}
	var limit, was unix.Rlimit
	if a.Narrow() && a.What == "setrlimit" {
		b, err := a.Read(at, 8)
		if err != nil {
			return err
		}
		wide := func(n uint32) uint64 {
			if n == ^uint32(0) {
				return ns.Unlimited
			}
			return uint64(n)
		}
		limit = unix.Rlimit{Cur: wide(binary.NativeEndian.Uint32(b)), Max: wide(binary.NativeEndian.Uint32(b[4:]))}
	} else {
		b, err := a.Read(at, 16)
		if err != nil {
			return err
		}
		limit = unix.Rlimit{Cur: binary.NativeEndian.Uint64(b), Max: binary.NativeEndian.Uint64(b[8:])}
	}
	if err := unix.Prlimit(pid, resource, &limit, &was); err != nil || old == 0 {
		return err
	}
	return a.Write(old, binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, was.Cur), was.Max))
}

// Which of setpriority(2).
const prioProcess = 0

// raises says that setpriority(2) would be refused because it wants a lower niceness than there is.
func (a *asking) raises() bool {
	which, who, nice := int(a.Arg(0)), int(int32(a.Arg(1))), int(int32(a.Arg(2)))
	st, err := a.status()
	if err != nil || st.CapEff&(1<<unix.CAP_SYS_NICE) != 0 {
		return false
	}
	if which != prioProcess {
		return nice < 0
	}
	pid := a.Pid()
	if who != 0 {
		if pid, err = a.outside(context.Background(), who); err != nil || pid == 0 {
			return false
		}
	}
	p, err := ns.Open(pid)
	if err != nil { // another thread than the first
		return nice < 0
	}
	defer p.Close()
	now, err := p.Stat()
	return err == nil && max(nice, -20) < now.Nice
}

// reboot is reboot(2) in a container that it does not end: the helper is told.
func (a *asking) reboot() error {
	st, err := a.status()
	switch {
	case err != nil:
		return err
	case st.CapEff&(1<<unix.CAP_SYS_BOOT) == 0:
		return unix.EPERM
	case uint32(a.Arg(0)) != unix.LINUX_REBOOT_MAGIC1:
		return unix.EINVAL
	}
	what := map[uint32]string{
		unix.LINUX_REBOOT_CMD_RESTART: "restart", unix.LINUX_REBOOT_CMD_RESTART2: "restart",
		unix.LINUX_REBOOT_CMD_HALT: "halt", unix.LINUX_REBOOT_CMD_POWER_OFF: "poweroff",
	}[uint32(a.Arg(2))]
	if what == "" {
		return unix.EINVAL
	}
	if !a.r.helping.CompareAndSwap(false, true) {
		return unix.EAGAIN
	}
	go func() {
		defer a.r.helping.Store(false)
		a.helps(what)
	}()
	return nil
}

// socket is socket(2), for a raw socket of ICMP; false: it is for another.
func (a *asking) socket() bool {
	domain, kind, protocol := int(a.Arg(0)), int(a.Arg(1)), int(a.Arg(2))
	if domain == unix.AF_INET && protocol != unix.IPPROTO_ICMP || domain == unix.AF_INET6 && protocol != unix.IPPROTO_ICMPV6 {
		return false
	}
	p, err := a.Process()
	if err != nil {
		a.End(err)
		return true
	}
	defer p.Close()
	if err := a.own(p, "net"); err != nil {
		a.End(err)
		return true
	}
	fd, err := ns.SocketIn(p, domain, kind, protocol)
	if err != nil {
		a.End(err)
		return true
	}
	a.Give(fd, kind&unix.SOCK_CLOEXEC != 0)
	unix.Close(fd)
	return true
}

// sysinfo is sysinfo(2) with the container's memory.
func (a *asking) sysinfo() error {
	var machine unix.Sysinfo_t
	if err := unix.Sysinfo(&machine); err != nil {
		return err
	}
	total, used, swap, err := a.memory(a.r)
	if err != nil {
		return err
	}
	uptime := machine.Uptime
	if a.r.spec.Boot != 0 {
		uptime += int64(a.r.spec.Boot.Seconds())
	}
	const page = 4096
	put := binary.NativeEndian
	if a.Narrow() {
		b := make([]byte, 64)
		for i, n := range []uint64{uint64(uptime), machine.Loads[0], machine.Loads[1], machine.Loads[2],
			total / page, (total - used) / page, 0, 0, swap / page, swap / page} {
			put.PutUint32(b[4*i:], uint32(n))
		}
		put.PutUint16(b[40:], machine.Procs)
		put.PutUint32(b[52:], page)
		return a.Write(a.Arg(0), b)
	}
	b := make([]byte, 112)
	for i, n := range []uint64{uint64(uptime), machine.Loads[0], machine.Loads[1], machine.Loads[2], total, total - used, 0, 0, swap, swap} {
		put.PutUint64(b[8*i:], n)
	}
	put.PutUint16(b[80:], machine.Procs)
	put.PutUint32(b[104:], 1)
	return a.Write(a.Arg(0), b)
}
