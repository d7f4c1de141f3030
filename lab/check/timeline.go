package check

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

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

// A write is a put that is known to have taken effect.
type write struct {
	revision int64
	op       int32 // index in the history
}

// A timeline is the order of a history's writes as their revisions give it.
type timeline struct {
	ops    []workload.Op
	start  int64            // revision before the first operation
	keys   map[string]int32 // key to index of byKey
	keyOf  []int32          // the same, by index in the history
	writes []write          // all, by revision
	byKey  [][]write        // the same, by key, by revision
	// inferred has the revision of each write of unknown outcome that somebody
	// met, by index in the history.
	inferred map[int32]int64
	// hazy are the writes that were not acknowledged, by value.
	hazy map[string]int32

	// faults are what must not be in any history: two writes of one revision,
	// a write that took effect twice or after it had failed, a value that
	// nobody wrote.
	faults faults
	// strange are unexplained values in an incomplete history, which may be
	// those of calls that were not taken down.
	strange faults
}

// newTimeline orders the writes of a history, those of unknown outcome too
// where the history or a view shows what became of them.
func newTimeline(h *workload.History, views []View) *timeline {
	t := &timeline{
		ops:      h.Ops,
		start:    h.StartRevision,
		keys:     map[string]int32{},
		keyOf:    make([]int32, len(h.Ops)),
		writes:   make([]write, 0, len(h.Ops)),
		inferred: map[int32]int64{},
		hazy:     map[string]int32{},
	}
	for i := range t.ops {
		o := &t.ops[i]
		k, ok := t.keys[o.Key]
		if !ok {
			k = int32(len(t.keys))
			t.keys[o.Key] = k
		}
		t.keyOf[i] = k
		switch {
		case o.Acked():
			t.writes = append(t.writes, write{o.Revision, int32(i)})
		case o.Kind == workload.Put:
			t.hazy[o.Value] = int32(i)
		}
	}
	t.order()

	for i := range t.ops {
		o := &t.ops[i]
		if o.Outcome != workload.OK || o.ModRevision == 0 {
			continue
		}
		value, found := o.Value, "read"
		if o.Kind == workload.Put {
			value, found = o.Prev, "replaced"
		}
		if err := t.explain(t.keyOf[i], o.Key, value, o.ModRevision); err != nil {
			t.unexplained(h, fmt.Errorf("client %d %s at revision %d: %w", o.Client, found, o.Revision, err))
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
	if len(t.inferred) > 0 {
		for op, revision := range t.inferred {
			t.writes = append(t.writes, write{revision, op})
		}
		t.order()
	}
	for i := 1; i < len(t.writes); i++ {
		if a, b := t.writes[i-1], t.writes[i]; a.revision == b.revision {
			t.faults.add("two writes made revision %d: %s; %s", a.revision, t.ops[a.op], t.ops[b.op])
		}
	}
	if len(t.writes) > 0 && t.writes[0].revision <= t.start {
		t.faults.add("a write made revision %d, at or below %d where the load began: %s",
			t.writes[0].revision, t.start, t.ops[t.writes[0].op])
	}
	return t
}

// order sorts the writes and deals them out by key.
func (t *timeline) order() {
	slices.SortFunc(t.writes, func(a, b write) int { return cmp.Compare(a.revision, b.revision) })
	t.byKey = make([][]write, len(t.keys))
	for _, w := range t.writes {
		k := t.keyOf[w.op]
		t.byKey[k] = append(t.byKey[k], w)
	}
}

// newest is the last write of a key at or below a revision.
func (t *timeline) newest(k int32, revision int64) (write, bool) {
	if k < 0 {
		return write{}, false
	}
	writes := t.byKey[k]
	i, exact := slices.BinarySearchFunc(writes, revision, func(w write, r int64) int { return cmp.Compare(w.revision, r) })
	if exact {
		return writes[i], true
	}
	if i == 0 {
		return write{}, false
	}
	return writes[i-1], true
}

// explain finds the write of a value that was met at a key. What it learns of
// a write of unknown outcome it keeps.
func (t *timeline) explain(k int32, key, value string, modRevision int64) error {
	if modRevision <= t.start {
		return nil // there before the load, which may have had the same seed
	}
	if w, ok := t.newest(k, modRevision); ok && w.revision == modRevision {
		if o := &t.ops[w.op]; o.Value != value {
			return fmt.Errorf("%s = %s at mod revision %d, which this write made: %s", key, value, modRevision, o)
		}
		return nil
	}
	if op, ok := t.hazy[value]; ok && t.ops[op].Key == key {
		if t.ops[op].Outcome == workload.Fail {
			return fmt.Errorf("%s = %s, of a write that had failed: %s (%s)", key, value, t.ops[op], t.ops[op].Error)
		}
		if known, ok := t.inferred[op]; ok && known != modRevision {
			return fmt.Errorf("%s = %s at mod revision %d and at %d: it took effect twice", key, value, known, modRevision)
		}
		t.inferred[op] = modRevision
		return nil
	}
	return fmt.Errorf("%s = %s at mod revision %d: %w", key, value, modRevision, errStranger)
}

var errStranger = errors.New("no client wrote that there")

func (t *timeline) unexplained(h *workload.History, err error) {
	if errors.Is(err, errStranger) && !h.Complete {
		t.strange.add("%w", err)
		return
	}
	t.faults.add("%w", err)
}
