package ctr

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"ctrfs/fs"
	"ctrfs/ns"
)

// stats are what the run uses, `key value` a line, under cgroup v2's names. What is not accounted is left out.
func (c *Ctr) stats(ctx context.Context) (string, error) {
	r, err := c.current()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	line := func(key string, n uint64) { fmt.Fprintf(&b, "%s %d\n", key, n) }
	pids, err := r.pids()
	if err != nil {
		return "", err
	}
	tids, err := r.threads()
	if err != nil {
		return "", err
	}
	line("processes", uint64(len(pids)))
	line("threads", uint64(len(tids)))
	rss, err := r.rss()
	if err != nil {
		return "", err
	}
	line("rss", rss)
	if r.group != nil {
		for _, n := range r.group.Numbers() {
			line(n.Name, n.Value)
		}
	}
	if r.oci != nil && r.oci.Has("events") {
		list, err := r.oci.Stats(ctx, r.id)
		if err != nil {
			return "", err
		}
		for _, n := range list {
			fmt.Fprintln(&b, n.Name, n.Value)
		}
	}
	links, err := r.job.Process().Links()
	if err != nil {
		return "", err
	}
	for _, l := range links {
		key := "net." + fs.Quote(l.Name) + "."
		line(key+"rx_bytes", l.RxBytes)
		line(key+"rx_packets", l.RxPackets)
		line(key+"rx_errors", l.RxErrors)
		line(key+"rx_dropped", l.RxDropped)
		line(key+"tx_bytes", l.TxBytes)
		line(key+"tx_packets", l.TxPackets)
		line(key+"tx_errors", l.TxErrors)
		line(key+"tx_dropped", l.TxDropped)
	}
	return b.String(), nil
}

// rss is the memory that its processes have, in bytes.
func (r *run) rss() (rss uint64, err error) {
	pids, err := r.pids()
	for _, pid := range pids {
		if p, err := ns.Open(pid); err == nil { // else it has ended meanwhile
			if st, err := p.Stat(); err == nil {
				rss += uint64(st.RSS) * uint64(os.Getpagesize())
			}
			p.Close()
		}
	}
	return rss, err
}

// threads are those of all processes of the run.
func (r *run) threads() (all []int, err error) {
	if r.group != nil {
		return r.group.Threads()
	}
	pids, err := r.pids()
	for _, pid := range pids {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			continue // ended meanwhile
		}
		for _, e := range list {
			if tid, err := strconv.Atoi(e.Name()); err == nil {
				all = append(all, tid)
			}
		}
	}
	return all, err
}
