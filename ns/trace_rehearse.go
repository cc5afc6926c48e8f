package ns

import (
	"context"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// hurry lets no other process come between this one and the one that it will have stopped, where that is allowed. They
// take turns on one processor: to wake the other takes longer than all else. A real-time priority would be no help: the
// kernel then gives the process another processor.
func (t *tracer) hurry() {
	unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Nice: -20, Runtime: 100e3}, 0) // the shortest slice there is; before 6.12 the usual one
	os.WriteFile("/proc/self/autogroup", []byte("-20"), 0)                                          // it leads a session, which competes with others
	if st, err := t.stat(t.lead.tid); err == nil {
		var cpus unix.CPUSet
		cpus.Set(st.Processor)
		unix.SchedSetaffinity(0, &cpus)
	}
}

// rehearse does what can be done of the change while the process runs: then nothing of this program, of the kernel and of
// the memory that is needed of the process has still to be brought in when it is stopped. That is two thirds of the time.
func (t *tracer) rehearse() error {
	old, err := t.m.snapshot(t.lead.tid)
	if err != nil {
		return t.p.verify("ns", err)
	}
	defer old.close()
	if err := t.open(); err != nil {
		return err
	}
	if mem := t.lead.mem; mem.clear(mem.free) != nil { // this kernel does not let it
		mem.home = 0
	} else {
		mem.dirty = 0
	}
	plan := new(Plan)
	t.m.plan(plan, old.carrier(t.lead.tid, 1))
	for range 2 {
		plan.bytes(0, 1)
	}
	t.lead.goHome(0)
	t.verify(old)
	t.practise()
	return nil
}

// open opens what is looked at when the process is stopped.
func (t *tracer) open() (err error) {
	if t.lead.mem, err = openMemory(t.lead.tid); err != nil {
		return t.p.verify("mem", err)
	}
	if t.taskDir, err = openFile(t.p.path("task"), unix.O_PATH|unix.O_DIRECTORY); err != nil {
		return t.p.verify("task", err)
	}
	if t.fds, err = openFile(t.path(t.lead.tid, "fd"), unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
		return t.p.verify("fd", err)
	}
	return nil
}

// practise does the same to a process that there is only for this. What goes wrong with it goes wrong again, or does not
// matter.
func (t *tracer) practise() {
	stub, err := new(Opt).start(context.Background())
	if err != nil {
		return
	}
	defer waitEnd(stub.Pidfd)
	defer unix.PidfdSendSignal(stub.Pidfd, unix.SIGKILL, nil, 0)
	p, err := FromFD(stub.Pidfd)
	if err != nil {
		return
	}
	m := *t.m
	m.Join = nil // it would be another's guest
	// These are slow, and what is slow is so again.
	m.Unshare = slices.DeleteFunc(slices.Clone(m.Unshare), func(kind string) bool { return kind == "net" || kind == "user" })
	d := &tracer{p: p, m: &m, threads: make(map[int]*tracee)}
	if d.seize([]int{p.pid}) != nil {
		return
	}
	d.lead = d.threads[p.pid]
	if d.open() == nil && d.stop() == nil {
		d.change()
	}
	d.release()
}
