//go:build race

package srv

const manyTags = 8000 // the detector is slow with more goroutines
