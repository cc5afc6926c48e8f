package main

import (
	"context"

	"ctrfs/ctl"
	"ctrfs/fs"
)

// rootQid numbers the root; the 255 above it are its files', and all that others number is above those.
const rootQid = 0

var rootFiles = fs.Table[*server]{
	fs.Text("help", 0444, (*server).help),
	fs.Text("version", 0444, (*server).version),
	fs.Text("error", 0444, (*server).errors),
	fs.Special("events", 0444, (*server).events),
	fs.Text("ps", 0444, (*server).ps),
	fs.Text("stats", 0440, (*server).stats),
	fs.Special("ctl", 0600, (*server).control).Or(0660, (*server).hasAdmin),
	fs.Sub("proc", (*server).procs),
	fs.Sub("ctr", (*server).containers),
}

var rootVerbs = ctl.Table[*control]{
	ctl.Verb("log debug|info|warn|error", (*control).log),
	ctl.Verb("trace on|off", (*control).trace),
	ctl.Verb("reload", (*control).reload),
	ctl.Verb("upgrade", (*control).upgrade),
	ctl.Verb("quit", (*control).quit),
}

func (s *server) root() fs.Dir {
	return rootFiles.Dir("/", 0555, func(context.Context) (*server, error) { return s, nil })
}

// Owner is who runs the server; root's things belong to the group ctrfs-admin too, where there is one.
func (s *server) Owner() (uid, gid uint32) {
	if g, ok := s.admin(); ok && s.uid == 0 {
		return s.uid, g
	}
	return s.uid, s.gid
}

func (s *server) Qid() uint64 { return rootQid }

func (s *server) hasAdmin() bool {
	_, ok := s.admin()
	return ok && s.uid == 0
}

func (s *server) help(context.Context) (string, error) { return plain(manual), nil }

func (s *server) version(context.Context) (string, error) { return versions(), nil }

func (s *server) errors(ctx context.Context) (string, error) {
	return fs.ClientOf(ctx).Errors.Text(ctx)
}

func (s *server) events(ctx context.Context, _ fs.How) (fs.Handle, error) {
	return s.feed.Open(ctx, nil, func(context.Context) []fs.Event { return append(s.ctrs.Present(), s.processes.Present()...) })
}

func (s *server) ps(ctx context.Context) (string, error) { return s.machine.PS(ctx) }

func (s *server) procs(_ context.Context, qid uint64) (fs.Dir, error) {
	return s.machine.Dir("proc", qid), nil
}

func (s *server) containers(_ context.Context, qid uint64) (fs.Dir, error) {
	return s.ctrs.Dir("ctr", qid), nil
}

func (s *server) stats(context.Context) (string, error) { return s.srv.Stats(), nil }
