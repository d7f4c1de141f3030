package sop

import (
	"fmt"
	"slices"
	"strings"
)

// Migrate moves the whole cluster to other hosts, of which some may be members
// already. Every newcomer is brought in before an old member goes, unless that
// would make too many voters; the references are switched while both sets live;
// the leadership goes to a host that stays.
//
// It may be run again at any time, with other hosts too: what is left to do is
// read off the cluster.
type Migrate struct {
	Hosts []string // inventory names of all hosts that are to have the voters
	// Stamp names what is set aside: time.Format("20060102T150405Z").
	Stamp string
	// Patient has it wait for clients that know old members alone, instead of
	// refusing at once.
	Patient bool
}

// String implements Procedure.
func (p Migrate) String() string { return "migrate " + strings.Join(p.Hosts, ",") }

// Subjects are the hosts that may be in neither inventory nor member list.
func (p Migrate) Subjects() []string {
	if targets(p.Hosts) != nil {
		return nil
	}
	return p.Hosts
}

// Refuses hosts that are the voters' already, unless this migration was begun
// from here: then this is a rerun.
func (p Migrate) Refuses(v View) error {
	if targets(p.Hosts) != nil || !v.Exists() || v.begunBefore(p) {
		return nil
	}
	var now []string
	for _, m := range v.Members {
		if m.Learner {
			return nil // one is to be given up, or to be finished
		}
		now = append(now, v.HostOf(m))
	}
	slices.Sort(now)
	if slices.Equal(now, slices.Sorted(slices.Values(p.Hosts))) {
		return refuse("new-hosts", "", "to refresh the endpoints: reloadConfig; to see the members: status", "the voters are on these %d hosts already", len(now))
	}
	return nil
}

// anOldOneStays reports whether one of the members that were there before is
// among those that stay, so that whoever knows the old ones knows that one.
func (v View) anOldOneStays(r relocation) bool {
	return slices.ContainsFunc(r.to, func(h string) bool {
		m, listed := v.At(h)
		_, came := v.Admin.Added[h]
		return listed && !m.Learner && !came
	})
}

// begunBefore reports whether a migration to these hosts was begun from here.
func (v View) begunBefore(p Migrate) bool {
	want := slices.Sorted(slices.Values(p.Hosts))
	return slices.ContainsFunc(v.Admin.Begun, func(procedure string) bool {
		list, ok := strings.CutPrefix(procedure, "migrate ")
		return ok && slices.Equal(want, slices.Sorted(slices.Values(strings.Split(list, ","))))
	})
}

// Plan implements Procedure.
func (p Migrate) Plan(v View) (Plan, error) {
	if err := targets(p.Hosts); err != nil {
		return Plan{}, refuse("valid-hosts", "", "name every host that is to have a member, comma separated", "%v", err)
	}
	if !v.Exists() {
		return Plan{}, v.nobody("look at it with: status; a cluster that is not there is made by createCluster")
	}
	r := v.relocate(p.Hosts, p.Stamp)
	if old := len(r.leave) + len(r.lost); len(p.Hosts) < Quorum(old) && old > 0 {
		return Plan{}, refuse("enough-hosts", "", fmt.Sprintf("name %d hosts or more; to make a cluster smaller, one by one: removeMember", Quorum(old)),
			"%s for %d members that are to go", counted(len(p.Hosts), "host"), old)
	}
	var last []Safeguard
	if n := len(r.leave); n > 0 && !v.anOldOneStays(r) {
		patience := Brief
		if p.Patient {
			patience = Following
		}
		last = append(last, clientsSeen(r.leave[n-1], p.Hosts), noneLeftBehind(r.leave[n-1], p.Hosts, patience))
	}
	plan := r.plan(v, last...)
	plan.Needs = append(r.needs(v, clusterNeeds(r.about()...)), plan.Needs...)
	plan.Subjects, plan.GiveUp = p.Subjects(), r.back(v)
	if n := len(p.Hosts); n%2 == 0 {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("an even number of voters (%d) bears no more failures than one less", n))
	}
	if is, was := (Votes{Voters: len(p.Hosts)}).Spare(), v.Votes().Spare(); is < was && len(r.come) > 0 && len(r.leave) > len(r.come) {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("of %d voters %d may fail, now it is %d", len(p.Hosts), is, was))
	}
	return plan.ifOpen(v), nil
}
