package check

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/etcdrill/etcdrill/lab/workload"
)

const (
	// A window is closed at the first moment of rest after windowWanted
	// operations; porcupine is quick with those. With more than windowMost it may
	// never end, so longer windows are cut up by their revisions.
	windowWanted = 100
	windowMost   = 400
	// mostWindows is how many windows are looked at, spread over all.
	mostWindows = 400
	// windowPatience is how long porcupine may search in one window.
	windowPatience = 20 * time.Second
)

// SecondOpinion has porcupine search for an order of the operations, which
// knows nothing of revisions: a register for each key, in windows that begin
// and end when nobody is at work on it. Where a key never comes to rest, its
// revisions say which operations make a window, and no more. Keys that hang on
// leases are left out, since etcd itself deletes them. Where a window cannot be
// decided, nor is the whole.
func SecondOpinion() Checker {
	return Checker{Name: "second-opinion", Check: func(ctx context.Context, e Evidence) error {
		h := e.History
		if h == nil || h.Acked() == 0 {
			return undecided("no write was acknowledged")
		}
		t := e.timeline()
		windows, tooLong := t.windows(h)
		stride := max(1, (len(windows)+mostWindows-1)/mostWindows)
		model := register()
		var found faults
		var unsure error
		for i := 0; i < len(windows); i += stride {
			if err := ctx.Err(); err != nil {
				return undecided("%w", err)
			}
			w := windows[i]
			switch porcupine.CheckOperationsTimeout(model, w.calls, windowPatience) {
			case porcupine.Illegal:
				found.add("there is no order in which %s can have seen what it saw in %d operations from %s to %s",
					w.key, len(w.calls), w.from.Round(time.Microsecond), w.to.Round(time.Microsecond))
			case porcupine.Unknown:
				unsure = undecided("%d operations on %s from %s on: porcupine did not end within %s", len(w.calls), w.key, w.from, windowPatience)
			}
		}
		if err := found.err(); err != nil {
			return violation("%w", err)
		}
		if unsure == nil && tooLong != "" {
			unsure = undecided("%s was never at rest for %d operations, with deletes among them of which nobody heard: more than porcupine can search", tooLong, windowMost)
		}
		return unsure
	}}
}

// A window is what was done with one key between two moments of rest.
type window struct {
	key      string
	from, to time.Duration
	calls    []porcupine.Operation
}

// windows cuts the history; tooLong is a key that never came to rest.
func (t *timeline) windows(h *workload.History) (all []window, tooLong string) {
	byKey := make([][]int32, len(t.names))
	leased := make([]bool, len(t.names))
	whole := t.log != nil && !t.begunLate()
	for i := range t.ops {
		o := &t.ops[i]
		k := t.keyOf[i]
		if k < 0 {
			continue
		}
		leased[k] = leased[k] || o.Lease != 0
		_, took := t.inferred[int32(i)]
		// A write that nobody met has changed nothing that anybody saw. A delete
		// leaves nothing to be met, and may have been made at any time since; only a
		// whole log says that it was not.
		pending := !whole && o.Kind == workload.Delete && o.Outcome == workload.Unknown
		if o.Kind != workload.SerializableGet && (took || pending || o.Outcome == workload.OK) {
			byKey[k] = append(byKey[k], int32(i))
		}
	}
	end := h.End() + 1
	for k, ops := range byKey {
		if leased[k] {
			continue
		}
		slices.SortFunc(ops, func(a, b int32) int { return cmp.Compare(t.ops[a].Call, t.ops[b].Call) })
		values := t.valuesOf(ops)
		w := window{key: t.names[k]}
		rest := time.Duration(math.MinInt64)
		flush := func() {
			w.to = rest
			switch parts, ok := t.cut(w); {
			case !ok:
				tooLong = w.key
			case len(w.calls) > 0:
				all = append(all, parts...)
			}
			w.calls = nil
		}
		for _, i := range ops {
			o := &t.ops[i]
			if o.Call > rest && len(w.calls) >= windowWanted {
				flush()
			}
			returned := o.Return
			if o.Outcome == workload.Unknown {
				returned = end
			}
			if revision, inferred := t.inferred[i]; inferred && !(o.Kind == workload.Delete && t.begunLate()) {
				// It was done by the time that somebody had seen it.
				if at, ok := t.provedAt(revision); ok {
					returned = max(at, o.Call)
				}
			}
			if len(w.calls) == 0 {
				w.from = o.Call
			}
			rest = max(rest, returned)
			w.calls = append(w.calls, porcupine.Operation{ClientId: o.Client, Call: int64(o.Call), Return: int64(returned),
				Input: question{o, i, values}, Output: o.Outcome == workload.OK})
		}
		flush()
	}
	return all, tooLong
}

