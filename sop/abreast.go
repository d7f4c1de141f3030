package sop

import (
	"context"
	"sync"
)

// Hosts have nothing to wait for in each other while files are put on them, so
// those steps are taken side by side: each host has a lane of its own, in which
// its steps keep their order. A lane is a Runner like any other. It shares the
// account of the run, and that is all: what it has seen of its host is its own.

// An account is what the lanes of a run keep together.
type account struct {
	writing baton // of who writes a record, and of what follows here
	seq     int
	changed bool
	noted   map[string]bool

	pointed baton // one kill point at a time
	points  int
}

func newAccount() *account {
	return &account{writing: make(baton, 1), pointed: make(baton, 1), noted: map[string]bool{}}
}

// A baton is held by one lane at a time. It is no mutex, since what is done
// meanwhile may take its time.
type baton chan struct{}

func (b baton) take() { b <- struct{}{} }
func (b baton) give() { <-b }

// note reports whether a host has not been noted before, and notes it.
func (a *account) note(name string) bool {
	a.writing.take()
	defer a.writing.give()
	if a.noted[name] {
		return false
	}
	a.noted[name] = true
	return true
}

func (a *account) change() {
	a.writing.take()
	defer a.writing.give()
	a.changed = true
}

func (a *account) hasChanged() bool {
	a.writing.take()
	defer a.writing.give()
	return a.changed
}

// A numbered step is one with its record.
type numbered struct {
	Step
	rec Record
}

// inTurn takes steps one after the other, or together.
func (r *Runner) inTurn(ctx context.Context, p Procedure, plan Plan, all []numbered, v View) (View, error) {
	for len(all) > 0 {
		if s := all[0]; r.acted.IsZero() && s.plain() && s.Until(v) == nil {
			// Nothing was changed since the look that v is of.
			if err := r.record(s.rec.with(Skipped, "", 0)); err != nil {
				return v, err
			}
			all = all[1:]
			continue
		}
		var err error
		n := alike(all)
		if n > 1 {
			v, err = r.together(ctx, p, plan, all[:n], v)
		} else {
			v, err = r.step(ctx, p, plan, all[0].Step, all[0].rec, v)
		}
		if err != nil {
			return v, err
		}
		all = all[n:]
	}
	return v, nil
}

// plain reports whether a step asks for nothing but what every look tells.
func (s Step) plain() bool {
	return len(s.Also) == 0 && !s.Shake && !s.Hash && !s.Try && s.Rest == 0 && !changesMembership(s.Act)
}

// abreast takes the steps of several hosts side by side. The first that fails
// lets no other begin; what is under way is done to its end.
func (r *Runner) abreast(ctx context.Context, p Procedure, plan Plan, all []numbered, v View) (View, error) {
	var hosts []string
	lanes := map[string][]numbered{}
	for _, s := range all {
		if lanes[s.Host] == nil {
			hosts = append(hosts, s.Host)
		}
		lanes[s.Host] = append(lanes[s.Host], s)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var first, worst sync.Once
	var failed error
	var panicked any // outweighs what else failed
	runners := make([]*Runner, len(hosts))
	for i, h := range hosts {
		own := *r
		runners[i] = &own
		wg.Go(func() {
			defer func() {
				if why := recover(); why != nil {
					worst.Do(func() { panicked = why })
					stop()
				}
			}()
			if _, err := own.inTurn(ctx, p, plan, lanes[h], v); err != nil {
				first.Do(func() { failed = err })
				stop()
			}
		})
	}
	wg.Wait()
	if panicked != nil {
		panic(panicked)
	}
	for _, own := range runners {
		if own.acted.After(r.acted) {
			r.acted = own.acted
		}
	}
	if last := r.Site.last(); last.Taken.After(v.Taken) {
		v = last // the last look has what every lane has seen
	}
	return v, failed
}
