package ns

import (
	"encoding/json"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A message is what server and keeper, or keeper and holder, say to each other: one packet, with the descriptors of what it is
// about. The server says hold, drop, close and up, and at last end, quit, reload or upgrade; the keeper held, all and ended.
// The keeper passes on to the holder what it holds, drops and closes, and how that ended, and says give and end; the holder
// says held and all, or busy.
type message struct {
	Verb string
	Name string `json:",omitempty"` // of what is held

	Pid    int             `json:",omitempty"` // of the process that the first descriptor is a pidfd of
	Start  uint64          `json:",omitempty"` // when it began, in ticks
	Kill   bool            `json:",omitempty"` // it ends with the server
	InFile bool            `json:",omitempty"` // the text is in the last descriptor, because it is long
	Text   json.RawMessage `json:",omitempty"`

	With    string `json:",omitempty"` // how long it is held
	Adopted bool   `json:",omitempty"` // held: the process was an earlier keeper's child, so the kernel tells of its end
	Lasts   bool   `json:",omitempty"` // all: what is held outlives the keeper

	Fd   int     `json:",omitempty"` // close: which of its descriptors
	Open []bool  `json:",omitempty"` // held: which of its descriptors are there
	End  *ending `json:",omitempty"` // held, ended
}

// An ending is how a child of the keeper's ended.
type ending struct {
	Pid          int
	Start        uint64
	Code, Status int32 // as siginfo_t has them; Code -1: unknown
	User, Sys    int64 // CPU time in ns
	At           int64 // by the clock, in ns
	Boot         int64 // since boot, in ns
}

// What a message may be.
const (
	messageMost = 128 << 10
	textMost    = 64 << 10 // what is longer goes into a file: a packet must fit into the socket's buffer
	rightsMost  = 32
)

func (m *message) bytes(fds []int) (b, rights []byte) {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // a text that is no JSON: a mistake of the program
	}
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return b, rights
}

// parseMessage gives a message and its descriptors, which are closed on error.
func parseMessage(b, oob []byte) (m message, fds []int, err error) {
	if len(oob) > 0 {
		controls, err := unix.ParseSocketControlMessage(oob)
		if err != nil {
			return m, nil, err
		}
		for i := range controls {
			if more, err := unix.ParseUnixRights(&controls[i]); err == nil {
				fds = append(fds, more...)
			}
		}
	}
	if err = json.Unmarshal(b, &m); err != nil {
		closeFDs(fds)
		return m, nil, err
	}
	return m, fds, nil
}

func (e *ending) status() syscall.WaitStatus { return e.exit().Status }

// exit is the end as others tell it.
func (e *ending) exit() Exit {
	x := unknownExit
	if e.Code < 0 {
		return x
	}
	x.Status, x.Known = waitStatus(e.Code, e.Status)
	x.User, x.Sys = time.Duration(e.User), time.Duration(e.Sys)
	x.At = time.Unix(0, e.At)
	if e.Start != 0 {
		x.Real = max(0, time.Duration(e.Boot)-ticks(e.Start))
	}
	return x
}
