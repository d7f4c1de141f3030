package sop

import (
	"testing"

	"go.uber.org/goleak"
)

// No goroutine outlives the tests. Those in fake time are held to it by
// synctest already.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
