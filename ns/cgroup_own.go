package ns

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MemoryMax is how many bytes this process, with others, may have by the limits of its own group and of those around it; 0 is any
// number.
func (c *Cgroups) MemoryMax() (most int64) {
	limit := func(word string) {
		if n, err := strconv.ParseInt(word, 10, 64); err == nil && (most == 0 || n < most) { // "max" is none
			most = n
		}
	}
	if h := c.with("memory"); h != nil && h.own != "" {
		if text, err := os.ReadFile(filepath.Join(h.own, "memory.stat")); err == nil {
			limit(keyValue(string(text), "hierarchical_memory_limit")) // of all around it
		}
	}
	if h := c.v2; h != nil {
		for dir := h.own; strings.HasPrefix(dir, h.mount+"/"); dir = filepath.Dir(dir) {
			if text, err := os.ReadFile(filepath.Join(dir, "memory.max")); err == nil {
				limit(strings.TrimSpace(string(text)))
			}
		}
	}
	return most
}
