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
	return Checker{Name: "linearizable", Check: func(_ context.Context, e Evidence) error {
		h := e.History
		if h == nil || h.Acked() == 0 {
			return undecided("no write was acknowledged")
		}
		t := e.timeline()
		var found, vague faults
		found.and(t.faults)
		t.checkTime(&found)
		t.checkFound(&found, &vague)
		if err := found.err(); err != nil {
			return violation("%w", err)
		}
		if err := t.strange.err(); err != nil {
			return undecided("the history is incomplete: %w", err)
		}
		if err := vague.err(); err != nil {
			return undecided("without the log nobody can tell: %w", err)
		}
		return nil
	}}
}

// A moment is a call.
type moment struct {
	at time.Duration
	op int32
}

// checkTime is (b): whatever was called after a reply is no older than it.
func (t *timeline) checkTime(found *faults) {
	calls := make([]moment, 0, len(t.ops))
	for i := range t.ops {
		o := &t.ops[i]
		_, inferred := t.inferred[int32(i)]
		switch {
		case o.Kind == workload.SerializableGet || o.Kind == workload.KeepAlive: // any age will do
		case o.Outcome == workload.OK, inferred:
			// What was never answered may have taken effect at any time after its call.
			calls = append(calls, moment{o.Call, int32(i)})
		}
	}
	slices.SortFunc(calls, func(a, b moment) int { return cmp.Compare(a.at, b.at) })

	newest, by := int64(0), int32(-1) // of what had returned, and whose
	next := 0
	for _, c := range calls {
		for ; next < len(t.seen) && t.seen[next].at < c.at; next++ {
			if s := t.seen[next]; s.revision > newest {
				newest, by = s.revision, s.op
			}
		}
		o := &t.ops[c.op]
		revision, inferred := t.inferred[c.op]
		if !inferred {
			revision = o.Revision
		}
		switch {
		case revision < newest:
			found.add("revision %d after %d had been seen: %s; %s", revision, newest, o, t.witness(by))
		case revision == newest && (inferred || o.Acked()):
			found.add("a write made revision %d, which had been seen before it was called: %s; %s", revision, o, t.witness(by))
		}
	}
}

// witness tells who saw a revision.
func (t *timeline) witness(op int32) string {
	if op < 0 {
		return "a watcher"
	}
	return t.ops[op].String()
}

// checkFound is (c): what was met at a key was its newest change, or before
// the first change always the same. The values of writes were compared when
// the timeline was made.
func (t *timeline) checkFound(found, vague *faults) {
	before := make([]Value, len(t.names)) // what was there before the load
	known := make([]bool, len(t.names))
	for i := range t.ops {
		o := &t.ops[i]
		k := t.keyOf[i]
		if o.Outcome != workload.OK || k < 0 {
			continue
		}
		if o.Kind == workload.Txn && o.Done != (o.ModRevision == o.Expect) {
			found.add("the comparison with mod revision %d was answered wrong: %s, mod revision %d", o.Expect, o, o.ModRevision)
			continue
		}
		if o.ModRevision > o.Revision || o.ModRevision == o.Revision && o.Acked() {
			found.add("mod revision %d was found at revision %d already: %s", o.ModRevision, o.Revision, o)
			continue
		}
		c, says := t.judge(i)
		switch says {
		case missed:
			found.add("mod revision %d was found instead of %d: %s; %s", o.ModRevision, c.live(), o, t.describe(c))
			continue
		case doubtful:
			vague.add("nothing was found instead of mod revision %d: %s; %s", c.live(), o, t.describe(c))
			continue
		}
		if c.revision > 0 || o.ModRevision > t.start {
			continue
		}
		value, mod := o.Found()
		switch there := (Value{value, mod}); {
		case !known[k]:
			before[k], known[k] = there, true
		case before[k] != there:
			found.add("before the load there was %v, or %v: %s", before[k], there, o)
		}
	}
}

// live is the mod revision that a key has after a change, 0 for none.
func (c change) live() int64 {
	if c.dead {
		return 0
	}
	return c.revision
}

// saying is what can be said of what an operation found at its key.
type saying int

const (
	right    saying = iota
	missed          // it ought to have met another change
	doubtful        // it may be right, by a delete of which nobody heard
)

// judge holds what an operation found at its key against the newest change
// there, which it gives; none where there was none since the load began.
func (t *timeline) judge(op int) (change, saying) {
	o := &t.ops[op]
	at := o.Revision
	if o.Acked() {
		at-- // it met what was there just before it
	}
	return t.holds(t.keyOf[op], o.ModRevision, at, o.Return)
}

// holds says whether a key can have had a mod revision at a revision, which was
// seen by a moment.
func (t *timeline) holds(k int32, mod, at int64, by time.Duration) (change, saying) {
	c, ok := t.newest(k, at)
	switch {
	case !ok, mod == c.live(), mod > c.revision: // the last is told as a value from nowhere
		return c, right
	case mod != 0 || t.log.covers(at) && t.log.covers(c.revision):
		return c, missed
	case t.leaseOf(c) != 0:
		return c, right // it may have run out; whether it can is for Leases to say
	}
	for _, d := range t.hazyDeletes[k] {
		if _, used := t.inferred[d]; (!used || t.begunLate()) && t.ops[d].Call < by {
			return c, doubtful
		}
	}
	return c, missed
}
