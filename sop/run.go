package sop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdrill/etcdrill/sop/host"
)

// A Runner carries out procedures on a Site.
type Runner struct {
	Site    *Site
	Journal Journal
	Run     string // names the run in journal and lock
	// Waive names the safeguards to pass over.
	Waive []string
	// Reason is why, in the words of whoever runs it: a ticket, a sentence. It is
	// kept in the journal and on the hosts; empty when none was given.
	Reason string
	// NotAfter is when the last change may begin; zero when there is no such time.
	NotAfter time.Time
	// Expect is the digest of the plan that was reviewed; empty when none was.
	Expect string
	// Agree asks for consent; nil agrees to nothing.
	Agree func(Consent) error
	// Poll is the pause between two looks while waiting.
	Poll time.Duration
	// Point is called at each kill point, for those who hurt operators.
	Point func(p Point)

	*account
	acted  time.Time // when the last act returned
	digest string    // of the plan that is carried out
}

// A Point is a moment at which an operator may die: Recorded stands for
// "after the journal", Began for "before it".
type Point struct {
	N     int // counts from 1 through the run
	Step  int
	Title string
	Host  string
	State State // Began, Recorded, Sent or Answered
}

// A Result is what a run came to.
type Result struct {
	Plan    Plan
	View    View // the last look
	Changed bool // something was changed
	Pending string
	Took    time.Duration
}

// ErrUndecided says that a change was sent and that nobody can say whether it
// was made.
var ErrUndecided = errors.New("undecided")

// ErrPlanChanged says that the plan is not the one that was reviewed.
var ErrPlanChanged = errors.New("the plan has changed")

// Explain gives the plan and what of it holds already, and takes no step.
func (r *Runner) Explain(ctx context.Context, p Procedure) (Plan, View, error) {
	v, err := r.look(ctx, p, false)
	if err != nil {
		return Plan{}, v, err
	}
	plan, err := planFirst(p, v)
	return plan, v, err
}

// planFirst plans, unless the procedure has a reason not to begin at all. That
// is asked once: what it forbids may be what the procedure itself brings about.
func planFirst(p Procedure, v View) (Plan, error) {
	if r, ok := p.(interface{ Refuses(v View) error }); ok {
		if err := r.Refuses(v); err != nil {
			return Plan{}, err
		}
	}
	return p.Plan(v)
}

// look is the first look. What a run that was cut off has restarted is on its
// way, and is waited for; if that takes too long, what the safeguards find is
// the answer.
func (r *Runner) look(ctx context.Context, p Procedure, forReal bool) (View, error) {
	if t, ok := p.(interface{ Target() string }); ok {
		r.Site.target = t.Target()
	}
	v, err := r.lookTwice(ctx, p, forReal)
	a, ok := p.(interface{ Awaits(v View) error })
	if !ok || !forReal || err != nil || a.Awaits(v) == nil {
		return v, err
	}
	rec := Record{Procedure: p.String(), Title: "wait for members", Etcd: true}
	if _, err := r.wait(ctx, rec, a.Awaits, r.Site.Deadlines[Electing], Scope{AllHosts: true}, v); ctx.Err() != nil {
		return v, err
	}
	return r.lookTwice(ctx, p, forReal)
}

