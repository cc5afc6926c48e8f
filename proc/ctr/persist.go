package ctr

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"ctrfs/ns"
)

// The word persistent keeps the name spaces of a container when its last process has ended, all but those that no process can
// enter then, for its next run, and makes those who wait for its end wait until the word is taken away.

const spacesPrefix = "spaces "

// persist keeps the name spaces of the run that goes on. What is kept is let go of when the word is gone.
func (c *Ctr) persist(_ context.Context, on bool) error {
	r, err := c.current()
	if err != nil || !on {
		return nil // the next run keeps its own
	}
	return c.keepSpaces(r)
}

// keepSpaces opens the run's name spaces, for others to enter.
func (c *Ctr) keepSpaces(r *run) error {
	c.mu.Lock()
	s := c.spec
	c.mu.Unlock()
	if root, _ := c.scratch.Files(); root == nil && s.from("user") == "new" {
		return nil // its next user name space is another one
	}
	var list []ns.Namespace
	for _, k := range spaces {
		if from := s.from(k.kind); k.kind != "ipc" && k.kind != "net" && k.kind != "uts" || from != "new" {
			continue
		}
		f, err := r.job.Process().OpenNamespace(k.kind)
		if err != nil {
			closeSpaces(list)
			return err
		}
		list = append(list, ns.Namespace{Kind: k.kind, File: f})
	}
	if err := c.holdSpaces(list); err != nil {
		closeSpaces(list)
		return err
	}
	c.mu.Lock()
	old := c.spaces
	c.spaces = list
	c.mu.Unlock()
	closeSpaces(old)
	return nil
}

// holdSpaces gives them into the keeper's hands.
func (c *Ctr) holdSpaces(list []ns.Namespace) error {
	var kinds []string
	var files []*os.File
	for _, n := range list {
		kinds, files = append(kinds, n.Kind), append(files, n.File)
	}
	return c.set.Processes.Keeper.Hold(spacesPrefix+c.id, nil, false, kinds, files...)
}

// letGo lets go of the name spaces, and those who wait for the end hear of it.
func (c *Ctr) letGo() {
	c.mu.Lock()
	old := c.spaces
	c.spaces = nil
	if !c.gone {
		close(c.next)
		c.next = make(chan struct{})
	}
	c.mu.Unlock()
	if old != nil {
		c.set.Processes.Keeper.Drop(spacesPrefix + c.id)
	}
	closeSpaces(old)
}

// joinSpaces makes the name spaces that are kept those of a new run.
func (c *Ctr) joinSpaces(to *ns.Spec) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.spaces {
		fd, err := unix.FcntlInt(n.File.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		to.Join = append(to.Join, ns.Namespace{Kind: n.Kind, File: os.NewFile(uintptr(fd), n.Kind)})
	}
	return nil
}

// takeSpaces takes over what the keeper has held.
func (cs *Containers) takeSpaces(all map[string]*Ctr) {
	for _, h := range cs.Processes.Keeper.Held() {
		id, ok := strings.CutPrefix(h.Name, spacesPrefix)
		if !ok || all[id] == nil {
			continue
		}
		var kinds []string
		err := json.Unmarshal(h.Text, &kinds)
		if err != nil || len(kinds) != len(h.Files) {
			cs.Log.Error("take up", "held", h.Name, "error", errors.Join(err, errors.New("incomplete")))
			continue
		}
		for i, kind := range kinds {
			all[id].spaces = append(all[id].spaces, ns.Namespace{Kind: kind, File: h.Files[i]})
		}
	}
}
