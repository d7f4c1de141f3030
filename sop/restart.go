package sop

import (
	"fmt"
	"slices"
	"time"

	"github.com/etcdrill/etcdrill/sop/host"
)

// Restart restarts every member, one at a time: followers first, the leader
// last and after it has handed over.
//
// Its goal is an event, "every process started after Since"; the moment is
// kept in the journal, so that a run that was cut off goes on where it was and
// does not begin again.
type Restart struct {
	Since time.Time     // processes that began before are restarted
	Soak  time.Duration // how long each must have run before the next is touched
}

// String implements Procedure.
func (p Restart) String() string { return "restart" }

// Plan implements Procedure.
func (p Restart) Plan(v View) (Plan, error) {
	if !v.Exists() {
		return Plan{}, v.nobody("look at it with: status")
	}
	plan := Plan{Needs: slices.Concat(clusterNeeds(), []Safeguard{everyVoterAnswers(), membersAreHosts()})}
	plan.Stages = restartStages(v, p.Since, p.Soak)
	if n := v.Votes(); n.Voters < 3 {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("with %d voters the cluster does not write while one restarts", n.Voters))
	}
	return plan.ifOpen(v), nil
}

// Awaits is a member that an earlier run restarted just before it was cut off:
// it is given the time to answer before anything is made of its silence.
func (p Restart) Awaits(v View) error { return runningAnswer(v) }

func runningAnswer(v View) error {
	for _, spec := range v.Wanted.Hosts {
		h, ok := v.Host(spec.Name)
		l := v.LookAt(spec.Name)
		if ok && h.Reachable() && h.Facts.Units[v.unit()].Runs() && !l.Answers() && l.Denied == "" {
			return fmt.Errorf("etcd on %s runs and does not answer yet", spec.Name)
		}
	}
	return nil
}

// restartStages has one stage per member.
func restartStages(v View, since time.Time, soak time.Duration) []Stage {
	var stages []Stage
	for _, m := range v.rollingOrder() {
		h := v.HostOf(m)
		stages = append(stages, Stage{"restart " + v.MemberName(h), restartMember(v, h, since, soak)})
	}
	return stages
}

// rollingOrder has the members with the leader last, the others by host.
func (v View) rollingOrder() []Member {
	leader, _ := v.Leader()
	order := slices.Clone(v.Members)
	slices.SortStableFunc(order, func(a, b Member) int {
		switch {
		case a.ID == leader.ID:
			return 1
		case b.ID == leader.ID:
			return -1
		}
		return compareHosts(v.HostOf(a), v.HostOf(b))
	})
	return order
}

func compareHosts(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// restartMember restarts one member. The leadership is looked at when the step
// comes, not when the plan is made: it may have moved meanwhile.
func restartMember(v View, h string, since time.Time, soak time.Duration) []Step {
	return restartUntil(v, h, startedAfter(h, since), soak)
}

// restartUntil is restartMember for one that is not restarted when a condition
// holds already.
func restartUntil(v View, h string, done Condition, soak time.Duration) []Step {
	steps := []Step{reloadBefore(h, done)}
	if len(v.Voters()) > 1 {
		steps = append(steps, Step{Title: "hand over the leadership", Host: h, Act: MoveLeader{From: h}, Until: either(done, leadsElsewhere(h)),
			Patience: Electing, Etcd: true, Needs: changeNeeds("", hasHeir(h))})
	}
	m, _ := v.At(h)
	return append(steps,
		Step{Title: "restart etcd", Host: h, Act: On{h, host.Systemctl{Verb: host.Restart, Unit: v.unit(), NoBlock: true}}, Until: done, Patience: Starting, Etcd: true,
			Needs: changeNeeds("", canRestart(h), votersKeepUp(), notLeading(m.ID))},
		Step{Title: "wait until it answers", Host: h, Until: All(comesUp(h), hasLeader, keptUp(h)), Patience: Starting, Etcd: true, Sees: &Glimpse{Unit: true}},
		Step{Title: "soak", Host: h, Until: ranFor(h, soak), Patience: Settling, Longer: soak},
	)
}

// reloadBefore has systemd read a unit that was edited, before a restart that is
// not done yet: it would start etcd with options that the unit has no more.
func reloadBefore(h string, restarted Condition) Step {
	s := daemonReload(h)
	s.Until = either(restarted, s.Until)
	return s
}

// keptUp holds when the member on a host is close behind the leader.
func keptUp(name string) Condition {
	return func(v View) error {
		m, _ := v.At(name)
		leader, ok := v.Leader()
		if !ok {
			return fmt.Errorf("the voters do not agree on a leader")
		}
		l, head := v.LookOf(m.ID), v.LookOf(leader.ID).Index
		if head > l.Applied && head-l.Applied > MaxLag {
			return fmt.Errorf("the member on %s is %d entries behind the leader", name, head-l.Applied)
		}
		return nil
	}
}

// membersAreHosts: every member is on a host that can be acted on.
func membersAreHosts() Safeguard {
	return Safeguard{Name: "reachable", Show: "ssh HOST true",
		Holds: func(v View) error {
			for _, m := range v.Members {
				name := v.HostOf(m)
				if h, ok := v.Host(name); !ok || !h.Reachable() {
					return &Refusal{Host: name, Found: fmt.Sprintf("%s cannot be reached: %s", name, h.Problem), Needed: "every member's host"}
				}
			}
			return nil
		}}
}
