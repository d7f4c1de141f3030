package sop

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// ReloadConfig brings every file that names the members up to date: etcd.conf
// on members, etcdctl's environment on members, admin and infra hosts, and the
// files of Patroni, vip-manager, patronictl and monitoring. etcd reads its file
// only when it starts, and what a member needs of the others it has in its data,
// so no member is restarted unless asked.
type ReloadConfig struct {
	Only    []string // hosts or kinds of file; empty for all
	Restart bool     // restart the members afterwards, one at a time
	VIPs    bool     // restart vip-manager wherever it still runs with another list
	Since   time.Time
	Soak    time.Duration
}

// String implements Procedure.
func (p ReloadConfig) String() string {
	s := "reloadConfig"
	if len(p.Only) > 0 {
		s += " -only=" + strings.Join(p.Only, ",")
	}
	if p.Restart {
		s += " -restart"
	}
	if p.VIPs {
		s += " -vips"
	}
	return s
}

// Awaits is as of Restart.
func (p ReloadConfig) Awaits(v View) error {
	if !p.Restart {
		return nil
	}
	return runningAnswer(v)
}

// Plan implements Procedure.
func (p ReloadConfig) Plan(v View) (Plan, error) {
	if !v.Exists() {
		return Plan{}, v.nobody("look at it with: status")
	}
	refs := v.refreshmentOf(change{vips: p.VIPs})
	needs := clusterNeeds()
	if len(p.Only) == 0 {
		needs = slices.Concat(needs, membersReachable(v), refs.needs)
	} else {
		known := referenceKinds()
		hosts := v.referenceHosts()
		for _, o := range p.Only {
			if !slices.Contains(known, o) && !slices.Contains(hosts, o) {
				return Plan{}, refuse("known-reference", "", "name hosts, or of the files: "+strings.Join(known, ", "), "-only=%s is neither a host with references nor a kind of them", o)
			}
		}
		refs = refs.only(p.Only)
	}
	plan := Plan{Needs: needs, Warnings: refs.warnings(), Stages: []Stage{{"refresh the references", refs.steps()}}}
	if p.Restart {
		plan.Needs = append(plan.Needs, everyVoterAnswers(), membersAreHosts())
		plan.Stages = append(plan.Stages, restartStages(v, p.Since, p.Soak)...)
		if n := v.Votes(); n.Voters < 3 {
			plan.Warnings = append(plan.Warnings, fmt.Sprintf("with %d voters the cluster does not write while one restarts", n.Voters))
		}
	}
	if plan = plan.ifOpen(v); plan.Empty() && len(p.Only) == 0 {
		for _, s := range membersReachable(v) {
			if why := s.Holds(v); why != nil {
				plan.Warnings = append(plan.Warnings, plain(why)+": what its files name is not known")
			}
		}
	}
	return plan, nil
}
