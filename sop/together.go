package sop

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/etcdrill/etcdrill/sop/host"
)

// Most acts on a host change one file of it, and to go there costs more than the
// change. So steps of one host that follow each other and are Together are taken
// with one look before and one after, and what they change goes there at once.
// Each is written down before that, has kill points and an answer of its own, and
// each is left out that is done already: a run that was cut off within goes on
// from there. The first that fails leaves those after it undone.
func (r *Runner) together(ctx context.Context, p Procedure, plan Plan, all []numbered, v View) (View, error) {
	scope := asked(p, Scope{Host: all[0].Host, Subjects: plan.Subjects, Still: !slices.ContainsFunc(all, func(s numbered) bool { return !leavesMembers(s.Act) })})
	before := scope
	if len(needsOf(all)) == 0 {
		before.Glimpse = glimpseOfAll(all, v)
	}
	began := r.Site.Now()
	if err := ctx.Err(); err != nil {
		return v, err
	}
	if !r.fresh(v, scope, before.Glimpse != nil) {
		fresh, err := r.Site.Observe(ctx, before)
		if err != nil {
			return v, err
		}
		v = fresh
	}
	var open []numbered
	for _, s := range all {
		if s.Until(v) != nil {
			open = append(open, s)
		} else if err := r.record(s.rec.with(Skipped, "", r.Site.Now().Sub(began))); err != nil {
			return v, err
		}
	}
	if len(open) == 0 {
		return v, nil
	}
	v, err := r.guard(ctx, p, plan, needsOf(open), v, scope.Host)
	if err != nil {
		return v, err
	}
	if !plan.NoCluster && !plan.ReadOnly {
		if err := r.lockHeld(ctx, v); err != nil {
			return v, err
		}
	}
	if err := r.timely(); err != nil {
		return v, err
	}
	if err := r.noteOn(ctx, p, open[0].Act, v); err != nil {
		return v, err
	}
	made, outcome, err := r.acts(ctx, open, v)
	if made < len(open) && outcome == Applied {
		return v, ctx.Err() // it was stopped before the others were sent
	}
	if outcome == Rejected {
		at := min(made, len(open)-1) // all were made, and that could not be written down
		return v, fmt.Errorf("%s: %w", open[at].Title, explained{err})
	}
	after := scope
	after.Glimpse = glimpseOfAll(open, v)
	if outcome == Unknown {
		// They may be on their way still. Each is judged by itself below.
		if v, _ = r.wait(ctx, open[made].rec, untilsOf(open), r.Site.Deadlines[Brief], after, v); ctx.Err() != nil {
			return v, ctx.Err()
		}
	}
	for i, s := range open {
		switch why := s.Until(v); {
		case why == nil && (i > 0 || outcome == Unknown):
		case outcome != Unknown:
			if v, err = r.wait(ctx, s.rec, s.Until, r.Site.Deadlines[s.Patience], after, v); err != nil {
				return v, err
			}
		case i > made:
			return r.together(ctx, p, plan, open[i:], v)
		default:
			return v, fmt.Errorf("%s: %w (%w), and %w", s.Title, explained{err}, ErrUndecided, why)
		}
		if err := r.record(s.rec.with(Done, "", r.Site.Now().Sub(began))); err != nil {
			return v, err
		}
	}
	return v, nil
}

// alike gives how many of the steps that come next are taken together.
func alike(all []numbered) int {
	n := 1
	for n < len(all) && all[0].Together && all[n].Together && all[n].Host == all[0].Host {
		n++
	}
	return n
}

func needsOf(all []numbered) (needs []Safeguard) {
	for _, s := range all {
		needs = append(needs, s.Needs...)
	}
	return needs
}

func untilsOf(all []numbered) Condition {
	var untils []Condition
	for _, s := range all {
		untils = append(untils, s.Until)
	}
	return All(untils...)
}

// glimpseOfAll is what to look at after several acts; nil for the whole host.
func glimpseOfAll(all []numbered, v View) *Glimpse {
	var sum Glimpse
	for _, s := range all {
		g := glimpseOf(s.Act, v.layout())
		if g == nil {
			return nil
		}
		sum.Files, sum.Sums, sum.Dirs = append(sum.Files, g.Files...), append(sum.Sums, g.Sums...), append(sum.Dirs, g.Dirs...)
		sum.Unit = sum.Unit || g.Unit
	}
	return &sum
}

// acts writes changes down, makes them, and writes down what came of each. It
// tells how many were made for certain, and what became of the next. Those that
// were not written down yet when ctx ends are not made.
func (r *Runner) acts(ctx context.Context, all []numbered, v View) (int, Outcome, error) {
	var acts []Act
	for i, s := range all {
		if i > 0 && ctx.Err() != nil {
			break
		}
		s.rec.Act = s.Act.String()
		all[i].rec.Act = s.rec.Act
		r.point(s.rec, Began)
		if err := r.record(s.rec.with(Recorded, "", 0)); err != nil {
			return 0, Rejected, err
		}
		r.change()
		r.point(s.rec, Recorded)
		acts = append(acts, s.Act)
	}
	began := r.Site.Now()
	own, done := r.inFlight(ctx, time.Duration(len(acts))*r.Site.Deadlines[Acting])
	made, err := r.Site.doAll(own, acts, v)
	done()
	r.acted = r.Site.Now()
	outcome := Applied
	if err != nil {
		outcome = r.judge(acts[made], err)
	}
	for i := range acts {
		rec := all[i].rec
		r.point(rec, Sent)
		var answer string
		switch {
		case i < made:
		case i == made || outcome == Unknown:
			answer = Explain(err)
		default:
			answer = "not made, since " + all[made].Title + " failed"
		}
		if jerr := r.record(rec.with(Answered, answer, r.Site.Now().Sub(began))); jerr != nil {
			return made, Rejected, jerr
		}
		r.point(rec, Answered)
	}
	return made, outcome, err
}

// doAll makes changes on one host, one after the other, and tells how many were
// made.
func (s *Site) doAll(ctx context.Context, all []Act, v View) (int, error) {
	defer s.changed()
	var acts []host.Act
	var bad error
	for _, a := range all {
		w, err := s.onItsHost(a, v)
		if err != nil {
			bad = err // those before it are made all the same
			break
		}
		acts = append(acts, w)
	}
	h, err := s.host(v.Spec(touches(all[0])))
	if err != nil {
		return 0, err
	}
	defer s.Meter.atHost()()
	made, err := host.DoAll(ctx, h, acts)
	if err == nil {
		err = bad
	}
	return made, err
}
