//go:build !race

package sop

// most is how many points of a sweep are tried unless all are asked for.
const most = 12