// lookTwice looks at the members twice where there is a cluster: movement of
// leader or term shows only between two. The second between them is time for all
// that takes longer. Some hosts are looked at twice in it, since what to ask them for
// depends on what the files say that they have.
func (r *Runner) lookTwice(ctx context.Context, p Procedure, forReal bool) (View, error) {
	subjects := SubjectsOf(p)
	first, err := r.Site.Observe(ctx, Scope{Subjects: subjects})
	if err != nil {
		return first, err
	}
	if first.Exists() && forReal {
		if err := r.record(Record{Procedure: p.String(), State: Waiting, Etcd: true, Took: apart, Detail: "looking twice, a second apart"}); err != nil {
			return first, err
		}
	}
	_, lossy := p.(interface{ Lossy() })
	d, asks := p.(interface{ Deep(v View) bool })
	once, err := r.Site.Observe(ctx, asked(p, Scope{AllHosts: true, Reach: true, Hash: forReal, Who: lossy, Disks: forReal && len(subjects) > 0, Subjects: subjects}))
	if err != nil || !once.Exists() {
		return once, err
	}
	if !first.Exists() {
		first = once
	}
	if _, err := r.Site.Observe(ctx, asked(p, Scope{Stored: asks && d.Deep(once), AllHosts: true, Reach: true, Write: forReal, Fill: true, Subjects: subjects})); err != nil {
		return once, err
	}
	if err := sleep(ctx, apart-r.Site.Now().Sub(first.Taken)); err != nil {
		return once, err
	}
	v, err := r.Site.Observe(ctx, asked(p, Scope{Subjects: subjects}))
	if err != nil {
		return v, err
	}
	for i, l := range v.Looks { // what was asked once counts for both
		if j := slices.IndexFunc(once.Looks, func(o Look) bool { return o.Endpoint == l.Endpoint }); j >= 0 {
			v.Looks[i].askedOnce(once.Looks[j])
		}
	}
	return v, nil
}

// asked widens a scope by what a procedure has to know beside what all do.
func asked(p Procedure, scope Scope) Scope {
	if a, ok := p.(interface{ Asks(s *Scope) }); ok {
		a.Asks(&scope)
	}
	return scope
}

// SubjectsOf are the hosts that a procedure is about, if it is about some.
func SubjectsOf(p Procedure) []string {
	switch p := p.(type) {
	case interface{ Subject() string }:
		return []string{p.Subject()}
	case interface{ Subjects() []string }:
		return p.Subjects()
	}
	return nil
}

// Do runs a procedure until its goal is reached, a safeguard refuses, or
// something fails. It may be called again after any end.
func (r *Runner) Do(ctx context.Context, p Procedure) (res Result, err error) {
	if r.account == nil {
		r.account = newAccount()
	}
	began := r.Site.Now()
	defer func() { res.Took, res.Changed = r.Site.Now().Sub(began), r.hasChanged() }()
	record := func(state State, detail string) error {
		return r.record(Record{Procedure: p.String(), State: state, Detail: detail})
	}
	v, err := r.look(ctx, p, true)
	if err != nil {
		return res, err
	}
	res.View = v
	plan, err := planFirst(p, v)
	if err != nil {
		return res, r.refused(p, err)
	}
	res.Plan = plan
	if err := record(Began, fmt.Sprintf("cluster %s, plan %s", ID(v.ClusterID()), plan.Digest(v))+r.because()); err != nil {
		return res, err
	}
	if plan.Empty() {
		if v, err = r.guard(ctx, p, plan, plan.Reached, v, ""); err != nil {
			return res, r.refused(p, err)
		}
		for _, w := range plan.Warnings {
			if err := record(Warned, w); err != nil {
				return res, err
			}
		}
		r.Site.tidy(ctx, v)
		return res, record(Finished, "nothing to do")
	}
	if r.Expect != "" && r.Expect != plan.Digest(v) {
		return res, fmt.Errorf("%w: %s was reviewed, %s is what would be done now", ErrPlanChanged, r.Expect, plan.Digest(v))
	}
	for _, w := range append(slices.Clone(plan.Warnings), v.slowDisks()...) {
		if err := record(Warned, w); err != nil {
			return res, err
		}
	}
	if v, err = r.guard(ctx, p, plan, plan.Needs, v, ""); err != nil {
		return res, r.refused(p, err)
	}
	if err := r.firstNeeds(ctx, p, plan, &v); err != nil {
		return res, r.refused(p, err)
	}
	if err := r.timely(); err != nil {
		return res, r.refused(p, err)
	}
	if plan.Consent != nil {
		if r.Agree == nil {
			return res, r.refused(p, refuse("consent", "", "give the code that -plan shows: -confirm=CODE", "nobody was there to agree"))
		}
		if err := r.Agree(*plan.Consent); err != nil {
			return res, r.refused(p, err)
		}
	}
	if !plan.ReadOnly {
		if err := r.lock(ctx, p, plan, v); err != nil {
			return res, r.refused(p, err)
		}
		defer r.Site.release()
		if plan, v, err = r.again(ctx, p, plan); err != nil {
			return res, r.refused(p, err)
		}
	}
	r.digest = plan.Digest(v)
	if res.View, err = r.steps(ctx, p, plan, v); err != nil {
		if now, perr := p.Plan(res.View); perr == nil {
			res.Plan.GiveUp = now.GiveUp // what gives it up depends on how far it came
		}
		return res, r.refused(p, err)
	}
	if v, err = r.reached(ctx, p, plan); !v.Taken.IsZero() {
		res.View = v
	}
	if err != nil {
		return res, fmt.Errorf("every step was done, and yet: %w", err)
	}
	if !plan.ReadOnly {
		if err := r.Site.settleDebts(v); err != nil {
			return res, err
		}
	}
	return res, record(Finished, "")
}

