package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// Evidence is what was seen of a cluster between two moments.
type Evidence struct {
	Instances []string
	// Began and Ended bound the watch by the clock of the judge, From and To
	// that of the VIP by the machines' own.
	Began, Ended  time.Time
	From, To      time.Time
	Before, After Topology
	States        []State   // by time
	Holdings      []Holding // by their beginnings
	// Blind says why the watch of a machine's addresses is not whole.
	Blind []string
	// Writes are the load's, Rows the numbers of those that were found in the
	// end, by instance. The watch leaves both to its caller.
	Writes []Write
	Rows   map[string][]int64
}

// Checkers judge the evidence; they look at nothing else. The names are
// no-acked-row-lost, same-primary, one-vip-holder and vip-on-primary.
func (e Evidence) Checkers() []check.Checker {
	named := func(name string, judge func() error) check.Checker {
		return check.Checker{Name: name, Check: func(context.Context, check.Evidence) error { return judge() }}
	}
	return []check.Checker{
		named("no-acked-row-lost", e.noRowLost),
		named("same-primary", e.samePrimary),
		named("one-vip-holder", e.oneHolder),
		named("vip-on-primary", e.vipOnPrimary),
	}
}

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %w", check.ErrViolation, fmt.Errorf(format, args...))
}

func undecided(format string, args ...any) error {
	return fmt.Errorf("%w: %w", check.ErrUnknown, fmt.Errorf(format, args...))
}

// Acked is how many inserts were acknowledged.
func (e Evidence) Acked() int {
	n := 0
	for _, w := range e.Writes {
		if w.Outcome == workload.OK {
			n++
		}
	}
	return n
}

// Lost gives the acknowledged inserts whose rows are missing on an instance.
func (e Evidence) Lost(instance string) []Write {
	there := map[int64]bool{}
	for _, id := range e.Rows[instance] {
		there[id] = true
	}
	var lost []Write
	for _, w := range e.Writes {
		if w.Outcome == workload.OK && !there[w.ID] {
			lost = append(lost, w)
		}
	}
	return lost
}

// noRowLost: every acknowledged insert is on the primary and on all replicas,
// and nothing is there that nobody sent, or that was refused.
func (e Evidence) noRowLost() error {
	if e.Acked() == 0 {
		return undecided("no row was acknowledged")
	}
	if e.After.Leader == "" {
		return undecided("nobody knows the primary in the end")
	}
	sent := map[int64]workload.Outcome{}
	for _, w := range e.Writes {
		sent[w.ID] = w.Outcome
	}
	for _, name := range e.Instances {
		rows, ok := e.Rows[name]
		if !ok {
			return undecided("the rows of %s were not read", name)
		}
		if lost := e.Lost(name); len(lost) > 0 {
			first := lost[0]
			return violation("%d acknowledged rows are missing on %s, the first is %d, which %s acknowledged at %s",
				len(lost), name, first.ID, first.Instance, clock(first.Return))
		}
		for _, id := range rows {
			switch outcome, ok := sent[id]; {
			case !ok:
				return violation("%s has row %d, which nobody sent", name, id)
			case outcome == workload.Fail:
				return undecided("%s has row %d, which was taken for refused: the load's own account is wrong", name, id)
			}
		}
	}
	return nil
}

