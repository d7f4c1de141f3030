package check

import (
	"context"
	"fmt"
	"math"
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

// NoAckedWriteLost checks that each acknowledged write, deletes included, is
// in the log, and is the final state of its key on every voter or was replaced
// by a later one that is known. The error is a *LostError where writes are
// missing.
func NoAckedWriteLost() Checker {
	return Checker{Name: "no-acked-write-lost", Check: func(_ context.Context, e Evidence) error {
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
	t, end := e.timeline(), h.End()
	lost := map[int32]bool{}
	var vague faults

	// Those that the log does not know of, whatever came after them.
	for _, op := range t.unlogged {
		lost[op] = true
	}
	// Those that were there when their key was deleted, and nobody had asked for
	// that.
	for _, v := range t.vanished {
		if c, ok := t.newest(v.key, v.revision-1); ok && c.op >= 0 && t.ops[c.op].Acked() {
			lost[c.op] = true
		}
	}
	// Missed by the next write on the same key, whatever covers it now. Of
	// several that are hidden all count, not just the newest.
	for i := range t.ops {
		o := &t.ops[i]
		if !o.Acked() {
			continue
		}
		if _, says := t.judge(i); says == missed {
			t.lose(lost, t.keyOf[i], o.ModRevision, o.Revision-1)
		}
	}
	for _, v := range e.Views {
		if v.Err != "" || v.IsLearner {
			continue
		}
		for k, name := range t.names {
			final := v.Final[name]
			c, says := t.holds(int32(k), final.ModRevision, max(v.Revision, final.ModRevision), end)
			switch {
			case says == missed:
				t.lose(lost, int32(k), final.ModRevision, v.Revision)
			case says == doubtful:
				vague.add("%s is not at %s: %s", name, v.Endpoint, t.describe(c))
			case c.revision == final.ModRevision && c.op >= 0 && t.ops[c.op].Value != final.Value && t.ops[c.op].Acked():
				lost[c.op] = true
			}
			// The load had ended before anybody looked.
			t.lose(lost, int32(k), max(v.Revision, final.ModRevision), math.MaxInt64)
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
	if err := vague.err(); err != nil {
		return ops, undecided("without the log nobody can tell: %w", err)
	}
	return ops, nil
}

// lose adds the acknowledged writes of a key in (above, upTo]. Where nothing
// was found, those since it was last deleted.
func (t *timeline) lose(lost map[int32]bool, k int32, above, upTo int64) {
	all := t.byKey[k]
	for i := len(all) - 1; i >= 0 && all[i].revision > above; i-- {
		c := all[i]
		if c.revision > upTo {
			continue
		}
		if c.dead && above == 0 {
			return
		}
		if c.op >= 0 && t.ops[c.op].Acked() {
			lost[c.op] = true
		}
	}
}
