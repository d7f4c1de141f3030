package check

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/etcdrill/etcdrill/lab/workload"
)

// maxFaults is how many faults of one history are told; the rest are counted.
const maxFaults = 10

// faults gathers what is wrong.
type faults struct {
	told []error
	more int
}

func (f *faults) add(format string, a ...any) {
	if len(f.told) == maxFaults {
		f.more++
		return
	}
	f.told = append(f.told, fmt.Errorf(format, a...))
}

// and takes over those of another.
func (f *faults) and(o faults) {
	for _, err := range o.told {
		f.add("%w", err)
	}
	f.more += o.more
}

// err joins the faults; nil without any.
func (f *faults) err() error {
	if len(f.told) == 0 {
		return nil
	}
	told := f.told
	if f.more > 0 {
		told = append(slices.Clip(told), fmt.Errorf("and %d more", f.more))
	}
	return errors.Join(told...)
}

// A change is one that a key is known to have gone through.
type change struct {
	revision int64
	key      int32
	op       int32 // index in the history; -1 for what the server did, as when a lease runs out
	event    int32 // index in the log; -1 where that does not reach
	dead     bool  // the key was deleted
}

// A timeline is the order of a history's changes as their revisions give it.
type timeline struct {
	ops     []workload.Op
	log     *Log             // nil without one
	start   int64            // revision before the first operation
	names   []string         // keys by number
	keys    map[string]int32 // key to its number
	keyOf   []int32          // key by index in the history, -1 for what has none
	changes []change         // all, by revision and key
	byKey   [][]change       // the same, by key, by revision
	late    []change         // those that were found out later, until they are in changes
	// inferred has the revision of each write of unknown outcome that is known
	// to have taken effect, by index in the history.
	inferred map[int32]int64
	// hazy are the writes of values that were not acknowledged, by value.
	hazy map[string]int32
	// hazyDeletes are the deletes of unknown outcome, by key; hazyRevokes the
	// revokes, by lease.
	hazyDeletes map[int32][]int32
	hazyRevokes map[int64][]int32
	revokes     map[int64]int32 // acknowledged, by lease
	unlogged    []int32         // acknowledged writes that the log ought to have
	vanished    []change        // deletions that nobody asked for

	seen  []sighting // by time of return
	proof []sighting // by revision: when that was first known to have been made

	// faults are what must not be in any history: two writes of one revision,
	// a write that took effect twice or after it had failed, a value that
	// nobody wrote.
	faults faults
	// strange are unexplained values in an incomplete history, which may be
	// those of calls that were not taken down.
	strange faults
}

// A sighting says that a revision was there at a moment: every reply is one.
type sighting struct {
	at       time.Duration
	revision int64
	op       int32
}

// newTimeline orders the changes of a history, those of unknown outcome too
// where the history, the log or a view shows what became of them.
func newTimeline(h *workload.History, log *Log, views []View) *timeline {
	t := &timeline{
		ops: h.Ops, log: log, start: h.StartRevision,
		keys:        map[string]int32{},
		keyOf:       make([]int32, len(h.Ops)),
		changes:     make([]change, 0, len(h.Ops)),
		inferred:    map[int32]int64{},
		hazy:        map[string]int32{},
		hazyDeletes: map[int32][]int32{},
		hazyRevokes: map[int64][]int32{},
		revokes:     map[int64]int32{},
	}
	for i := range t.ops {
		t.index(int32(i))
	}
	slices.SortFunc(t.changes, byRevision)
	t.sightings(h)
	t.readLog(h)
	for i := range t.ops {
		o := &t.ops[i]
		value, mod := o.Found()
		if o.Outcome != workload.OK || mod == 0 {
			continue
		}
		if err := t.explain(t.keyOf[i], o.Key, value, mod); err != nil {
			t.unexplained(h, fmt.Errorf("client %d found at revision %d: %w", o.Client, o.Revision, err))
		}
	}
	for _, v := range views {
		for key, f := range v.Final {
			k, ok := t.keys[key]
			if !ok {
				k = -1 // no client has touched it
			}
			if err := t.explain(k, key, f.Value, f.ModRevision); err != nil {
				t.unexplained(h, fmt.Errorf("member at %s has in the end: %w", v.Endpoint, err))
			}
		}
	}
	for _, c := range t.late {
		if c.op >= 0 && c.event < 0 && t.log.covers(c.revision) {
			t.faults.add("the log has no change at revision %d, where this was met: %s", c.revision, t.ops[c.op])
		}
	}
	t.settle()
	if t.log == nil && len(t.revokes) > 0 {
		t.infer()
		t.settle()
	}
	t.checkRevisions()
	return t
}

