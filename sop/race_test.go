//go:build race

package sop

// stride is how many kill points the sweeps go on at a time. The race detector
// makes each ten times as slow, and needs no more than a sample; without it
// every point is tried.
const stride = 5
