package check_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// twin decides the same as Linearizable with no wit at all: it plays the
// operations in the order of their revisions, and compares all pairs.
func twin(h *workload.History) bool {
	type event struct {
		o   workload.Op
		rev int64
		end time.Duration
	}
	var events []event
	for _, o := range h.Ops {
		if o.Outcome == workload.OK {
			events = append(events, event{o, o.Revision, o.Return})
			continue
		}
		revs := map[int64]bool{}
		for _, by := range h.Ops {
			if by.Outcome != workload.OK || by.ModRevision <= h.StartRevision { // an earlier load may have had the same seed
				continue
			}
			if by.Kind == workload.Get && by.Value == o.Value || by.Kind == workload.Put && by.Prev == o.Value {
				revs[by.ModRevision] = true
				if by.Key != o.Key || o.Outcome == workload.Fail {
					return false
				}
			}
		}
		if len(revs) > 1 {
			return false
		}
		for r := range revs {
			o.ModRevision = -1 // nobody knows
			events = append(events, event{o, r, math.MaxInt64})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int {
		if a.rev != b.rev {
			return int(a.rev - b.rev)
		}
		return int(a.o.Kind) - int(b.o.Kind) // the write of a revision before its reads
	})
	now, last := map[string]kv{}, int64(0)
	for _, e := range events {
		if e.o.Kind == workload.Put {
			if e.rev <= last || e.rev <= h.StartRevision {
				return false
			}
			last = e.rev
		}
		value := e.o.Prev
		if e.o.Kind == workload.Get {
			value = e.o.Value
		}
		old, known := now[e.o.Key]
		if !known && e.o.ModRevision >= 0 && e.o.ModRevision <= h.StartRevision {
			old = kv{value: value, mod: e.o.ModRevision} // there before the load
			now[e.o.Key] = old
		}
		if e.o.ModRevision >= 0 && (old.mod != e.o.ModRevision || old.value != value) {
			return false
		}
		if e.o.Kind == workload.Put {
			now[e.o.Key] = kv{value: e.o.Value, mod: e.rev}
		}
	}
	for _, a := range events {
		for _, b := range events {
			if a.end < b.o.Call && (b.rev < a.rev || b.rev == a.rev && b.o.Kind == workload.Put) {
				return false
			}
		}
	}
	return true
}

// The scan and its twin agree, on good histories and on spoilt ones.
func TestScanAgreesWithItsTwin(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 13))
	good, bad := 0, 0
	for round := range 4000 {
		h, e := simulation{seed: uint64(round), clients: 1 + random.IntN(4), keys: 1 + random.IntN(2),
			ops: 4 + random.IntN(20), reads: 0.4, doubt: 0.2}.run()
		for range random.IntN(3) {
			o := &h.Ops[random.IntN(len(h.Ops))]
			p := &h.Ops[random.IntN(len(h.Ops))]
			switch random.IntN(6) {
			case 0:
				if o.Outcome == workload.OK {
					o.Revision = max(o.Revision+int64(random.IntN(5)-2), o.ModRevision+1)
				}
			case 1:
				if o.Outcome == workload.OK && o.Revision > 0 {
					o.ModRevision = random.Int64N(o.Revision)
				}
			case 2:
				if o.Kind == p.Kind && o.Kind == workload.Get && o.Outcome == workload.OK {
					o.Value, o.ModRevision = p.Value, min(p.ModRevision, o.Revision)
				}
			case 3:
				if o.Kind == workload.Put && o.Outcome == workload.Unknown {
					o.Outcome = workload.Fail
				}
			case 4:
				o.Call, o.Return = p.Call, max(p.Call, o.Return)
			case 5:
				if o.Acked() && p.Acked() {
					o.Prev, o.ModRevision = p.Prev, p.ModRevision
				}
			}
		}
		want := twin(h)
		if want {
			good++
		} else {
			bad++
		}
		e.Views = nil // the twin knows of no final state
		err := check.Linearizable().Check(t.Context(), e)
		if h.Acked() == 0 {
			require.ErrorIs(t, err, check.ErrUnknown)
			continue
		}
		require.Equal(t, want, err == nil, "round %d: %v", round, err)
	}
	t.Logf("%d good histories, %d bad ones", good, bad)
	require.Greater(t, good, 500)
	require.Greater(t, bad, 500)
}