// settle puts what was found out later in its place.
func (t *timeline) settle() {
	slices.SortStableFunc(t.late, byRevision)
	if late := t.late; len(late) > 0 {
		all := make([]change, 0, len(t.changes)+len(late))
		for _, c := range t.changes {
			for len(late) > 0 && byRevision(late[0], c) < 0 {
				all, late = append(all, late[0]), late[1:]
			}
			all = append(all, c)
		}
		t.changes, t.late = append(all, late...), nil
	}
	t.deal()
}

// index files an operation under what it may have changed.
func (t *timeline) index(i int32) {
	o := &t.ops[i]
	if o.Kind.OfLease() {
		t.keyOf[i] = -1
		switch {
		case o.Kind == workload.Revoke && o.Outcome == workload.OK:
			t.revokes[o.Lease] = i
		case o.Kind == workload.Revoke && o.Outcome == workload.Unknown:
			t.hazyRevokes[o.Lease] = append(t.hazyRevokes[o.Lease], i)
		}
		return
	}
	k := t.key(o.Key)
	t.keyOf[i] = k
	switch {
	case o.Acked():
		t.changes = append(t.changes, change{revision: o.Revision, key: k, op: i, event: -1, dead: o.Kind == workload.Delete})
	case o.Kind == workload.Delete && o.Outcome == workload.Unknown:
		t.hazyDeletes[k] = append(t.hazyDeletes[k], i)
	case (o.Kind == workload.Put || o.Kind == workload.Txn) && o.Outcome != workload.OK:
		t.hazy[o.Value] = i
	}
}

func (t *timeline) key(name string) int32 {
	k, ok := t.keys[name]
	if !ok {
		k = int32(len(t.names))
		t.keys[name], t.names = k, append(t.names, name)
	}
	return k
}

func byRevision(a, b change) int {
	return cmp.Or(cmp.Compare(a.revision, b.revision), cmp.Compare(a.key, b.key))
}

// deal sorts the changes out by key.
func (t *timeline) deal() {
	count := make([]int32, len(t.names))
	for _, c := range t.changes {
		count[c.key]++
	}
	all := make([]change, len(t.changes))
	t.byKey = make([][]change, len(t.names))
	for k, n := range count {
		t.byKey[k], all = all[:0:n], all[n:]
	}
	for _, c := range t.changes {
		t.byKey[c.key] = append(t.byKey[c.key], c)
	}
}

// sightings takes down which revision was seen when.
func (t *timeline) sightings(h *workload.History) {
	t.seen = make([]sighting, 0, len(t.ops))
	for i := range t.ops {
		if o := &t.ops[i]; o.Outcome == workload.OK {
			t.seen = append(t.seen, sighting{o.Return, o.Revision, int32(i)})
		}
	}
	for _, n := range h.Notices {
		if n.Revision > 0 {
			t.seen = append(t.seen, sighting{n.At, n.Revision, -1})
		}
	}
	slices.SortFunc(t.seen, func(a, b sighting) int { return cmp.Compare(a.at, b.at) })
	// A revision is proved by whatever shows it or a later one.
	newest := int64(0)
	for _, s := range t.seen {
		if s.revision > newest {
			newest = s.revision
			t.proof = append(t.proof, s)
		}
	}
}

// provedAt is the earliest moment at which somebody had been told of a
// revision or a later one; false where nobody was.
func (t *timeline) provedAt(revision int64) (time.Duration, bool) {
	i, _ := slices.BinarySearchFunc(t.proof, revision, func(s sighting, r int64) int { return cmp.Compare(s.revision, r) })
	if i == len(t.proof) {
		return 0, false
	}
	return t.proof[i].at, true
}