// reached reports whether the goal is: that is what a fresh plan says. A host or
// member that does not answer just then is looked at again, for as long as an
// election may take.
func (r *Runner) reached(ctx context.Context, p Procedure, plan Plan) (View, error) {
	copied := slices.ContainsFunc(plan.Steps(), func(s Step) bool { return changesMembership(s.Act) || carries(s.Act) })
	var v View
	err := r.patiently(ctx, func() (final bool, err error) {
		if v, err = r.Site.Observe(ctx, asked(p, Scope{AllHosts: true, Hash: copied, Subjects: SubjectsOf(p)})); err != nil {
			return true, err
		}
		if err := sameHash().Holds(v); err != nil {
			return true, err
		}
		return false, open(p, v)
	}, func(why error) error {
		return r.record(Record{Procedure: p.String(), State: Waiting, Took: r.Site.Deadlines[Electing], Detail: why.Error() + ": looking again"})
	})
	return v, err
}

// patiently tries something until it is well, its error is final, or as much time
// has passed as an election may take. Before the second try it tells why.
func (r *Runner) patiently(ctx context.Context, try func() (final bool, err error), tell func(why error) error) error {
	late := r.Site.Now().Add(r.Site.Deadlines[Electing])
	for told := false; ; told = true {
		final, why := try()
		if why == nil || final || !r.Site.Now().Before(late) {
			return why
		}
		if !told {
			if err := tell(why); err != nil {
				return err
			}
		}
		if stopped := sleep(ctx, r.Poll); stopped != nil {
			return errors.Join(stopped, why)
		}
	}
}

// open says what of a procedure's goal is not reached.
func open(p Procedure, v View) error {
	rest, err := p.Plan(v)
	if err != nil {
		return err
	}
	var steps []string
	for _, s := range rest.Steps() {
		if why := s.Until(v); why != nil {
			steps = append(steps, fmt.Sprintf("%s %s (%v)", s.Title, s.Host, why))
		}
	}
	if rest.Empty() {
		return nil
	}
	return fmt.Errorf("the goal is not reached: %s", strings.Join(steps, "; "))
}

// again looks and plans once more now that nobody else may change anything:
// while a human thought about his consent, or while the lock was waited for,
// another operator may have. What was agreed to must still be what it is about.
func (r *Runner) again(ctx context.Context, p Procedure, was Plan) (Plan, View, error) {
	v, err := r.Site.Observe(ctx, asked(p, Scope{AllHosts: true, Write: true, Subjects: SubjectsOf(p)}))
	if err != nil {
		return was, v, err
	}
	plan, err := planFirst(p, v)
	if err != nil {
		return was, v, err
	}
	switch {
	case plan.Consent != nil && (was.Consent == nil || was.Consent.Code != plan.Consent.Code):
		return was, v, fmt.Errorf("%w while it was waited for: it would now be about %s", ErrPlanChanged, plan.Consent.Code)
	case r.Expect != "" && r.Expect != plan.Digest(v):
		return was, v, fmt.Errorf("%w: %s was reviewed, %s is what would be done now", ErrPlanChanged, r.Expect, plan.Digest(v))
	}
	v, err = r.guard(ctx, p, plan, plan.Needs, v, "")
	return plan, v, err
}

