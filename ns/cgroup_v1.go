package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// file1 is a limit that version 1 has as one file, with another word for "max".
func file1(word, file, max string) limit {
	return limit{
		word: word,
		get: func(dir *os.File) (string, error) {
			value, err := read(dir, file)
			if n, bad := strconv.ParseUint(value, 10, 64); max == "-1" && bad == nil && n >= unlimited {
				value = "max"
			}
			return value, err
		},
		set: func(dir *os.File, value string) error {
			if value == "max" && max != "" {
				value = max
			}
			return write(dir, file, value)
		},
	}
}

// unlimited is below every "no limit" of version 1's memory and hugetlb, which is
// the largest number of pages in bytes, and above every memory.
const unlimited = 1 << 62

// getCPUMax and setCPUMax: "QUOTA PERIOD" of version 2 is two files of version 1.
func getCPUMax(dir *os.File) (string, error) {
	quota, err := read(dir, "cpu.cfs_quota_us")
	if err != nil {
		return "", err
	}
	period, err := read(dir, "cpu.cfs_period_us")
	if quota == "-1" {
		quota = "max"
	}
	return quota + " " + period, err
}

func setCPUMax(dir *os.File, value string) error {
	f := strings.Fields(value)
	if len(f) == 0 || len(f) > 2 {
		return strconv.ErrSyntax
	}
	quota := f[0]
	if quota == "max" {
		quota = "-1"
	} else if _, err := strconv.ParseUint(quota, 10, 63); err != nil {
		return err // -1 among them: version 2 does not know it
	}
	before, err := read(dir, "cpu.cfs_period_us")
	if err != nil {
		return err
	}
	if len(f) == 2 {
		if err := write(dir, "cpu.cfs_period_us", f[1]); err != nil {
			return err
		}
	}
	if err := write(dir, "cpu.cfs_quota_us", quota); err != nil {
		return errors.Join(err, write(dir, "cpu.cfs_period_us", before))
	}
	return nil
}

// sharesOf and weightOf: to the scheduler, version 2's weight of 100 is version
// 1's 1024 shares, and others in proportion (sched_weight_from_cgroup). The curves
// that container engines use are for the other way, for shares that were meant
// for a machine of version 1.
func sharesOf(weight uint64) uint64 { return (weight*1024 + 50) / 100 }
func weightOf(shares uint64) uint64 { return min(max((shares*100+512)/1024, 1), 10000) }

func getCPUWeight(dir *os.File) (string, error) {
	value, err := read(dir, "cpu.shares")
	if err != nil {
		return "", err
	}
	shares, err := strconv.ParseUint(value, 10, 32)
	return strconv.FormatUint(weightOf(shares), 10), err
}

func setCPUWeight(dir *os.File, value string) error {
	weight, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return err
	}
	if weight < 1 || weight > 10000 {
		return strconv.ErrRange
	}
	return write(dir, "cpu.shares", strconv.FormatUint(sharesOf(weight), 10))
}

// Version 1 limits memory and memory+swap (memsw), never the first above the
// second. What version 2 calls memory.swap.max is the difference.
const (
	memFile   = "memory.limit_in_bytes"
	memswFile = "memory.memsw.limit_in_bytes"
)

var memory1 = file1("", memFile, "-1")

func getMemoryMax(dir *os.File) (string, error) { return memory1.get(dir) }

func setMemoryMax(dir *os.File, value string) error {
	before, err := readBytes(dir, memFile)
	if err != nil {
		return err
	}
	both, err := readBytes(dir, memswFile)
	if errors.Is(err, fs.ErrNotExist) || err == nil && both == math.MaxUint64 {
		return memory1.set(dir, value) // swap is not limited
	}
	if err != nil {
		return err
	}
	after, err := parseBytes(value)
	if err != nil {
		return err
	}
	if after == math.MaxUint64 {
		if err := write(dir, memswFile, "-1"); err != nil {
			return err
		}
		return write(dir, memFile, "-1")
	}
	sum := strconv.FormatUint(after+both-before, 10)
	if after > before {
		if err := write(dir, memswFile, sum); err != nil {
			return err
		}
		return write(dir, memFile, value)
	}
	if err := write(dir, memFile, value); err != nil {
		return err
	}
	return write(dir, memswFile, sum)
}