// knownAt is the newest revision that anybody had been told of before a
// moment.
func (t *timeline) knownAt(at time.Duration) int64 {
	i, _ := slices.BinarySearchFunc(t.proof, at, func(s sighting, d time.Duration) int { return cmp.Compare(s.at, d) })
	if i == 0 {
		return 0
	}
	return t.proof[i-1].revision
}

// readLog holds the acknowledged writes against the log, and resolves those of
// unknown outcome.
func (t *timeline) readLog(h *workload.History) {
	if t.log == nil {
		return
	}
	acked := t.changes
	logged := make([]bool, len(acked))
	leases := map[int32]int64{} // that keys hang on, as the log goes on
	next := 0
	for i, e := range t.log.Events {
		for next < len(acked) && acked[next].revision < e.ModRevision {
			next++
		}
		k := t.key(e.Key)
		found := false
		for j := next; j < len(acked) && acked[j].revision == e.ModRevision; j++ {
			if acked[j].key == k {
				found, logged[j] = true, true
				t.changes[j].event = int32(i)
				t.compare(e, acked[j].op)
			}
		}
		if !found {
			t.resolve(h, int32(i), e, k, leases[k])
		}
		leases[k] = e.Lease // none with a delete
	}
	for j, c := range acked {
		if !logged[j] && t.log.covers(c.revision) {
			t.unlogged = append(t.unlogged, c.op)
			t.faults.add("the log has no such change at revision %d: %s", c.revision, t.ops[c.op])
		}
	}
}

// compare holds an event against the operation that made its revision.
func (t *timeline) compare(e workload.Event, op int32) {
	o := &t.ops[op]
	switch {
	case e.Deleted != (o.Kind == workload.Delete), !e.Deleted && e.Value != o.Value, !e.Deleted && e.Lease != o.Lease:
		t.faults.add("the log has %s, with lease %x, where this was acknowledged: %s", e, e.Lease, o)
	}
}

// resolve finds who made a change that nobody had acknowledged.
func (t *timeline) resolve(h *workload.History, i int32, e workload.Event, k int32, lease int64) {
	c := change{revision: e.ModRevision, key: k, op: -1, event: i, dead: e.Deleted}
	if !e.Deleted {
		n := len(t.late)
		err := t.explain(k, e.Key, e.Value, e.ModRevision)
		if err != nil {
			t.unexplained(h, fmt.Errorf("the log has: %w", err))
		}
		if len(t.late) > n {
			t.late[n].event = i
		} else {
			t.late = append(t.late, c)
		}
		return
	}
	defer func() { t.late = append(t.late, c) }()
	if op, ok := t.revokes[lease]; ok && lease != 0 && t.ops[op].Revision == e.ModRevision {
		c.op = op
		return
	}
	for _, op := range t.hazyDeletes[k] {
		if _, used := t.inferred[op]; !used && t.knownAt(t.ops[op].Call) < e.ModRevision {
			t.inferred[op], c.op = e.ModRevision, op
			return
		}
	}
	if lease != 0 {
		return // it ran out, or was revoked; whether it might is for Leases to say
	}
	if t.begunLate() && t.everLeased(k) {
		return
	}
	t.vanished = append(t.vanished, c)
	t.unexplained(h, fmt.Errorf("the log has the %s: %w", e, errStranger))
}

// begunLate says that the beginning of the log is compacted away. Which delete
// of unknown outcome made which event is then a guess: another may have been
// made before the log begins.
func (t *timeline) begunLate() bool { return t.log != nil && t.log.From > t.start+1 }

func (t *timeline) everLeased(k int32) bool {
	for i := range t.ops {
		if t.keyOf[i] == k && t.ops[i].Lease != 0 {
			return true
		}
	}
	return false
}

// infer adds what acknowledged revokes have deleted, where there is no log to
// tell: whatever hung on the lease then.
func (t *timeline) infer() {
	for lease, op := range t.revokes {
		at := t.ops[op].Revision
		for k := range t.byKey {
			if c, ok := t.newest(int32(k), at-1); ok && !c.dead && t.leaseOf(c) == lease {
				t.late = append(t.late, change{revision: at, key: int32(k), op: op, event: -1, dead: true})
			}
		}
	}
}