// lock takes the operator lock and writes a probe through every voter: the
// first things that a run writes anywhere.
func (r *Runner) lock(ctx context.Context, p Procedure, plan Plan, v View) error {
	waiting := func(why string) { _ = r.record(Record{Procedure: p.String(), State: Waiting, Detail: why}) }
	where := lockPlace{onHosts: plan.NoCluster || !v.Exists() || !v.Votes().HasQuorum(), subjects: plan.Subjects}
	where.inCluster = v.Exists() && v.Votes().HasQuorum() && v.Linear
	var err error
	if where.inCluster && len(v.Alarms()) > 0 {
		// Under an alarm etcd takes neither leases nor puts, and what may be done
		// then (an add given up) must not wait for that.
		where.onHosts, where.inCluster, err = true, false, r.Site.unheld(ctx)
	}
	if err == nil {
		err = r.Site.acquire(ctx, v, p.String(), where, waiting)
	}
	if err != nil {
		return lockRefusal(err)
	}
	if where.onHosts {
		return nil
	}
	if err := r.probe(ctx, v, waiting); err != nil {
		r.Site.release()
		return &Refusal{Safeguard: "probe-write", Found: err.Error(), Needed: "a write through every voter",
			Show: "etcdctl put " + LockKey + ".probe x", Hint: "find out why this voter cannot write before anything is changed"}
	}
	if v.Admin.ClusterID == 0 {
		return r.Site.remember(v.ClusterID())
	}
	return nil
}

// probe writes through every voter. What a voter forwards to a leader that has
// just gone is lost to its own timeout, so where time may mend it, it is
// written again for as long as an election may take.
func (r *Runner) probe(ctx context.Context, v View, waiting func(why string)) error {
	return r.patiently(ctx, func() (final bool, err error) {
		err = r.Site.probe(ctx, v)
		return err != nil && !passes(err), err
	}, func(why error) error {
		waiting(fmt.Sprintf("%v: writing again", why))
		return nil
	})
}

// lockRefusal tells whoever cannot have the lock why, and what to do.
func lockRefusal(err error) error {
	var held *Locked
	switch {
	case errors.As(err, &held):
		return &Refusal{Safeguard: "lock", Found: err.Error(), Needed: "one operator at a time",
			Show: "etcdctl get " + LockKey, Hint: "wait until the other is done"}
	case errors.Is(err, host.ErrClaimed):
		return &Refusal{Safeguard: "lock", Found: err.Error(), Needed: "one operator at a time",
			Show: "cat " + host.LockPath, Hint: "wait until the other is done; if it is known to be over: rm " + host.LockPath + " on that host"}
	case is(err, rpctypes.ErrUserEmpty, rpctypes.ErrPermissionDenied, rpctypes.ErrAuthFailed, rpctypes.ErrInvalidAuthToken):
		return &Refusal{Safeguard: "auth", Found: Explain(err), Needed: "etcd's root user where auth is on", Show: "etcdctl auth status",
			Hint: "set ETCDCTL_USER=root and ETCDCTL_PASSWORD, or etcd_root_password in the inventory"}
	}
	return err
}

// firstNeeds looks at the safeguards of the first change while nothing has
// been changed yet, so that a refusal leaves everything as it was.
func (r *Runner) firstNeeds(ctx context.Context, p Procedure, plan Plan, v *View) error {
	for _, s := range plan.Steps() {
		if s.Until(*v) == nil || s.Act == nil {
			continue
		}
		fresh, err := r.guard(ctx, p, plan, s.Needs, *v, s.Host)
		if err != nil && ctx.Err() == nil && changesMembership(s.Act) && fresh.Taken.After(v.Taken) {
			// Something was waited for, and whom the hosts reach was asked before it:
			// a newcomer may have come up meanwhile.
			if fresh, err = r.Site.Observe(ctx, Scope{Host: s.Host, Also: s.Also, AllHosts: true, Reach: true, NoClients: true, Subjects: plan.Subjects}); err == nil {
				fresh, err = r.guard(ctx, p, plan, s.Needs, fresh, s.Host)
			}
		}
		*v = fresh
		return err
	}
	return nil
}

