package sop

import (
	"fmt"
	"path"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// PurgeCluster takes the whole cluster down and deletes what is there: data,
// also what was set aside, configuration, keys, unit and environment. It asks
// neither etcd_clean nor etcd_safeguard.
type PurgeCluster struct{}

// String implements Procedure.
func (p PurgeCluster) String() string { return "purgeCluster" }

// Lossy says that data may be deleted.
func (p PurgeCluster) Lossy() {}

// Plan implements Procedure.
func (p PurgeCluster) Plan(v View) (Plan, error) {
	plan := Plan{NoCluster: true, Reached: []Safeguard{allReachable()}, Needs: []Safeguard{inventorySound(), notKubeadm(), allReachable(), oneID(), sameCluster(), noForeignMembers()}}
	var stop, wipe []Step
	for _, spec := range v.reachableHosts() {
		h := spec.Name
		stop = append(stop,
			Step{Title: "disable the unit", Host: h, Act: On{h, host.Systemctl{Verb: host.Disable, Unit: v.unit()}}, Until: enabled(h, "disabled", "masked", "")},
			stopUnit(v, h))
		wipe = append(wipe, purge(v, h)...)
	}
	plan.Stages = []Stage{
		{"stop every member", abreast(stop)},
		{"delete what is left", abreast(wipe)},
		{"forget the cluster", []Step{{Title: "forget the cluster's ID", Act: Remember{Forget: true}, Until: remembers(0)}}},
	}
	if plan = plan.ifOpen(v); !plan.Empty() {
		plan.Consent = v.consent("delete", plan, p.String())
	}
	return plan, nil
}

// purge deletes what is left of etcd on one host: data, key, unit, environment.
func purge(v View, h string) []Step {
	var steps []Step
	for _, d := range dataDirs(v.Spec(h)) {
		steps = append(steps, Step{Title: "delete what is in " + d, Host: h, Act: On{h, host.Delete{Path: d}}, Until: dirGone(h, d), Needs: []Safeguard{isStopped(h)}})
	}
	l := v.layout()
	if d := l.OwnDir(); d != "" {
		steps = append(steps, Step{Title: "delete configuration and key", Host: h, Act: On{h, host.Delete{Path: d}}, Until: dirGone(h, d), Needs: []Safeguard{isStopped(h)}})
	} else {
		steps = append(steps, keepConf(v, h)...)
		steps = append(steps, guarded(removeFile(h, l.Conf, "remove the configuration"), isStopped(h)))
	}
	if l.TLS && path.Dir(l.Key) != l.OwnDir() {
		steps = append(steps, guarded(Step{Title: "remove the key", Host: h, Act: On{h, host.RemoveFile{Path: l.Key}}, Until: noSum(h, l.Key)}, isStopped(h)))
	}
	steps = append(steps, keepUnit(v, h)...)
	return append(steps,
		Step{Title: "unmask the unit", Host: h, Act: On{h, host.Systemctl{Verb: host.Unmask, Unit: v.unit()}}, Until: notMasked(h)},
		removeFile(h, v.layout().UnitPath(), "remove the unit's file"),
		removeFile(h, v.layout().JoinDropInPath(), "remove the join drop-in"),
		removeFile(h, config.EnvPath, "remove etcdctl's environment"),
		daemonReload(h),
	)
}

// noSum holds when a file that is known by its sum alone is not there.
func noSum(name, path string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if _, there := facts.Sums[path]; there {
			return fmt.Errorf("%s is on %s", path, name)
		}
		return nil
	}
}