// leaseOf is the lease that a change attached its key to, 0 for none.
func (t *timeline) leaseOf(c change) int64 {
	switch {
	case c.dead:
	case c.event >= 0:
		return t.log.Events[c.event].Lease
	case c.op >= 0:
		return t.ops[c.op].Lease
	}
	return 0
}

// describe tells who made a change.
func (t *timeline) describe(c change) string {
	switch {
	case c.op >= 0:
		return t.ops[c.op].String()
	case c.event >= 0:
		return t.log.Events[c.event].String() + ", by no client"
	}
	return fmt.Sprintf("change of %s at revision %d", t.names[c.key], c.revision)
}

// checkRevisions sees that one revision is one change. A lease that ends takes
// several keys with it.
func (t *timeline) checkRevisions() {
	ofLease := func(c change) bool { return c.dead && (c.op < 0 || t.ops[c.op].Kind == workload.Revoke) }
	for i := 1; i < len(t.changes); i++ {
		a, b := t.changes[i-1], t.changes[i]
		if a.revision == b.revision && (a.key == b.key || !ofLease(a) || !ofLease(b)) {
			t.faults.add("two writes made revision %d: %s; %s", a.revision, t.describe(a), t.describe(b))
		}
	}
	if len(t.changes) > 0 && t.changes[0].revision <= t.start {
		t.faults.add("a write made revision %d, at or below %d where the load began: %s",
			t.changes[0].revision, t.start, t.describe(t.changes[0]))
	}
}

// newest is the last change of a key at or below a revision.
func (t *timeline) newest(k int32, revision int64) (change, bool) {
	none := change{op: -1, event: -1}
	if k < 0 || int(k) >= len(t.byKey) {
		return none, false
	}
	all := t.byKey[k]
	i, exact := slices.BinarySearchFunc(all, revision, func(c change, r int64) int { return cmp.Compare(c.revision, r) })
	if exact {
		return all[i], true
	}
	if i == 0 {
		return none, false
	}
	return all[i-1], true
}

// at is the acknowledged change that a key went through at a revision.
func (t *timeline) at(k int32, revision int64) (change, bool) {
	i, ok := slices.BinarySearchFunc(t.changes, change{revision: revision, key: k}, byRevision)
	if !ok {
		return change{}, false
	}
	return t.changes[i], true
}

// explain finds the write of a value that was met at a key. What it learns of
// a write of unknown outcome it keeps.
func (t *timeline) explain(k int32, key, value string, modRevision int64) error {
	if modRevision <= t.start {
		return nil // there before the load, which may have had the same seed
	}
	if op, ok := t.hazy[value]; ok && t.ops[op].Key == key {
		if t.ops[op].Outcome == workload.Fail {
			return fmt.Errorf("%s = %s, of a write that had failed: %s (%s)", key, value, t.ops[op], t.ops[op].Error)
		}
		if known, ok := t.inferred[op]; ok && known != modRevision {
			return fmt.Errorf("%s = %s at mod revision %d and at %d: it took effect twice", key, value, known, modRevision)
		}
		if _, known := t.inferred[op]; !known {
			t.inferred[op] = modRevision
			t.late = append(t.late, change{revision: modRevision, key: k, op: op, event: -1})
		}
		return nil
	}
	if k >= 0 {
		if c, ok := t.at(k, modRevision); ok && c.op >= 0 {
			if o := &t.ops[c.op]; c.dead || o.Value != value {
				return fmt.Errorf("%s = %s at mod revision %d, which this made: %s", key, value, modRevision, o)
			}
			return nil
		}
	}
	return fmt.Errorf("%s = %s at mod revision %d: %w", key, value, modRevision, errStranger)
}

var errStranger = errors.New("no client did that")

func (t *timeline) unexplained(h *workload.History, err error) {
	if errors.Is(err, errStranger) && !h.Complete {
		t.strange.add("%w", err)
		return
	}
	t.faults.add("%w", err)
}