// guard looks at safeguards and waits for those that only need time.
func (r *Runner) guard(ctx context.Context, p Procedure, plan Plan, needs []Safeguard, v View, name string) (View, error) {
	const rounds = 5 // in case two safeguards take turns
	for i, round := 0, 0; i < len(needs); i++ {
		s := needs[i]
		why := s.Holds(v)
		if why == nil {
			continue
		}
		if waived(s, why, r.Waive) {
			if err := r.record(Record{Procedure: p.String(), State: Warned, Host: name, Detail: "waived " + s.Name + ": " + found(why) + r.because()}); err != nil {
				return v, err
			}
			continue
		}
		if s.Passing != Brief && !certain(why) {
			fresh, err := r.wait(ctx, Record{Procedure: p.String(), Title: s.Name, Host: name, Etcd: true}, s.Holds, r.untilThen(r.Site.Deadlines[s.Passing]), asked(p, Scope{Host: name, Also: s.Also, Subjects: plan.Subjects}), v)
			v = fresh
			if round++; err == nil && round <= rounds {
				i = -1 // the others are looked at again, in a View as fresh
				continue
			}
			if ctx.Err() != nil {
				return v, err
			}
			if late := r.timely(); late != nil {
				return v, late
			}
			if again := s.Holds(v); again != nil {
				why = again
			}
		}
		return v, refusalOf(s, why)
	}
	return v, nil
}

// waived reports whether a safeguard is to be passed over: by its name, or by
// its name and the host that it refuses for: "references-reachable:10.10.10.9".
func waived(s Safeguard, why error, names []string) bool {
	if s.Risk == "" {
		return false
	}
	var ref *Refusal
	return slices.Contains(names, s.Name) || errors.As(why, &ref) && slices.Contains(names, s.Name+":"+ref.Host)
}

// found is what a safeguard found, without the word of a refusal that it is not.
func found(why error) string {
	var ref *Refusal
	if errors.As(why, &ref) {
		return ref.Found
	}
	return why.Error()
}

func certain(why error) bool {
	var ref *Refusal
	return errors.As(why, &ref) && ref.certain
}

func refusalOf(s Safeguard, why error) error {
	var already *Refusal
	if errors.As(why, &already) {
		r := *already
		r.Safeguard = s.Name
		if r.Show == "" {
			r.Show = s.Show
		}
		r.Risk = s.Risk
		return &r
	}
	var h *Hidden
	if errors.As(why, &h) {
		return &Refusal{Safeguard: s.Name, Host: h.Host, Found: h.Path + " cannot be read there by the user who looks", Needed: "root's rights, for a run that is to change something",
			Show: s.Show, Risk: s.Risk, Hint: "let sudo do it (ansible_become: true), or log in as root"}
	}
	r := &Refusal{Safeguard: s.Name, Found: fmt.Sprint(why), Show: s.Show, Risk: s.Risk}
	if s.Passing != Brief {
		r.Hint = "it was waited for; when it has passed, run the same command again"
	}
	return r
}

func (r *Runner) steps(ctx context.Context, p Procedure, plan Plan, v View) (View, error) {
	n, of := 0, len(plan.Steps())
	for _, stage := range plan.Stages {
		var all []numbered
		for _, s := range stage.Steps {
			n++
			all = append(all, numbered{s, Record{Procedure: p.String(), Step: n, Of: of, Stage: stage.Title, Title: s.Title, Host: s.Host, Etcd: s.Etcd}})
		}
		for len(all) > 0 {
			next, take := 1, r.inTurn
			if all[0].Abreast {
				take = r.abreast
			}
			for next < len(all) && all[next].Abreast == all[0].Abreast {
				next++
			}
			var err error
			if v, err = take(ctx, p, plan, all[:next], v); err != nil {
				return v, err
			}
			all = all[next:]
		}
	}
	return v, nil
}

