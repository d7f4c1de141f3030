package sop

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/host"
)

// RemoveMember takes one host's member out of the cluster, and gives up an add
// that was cut off.
//
// The references go first, so that no client is left with an endpoint that is
// about to vanish; then the leadership, if it is there; then the member; only
// when the others have agreed on that is its etcd stopped and its data set
// aside. A host that is dead is passed over, and named.
type RemoveMember struct {
	Host string // inventory name of the host whose member is to go
	// Stamp names what is set aside: time.Format("20060102T150405Z").
	Stamp string
}

// String implements Procedure.
func (p RemoveMember) String() string { return "removeMember " + p.Host }

// Subject is the host that may be in neither inventory nor member list.
func (p RemoveMember) Subject() string { return p.Host }

// Refuses a host that nobody knows, unless it was removed from here: then this
// is a rerun.
func (p RemoveMember) Refuses(v View) error {
	_, listed := v.At(p.Host)
	_, inFile := v.Wanted.Host(p.Host)
	_, begun := v.Admin.Added[p.Host] // an add that was given up before it announced anything
	if listed || inFile || begun || !v.Exists() || validHost(p.Host) != nil || p.removedBefore(v) {
		return nil
	}
	return refuse("known-host", p.Host, "look at the members with: status", "%s is in neither inventory nor member list", p.Host)
}

// Plan implements Procedure.
func (p RemoveMember) Plan(v View) (Plan, error) {
	h := p.Host
	if err := validHost(h); err != nil {
		return Plan{}, refuse("valid-host", h, "name the host as in the inventory", "%v", err)
	}
	if !v.Exists() {
		return Plan{}, v.nobody("look at it with: status; to take a whole cluster down: destroyCluster")
	}
	m, listed := v.At(h)
	_, inFile := v.Wanted.Host(h)
	hv, _ := v.Host(h)
	refs := v.refreshmentOf(change{without: []string{h}})
	plan := Plan{
		Needs:    slices.Concat(p.needs(v, m, listed), []Safeguard{inventoryWritable()}, membersReachable(v, h)),
		Subjects: []string{h},
		GiveUp:   p.giveUp(v, listed),
	}
	if listed && !m.Learner && len(v.Voters()) > 1 && len(v.Voters())%2 == 1 {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("an even number of voters (%d) bears no more failures than one less", len(v.Voters())-1))
	}
	if !hv.Reachable() {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("%s cannot be reached: its etcd is not stopped and its data stays; purgeHost %s when it is back", h, h))
	}
	if listed || !v.fresh(h) {
		plan.Needs, plan.Warnings = append(plan.Needs, refs.needs...), append(plan.Warnings, refs.warnings()...)
		plan.Stages = append(plan.Stages, Stage{"take it out of the references", refs.steps()})
	}
	if listed {
		plan.Stages = append(plan.Stages, Stage{"remove the member", append([]Step{snapshotBefore(isGone(m.ID), v)}, p.leave(v, m)...)})
	}
	if hv.Reachable() && (listed || v.leftovers(h)) {
		plan.Stages = append(plan.Stages, Stage{"stop it and set its data aside", retire(v, h, p.Stamp)})
	}
	if inFile {
		plan.Stages = append(plan.Stages, Stage{"take it out of the inventory", []Step{strike(h)}})
	}
	return plan.ifOpen(v), nil
}

// giveUp takes back what was done: until the member is gone only references
// were changed; once its data is set aside it can be added again.
func (p RemoveMember) giveUp(v View, listed bool) string {
	switch {
	case listed:
		return "reloadConfig"
	case v.leftovers(p.Host):
		return ""
	}
	return "addMember " + p.Host
}

// removedBefore is proved by this admin host's journal or by data that was set
// aside on the host.
func (p RemoveMember) removedBefore(v View) bool {
	if _, ok := v.Admin.Removed[p.Host]; ok {
		return true
	}
	h, ok := v.Host(p.Host)
	return ok && h.Reachable() && len(h.Facts.Dirs[v.Spec(p.Host).DataDir].Aside) > 0
}

// needs leaves out what a member that is to go cannot be asked for: it may be
// dead, or have raised the alarm itself.
func (p RemoveMember) needs(v View, m Member, listed bool) []Safeguard {
	common := []Safeguard{notKubeadm(), mayAdminister(), quorate(), oneCluster(p.Host), sameCluster(), sameList(p.Host), nothingPending(p.Host), inventoryAgrees(p.Host), votersKeepUp()}
	if !listed || m.Learner {
		return common // giving up an add works under any alarm
	}
	return append(common, noAlarm(), oneMinor(), canRemove(m.ID), keepsSpare(m.ID))
}

