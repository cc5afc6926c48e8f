package proc

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/fs"
	"ctrfs/ns"
)

// What is started here is the keeper's child, which holds it for the server that comes after this one: its descriptors,
// and a text that says the rest. What has no program yet ends with the server, but for the first process of a container.

// jobText is what the next server has to know of a job beyond what the kernel tells.
type jobText struct {
	Space  string // the id of its container
	Inside int
	Owner  uint32
	User   ns.Cred
	Label  string `json:",omitempty"`
	Pinned bool   `json:",omitempty"`
	Parked bool   `json:",omitempty"`
	Killed bool   `json:",omitempty"`
	NoWait bool   `json:",omitempty"`
	Input  inputUse
	Files  []string

	Args, Env []string `json:",omitempty"` // while it is parked
	As        *ns.Cred `json:",omitempty"`
}

const jobPrefix = "job "

// text is called with the lock.
func (j *Job) text() jobText {
	text := jobText{
		Space: j.space.ID, Inside: j.inside, Owner: j.owner, User: j.user, Label: j.label,
		Pinned: j.pinned, Parked: j.parked != nil, Killed: j.killed, NoWait: j.nowait,
		Input: j.stdio.In.use(), Files: j.files,
	}
	if text.Parked {
		text.Args, text.Env, text.As = slices.Clone(j.args), slices.Clone(j.env), j.as
	}
	return text
}

// mortal says whether the job is to end with the server. Called with the lock.
func (j *Job) mortal() bool { return j.busy || j.killed || j.parked != nil && !j.pinned }

// keep gives a job into the keeper's hands.
func (ps *Processes) keep(j *Job) error {
	if ps.Keeper == nil {
		return nil
	}
	j.name = fmt.Sprint(jobPrefix, j.proc.ID())
	j.saving.Lock()
	defer j.saving.Unlock()
	ps.mu.Lock()
	names, files := j.stdio.files()
	if j.pinned && j.parked != nil {
		names, files = append(names, "stub"), append(files, j.parked.Socket())
	}
	j.files = names
	j.stdio.In.tell(j.input)
	text, mortal := j.text(), j.mortal()
	ps.mu.Unlock()
	return ps.Keeper.Hold(j.name, j.proc, mortal, text, files...)
}

// setBusy says that the process is about to do something of which only this program will know, or has done it.
func (j *Job) setBusy(busy bool) error {
	mu := &j.space.Processes.mu
	mu.Lock()
	j.busy = busy
	mu.Unlock()
	return j.note()
}

// note tells the keeper what is new of a job. What is parked and ends with this program has no news.
func (j *Job) note() error {
	ps := j.space.Processes
	j.saving.Lock()
	defer j.saving.Unlock()
	ps.mu.Lock()
	text, mortal := j.text(), j.mortal()
	silent := j.gone || ps.Keeper == nil || text.Parked && !text.Pinned
	ps.mu.Unlock()
	if silent {
		return nil
	}
	return ps.Keeper.Note(j.name, mortal, text)
}

// input tells the keeper that the input was opened, or has ended. They fail only when this program is about to end.
func (j *Job) input(ended bool) {
	ps := j.space.Processes
	ps.mu.Lock()
	piped := len(j.files) > 0 && j.files[0] == inputName
	ps.mu.Unlock()
	if ended && piped {
		ps.Keeper.Close(j.name, 0)
	}
	j.note()
}

// inputName is the first of the files of a process whose input is a pipe.
const inputName = "in"

// files are the descriptors that outlive this program.
func (s *Stdio) files() (names []string, files []*os.File) {
	add := func(name string, f *os.File) {
		if f != nil {
			names, files = append(names, name), append(files, f)
		}
	}
	add(inputName, s.In.pipe)
	switch {
	case s.tty != nil:
		add("tty", s.tty)
	case s.In.socket != nil:
		add("socket", s.In.socket)
	default:
		add("out", s.ours[0])
	}
	add("err", s.ours[1])
	add("out log", s.kept[0])
	add("err log", s.kept[1])
	add("middle", s.middle[0])
	add("middle in", s.middle[1])
	return names, files
}