// postponements is how often a change that etcd put off is asked for again: after
// a postponement first, then after twice as long each time, 15 s in all. What is
// waited for is etcd's HealthInterval, most of which has often passed already.
const (
	postponements = 4
	postponement  = time.Second
)

func (r *Runner) step(ctx context.Context, p Procedure, plan Plan, s Step, rec Record, v View) (View, error) {
	scope := asked(p, Scope{Host: s.Host, Also: s.Also, Subjects: plan.Subjects, Still: leavesMembers(s.Act), Ports: installs(s.Act)})
	wide := scope
	wide.Shake, wide.Try, wide.Hash = s.Shake, s.Try, wide.Hash || s.Hash
	if changesMembership(s.Act) {
		wide.AllHosts, wide.Reach, wide.NoClients = true, true, true // its safeguards ask about all members' hosts
	}
	wide.Ports = wide.Ports || takesData(s.Act)
	if s.Act == nil {
		scope.Glimpse = s.Sees
	}
	if _, here := s.Act.(IssueCert); here { // on the admin host
		scope.Host, wide.Host = "", ""
	}
	began := r.Site.Now()
	for try := 0; ; try++ {
		if err := ctx.Err(); err != nil {
			return v, err
		}
		partly := len(s.Needs) == 0 && len(s.Also) == 0 && (s.Sees != nil || glimpseOf(s.Act, v.layout()) != nil)
		if try > 0 || !r.fresh(v, wide, partly) {
			fresh, err := r.Site.Observe(ctx, wide)
			if err != nil {
				return v, err
			}
			v = fresh
		}
		var err error
		if s.Until(v) == nil {
			state := Skipped
			if try > 0 {
				state = Done
			}
			return v, r.record(rec.with(state, "", r.Site.Now().Sub(began)))
		}
		if s.Act == nil {
			until := s.Until
			if s.Nudge {
				until = r.nudging(ctx, until)
			}
			if s.Rest > 0 {
				until = either(until, r.rested(s.Rest))
			}
			v, err = r.wait(ctx, rec, until, r.untilThen(r.Site.Deadlines[s.Patience]+s.Longer), scope, v)
			if err != nil {
				if late := r.timely(); late != nil && ctx.Err() == nil {
					return v, late
				}
				return v, err
			}
			return v, r.record(rec.with(Done, "", r.Site.Now().Sub(began)))
		}
		if v, err = r.guard(ctx, p, plan, s.Needs, v, s.Host); err != nil {
			return v, err
		}
		if !plan.NoCluster && !plan.ReadOnly {
			if err := r.lockHeld(ctx, v); err != nil {
				return v, err
			}
		}
		if changesMembership(s.Act) {
			// The wide look waited for hosts; what the members say must be of now.
			if v, err = r.Site.Observe(ctx, Scope{Subjects: plan.Subjects}); err != nil {
				return v, err
			}
			if v, err = r.guard(ctx, p, plan, s.Needs, v, s.Host); err != nil {
				return v, err
			}
		}
		if err := r.timely(); err != nil {
			return v, err
		}
		if err := r.noteOn(ctx, p, s.Act, v); err != nil {
			return v, err
		}
		outcome, err := r.act(ctx, s, rec, v)
		switch {
		case outcome == Rejected && ctx.Err() != nil: // a snapshot that was cut off
			return v, fmt.Errorf("%s: %w: %w", s.Title, ctx.Err(), err)
		case outcome == Rejected:
			return v, fmt.Errorf("%s: %w", s.Title, explained{err})
		case outcome == Postponed && try < postponements && ctx.Err() == nil:
			pause := postponement << try
			why := fmt.Sprintf("etcd said %q: waiting %v, then looking again", err, pause)
			if err := r.record(rec.with(Waiting, why, 0)); err != nil {
				return v, err
			}
			if err := sleep(ctx, pause); err != nil {
				return v, err
			}
			continue
		case outcome == Postponed:
			return v, fmt.Errorf("%s: %w", s.Title, explained{err})
		case outcome == Unknown && harmlessTwice(s.Act) && try < postponements && ctx.Err() == nil:
			if err := r.record(rec.with(Waiting, "nobody knows whether it was done; to do it twice does no harm", 0)); err != nil {
				return v, err
			}
			continue
		}
		after := scope
		after.Glimpse = glimpseOf(s.Act, v.layout())
		v, werr := r.wait(ctx, rec, s.Until, r.Site.Deadlines[s.Patience]+s.Longer, after, v)
		if werr != nil {
			if err != nil {
				return v, fmt.Errorf("%s: %w (%w), and %w", s.Title, explained{err}, ErrUndecided, werr)
			}
			return v, werr
		}
		return v, r.record(rec.with(Done, "", r.Site.Now().Sub(began)))
	}
}