func getSwapMax(dir *os.File) (string, error) {
	both, err := readBytes(dir, memswFile)
	if err != nil {
		return "", err
	}
	memory, err := readBytes(dir, memFile)
	if both == math.MaxUint64 || memory > both {
		return "max", err
	}
	return strconv.FormatUint(both-memory, 10), err
}

func setSwapMax(dir *os.File, value string) error {
	swap, err := parseBytes(value)
	if err != nil {
		return err
	}
	if swap == math.MaxUint64 {
		return write(dir, memswFile, "-1")
	}
	memory, err := readBytes(dir, memFile)
	if err != nil {
		return err
	}
	if memory == math.MaxUint64 {
		return errors.New("set memory.max first: cgroup version 1 limits the sum of both")
	}
	return write(dir, memswFile, strconv.FormatUint(memory+swap, 10))
}

func readBytes(dir *os.File, file string) (uint64, error) {
	text, err := read(dir, file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if n >= unlimited {
		n = math.MaxUint64
	}
	return n, err
}

// parseBytes reads a number of bytes as the kernel does: with K, M, G, T, P or E
// after it in any case, or "max", which is math.MaxUint64.
func parseBytes(value string) (uint64, error) {
	if value == "max" {
		return math.MaxUint64, nil
	}
	digits := strings.TrimRight(value, "kKmMgGtTpPeE")
	shift := 0
	switch unit := value[len(digits):]; {
	case len(unit) > 1:
		return 0, strconv.ErrSyntax
	case unit != "":
		shift = 10 * (1 + strings.Index("KMGTPE", strings.ToUpper(unit)))
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err == nil && n > (unlimited-1)>>shift {
		return 0, fmt.Errorf("%s: %w", value, strconv.ErrSyntax)
	}
	return n << shift, err
}

// throttles is where version 1 has the words of io.max.
var throttles = []struct{ word, file string }{
	{"rbps", "blkio.throttle.read_bps_device"},
	{"wbps", "blkio.throttle.write_bps_device"},
	{"riops", "blkio.throttle.read_iops_device"},
	{"wiops", "blkio.throttle.write_iops_device"},
}

// getIOMax and setIOMax: version 2 has a line `MAJ:MIN rbps=N ...` for a device,
// version 1 a file for each word, with 0 for no limit.
func getIOMax(dir *os.File) (string, error) {
	lines := make(map[string]string)
	for _, t := range throttles {
		text, err := read(dir, t.file)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(text) {
			if device, n, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
				lines[device] += " " + t.word + "=" + n
			}
		}
	}
	var all []string
	for _, device := range slices.Sorted(maps.Keys(lines)) {
		all = append(all, device+lines[device])
	}
	return strings.Join(all, "\n"), nil
}

func setIOMax(dir *os.File, value string) error {
	f := strings.Fields(value)
	if len(f) < 2 {
		return strconv.ErrSyntax
	}
	var files, lines []string
	for _, setting := range f[1:] {
		word, n, _ := strings.Cut(setting, "=")
		i := slices.IndexFunc(throttles, func(t struct{ word, file string }) bool { return t.word == word })
		if n == "max" {
			n = "0"
		} else if v, err := strconv.ParseUint(n, 10, 64); err != nil || v == 0 {
			return strconv.ErrSyntax // 0 would be no limit
		}
		if i < 0 {
			return strconv.ErrSyntax
		}
		files, lines = append(files, throttles[i].file), append(lines, f[0]+" "+n)
	}
	for i := range files {
		if err := write(dir, files[i], lines[i]); err != nil {
			return err
		}
	}
	return nil
}