// again makes what files gave the standard input, output and error of a process that has them already.
func again(files map[string]*os.File, input inputUse, on *fs.Account) (*Stdio, error) {
	s, err := newStdio(on)
	if err != nil { // it may not be too much now that it is there
		if s, err = newStdio(nil); err != nil {
			return nil, err
		}
	}
	s.tty, s.ours[0], s.ours[1] = files["tty"], files["out"], files["err"]
	s.middle = [2]*os.File{files["middle"], files["middle in"]}
	s.In.pipe, s.In.tty = files[inputName], files["tty"]
	switch {
	case s.tty != nil:
		s.ours[0] = s.tty
	case files["socket"] != nil:
		s.ours[0], s.In.socket = files["socket"], files["socket"]
	}
	if s.In.opened = input.Opened; input.Ended || s.In.file() == nil {
		s.In.End()
	}
	for i, f := range []*os.File{files["out log"], files["err log"]} {
		if f == nil {
			continue
		}
		if err := s.openLog(i, f); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// Again takes over what the keeper holds of the processes that earlier servers started. space gives the container with
// an id, and what is called when the program of its first process runs; nil: there is none. The first processes are given
// back, by their containers' ids; the caller holds them.
func (ps *Processes) Again(accounts *fs.Accounts, space func(id string) (s *Space, began func())) (pinned map[string][]*Job, err error) {
	pinned = map[string][]*Job{}
	var errs []error
	for _, h := range ps.Keeper.Held() {
		if !strings.HasPrefix(h.Name, jobPrefix) {
			continue
		}
		j, err := ps.again(h, accounts, space)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", h.Name, err))
		case j == nil:
		case j.pinned:
			pinned[j.space.ID] = append(pinned[j.space.ID], j)
		}
	}
	return pinned, errors.Join(errs...)
}

// again makes a job of what is held; nil: nobody needs it any more.
func (ps *Processes) again(h *ns.Held, accounts *fs.Accounts, space func(id string) (s *Space, began func())) (j *Job, err error) {
	files := map[string]*os.File{}
	defer func() {
		if j == nil {
			ps.Keeper.Drop(h.Name)
			for _, f := range h.Files {
				if f != nil {
					f.Close()
				}
			}
			if h.Process != nil {
				h.Process.Signal(unix.SIGKILL) // fails only where it has ended
				h.Process.Close()
			}
		}
	}()
	var text jobText
	if err := json.Unmarshal(h.Text, &text); err != nil {
		return nil, err
	}
	if h.Process == nil || len(text.Files) != len(h.Files) {
		return nil, errors.New("incomplete")
	}
	for i, name := range text.Files {
		files[name] = h.Files[i]
	}
	s, began := space(text.Space)
	if s == nil || text.Parked && !text.Pinned {
		return nil, nil
	}
	stdio, err := again(files, text.Input, accounts.Of(text.Owner))
	if err != nil {
		return nil, err
	}
	new := &Job{
		proc: h.Process, name: h.Name, space: s, account: stdio.account, inside: text.Inside, owner: text.Owner, user: text.User, label: text.Label,
		pinned: text.Pinned, killed: text.Killed, nowait: text.NoWait, files: text.Files, stdio: stdio,
		args: text.Args, env: text.Env, as: text.As, turn: make(chan struct{}, 1), over: make(chan struct{}),
	}
	_, ended := ns.Exited(h.Process)
	if stub := files["stub"]; stub != nil {
		if text.Parked && !h.Killed && !ended {
			if new.parked, err = ns.Unpark(h.Process, stub); err != nil {
				stdio.Close()
				return nil, err
			}
		} else {
			stub.Close()
		}
	}
	if new.pinned {
		new.began, new.users = began, 1
	}
	ps.mu.Lock()
	ps.enter(new)
	ps.mu.Unlock()
	if stdio.In.tell(new.input); !new.pinned {
		stdio.In.EndUnused() // the file that clone gave went with its connection
	}
	stdio.Parked(func() { ps.settle(new) })
	go ps.watch(new)
	return new, nil
}