// fresh reports whether a View, taken after the last change to end the step
// before, already tells what the next one has to know. A step that has no
// safeguard and changes one file knows enough of its host, by a part of it, when
// that was seen whole earlier in this run, and since then only changed by us.
func (r *Runner) fresh(v View, scope Scope, partly bool) bool {
	if scope.AllHosts || scope.Ports || scope.Shake || scope.Try || scope.Compacted || scope.Hash || scope.Serving || scope.Auth || !v.Taken.After(r.acted) || r.acted.IsZero() {
		return false
	}
	for _, name := range append([]string{scope.Host}, scope.Also...) {
		h, ok := v.Host(name)
		seen := h.Taken
		if partly {
			seen = h.lastSeen()
		}
		if name != "" && (!ok || !seen.After(r.acted)) {
			return false
		}
	}
	return true
}

// explained adds what etcd's words mean, and keeps the error.
type explained struct{ err error }

func (e explained) Error() string { return Explain(e.err) }
func (e explained) Unwrap() error { return e.err }

// lockHeld looks at the lock right before a change. A cluster that cannot be
// asked because of what this very run does to it cannot be changed by another
// operator either.
func (r *Runner) lockHeld(ctx context.Context, v View) error {
	if !v.Votes().HasQuorum() {
		return nil
	}
	return r.Site.held(ctx)
}

// act writes the change down, makes it, and writes down what came of it. A
// change in flight is not cut off by ctx: it has a deadline of its own.
func (r *Runner) act(ctx context.Context, s Step, rec Record, v View) (Outcome, error) {
	rec.Act = s.Act.String()
	r.point(rec, Began)
	if err := r.record(rec.with(Recorded, "", 0)); err != nil {
		return Rejected, err
	}
	if !saves(s.Act) {
		r.change()
	}
	r.point(rec, Recorded)
	began := r.Site.Now()
	own, done := r.inFlight(ctx, r.patienceOf(s.Act))
	if saves(s.Act) {
		done()
		own, done = context.WithTimeout(ctx, r.Site.Deadlines[Saving]) // it changes nothing, so it may be cut off
	}
	answer, err := r.Site.do(own, s.Act, v)
	done()
	r.acted = r.Site.Now()
	r.point(rec, Sent)
	outcome := r.judge(s.Act, err)
	if err != nil {
		answer = strings.TrimSpace(answer + " " + Explain(err))
	}
	if jerr := r.record(rec.with(Answered, answer, r.Site.Now().Sub(began))); jerr != nil {
		return Rejected, jerr
	}
	r.point(rec, Answered)
	return outcome, err
}

// inFlight gives a change a context of its own.
func (r *Runner) inFlight(ctx context.Context, patience time.Duration) (context.Context, func()) {
	own, stop := context.WithTimeout(context.WithoutCancel(ctx), patience)
	hurry := context.AfterFunc(ctx, func() {
		if sleep(own, r.Site.Deadlines[Acting]) == nil {
			stop() // what is let to take its time is not once we are to stop
		}
	})
	return own, func() {
		hurry()
		stop()
	}
}

func (r *Runner) patienceOf(a Act) time.Duration {
	if changesMembership(a) {
		return r.Site.Deadlines[Calling]
	}
	if installs(a) {
		return r.Site.Deadlines[Installing]
	}
	if carries(a) {
		return r.Site.Deadlines[Saving]
	}
	if rewrites(a) {
		return r.Site.Deadlines[Rewriting]
	}
	return r.Site.Deadlines[Acting]
}

