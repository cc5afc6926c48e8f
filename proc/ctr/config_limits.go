package ctr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// configLimits puts resources in cgroup version 2's words, as the runtime specification's authors convert those of version 1.
func configLimits(_ *Ctr, s *spec, in *oci.Spec, _ string) error {
	r := in.Linux.Resources
	add := func(word, value string) { s.limits = append(s.limits, limit{word, value}) }
	bytes := func(n int64) string {
		if n < 0 {
			return "max"
		}
		return strconv.FormatInt(n, 10)
	}
	if m := r.Memory; m != nil {
		if m.Limit != nil {
			add("memory.max", bytes(*m.Limit))
		}
		if m.Reservation != nil {
			add("memory.low", bytes(*m.Reservation))
		}
		if m.Swap != nil { // of version 1: memory and swap together
			n := *m.Swap
			if n >= 0 {
				if m.Limit == nil || *m.Limit < 0 || n < *m.Limit {
					return fmt.Errorf("linux.resources.memory.swap: less than the memory: %d", n)
				}
				n -= *m.Limit
			}
			add("memory.swap.max", bytes(n))
		}
	}
	if c := r.CPU; c != nil {
		if c.Shares != nil && *c.Shares != 0 {
			shares := min(max(*c.Shares, 2), 262144)
			add("cpu.weight", strconv.FormatUint(1+(shares-2)*9999/262142, 10))
		}
		if c.Quota != nil || c.Period != nil {
			quota, period := "max", uint64(100000)
			if c.Quota != nil && *c.Quota > 0 {
				quota = strconv.FormatInt(*c.Quota, 10)
			}
			if c.Period != nil && *c.Period != 0 {
				period = *c.Period
			}
			add("cpu.max", fmt.Sprintf("%s %d", quota, period))
		}
		if c.Burst != nil {
			add("cpu.max.burst", strconv.FormatUint(*c.Burst, 10))
		}
		if c.Idle != nil {
			add("cpu.idle", strconv.FormatInt(*c.Idle, 10))
		}
		if c.Cpus != "" {
			add("cpuset.cpus", c.Cpus)
		}
		if c.Mems != "" {
			add("cpuset.mems", c.Mems)
		}
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		n := *r.Pids.Limit
		if n <= 0 {
			n = -1
		}
		add("pids.max", bytes(n))
	}
	for _, h := range r.HugepageLimits {
		add("hugetlb."+h.Pagesize+".max", strconv.FormatUint(h.Limit, 10))
	}
	for word, value := range r.Unified {
		for line := range strings.SplitSeq(value, "\n") {
			if line = strings.TrimSpace(line); line != "" {
				add(word, line)
			}
		}
	}
	slices.SortFunc(s.limits, func(a, b limit) int {
		return strings.Compare(a.word+" "+a.value, b.word+" "+b.value)
	})
	return nil
}