// cut divides a window that is too long, by revisions; false where one of its
// operations has none.
func (t *timeline) cut(w window) ([]window, bool) {
	if len(w.calls) <= windowMost {
		return []window{w}, true
	}
	type placed struct {
		revision int64
		after    int // a write comes before those who read it
		call     porcupine.Operation
	}
	all := make([]placed, len(w.calls))
	for i, c := range w.calls {
		q := c.Input.(question)
		p := placed{revision: q.op.Revision, call: c}
		if p.revision == 0 {
			p.revision = t.inferred[q.index]
		}
		if p.revision == 0 {
			return nil, false
		}
		if q.op.Outcome == workload.OK && !q.op.Acked() {
			p.after = 1
		}
		all[i] = p
	}
	slices.SortStableFunc(all, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.revision, b.revision), cmp.Compare(a.after, b.after))
	})
	var parts []window
	for chunk := range slices.Chunk(all, windowWanted) {
		part := window{key: w.key, from: time.Duration(chunk[0].call.Call)}
		for _, p := range chunk {
			part.calls = append(part.calls, p.call)
			part.to = max(part.to, time.Duration(p.call.Return))
		}
		parts = append(parts, part)
	}
	return parts, true
}

// valuesOf tells what value each mod revision stood for, as far as the clients
// can know: what a txn expects is a value that its client has seen.
func (t *timeline) valuesOf(ops []int32) map[int64]string {
	values := map[int64]string{}
	for _, i := range ops {
		o := &t.ops[i]
		if o.Outcome != workload.OK {
			continue
		}
		if value, mod := o.Found(); mod != 0 {
			values[mod] = value
		}
		if o.Acked() && o.Kind != workload.Delete {
			values[o.Revision] = o.Value
		}
	}
	return values
}

// A question is an operation as the register sees it. Its reply is there only
// where the output is true.
type question struct {
	op     *workload.Op
	index  int32 // in the history
	values map[int64]string
}

// A content is what a key holds. The zero value stands for anything: a window
// begins where nobody knows yet.
type content struct {
	known, present bool
	value          string
}

// register is one key, without revisions.
func register() porcupine.Model {
	return porcupine.Model{
		Init:  func() any { return content{} },
		Equal: func(a, b any) bool { return a == b },
		Step: func(state, input, output any) (bool, any) {
			now, in := state.(content), input.(question)
			o := in.op
			if output.(bool) {
				value, mod := o.Found()
				met := content{true, mod != 0, value}
				if now.known && now != met {
					return false, now
				}
				now = met
			}
			written := content{true, true, o.Value}
			switch {
			case o.Kind == workload.Put:
				return true, written
			case o.Kind == workload.Delete:
				return true, content{known: true}
			case o.Kind == workload.Txn && output.(bool):
				expected, seen := in.expects()
				if seen && o.Done != (now == expected) {
					return false, now
				}
				if o.Done {
					return true, written
				}
			case o.Kind == workload.Txn: // known to have taken effect, so what it expected was there
				if expected, seen := in.expects(); seen && now.known && now != expected {
					return false, now
				}
				return true, written
			}
			return true, now
		},
		DescribeOperation: func(input, _ any) string { return input.(question).op.String() },
		DescribeState:     func(state any) string { return fmt.Sprint(state.(content)) },
	}
}

// expects is what a txn expects to find; false where no client has seen it.
func (a question) expects() (content, bool) {
	if a.op.Expect == 0 {
		return content{known: true}, true
	}
	value, ok := a.values[a.op.Expect]
	return content{true, true, value}, ok
}