func (r *Runner) judge(a Act, err error) Outcome {
	switch a.(type) {
	case AddLearner, Promote, Expel, MoveLeader:
		return Judge(err)
	case DefragMember, CompactTo, ClearAlarm, ChangeAuth:
		return judgeAnswer(err)
	}
	switch {
	case err == nil:
		return Applied
	case errors.Is(err, host.ErrUnknown), errors.Is(err, context.DeadlineExceeded):
		return Unknown
	}
	return Rejected
}

// wait looks until a condition holds. The last answer is the timeout's message.
func (r *Runner) wait(ctx context.Context, rec Record, until Condition, patience time.Duration, scope Scope, v View) (View, error) {
	deadline := r.Site.Now().Add(patience)
	pause := r.Poll
	if len(scope.Also) > 0 {
		pause = max(pause, manyHosts)
	}
	var told string
	var fallen falls
	for {
		fresh, err := r.Site.Observe(ctx, scope)
		if err != nil {
			return v, err
		}
		v = fresh
		why := until(v)
		if why == nil {
			return v, nil
		}
		if fallen.hopeless(why) {
			return v, fmt.Errorf("%s: %w", strings.TrimSpace(rec.Title+" "+rec.Host), why)
		}
		if !r.Site.Now().Before(deadline) {
			return v, fmt.Errorf("%s: not within %v: %w", strings.TrimSpace(rec.Title+" "+rec.Host), patience, why)
		}
		if text := found(why); text != told {
			told = text
			if err := r.record(rec.with(Waiting, text, 0)); err != nil {
				return v, err
			}
		}
		if err := sleep(ctx, pause); err != nil {
			return v, err
		}
	}
}

// manyHosts is the pause between two looks that ask several hosts.
const manyHosts = 500 * time.Millisecond

// nudging writes something small every now and then until a condition holds.
func (r *Runner) nudging(ctx context.Context, until Condition) Condition {
	const every = 500 * time.Millisecond
	last := r.Site.Now()
	return func(v View) error {
		why := until(v)
		if why != nil && r.Site.Now().Sub(last) >= every {
			last = r.Site.Now()
			_ = r.Site.nudge(ctx) // a cluster that takes no write is found out by others
		}
		return why
	}
}

// rested holds when the last change of this run is so long ago. A rerun that has
// made none yet need not rest.
func (r *Runner) rested(d time.Duration) Condition {
	return func(View) error {
		if past := r.Site.Now().Sub(r.acted); !r.acted.IsZero() && past < d {
			return fmt.Errorf("soaking: %v of %v", past.Round(time.Second), d)
		}
		return nil
	}
}

func (r *Runner) point(rec Record, state State) {
	r.pointed.take()
	defer r.pointed.give()
	r.points++
	if r.Point != nil {
		r.Point(Point{N: r.points, Step: rec.Step, Title: rec.Title, Host: rec.Host, State: state})
	}
}

func (r *Runner) record(rec Record) error {
	r.writing.take()
	defer r.writing.give()
	r.seq++
	rec.Time, rec.Run, rec.Seq, rec.Called = r.Site.Now(), r.Run, r.seq, r.Site.Meter.take()
	return r.Journal.Append(rec)
}

func (rec Record) with(state State, detail string, took time.Duration) Record {
	rec.State, rec.Detail, rec.Took = state, detail, took
	return rec
}

// refused marks a refusal that came after a change, which is no clean one, and
// writes the end of the run down.
func (r *Runner) refused(p Procedure, err error) error {
	state := Failed
	var ref *Refusal
	if errors.As(err, &ref) {
		if ref.Safeguard == certificateGiven && !r.hasChanged() {
			r.Site.request(ref)
		}
		ref.Changed = r.hasChanged()
		state = Refused
	}
	if jerr := r.record(Record{Procedure: p.String(), State: state, Detail: err.Error()}); jerr != nil {
		return errors.Join(err, jerr)
	}
	return err
}