// leave removes the member.
func (p RemoveMember) leave(v View, m Member) []Step {
	if m.Learner {
		return []Step{giveUp(v, m)}
	}
	return expel(v, m, nil, keepsSpare(m.ID))
}

// giveUp takes a learner off the list.
func giveUp(v View, m Member) Step {
	h := v.HostOf(m)
	return Step{Title: "remove member " + ID(m.ID), Act: Expel{ID: m.ID, Host: h}, Until: isGone(m.ID), Etcd: true,
		Needs: []Safeguard{quorate(), oneCluster(h), sameList(h), nothingPending(h)}}
}

// expel hands the leadership over, to a voter on one of some hosts or to anyone,
// and removes a voter.
func expel(v View, m Member, to []string, more ...Safeguard) []Step {
	h := v.HostOf(m)
	return []Step{
		{Title: "hand over the leadership", Act: MoveLeader{From: h, To: to}, Until: either(isGone(m.ID), leadsAmongOthers(h)),
			Patience: Electing, Etcd: true, Needs: changeNeeds(h, hasHeir(h, to...))},
		{Title: "remove member " + ID(m.ID), Act: Expel{ID: m.ID, Host: h}, Until: isGone(m.ID), Etcd: true,
			Needs: slices.Concat(changeNeeds(h, everyVoterAnswers(h), canRemove(m.ID)), more, []Safeguard{settledToRemove(m.ID), notLeading(m.ID)})},
	}
}

// strike takes a host out of the inventory.
func strike(h string) Step {
	return Step{Title: "remove from the inventory", Act: EditInventory{Host: h, Remove: true}, Until: unwanted(h)}
}

// leadsAmongOthers holds when the voters but for the one on a host agree on a
// leader that is not there. What that one itself says does not matter: it may
// be cut off, and that may be why it is to go.
func leadsAmongOthers(name string) Condition {
	return func(v View) error {
		if m, ok := v.At(name); ok && !v.Alive(m) {
			return v.agreed()
		}
		if err := v.agreed(name); err != nil {
			return err
		}
		leader, _ := v.Leader()
		m, _ := v.At(name)
		if l := v.LookOf(m.ID); leader.ID == m.ID || l.Answers() && l.Leader == m.ID {
			return fmt.Errorf("the leader is on %s", name)
		}
		return nil
	}
}

// notLeading: the member to go does not lead.
func notLeading(id uint64) Safeguard {
	return Safeguard{Name: "leader-handed-over", Show: "etcdctl endpoint status --cluster -w table",
		Holds: func(v View) error {
			if l, ok := v.Leader(); ok && l.ID == id && len(v.Voters()) > 1 {
				return &Refusal{Host: v.HostOf(l), Found: "it leads", Needed: "another leader", Hint: "run the same command again"}
			}
			return nil
		}}
}

// heir picks the voter that the leadership of a host goes to: of those that have
// been up for some time the living one that is closest behind, if it is close; of
// those on some hosts, where they are named.
func (v View) heir(from string, among ...string) (Member, bool) {
	var head uint64
	for _, m := range v.LivingVoters() {
		head = max(head, v.LookOf(m.ID).Index)
	}
	var best Member
	var most uint64
	var longest time.Duration
	for _, m := range v.LivingVoters() {
		h, l := v.HostOf(m), v.LookOf(m.ID)
		if h == from || len(among) > 0 && !slices.Contains(among, h) || l.Leader == 0 || l.Applied+MaxLag < head {
			continue
		}
		// One that has just started has to wait before it lets members change.
		up, known := v.uptime(h)
		if up = min(up, HealthInterval+settledMargin); !known {
			up = HealthInterval + settledMargin
		}
		if best.ID == 0 || up > longest || up == longest && l.Applied > most {
			best, most, longest = m, l.Applied, up
		}
	}
	return best, best.ID != 0
}

// hasHeir: another voter can take the leadership over.
func hasHeir(from string, among ...string) Safeguard {
	return Safeguard{Name: "heir", Show: "etcdctl endpoint status --cluster -w table", Passing: Electing,
		Holds: func(v View) error {
			if _, ok := v.heir(from, among...); !ok {
				return fmt.Errorf("no other living voter%s is at most %d entries behind", onOneOf(among), MaxLag)
			}
			return nil
		}}
}

// onOneOf says among whom it has to be, where it has to.
func onOneOf(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return " on " + strings.Join(names, " or ")
}

