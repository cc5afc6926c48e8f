package fs

import (
	"sync"
	"sync/atomic"
	"syscall"
)

// A Resource is something of which one user could make the server hold so much that nothing is left for others.
type Resource int

const (
	Fids        Resource = iota
	Requests             // under way
	Descriptors          // of the server
	Memory               // bytes that are kept for him: texts, listings, outputs, and writes under way
	resources
)

// refusals are what a user is told who wants more than he may have.
var refusals = [resources]struct {
	errno syscall.Errno
	text  string
}{
	Fids:        {syscall.EMFILE, "too many fids"},
	Requests:    {syscall.EBUSY, "too many requests"},
	Descriptors: {syscall.EMFILE, "too many open files"},
	Memory:      {syscall.ENOBUFS, "too much memory"},
}

// A Quota is how much of each resource; 0 is any amount.
type Quota [resources]int64

// Accounts are who makes the server hold how much.
type Accounts struct {
	owner     uint32
	each, all Quota

	held [resources]atomic.Int64 // by all who have limits

	mu    sync.Mutex // guards users
	users map[uint32]*Account
}

// NewAccounts gives each user a quota, and one to all of them together. Root has no limits, nor has owner, whose server it is.
func NewAccounts(owner uint32, each, all Quota) *Accounts {
	return &Accounts{owner: owner, each: each, all: all, users: map[uint32]*Account{}}
}

// Of gives a user's account; nil, which has no limits, where there are none.
func (as *Accounts) Of(uid uint32) *Account {
	if as == nil {
		return nil
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	a := as.users[uid]
	if a == nil {
		a = &Account{of: as, free: uid == 0 || uid == as.owner}
		as.users[uid] = a
	}
	return a
}

// An Account is what one user makes the server hold, whichever connections he has.
type Account struct {
	of   *Accounts
	free bool // of limits
	held [resources]atomic.Int64
}

// Take notes that the user is given n more of a resource, or says that he may not have so much.
func (a *Account) Take(r Resource, n int64) error {
	if a == nil || n == 0 {
		return nil
	}
	mine := a.held[r].Add(n)
	if a.free {
		return nil
	}
	total := a.of.held[r].Add(n)
	switch each, all := a.of.each[r], a.of.all[r]; {
	case each != 0 && mine > each:
		a.Give(r, n)
		return Err(refusals[r].errno, "%s: a user may have %d", refusals[r].text, each)
	case all != 0 && total > all:
		a.Give(r, n)
		return Err(refusals[r].errno, "%s: all users together may have %d", refusals[r].text, all)
	}
	return nil
}

// Give notes that the user has n less.
func (a *Account) Give(r Resource, n int64) {
	if a == nil {
		return
	}
	a.held[r].Add(-n)
	if !a.free {
		a.of.held[r].Add(-n)
	}
}

// Tight says that what is kept for the user only in case that he asks should go: he has more than three quarters of what one
// may have.
func (a *Account) Tight() bool {
	if a == nil {
		return false
	}
	for r, each := range a.of.each {
		if each != 0 && a.held[r].Load() > each/4*3 {
			return true
		}
	}
	return false
}

// kept is the memory of one thing, on the account of who first had it made.
type kept struct {
	by *Account
	n  int64
}

// resize says how large it is now. After an error it is as large as before.
func (k *kept) resize(by *Account, n int) error {
	if k.by == nil {
		k.by = by
	}
	if more := int64(n) - k.n; more > 0 {
		if err := k.by.Take(Memory, more); err != nil {
			return err
		}
	} else {
		k.by.Give(Memory, -more)
	}
	k.n = int64(n)
	return nil
}

// free says that it is no more.
func (k *kept) free() { k.resize(nil, 0) }
