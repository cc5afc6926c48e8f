//go:build !race

package srv

const manyTags = 65535
