package proc

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ctrfs/fs"
	"ctrfs/ns"
)

// A Job is a process that was started here: parked first, then a program, then a record of its end. Its fields are
// guarded by Processes.mu where nothing else is said.
type Job struct {
	proc    *ns.Process // immutable
	name    string      // immutable: what the keeper holds it by
	space   *Space      // immutable: where it was cloned
	inside  int         // immutable: its number there
	owner   uint32      // immutable: who cloned it
	account *fs.Account // immutable: his
	pinned  bool        // immutable: whoever started it ends its record
	began   func()      // immutable: called when the program of a pinned one runs

	over   chan struct{} // closed when its end is recorded, after whatever was to be told of its start
	turn   chan struct{} // immutable: has a token while somebody makes it carry out a plan, or ends it
	parked *ns.Parked    // nil once its program runs; changed only by who has the turn
	user   ns.Cred
	stdio  *Stdio   // changed only by who has the turn
	as     *ns.Cred // whom the program runs as, where the space has its own users and one was said
	label  string
	config error // why the last one that was written was not taken
	args   []string
	env    []string
	held   bool // the file that opening clone gave is open
	killed bool // with that file
	nowait bool
	busy   bool       // nobody else could say what it is doing
	files  []string   // what the keeper has of its descriptors
	saving sync.Mutex // held while the keeper is told, so that it hears the news last

	users  int // handles and look-ups that hold it
	waited bool
	ended  time.Time // zero until its end is recorded
	gone   bool      // forgotten: what is open still answers
	expiry *time.Timer
}

// Limits for one user.
const (
	maxParked  = 64
	maxRecords = 4096
	recordTime = 10 * time.Minute
)

// numbered holds the job that has number n in the space.
func (ps *Processes) numbered(s *Space, n int) *Job {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if s.Inside == nil {
		return ps.hold(ps.byPid[n])
	}
	var found *Job
	for j := range ps.jobs {
		if j.space == s && j.inside == n && (found == nil || j.proc.ID() > found.proc.ID()) {
			found = j
		}
	}
	return ps.hold(found)
}

// hold keeps the job until leave. Called with the lock; j may be nil.
func (ps *Processes) hold(j *Job) *Job {
	if j != nil {
		j.users++
	}
	return j
}

// labelled holds the newest process of the client's that has the label.
func (s *Space) labelled(ctx context.Context, label string) (*Proc, error) {
	ps, c := s.Processes, fs.ClientOf(ctx)
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var found *Job
	for j := range ps.jobs {
		if j.label == label && j.space == s && j.owner == c.Uid && !c.None && (found == nil || j.proc.ID() > found.proc.ID()) {
			found = j
		}
	}
	if found == nil {
		return nil, fs.ErrNotExist
	}
	return &Proc{Process: ps.hold(found).proc, job: found, space: s}, nil
}

// records holds the jobs that the space may show.
func (ps *Processes) records(s *Space) (list []*Job) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for j := range ps.jobs {
		if s.Inside == nil && ps.byPid[j.proc.Pid()] == j || j.space == s {
			list = append(list, ps.hold(j))
		}
	}
	return list
}

func (ps *Processes) leave(j *Job) {
	ps.mu.Lock()
	j.users--
	last := j.gone && j.users == 0
	ps.mu.Unlock()
	if last {
		j.free()
	}
	ps.settle(j)
}

// settle forgets a record that nobody needs: its wait and its output were read, and no file of it is open.
func (ps *Processes) settle(j *Job) {
	ps.mu.Lock()
	over := !j.pinned && !j.ended.IsZero() && j.users == 0 && (j.nowait || j.waited && j.stdio.Out.Drained() && j.stdio.Err.Drained())
	ps.mu.Unlock()
	if over {
		ps.forget(j)
	}
}

