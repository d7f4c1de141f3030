package sop

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/sop/host"
)

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
		return Plan{}, refuse("valid-host", h, "name the host as in the inventory", "%v", err)
	}
	if m, listed := v.At(h); listed {
		return Plan{}, refuse("no-member", h, "take it out first: removeMember "+h, "it is member %s of cluster %s", ID(m.ID), ID(v.ClusterID()))
	}
	if l := v.LookAt(h); l.Answers() {
		if own := v.ClusterID(); v.Exists() && l.ClusterID != own || len(l.Members) > 1 {
			return Plan{}, refuse("no-member", h, "take it out of its own cluster first", "member %s of cluster %s answers there", ID(l.MemberID), ID(l.ClusterID))
		}
	}
	plan := Plan{NoCluster: true, Subjects: []string{h}, Needs: []Safeguard{reachable(h), notKubeadm(), certainlyAlone(h), nothingForeign(h)}}
	steps := slices.Concat([]Step{
		{Title: "disable the unit", Host: h, Act: On{h, host.Systemctl{Verb: host.Disable, Unit: v.unit()}}, Until: enabled(h, "disabled", "masked", "")},
		stopUnit(v, h),
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
			if !runs && !facts.Units[v.unit()].Runs() {
				return nil
			}
			if id := v.ownID(); id != 0 && who.Cluster == id && v.Linear {
				return nil // a former member of ours, and a quorum does not list it
			}
			return &Refusal{Host: name, Found: fmt.Sprintf("etcd runs there, and nothing shows that it is not a member of another cluster (its log says cluster %s)", ID(who.Cluster)),
				Needed: "a host on which no etcd runs", Hint: "if you are sure, stop it yourself first: systemctl stop etcd"}
		}}
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
