package check

import (
	"context"
	"time"

	"github.com/etcdrill/etcdrill/lab/workload"
)

// Leases checks that no key vanishes before the lease that it hangs on can
// have run out, that none stays when its lease is revoked, and that nothing is
// attached to a lease that is gone.
//
// A grant or keepalive that was answered was made at some moment after its
// call, so the lease lasts until the call and its TTL at least. A key that is
// known to be gone earlier, and that nobody deleted, vanished too early. The
// other end is open: an election gives every lease its whole TTL again.
func Leases() Checker {
	return Checker{Name: "leases", Check: func(_ context.Context, e Evidence) error {
		h := e.History
		if h == nil || h.LeaseClients == 0 {
			return undecided("nobody held a lease")
		}
		t := e.timeline()
		leases := t.leases()
		if len(leases) == 0 {
			return undecided("no lease was granted")
		}
		var found faults
		t.checkEarly(leases, &found)
		t.checkRevoked(leases, &found)
		if err := found.err(); err != nil {
			return violation("%w", err)
		}
		if err := t.strange.err(); err != nil {
			return undecided("the history is incomplete: %w", err)
		}
		return nil
	}}
}

// A lease is what was done with one.
type lease struct {
	until   time.Duration // it cannot have run out before
	by      int32         // the grant or keepalive that says so
	revoked int32         // the acknowledged revoke, -1 without one
}

func (t *timeline) leases() map[int64]lease {
	all := map[int64]lease{}
	for i := range t.ops {
		o := &t.ops[i]
		if o.Outcome != workload.OK || o.Kind != workload.Grant && o.Kind != workload.KeepAlive {
			continue
		}
		l, known := all[o.Lease]
		if !known {
			l.revoked = -1
			if op, ok := t.revokes[o.Lease]; ok {
				l.revoked = op
			}
		}
		if until := o.Call + time.Duration(o.TTL)*time.Second; until > l.until || !known {
			l.until, l.by = until, int32(i)
		}
		all[o.Lease] = l
	}
	return all
}

// endedByHand says whether a client may have revoked a lease before a moment.
func (t *timeline) endedByHand(id int64, by time.Duration) bool {
	for _, op := range t.hazyRevokes[id] {
		if t.ops[op].Call < by {
			return true
		}
	}
	op, ok := t.revokes[id]
	return ok && t.ops[op].Call < by
}

// checkEarly looks at the keys that are gone without having been deleted.
func (t *timeline) checkEarly(leases map[int64]lease, found *faults) {
	early := func(id int64, key string, at time.Duration, how string) {
		l, known := leases[id]
		if known && at < l.until && !t.endedByHand(id, at) {
			found.add("%s is gone at %s, and hung on lease %x, which cannot have run out before %s (%s): %s",
				key, at.Round(time.Millisecond), id, l.until.Round(time.Millisecond), t.ops[l.by], how)
		}
	}
	for k, all := range t.byKey {
		for i, c := range all {
			if !c.dead || c.op >= 0 || i == 0 {
				continue
			}
			if at, ok := t.provedAt(c.revision); ok {
				early(t.leaseOf(all[i-1]), t.names[k], at, t.describe(c))
			}
		}
	}
	// Where no log tells of a deletion, those who found nothing do.
	for i := range t.ops {
		o := &t.ops[i]
		k := t.keyOf[i]
		if k < 0 || o.Outcome != workload.OK || o.ModRevision != 0 {
			continue
		}
		if c, _ := t.judge(i); c.revision > 0 && !c.dead && !t.deletable(k, o.Return) {
			early(t.leaseOf(c), o.Key, o.Return, o.String())
		}
	}
}

// deletable says whether a delete of which nobody heard may have hit a key
// before a moment.
func (t *timeline) deletable(k int32, by time.Duration) bool {
	for _, d := range t.hazyDeletes[k] {
		if _, used := t.inferred[d]; !used && t.ops[d].Call < by {
			return true
		}
	}
	return false
}

// checkRevoked looks at what hung on leases that are gone.
func (t *timeline) checkRevoked(leases map[int64]lease, found *faults) {
	for k, all := range t.byKey {
		for i, c := range all {
			id := t.leaseOf(c)
			l, known := leases[id]
			if !known || l.revoked < 0 {
				continue
			}
			revoke := &t.ops[l.revoked]
			if c.revision > revoke.Revision {
				found.add("%s was attached to lease %x after that was revoked: %s; %s", t.names[k], id, t.describe(c), revoke)
				continue
			}
			gone := i+1 < len(all) && all[i+1].revision <= revoke.Revision
			if !gone && t.log.covers(revoke.Revision) {
				found.add("%s stays after its lease was revoked: %s; %s", t.names[k], t.describe(c), revoke)
			}
		}
	}
	// A key whose lease is gone is found by nobody. With a log, and where the
	// revoke's own deletions are known, Linearizable sees it too.
	for i := range t.ops {
		o := &t.ops[i]
		if o.Outcome != workload.OK || o.ModRevision == 0 || t.keyOf[i] < 0 {
			continue
		}
		c, ok := t.newest(t.keyOf[i], o.ModRevision)
		if !ok || c.revision != o.ModRevision {
			continue
		}
		l, known := leases[t.leaseOf(c)]
		at := o.Revision
		if o.Acked() {
			at--
		}
		if known && l.revoked >= 0 && at >= t.ops[l.revoked].Revision {
			found.add("%s was found after its lease was revoked: %s; %s", o.Key, o, t.ops[l.revoked])
		}
	}
}
