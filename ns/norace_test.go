//go:build !race

package ns

const underRace = false