// forget takes a record away; what is open goes on.
func (ps *Processes) forget(j *Job) {
	ps.mu.Lock()
	if j.gone {
		ps.mu.Unlock()
		return
	}
	delete(ps.jobs, j)
	if ps.byPid[j.proc.Pid()] == j {
		delete(ps.byPid, j.proc.Pid())
	}
	j.gone = true
	if j.expiry != nil {
		j.expiry.Stop()
	}
	last := j.users == 0
	ps.mu.Unlock()
	ps.Keeper.Drop(j.name) // fails only when this program is about to end
	if last {
		j.free()
	}
}

// free lets go of what the record holds, after the last who used it.
func (j *Job) free() {
	j.stdio.Close()
	j.proc.Close()
}

// add makes a job of a process that was just parked for the client.
func (ps *Processes) add(j *Job) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if !j.pinned && ps.parked[j.owner] >= maxParked {
		return fs.ErrNoFree
	}
	ps.enter(j)
	return nil
}

// enter makes a job known. Called with the lock.
func (ps *Processes) enter(j *Job) {
	if ps.jobs == nil {
		ps.jobs, ps.byPid, ps.parked = map[*Job]struct{}{}, map[int]*Job{}, map[uint32]int{}
	}
	if j.parked != nil {
		ps.parked[j.owner]++
	}
	ps.jobs[j] = struct{}{}
	if old := ps.byPid[j.proc.Pid()]; old == nil || old.proc.ID() < j.proc.ID() {
		ps.byPid[j.proc.Pid()] = j
	}
	if !j.pinned {
		j.space.untold++
	}
}

// watch waits for the end of the job's process and records it.
func (ps *Processes) watch(j *Job) {
	exit, err := ns.Wait(context.Background(), j.proc)
	if err != nil {
		exit = ns.Exit{User: -1, Sys: -1, Real: -1}
	}
	j.turn <- struct{}{} // who has it sees the process gone
	ps.mu.Lock()
	j.ended = time.Now()
	if !exit.At.IsZero() {
		j.ended = exit.At
	}
	parked := ps.unpark(j)
	j.nowait = j.nowait || parked != nil // nobody asks how it ended before it was anything, but who has it open
	if !j.gone && !j.pinned {
		j.expiry = time.AfterFunc(recordTime-time.Since(j.ended), func() { ps.forget(j) })
	}
	ps.mu.Unlock()
	if parked != nil { // it was ended before it was anything
		parked.Close()
	}
	j.stdio.Ended()
	<-j.turn
	close(j.over)
	if !j.pinned {
		ps.tell(j, "exit", "status="+code(exit))
		ps.told(j.space)
	}
	for oldest := ps.oldest(j); oldest != nil; oldest = ps.oldest(j) {
		ps.forget(oldest)
	}
	ps.settle(j)
}

func (ps *Processes) told(s *Space) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if s.untold--; s.untold == 0 && s.quiet != nil {
		close(s.quiet)
		s.quiet = nil
	}
}

// Told waits until the end of every process that was started in the space, but those pinned, has been told. It is no
// sync.WaitGroup because somebody may start one at this very moment.
func (s *Space) Told() {
	ps := s.Processes
	ps.mu.Lock()
	if s.untold > 0 && s.quiet == nil {
		s.quiet = make(chan struct{})
	}
	quiet := s.quiet
	ps.mu.Unlock()
	if quiet != nil {
		<-quiet
	}
}

// Forget takes away the records of all that were started in the space, whose container is gone: nobody could ask for them any
// more. What is open goes on.
func (s *Space) Forget() {
	for _, j := range s.Processes.records(s) {
		s.Processes.forget(j)
		s.Processes.leave(j)
	}
}

// Over waits until the job's end is recorded: what is told after that comes after its start.
func (j *Job) Over() { <-j.over }

// unpark notes that the process is the stub no more. Called with the lock.
func (ps *Processes) unpark(j *Job) *ns.Parked {
	p := j.parked
	if p != nil {
		j.parked = nil
		if ps.parked[j.owner]--; ps.parked[j.owner] == 0 {
			delete(ps.parked, j.owner)
		}
	}
	return p
}

