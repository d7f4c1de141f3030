package check_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// everything is a history with all kinds of calls.
func everything(seed uint64) simulation {
	return simulation{seed: seed, clients: 4, keys: 2, ops: 150, reads: 0.4, doubt: 0.15,
		rich: true, leaseClients: 2, watchers: 2, step: 50 * time.Millisecond}
}

// What is right by construction passes, with the log, with the watchers' word
// for it, and with neither; the last may leave doubts, as half a log may, and
// finds nothing wrong.
func TestGoodHistoriesPass(t *testing.T) {
	doubts := 0
	for seed := range uint64(150) {
		h, e := everything(seed).run()
		for _, f := range check.Judge(t.Context(), e, check.For(e)...) {
			require.NoError(t, f.Err, "seed %d: %s", seed, f.Checker)
		}
		// Its first half is compacted away.
		late := *e.Log
		late.From = (late.From + late.To) / 2
		late.Events = slices.DeleteFunc(slices.Clone(late.Events), func(x workload.Event) bool { return x.ModRevision < late.From })
		e.Log = &late
		for _, f := range check.Judge(t.Context(), e, check.For(e)...) {
			require.NotEqual(t, check.Violation, f.Verdict, "seed %d, with half a log: %s: %v", seed, f.Checker, f.Err)
		}
		e.Log = nil
		for _, f := range check.Judge(t.Context(), e, check.For(e)...) {
			require.NoError(t, f.Err, "seed %d, by its watchers: %s", seed, f.Checker)
		}
		h.Watchers, h.Notices = 0, nil
		for _, f := range check.Judge(t.Context(), e, check.For(e)...) {
			require.NotEqual(t, check.Violation, f.Verdict, "seed %d, without a log: %s: %v", seed, f.Checker, f.Err)
			if f.Verdict == check.Undecided {
				doubts++
			}
		}
	}
	require.Positive(t, doubts, "deletes of unknown outcome leave doubts")
	t.Logf("%d checks left undecided without a log", doubts)
}

// A key that never comes to rest is looked at all the same, and what is wrong
// with it is seen.
func TestSecondOpinionOnABusyKey(t *testing.T) {
	s := simulation{seed: 3, clients: 12, keys: 1, ops: 3000, reads: 0.3, doubt: 0.02, rich: true, step: time.Millisecond}
	h, e := s.run()
	require.NoError(t, check.SecondOpinion().Check(t.Context(), e))
	seen := 0
	for i := range h.Ops {
		o := &h.Ops[i]
		if o.Kind != workload.Get || o.Key != prefix+"shared/k0" || o.ModRevision == 0 {
			continue
		}
		was := *o
		o.Value = "another"
		require.ErrorIs(t, check.SecondOpinion().Check(t.Context(), e), check.ErrViolation, "%s", o)
		*o = was
		if seen++; seen == 5 {
			break
		}
	}
	require.Equal(t, 5, seen)
}

