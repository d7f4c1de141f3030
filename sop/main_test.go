package sop

import (
	"runtime/debug"
	"testing"

	"go.uber.org/goleak"
)

// No goroutine outlives the tests. Those in fake time are held to it by
// synctest already.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // thousands of small clusters come and go: an eighth of the time went into it
	goleak.VerifyTestMain(m)
}
