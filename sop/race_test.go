//go:build race

package sop

// most is how many points of a sweep are tried unless all are asked for. The
// race detector makes each ten times as slow.
const most = 1
