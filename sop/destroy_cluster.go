package sop

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// DestroyCluster takes the whole cluster down and sets its data aside. It
// honours etcd_clean and etcd_safeguard.
type DestroyCluster struct {
	Clean, Safeguard *bool // override the inventory, nil where they do not
	Stamp            string
}

// String implements Procedure.
func (p DestroyCluster) String() string { return "destroyCluster" + overrides(p.Clean, p.Safeguard) }

// Lossy says that data may be set aside.
func (p DestroyCluster) Lossy() {}

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

// Lossy says that data may be deleted.
func (p PurgeCluster) Lossy() {}

// Plan implements Procedure.
func (p PurgeCluster) Plan(v View) (Plan, error) {
	plan := Plan{NoCluster: true, Needs: []Safeguard{inventorySound(), allReachable(), oneID(), sameCluster(), noForeignMembers()}}
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
	plan := Plan{NoCluster: true, Subject: h, Needs: []Safeguard{reachable(h), certainlyAlone(h), nothingForeign(h)}}
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
	c := &Consent{Verb: "delete", Shown: []string{"inventory: " + v.Inventory.Path, "host: " + p.Host}}
	left := []string{p.String(), v.Inventory.Path}
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
			left = append(left, a.Path)
		}
	}
	if c.Code == "" {
		c.Code = Digest(strings.Join(left, "\n"))
	}
	return c
}

// nothingForeign: no etcd runs on the host but a member that this cluster has
// let go. What runs without an answer that we understand may be a member of
// another cluster, with another CA.
func nothingForeign(name string) Safeguard {
	return Safeguard{Name: "no-member", Show: "systemctl status etcd; ss -ltnp",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			spec := v.Spec(name)
			who, _ := Identify(logOf(facts, spec))
			_, runs := facts.Ports[spec.PeerPort]
			if !runs && !facts.Units[Unit].Runs() {
				return nil
			}
			if id := v.ownID(); id != 0 && who.Cluster == id && v.Linear {
				return nil // a former member of ours, and a quorum does not list it
			}
			return &Refusal{Host: name, Found: fmt.Sprintf("etcd runs there, and nothing shows that it is not a member of another cluster (its log says cluster %s)", ID(who.Cluster)),
				Needed: "a host on which no etcd runs", Hint: "if you are sure, stop it yourself first: systemctl stop etcd"}
		}}
}

// ownID is the ID of the cluster that is there, or that was met before.
func (v View) ownID() uint64 {
	if id := v.ClusterID(); id != 0 {
		return id
	}
	return v.Admin.ClusterID
}

// logOf is the beginning of a host's log, wherever it is kept.
func logOf(facts host.Facts, spec inventory.Host) []byte {
	for _, path := range dataDirs(spec) {
		if d := facts.Dirs[path]; d.WAL {
			return d.WALHead
		}
	}
	return nil
}

// certainlyAlone: a host of the inventory is not taken for alone when no member
// answers that could say so.
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