// oldest gives the record that the user of one must lose because he has too many, or they hold too much.
func (ps *Processes) oldest(of *Job) (oldest *Job) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	tight := of.account.Tight()
	if len(ps.jobs) <= maxRecords && !tight {
		return nil
	}
	n := 0
	for j := range ps.jobs {
		if j.owner == of.owner && !j.pinned && !j.ended.IsZero() {
			n++
			if oldest == nil || j.ended.Before(oldest.ended) {
				oldest = j
			}
		}
	}
	if n <= maxRecords && !tight {
		return nil
	}
	return oldest
}

// Present tells of the processes that were started outside containers and have not ended.
func (ps *Processes) Present() (list []fs.Event) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for j := range ps.jobs {
		if j.space.Inside == nil && j.ended.IsZero() {
			list = append(list, j.event("present", "ctr="))
		}
	}
	return list
}

// tell puts an event about the job where those who may see it find it.
func (ps *Processes) tell(j *Job, topic string, words ...string) {
	if ps.Feed == nil {
		return
	}
	ps.Feed.Put(j.event(topic, "ctr="+j.space.Name(), words...))
}

func (j *Job) event(topic, ctr string, words ...string) fs.Event {
	return fs.Event{
		Topic: topic,
		Words: append([]string{ctr, fmt.Sprint("pid=", j.proc.Pid())}, words...),
		Of:    j.space.Of,
		See:   func(c *fs.Client) bool { return c.Root() || !c.None && c.Uid == j.owner },
	}
}

// Process is the job's process, as long as the job is held.
func (j *Job) Process() *ns.Process { return j.proc }

// cred is the user that it runs as.
func (j *Job) cred() ns.Cred {
	mu := &j.space.Processes.mu
	mu.Lock()
	defer mu.Unlock()
	return j.user
}

// Stdio is its standard input, output and error.
func (j *Job) Stdio() *Stdio {
	mu := &j.space.Processes.mu
	mu.Lock()
	defer mu.Unlock()
	return j.stdio
}

// Exec makes the parked process the program, which runs when it returns nil. Before, prepare has the process for itself.
func (j *Job) Exec(ctx context.Context, args, env []string, prepare func(*ns.Parked) error) error {
	p := &Proc{Process: j.proc, job: j, space: j.space}
	return p.run(ctx, func(parked *ns.Parked) ([]string, []string, error) { return args, env, prepare(parked) })
}

// Parked has the stub of a pinned job for itself while f runs, if it is one still.
func (j *Job) Parked(ctx context.Context, verb string, f func(*ns.Parked) error) error {
	p := &Proc{Process: j.proc, job: j, space: j.space}
	return p.use(ctx, verb, f)
}

// Ready lets others make a pinned job its program.
func (j *Job) Ready() error {
	err := j.setBusy(false)
	<-j.turn
	return err
}

// Name is what no other job has, ever.
func (j *Job) Name() string { return j.name }

// Waits says whether the job is parked still.
func (j *Job) Waits() bool {
	mu := &j.space.Processes.mu
	mu.Lock()
	defer mu.Unlock()
	return j.parked != nil
}

// Finish says again what is done when the program of a job runs that waits since before this server: spec is what it was
// created with, for a user of the space's.
func (j *Job) Finish(spec func(user ns.Cred) ns.Spec) {
	mu := &j.space.Processes.mu
	mu.Lock()
	defer mu.Unlock()
	if j.parked == nil {
		return
	}
	user := ns.Cred{}
	if j.as != nil {
		user = *j.as
	}
	j.parked.Finish(spec(user))
}

// Unpin ends the record of a pinned job and lets it go; what is open goes on.
func (j *Job) Unpin() {
	j.space.Processes.forget(j)
	j.space.Processes.leave(j)
}
