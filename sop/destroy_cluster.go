package sop

import (
	"fmt"
	"slices"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// DestroyCluster takes the whole cluster down and sets its data aside. It
// honours etcd_clean and etcd_safeguard.
type DestroyCluster struct {
	Clean, Safeguard *bool // override the inventory, nil where they do not
	Stamp            string
}

// String implements Procedure.
func (p DestroyCluster) String() string { return "destroyCluster" + overrides(p.Clean, p.Safeguard) }

// Plan implements Procedure.
func (p DestroyCluster) Plan(v View) (Plan, error) {
	plan := Plan{NoCluster: true, Needs: []Safeguard{mayAdminister(), allReachable(), noForeignMembers()}}
	if len(v.hostsWithEtcd()) == 0 {
		plan.Stages = []Stage{{"forget the cluster", []Step{{Title: "forget the cluster's ID", Act: Remember{Forget: true}, Until: remembers(0)}}}}
		return plan.ifOpen(v), nil
	}
	if err := mayReplace(v, p.Clean, p.Safeguard); err != nil {
		return Plan{}, err
	}
	plan.Consent = v.consent("set aside", plan, p.String())
	plan.Stages = takeDown(v, p.Stamp)
	return plan.ifOpen(v), nil
}

// PurgeCluster takes the whole cluster down and deletes what is there: data,
// also what was set aside, configuration, keys, unit and environment. It asks
// neither etcd_clean nor etcd_safeguard.
type PurgeCluster struct{}

// String implements Procedure.
func (p PurgeCluster) String() string { return "purgeCluster" }

// Plan implements Procedure.
func (p PurgeCluster) Plan(v View) (Plan, error) {
	plan := Plan{NoCluster: true, Needs: []Safeguard{allReachable(), noForeignMembers()}}
	var stop, wipe []Step
	for _, spec := range v.reachableHosts() {
		h := spec.Name
		stop = append(stop,
			Step{Title: "disable the unit", Host: h, Act: On{h, host.Systemctl{Verb: host.Disable, Unit: Unit}}, Until: enabled(h, "disabled", "masked", "")},
			stopUnit(h))
		wipe = append(wipe, purge(v, h)...)
	}
	plan.Stages = []Stage{
		{"stop every member", stop},
		{"delete what is left", wipe},
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
	return append(steps,
		Step{Title: "delete configuration and key", Host: h, Act: On{h, host.Delete{Path: config.ConfDir}}, Until: dirGone(h, config.ConfDir), Needs: []Safeguard{isStopped(h)}},
		Step{Title: "unmask the unit", Host: h, Act: On{h, host.Systemctl{Verb: host.Unmask, Unit: Unit}}, Until: notMasked(h)},
		removeFile(h, config.UnitPath, "remove the unit's file"),
		removeFile(h, config.JoinDropInPath, "remove the join drop-in"),
		removeFile(h, config.EnvPath, "remove etcdctl's environment"),
		daemonReload(h),
	)
}

// PurgeHost deletes what is left of etcd on one host that is in no cluster.
type PurgeHost struct{ Host string }

// String implements Procedure.
func (p PurgeHost) String() string { return "purgeHost " + p.Host }

// Subject is the host that may not be in the inventory.
func (p PurgeHost) Subject() string { return p.Host }

// Plan implements Procedure.
func (p PurgeHost) Plan(v View) (Plan, error) {
	h := p.Host
	if err := validHost(h); err != nil {
		return Plan{}, refuse("valid-host", h, "name the host as in the inventory, by its IP address", "%v", err)
	}
	if m, listed := v.At(h); listed {
		return Plan{}, refuse("no-member", h, "take it out first: removeMember "+h, "it is member %s of cluster %s", ID(m.ID), ID(v.ClusterID()))
	}
	if l := v.LookAt(h); l.Answers() {
		if own := v.ClusterID(); v.Exists() && l.ClusterID != own || len(l.Members) > 1 {
			return Plan{}, refuse("no-member", h, "take it out of its own cluster first", "member %s of cluster %s answers there", ID(l.MemberID), ID(l.ClusterID))
		}
	}
	plan := Plan{NoCluster: true, Subject: h, Needs: []Safeguard{reachable(h), certainlyAlone(h)}}
	steps := slices.Concat([]Step{
		{Title: "disable the unit", Host: h, Act: On{h, host.Systemctl{Verb: host.Disable, Unit: Unit}}, Until: enabled(h, "disabled", "masked", "")},
		stopUnit(h),
	}, purge(v, h))
	plan.Stages = []Stage{{"delete what is left", steps}}
	if plan = plan.ifOpen(v); !plan.Empty() {
		plan.Consent = p.consent(v)
	}
	return plan, nil
}

// consent's code is the ID of the cluster whose data the host holds.
func (p PurgeHost) consent(v View) *Consent {
	hv, _ := v.Host(p.Host)
	c := &Consent{Verb: "delete", Code: Digest(p.String() + v.Inventory.Path), Shown: []string{"inventory: " + v.Inventory.Path, "host: " + p.Host}}
	for _, path := range dataDirs(v.Spec(p.Host)) {
		d := hv.Facts.Dirs[path]
		line := fmt.Sprintf("%s: %s", path, Bytes(d.UsedBytes))
		if who, err := Identify(d.WALHead); err == nil {
			c.Code = ID(who.Cluster)
			line += fmt.Sprintf(", member %s of cluster %s", ID(who.Member), ID(who.Cluster))
		}
		c.Shown = append(c.Shown, line)
		for _, a := range d.Aside {
			c.Shown = append(c.Shown, fmt.Sprintf("%s: %s, set aside", a.Path, Bytes(a.Bytes)))
		}
	}
	return c
}

// certainlyAlone: no cluster that the host's own files name lists it.
func certainlyAlone(name string) Safeguard {
	return Safeguard{Name: "no-member", Show: "etcdctl member list", Risk: "a member of a cluster that cannot be asked now may be lost",
		Holds: func(v View) error {
			if _, inFile := v.Wanted.Host(name); inFile && !v.Exists() && len(v.Wanted.Hosts) > 1 {
				return &Refusal{Host: name, Found: "it is in the inventory, and no member answers that could say whether it is one of them", Needed: "a cluster's word",
					Hint: "for the whole cluster: purgeCluster"}
			}
			return nil
		}}
}
