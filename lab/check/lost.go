package check

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/lab/workload"
)

// A LostError names the acknowledged writes that are missing. It is an
// ErrViolation.
type LostError struct {
	Writes []workload.Op // in the order of the history
}

func (e *LostError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d acknowledged writes are missing", len(e.Writes))
	for i, o := range e.Writes {
		if i == maxFaults {
			fmt.Fprintf(&b, "\nand %d more", len(e.Writes)-i)
			break
		}
		fmt.Fprintf(&b, "\n%s", o)
	}
	return b.String()
}

// Unwrap gives ErrViolation.
func (e *LostError) Unwrap() error { return ErrViolation }

// NoAckedWriteLost checks that each acknowledged write is the final state of
// its key on every voter or was replaced by a later write that is known. The
// error is a *LostError where writes are missing.
func NoAckedWriteLost() Checker {
	return Checker{"no-acked-write-lost", func(_ context.Context, e Evidence) error {
		lost, err := Lost(e)
		if len(lost) > 0 {
			return &LostError{lost}
		}
		return err
	}}
}

// Lost gives the acknowledged writes that are missing: their number is the
// report's lost_writes. An error wraps ErrUnknown where a voter was not heard
// or the history does not account for what was found, ErrViolation where
// something was found that no client can have written. Writes that are
// certainly missing are given beside an error too.
func Lost(e Evidence) ([]workload.Op, error) {
	h := e.History
	if h == nil || h.Acked() == 0 {
		return nil, undecided("no write was acknowledged")
	}
	t := newTimeline(h, e.Views)
	lost := map[int32]bool{}

	// Missed by the next write on the same key, whatever covers it now. Of
	// several that are hidden all count, not just the newest.
	for i := range t.ops {
		o := &t.ops[i]
		if !o.Acked() {
			continue
		}
		if _, ok := t.missed(i); ok {
			t.lose(lost, t.keyOf[i], o.ModRevision, o.Revision-1)
		}
	}
	for _, v := range e.Views {
		if v.Err != "" || v.IsLearner {
			continue
		}
		for key, k := range t.keys {
			final, ok := v.Final[key]
			writes := t.byKey[k]
			if len(writes) == 0 {
				continue
			}
			t.lose(lost, k, final.ModRevision, writes[len(writes)-1].revision)
			if w, known := t.newest(k, final.ModRevision); ok && known && w.revision == final.ModRevision &&
				t.ops[w.op].Value != final.Value && t.ops[w.op].Acked() {
				lost[w.op] = true
			}
		}
	}

	var ops []workload.Op
	for i := range t.ops {
		if lost[int32(i)] {
			ops = append(ops, t.ops[i])
		}
	}
	if err := t.faults.err(); err != nil {
		return ops, violation("%w", err)
	}
	if err := e.answered(); err != nil {
		return ops, err
	}
	if !slices.ContainsFunc(e.Views, func(v View) bool { return !v.IsLearner }) {
		return ops, undecided("no voter was asked")
	}
	if err := t.strange.err(); err != nil {
		return ops, undecided("the history is incomplete: %w", err)
	}
	return ops, nil
}

// lose adds the acknowledged writes of a key in (above, upTo].
func (t *timeline) lose(lost map[int32]bool, k int32, above, upTo int64) {
	writes := t.byKey[k]
	for i := len(writes) - 1; i >= 0 && writes[i].revision > above; i-- {
		if w := writes[i]; w.revision <= upTo && t.ops[w.op].Acked() {
			lost[w.op] = true
		}
	}
}