// logTwin decides whether a history fits its log with no wit at all: all
// operations against all events, and all pairs.
func logTwin(h *workload.History, log *check.Log) bool {
	ops := h.Ops
	found := func(key string, revision int64) (string, int64) {
		value, mod := "", int64(0)
		for _, e := range log.Events {
			if e.Key == key && e.ModRevision <= revision {
				value, mod = e.Value, e.ModRevision
				if e.Deleted {
					value, mod = "", 0
				}
			}
		}
		return value, mod
	}
	hungOn := func(e workload.Event) int64 {
		for _, p := range slices.Backward(log.Events) {
			if p.Key == e.Key && p.ModRevision < e.ModRevision {
				return p.Lease
			}
		}
		return 0
	}
	took := map[int]int64{} // when each operation took effect
	for _, e := range log.Events {
		explained := false
		for i, o := range ops {
			switch {
			case o.Acked() && o.Key == e.Key && o.Revision == e.ModRevision:
				explained = (o.Kind == workload.Delete) == e.Deleted && (e.Deleted || o.Value == e.Value && o.Lease == e.Lease)
				if !explained {
					return false
				}
			case e.Deleted && o.Kind == workload.Revoke && o.Outcome == workload.OK && o.Revision == e.ModRevision && hungOn(e) == o.Lease,
				!e.Deleted && o.Kind.Writes() && o.Outcome == workload.Unknown && o.Key == e.Key && o.Value == e.Value:
				explained, took[i] = true, e.ModRevision
			}
		}
		if e.Deleted && !explained { // a lease that ran out
			explained = hungOn(e) != 0
		}
		if !explained {
			return false
		}
	}
	for i, o := range ops {
		if o.Outcome == workload.OK {
			took[i] = o.Revision
		}
		if o.Outcome != workload.OK || o.Kind.OfLease() {
			continue
		}
		at := o.Revision
		if o.Acked() {
			if !slices.ContainsFunc(log.Events, func(e workload.Event) bool { return e.Key == o.Key && e.ModRevision == o.Revision }) {
				return false
			}
			at--
		}
		value, mod := found(o.Key, at)
		if v, m := o.Found(); v != value || m != mod {
			return false
		}
		if o.Kind == workload.Txn && o.Done != (mod == o.Expect) {
			return false
		}
	}
	for i, o := range ops {
		at, known := took[i]
		if !known || o.Kind == workload.SerializableGet || o.Kind == workload.KeepAlive {
			continue
		}
		for _, p := range ops {
			if p.Outcome != workload.OK || p.Return >= o.Call {
				continue
			}
			if at < p.Revision || at == p.Revision && (o.Acked() || o.Outcome != workload.OK) {
				return false
			}
		}
		for _, n := range h.Notices {
			if n.At < o.Call && (at < n.Revision || at == n.Revision && (o.Acked() || o.Outcome != workload.OK)) {
				return false
			}
		}
	}
	return true
}

// Linearizable is as good as its twin, on good histories and on spoilt ones.
func TestLinearizableIsTheLogTwin(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 8))
	good, bad, seconded := 0, 0, 0
	for round := range 1500 {
		s := everything(uint64(round))
		s.ops = 20 + random.IntN(40)
		h, e := s.run()
		if slices.ContainsFunc(h.Ops, func(o workload.Op) bool { return o.Kind == workload.Delete && o.Outcome == workload.Unknown }) {
			continue // which of several deletes it was is a choice
		}
		for range random.IntN(3) {
			o := &h.Ops[random.IntN(len(h.Ops))]
			p := &h.Ops[random.IntN(len(h.Ops))]
			switch random.IntN(7) {
			case 0:
				if o.Outcome == workload.OK {
					o.Revision = max(o.Revision+int64(random.IntN(5)-2), o.ModRevision+1)
				}
			case 1:
				if o.Outcome == workload.OK && !o.Kind.OfLease() {
					value, mod := p.Found()
					o.ModRevision = min(mod, o.Revision-1)
					if o.Kind == workload.Get || o.Kind == workload.SerializableGet {
						o.Value = value
					} else {
						o.Prev = value
					}
				}
			case 2:
				if o.Kind == workload.Txn && o.Outcome == workload.OK {
					o.Done = !o.Done
				}
			case 3:
				if o.Kind != workload.Delete {
					o.Call, o.Return = p.Call, max(p.Call, o.Return)
				}
			case 4:
				if i := random.IntN(max(len(e.Log.Events), 1)); i < len(e.Log.Events) {
					e.Log.Events = slices.Delete(e.Log.Events, i, i+1)
				}
			case 5:
				if len(e.Log.Events) > 0 {
					x := &e.Log.Events[random.IntN(len(e.Log.Events))]
					x.Value = p.Value
				}
			case 6:
				if n := len(h.Notices); n > 0 {
					x := &h.Notices[random.IntN(n)]
					x.At = p.Call
				}
			}
		}
		if h.Acked() == 0 {
			continue
		}
		e.Views = nil
		want := logTwin(h, e.Log)
		err := check.Linearizable().Check(t.Context(), e)
		if want {
			good++
		} else {
			bad++
		}
		require.Equal(t, want, err == nil, "round %d: %v", round, err)
		// Porcupine knows less, so it never sees more.
		if second := check.SecondOpinion().Check(t.Context(), e); second != nil {
			require.Error(t, err, "round %d: %v", round, second)
			seconded++
		}
	}
	t.Logf("%d good histories, %d bad ones, %d of which porcupine finds bad too", good, bad, seconded)
	require.Greater(t, seconded, 20)
	require.Greater(t, good, 150)
	require.Greater(t, bad, 150)
}