// fresh reports whether no reference names a host any more.
func (v View) fresh(without string) bool {
	for _, s := range references(v, []string{without}) {
		if s.Until(v) != nil {
			return false
		}
	}
	return true
}

// leftovers reports whether anything of a member is left on a host.
func (v View) leftovers(name string) bool {
	h, ok := v.Host(name)
	if !ok || !h.Reachable() {
		return false
	}
	u := h.Facts.Units[v.unit()]
	if u.Runs() || u.Enabled == "enabled" {
		return true
	}
	if _, begun := v.Admin.Removed[name]; begun && u.Load != "masked" {
		return true // cut off between two steps that leave no other trace
	}
	if u.Load != "masked" && h.Facts.Files[v.layout().UnitPath()].Exists || h.Facts.Files[v.layout().JoinDropInPath()].Exists {
		return true
	}
	for _, d := range dataDirs(v.Spec(name)) {
		if len(contents(h.Facts.Dirs[d])) > 0 {
			return true
		}
	}
	return false
}

// retire stops etcd on a host for good and sets its data aside. The unit's own
// file goes, since systemd does not mask a unit whose file is in /etc.
func retire(v View, h, stamp string) []Step {
	spec := v.Spec(h)
	steps := []Step{
		guarded(stopUnit(v, h), ownData(h)),
		{Title: "disable the unit", Host: h, Act: On{h, host.Systemctl{Verb: host.Disable, Unit: v.unit()}}, Until: enabled(h, "disabled", "masked", "")},
	}
	steps = append(steps, keepUnit(v, h)...)
	steps = append(steps, []Step{
		{Title: "remove the unit's file", Host: h, Act: On{h, host.RemoveFile{Path: v.layout().UnitPath()}}, Until: either(enabled(h, "masked"), fileGone(h, v.layout().UnitPath()))},
		removeFile(h, v.layout().JoinDropInPath(), "remove the join drop-in"),
		{Title: "mask the unit", Host: h, Act: On{h, host.Systemctl{Verb: host.Mask, Unit: v.unit()}}, Until: enabled(h, "masked")},
		daemonReload(h),
	}...)
	for _, d := range dataDirs(spec) {
		steps = append(steps, Step{Title: "set aside " + d, Host: h, Act: On{h, host.SetAside{Path: d, Stamp: stamp}}, Until: dirEmpty(h, d), Needs: []Safeguard{isStopped(h), ownData(h)}})
	}
	return steps
}

func guarded(s Step, needs ...Safeguard) Step {
	s.Needs = append(s.Needs, needs...)
	return s
}

// ownData: what lies or runs on a host is of this cluster. A host may have been
// given to another one meanwhile.
func ownData(name string) Safeguard {
	const hint = "correct the inventory if this host is another cluster's; a newcomer that founded one of its own by mistake is what the waiver is for"
	return Safeguard{Name: "own-data", Show: "ETCDCTL_ENDPOINTS=HOST:2379 etcdctl endpoint status -w json",
		Risk: "a member of another cluster is stopped, and its data is set aside",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			own := v.ownID()
			if l := v.LookAt(name); l.Answers() && l.ClusterID != own {
				return &Refusal{Host: name, Found: fmt.Sprintf("a member of cluster %s answers there, this is cluster %s", ID(l.ClusterID), ID(own)), Needed: "a host of this cluster", Hint: hint}
			}
			head := logOf(facts, v.Spec(name))
			if len(head) == 0 {
				return hiddenIn(name, facts, dataDirs(v.Spec(name))...)
			}
			if who, err := Identify(head); err != nil || who.Cluster != own {
				return &Refusal{Host: name, Found: fmt.Sprintf("its data is of cluster %s, this is cluster %s", ID(who.Cluster), ID(own)), Needed: "data of this cluster", Hint: hint}
			}
			return nil
		}}
}

// isStopped: nothing is moved away under a running process.
func isStopped(name string) Safeguard {
	return Safeguard{Name: "stopped", Show: "systemctl is-active etcd; ss -ltnp", Passing: Looking,
		Holds: func(v View) error {
			if err := stopped(name)(v); err != nil {
				return err
			}
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			spec := v.Spec(name)
			for _, port := range []int{spec.ClientPort, spec.PeerPort} {
				if by, taken := facts.Ports[port]; taken {
					return fmt.Errorf("%s still listens on port %d of %s", by, port, name)
				}
			}
			return nil
		}}
}

// Stamp names what is set aside at a moment.
func Stamp(t time.Time) string { return t.UTC().Format("20060102T150405Z") }
