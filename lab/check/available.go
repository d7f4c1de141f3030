package check

import (
	"context"
	"slices"
	"time"

	"github.com/etcdrill/etcdrill/lab/workload"
)

// A Budget is how long clients may be kept waiting by an operator, beyond what
// they wait anyhow. Zero is no limit.
type Budget struct {
	WriteGap time.Duration `json:"write_gap_ns,omitempty"`
	ReadGap  time.Duration `json:"read_gap_ns,omitempty"` // between linearizable gets
	// QuietFrom and QuietTo are when the load ran alone, to be held against.
	QuietFrom time.Time `json:"quiet_from"`
	QuietTo   time.Time `json:"quiet_to"`
}

// A Fault is harm that was done to a cluster.
type Fault struct {
	Name     string    `json:"name"`
	Hosts    []string  `json:"hosts"` // that it was done to
	Injected time.Time `json:"injected"`
	Healed   time.Time `json:"healed"` // zero while it lasts
	// Kills says that the hosts' members could not vote meanwhile, or that their
	// votes are worth nothing since their data is wrong.
	Kills bool `json:"kills,omitempty"`
	// RecoverWithin is how soon after its end there is to be a write again; zero
	// is no limit.
	RecoverWithin time.Duration `json:"recover_within_ns,omitempty"`
}

// budgeted says whether there is anything that Available could judge.
func (e Evidence) budgeted() bool {
	return slices.ContainsFunc(e.Operators, func(o Operator) bool { return o.Budget != nil }) ||
		slices.ContainsFunc(e.Faults, func(f Fault) bool { return f.RecoverWithin > 0 })
}

// Available checks that clients were not kept waiting for longer than each
// operator's budget allows, and that they could write again in time after each
// fault was healed. It is undecided where the load did not run.
func Available() Checker {
	return Checker{Name: "available", Check: func(_ context.Context, e Evidence) error {
		h := e.History
		if h == nil || h.Acked() == 0 {
			return undecided("no write was acknowledged")
		}
		var found faults
		var unsure error
		for i := range e.Operators {
			o := &e.Operators[i]
			if o.Budget == nil {
				continue
			}
			if err := o.within(h, &found); err != nil {
				unsure = err
			}
		}
		for _, f := range e.Faults {
			if f.RecoverWithin <= 0 {
				continue
			}
			if f.Healed.IsZero() {
				found.add("%s was never healed", f.Name)
				continue
			}
			healed := h.Offset(f.Healed)
			if h.End() < healed+f.RecoverWithin {
				first := firstWriteAfter(h, healed)
				if first < 0 {
					unsure = undecided("the load ended %s after %s was healed", h.End()-healed, f.Name)
				}
				continue
			}
			if first := firstWriteAfter(h, healed); first < 0 || first-healed > f.RecoverWithin {
				found.add("%s was healed at %s, and no write was acknowledged within %s", f.Name, healed.Round(time.Millisecond), f.RecoverWithin)
			}
		}
		if err := found.err(); err != nil {
			return violation("%w", err)
		}
		return unsure
	}}
}

func firstWriteAfter(h *workload.History, at time.Duration) time.Duration {
	first := time.Duration(-1)
	for i := range h.Ops {
		if o := &h.Ops[i]; o.Acked() && o.Return >= at && (first < 0 || o.Return < first) {
			first = o.Return
		}
	}
	return first
}

// within measures one operator.
func (o *Operator) within(h *workload.History, found *faults) error {
	from, to := h.Offset(o.Began), h.Offset(o.Ended)
	quietFrom, quietTo := h.Offset(o.Budget.QuietFrom), h.Offset(o.Budget.QuietTo)
	if from < 0 || to > h.End()+time.Second || to <= from {
		return undecided("the load did not run all through %s", o.Name)
	}
	for _, m := range []struct {
		what   string
		budget time.Duration
		gap    func(*workload.History, time.Duration, time.Duration) workload.Gap
	}{
		{"write", o.Budget.WriteGap, workload.WriteGap},
		{"linearizable read", o.Budget.ReadGap, workload.ReadGap},
	} {
		if m.budget <= 0 {
			continue
		}
		during, quiet := m.gap(h, from, to), m.gap(h, quietFrom, quietTo)
		if quiet.Acked == 0 {
			return undecided("nothing was acknowledged in the quiet before %s", o.Name)
		}
		if net := during.Longest - quiet.Longest; net > m.budget {
			found.add("%s kept clients waiting for a %s for %s at %s (%s in the quiet before it), and may for %s; its step then: %s",
				o.Name, m.what, during.Longest.Round(time.Millisecond), during.At.Round(time.Millisecond), quiet.Longest.Round(time.Millisecond),
				m.budget, o.stepAt(h.Base.Add(during.At)))
		}
	}
	return nil
}

// stepAt is what an operator was at.
func (o *Operator) stepAt(at time.Time) string {
	doing := "looking"
	for _, r := range o.Records {
		if r.At.After(at) {
			break
		}
		if r.Step > 0 {
			doing = r.String()
		}
	}
	return doing
}
