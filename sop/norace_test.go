//go:build !race

package sop

// stride is how many kill points the sweeps go on at a time: every one is
// tried.
const stride = 1
