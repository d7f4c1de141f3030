package sop

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// ReloadConfig brings every file that names the members up to date: etcd.conf
// on members, etcdctl's environment on members, admin and infra hosts. etcd
// reads its file only when it starts, and what a member needs of the others it
// has in its data, so nothing is restarted unless asked.
type ReloadConfig struct {
	Only    []string // hosts or kinds of file (etcd.conf, etcdctl.sh); empty for all
	Restart bool     // restart the members afterwards, one at a time
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
	steps := references(v, nil, "")
	if len(p.Only) > 0 {
		known := map[string]bool{string(Conf): true, string(EnvFile): true}
		for _, s := range steps {
			known[s.Host] = true
		}
		for _, o := range p.Only {
			if !known[o] {
				return Plan{}, refuse("known-reference", "", "name hosts, etcd.conf or etcdctl.sh", "-only=%s is neither a host with references nor a kind of them", o)
			}
		}
		steps = slices.DeleteFunc(steps, func(s Step) bool {
			r := s.Act.(Refresh)
			return !slices.Contains(p.Only, r.Host) && !slices.Contains(p.Only, string(r.File))
		})
	}
	plan := Plan{Needs: clusterNeeds(), Stages: []Stage{{"refresh the references", steps}}}
	if len(p.Only) == 0 {
		plan.Needs = append(plan.Needs, membersReachable(v)...)
	}
	if p.Restart {
		plan.Needs = append(plan.Needs, everyVoterAnswers(), membersAreHosts())
		plan.Stages = append(plan.Stages, restartStages(v, p.Since, p.Soak)...)
		if n := v.Votes(); n.Voters < 3 {
			plan.Warnings = append(plan.Warnings, fmt.Sprintf("with %d voters the cluster does not write while one restarts", n.Voters))
		}
	}
	return plan.ifOpen(v), nil
}
