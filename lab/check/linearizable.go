package check

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/etcdrill/etcdrill/lab/workload"
)

// Linearizable checks that all that the clients saw fits the order that the
// revisions give: (a) to (c) of the package comment.
func Linearizable() Checker {
	return Checker{"linearizable", func(_ context.Context, e Evidence) error {
		h := e.History
		if h == nil || h.Acked() == 0 {
			return undecided("no write was acknowledged")
		}
		t := newTimeline(h, e.Views)
		t.checkTime()
		t.checkReads()
		if err := t.faults.err(); err != nil {
			return violation("%w", err)
		}
		if err := t.strange.err(); err != nil {
			return undecided("the history is incomplete: %w", err)
		}
		return nil
	}}
}

// A moment is a call or a return.
type moment struct {
	at time.Duration
	op int32
}

// checkTime is (b): whatever was called after a reply is no older than it.
func (t *timeline) checkTime() {
	calls := make([]moment, 0, len(t.ops))
	returns := make([]moment, 0, len(t.ops))
	for i := range t.ops {
		o := &t.ops[i]
		if o.Outcome == workload.OK {
			calls = append(calls, moment{o.Call, int32(i)})
			returns = append(returns, moment{o.Return, int32(i)})
		} else if _, ok := t.inferred[int32(i)]; ok {
			// It may have taken effect at any time after its call.
			calls = append(calls, moment{o.Call, int32(i)})
		}
	}
	inTime := func(a, b moment) int { return cmp.Compare(a.at, b.at) }
	slices.SortFunc(calls, inTime)
	slices.SortFunc(returns, inTime)

	newest, by := int64(0), int32(-1) // of what had returned, and whose
	next := 0
	for _, c := range calls {
		for ; next < len(returns) && returns[next].at < c.at; next++ {
			if r := t.ops[returns[next].op].Revision; r > newest {
				newest, by = r, returns[next].op
			}
		}
		o := &t.ops[c.op]
		revision := t.revision(c.op)
		switch {
		case revision < newest:
			t.faults.add("revision %d after %d had been seen: %s; %s", revision, newest, o, t.ops[by])
		case revision == newest && o.Kind == workload.Put:
			t.faults.add("a write made revision %d, which had been seen before it was called: %s; %s", revision, o, t.ops[by])
		}
	}
}

// revision is where an operation took effect, by its own word or others'.
func (t *timeline) revision(op int32) int64 {
	if r := t.ops[op].Revision; r != 0 {
		return r
	}
	return t.inferred[op]
}

// checkReads is (c): what was met at a key was its newest write, or before
// the first write always the same. The values of writes were compared when
// the timeline was made.
func (t *timeline) checkReads() {
	before := make(map[string]Value, len(t.keys)) // what was there before the load
	for i := range t.ops {
		o := &t.ops[i]
		if o.Outcome != workload.OK {
			continue
		}
		if o.ModRevision > o.Revision || o.ModRevision == o.Revision && o.Kind == workload.Put {
			t.faults.add("mod revision %d was found at revision %d already: %s", o.ModRevision, o.Revision, o)
			continue
		}
		if w, ok := t.missed(i); ok {
			t.faults.add("mod revision %d was found instead of %d: %s; %s", o.ModRevision, w.revision, o, t.ops[w.op])
			continue
		}
		if o.ModRevision > t.start {
			continue
		}
		found := Value{o.Value, o.ModRevision}
		if o.Kind == workload.Put {
			found.Value = o.Prev
		}
		if first, ok := before[o.Key]; !ok {
			before[o.Key] = found
		} else if first != found {
			t.faults.add("before the load there was %v, or %v: %s", first, found, o)
		}
	}
}

// missed is the newest write that an operation ought to have met at its key
// and did not.
func (t *timeline) missed(op int) (write, bool) {
	o := &t.ops[op]
	at := o.Revision
	if o.Kind == workload.Put {
		at-- // it met what was there just before it
	}
	w, ok := t.newest(t.keyOf[op], at)
	return w, ok && w.revision > o.ModRevision
}
