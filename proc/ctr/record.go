package ctr

import (
	"context"
	"ctrfs/fs"
	"ctrfs/ns"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// code is the exit status as a number, `-` where nobody knows it. Called with the container's lock.
func (r *run) code() string {
	if r.failed {
		return strconv.Itoa(failedCode)
	}
	if n, ok := r.exit.Code(); ok {
		return strconv.Itoa(n)
	}
	return "-"
}

// rebooted is what reboot(2) asked for. A call of that inside a pid name space ends its first process by HUP for restart and
// by INT for halt and power off, which nobody else can do to it.
func rebooted(exit ns.Exit) string {
	if exit.Known && exit.Status.Signaled() {
		switch exit.Status.Signal() {
		case unix.SIGHUP:
			return "restart"
		case unix.SIGINT:
			return "halt"
		}
	}
	return "none"
}

// record is the end of the run: await(2)'s fields of the first process, then the raw status of the last, and what
// reboot(2) asked for. Called with the container's lock.
func (r *run) record() string {
	if r.failed && r.job == nil {
		return fmt.Sprintf("- - - - 'exit: %d' exit_code=%d reboot=none\n", failedCode, failedCode<<8)
	}
	words := r.exit.Record(r.job.Process().Pid())
	raw, reboot := "-", "none"
	switch {
	case r.failed:
		words[4], raw = "exit: "+strconv.Itoa(failedCode), strconv.Itoa(failedCode<<8)
	case r.exit.Known:
		raw = strconv.Itoa(int(r.exit.Status))
		reboot = rebooted(r.exit)
	}
	return fs.Words(words...) + " exit_code=" + raw + " reboot=" + reboot + "\n"
}

// wait blocks until there is no process left and gives the record of the last run.
func (c *Ctr) wait(ctx context.Context) (string, error) {
	for {
		c.mu.Lock()
		r, next, gone := c.run, c.next, c.gone
		c.mu.Unlock()
		switch {
		case r != nil:
			select {
			case <-r.done:
			case <-ctx.Done():
				return "", ctx.Err()
			}
			c.mu.Lock()
			if c.spec.flagged(persistent) && !c.gone { // it is not over with the last process
				next = c.next
				c.mu.Unlock()
				break
			}
			defer c.mu.Unlock()
			if c.gone && r.started.IsZero() && !r.failed {
				return "", errNoCtr
			}
			return r.record(), nil
		case gone:
			return "", errNoCtr
		}
		select {
		case <-next:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}