// samePrimary: Patroni's leader and its timeline are what they were, and that
// primary was one all the while.
func (e Evidence) samePrimary() error {
	before, after := e.Before, e.After
	switch {
	case before.Leader == "" || after.Leader == "" || before.Timeline == 0 || after.Timeline == 0:
		return undecided("Patroni did not tell leader and timeline at both ends: %q on %d, then %q on %d",
			before.Leader, before.Timeline, after.Leader, after.Timeline)
	case before.Leader != after.Leader:
		return violation("Patroni's leader was %s and is %s", before.Leader, after.Leader)
	case before.Timeline != after.Timeline:
		return violation("the timeline was %d and is %d", before.Timeline, after.Timeline)
	case before.Promotions != after.Promotions:
		return violation("there were %d promotions", after.Promotions-before.Promotions)
	}
	started, asked := "", 0
	for _, s := range e.States {
		if s.Problem != "" {
			continue
		}
		if s.Instance != before.Leader {
			if s.Role == "primary" || s.Role == "master" {
				return violation("%s was a %s as well at %s", s.Instance, s.Role, clock(s.At))
			}
			continue
		}
		asked++
		switch {
		case s.Role != "primary" && s.Role != "master" || s.State != "running":
			return violation("%s was %s and %s at %s", s.Instance, s.Role, s.State, clock(s.At))
		case s.Timeline != 0 && s.Timeline != before.Timeline:
			return violation("%s was on timeline %d at %s", s.Instance, s.Timeline, clock(s.At))
		case started != "" && s.Started != started:
			return violation("the primary %s was started anew at %s", s.Instance, s.Started)
		}
		started = s.Started
	}
	if asked == 0 {
		return undecided("%s never told how it was", before.Leader)
	}
	for _, w := range e.Writes {
		if w.Outcome == workload.OK && w.Instance != before.Leader {
			return violation("row %d was taken by %s at %s", w.ID, w.Instance, clock(w.Return))
		}
	}
	return nil
}

// An Overlap is a time for which the VIP was on two machines.
type Overlap struct {
	Instances [2]string
	From, To  time.Time
}

// Overlaps are the times for which the VIP was on more than one machine.
func (e Evidence) Overlaps() []Overlap {
	var all []Overlap
	for i, a := range e.Holdings {
		for _, b := range e.Holdings[i+1:] {
			if a.Instance == b.Instance {
				continue
			}
			from, to := a.From, a.To
			if b.From.After(from) {
				from = b.From
			}
			if b.To.Before(to) {
				to = b.To
			}
			if from.Before(to) {
				all = append(all, Overlap{[2]string{a.Instance, b.Instance}, from, to})
			}
		}
	}
	return all
}

func (e Evidence) oneHolder() error {
	if all := e.Overlaps(); len(all) > 0 {
		o := all[0]
		return violation("the VIP was on %s and %s at once from %s, for %s", o.Instances[0], o.Instances[1], clock(o.From), o.To.Sub(o.From).Round(time.Microsecond))
	}
	return e.whole()
}

// whole says what is missing from the watch of the VIP.
func (e Evidence) whole() error {
	switch {
	case len(e.Blind) > 0:
		return undecided("the VIP was not watched all the while: %s", e.Blind[0])
	case e.From.IsZero() || !e.From.Before(e.To):
		return undecided("the VIP was not watched")
	}
	return nil
}

func (e Evidence) vipOnPrimary() error {
	if err := e.whole(); err != nil {
		return err
	}
	var now []string
	for _, h := range e.Holdings {
		if !h.To.Before(e.To) {
			now = append(now, h.Instance)
		}
	}
	if !slices.Equal(now, []string{e.After.Leader}) {
		return violation("in the end the VIP is on %v, and the primary is %q", now, e.After.Leader)
	}
	return nil
}

// A Span is a time, by the machines' clock.
type Span struct{ From, To time.Time }

// Length is how long it was.
func (s Span) Length() time.Duration { return s.To.Sub(s.From) }

// Gone are the times for which no machine held the VIP, in their order.
func (e Evidence) Gone() []Span {
	var all []Span
	at := e.From
	for _, h := range e.Holdings { // by their beginnings
		if h.From.After(at) {
			all = append(all, Span{at, h.From})
		}
		if h.To.After(at) {
			at = h.To
		}
	}
	if at.Before(e.To) {
		all = append(all, Span{at, e.To})
	}
	return all
}

// WriteGap is the longest time between two acknowledged inserts of any clients
// that returned from one time to another, which count as inserts themselves,
// and when it began; and how many there were.
func (e Evidence) WriteGap(from, to time.Time) (gap time.Duration, at time.Time, acked int) {
	last := from
	at = from
	for _, w := range e.Writes { // by their return
		if w.Outcome != workload.OK || w.Return.Before(from) || w.Return.After(to) {
			continue
		}
		acked++
		if d := w.Return.Sub(last); d > gap {
			gap, at = d, last
		}
		last = w.Return
	}
	if d := to.Sub(last); d > gap {
		gap, at = d, last
	}
	return gap, at, acked
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000Z") }
