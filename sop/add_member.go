package sop

import (
	"slices"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// AddMember brings one host into the cluster as a voter.
//
// The newcomer joins as a learner, which has no vote and so cannot cost the
// cluster its quorum, and is promoted once it answers and has caught up with
// the leader. Run again after an interruption, it goes on from wherever the
// cluster is.
type AddMember struct {
	Host string // inventory name of the host to bring in
}

// String implements Procedure.
func (p AddMember) String() string { return "addMember " + p.Host }

// Subject is the host that may be in neither inventory nor member list.
func (p AddMember) Subject() string { return p.Host }

// Refuses a host that is a voter already, unless it was added from here: then
// this is a rerun, and there may be references left to refresh.
func (p AddMember) Refuses(v View) error {
	m, ok := v.At(p.Host)
	if _, ours := v.Admin.Added[p.Host]; !ok || m.Learner || ours {
		return nil
	}
	return refuse("no-member-yet", p.Host, "to replace it: removeMember first; to refresh the endpoints: reloadConfig",
		"it is a voter already, member %s", ID(m.ID))
}

// Plan implements Procedure.
func (p AddMember) Plan(v View) (Plan, error) {
	if err := validHost(p.Host); err != nil {
		return Plan{}, refuse("valid-host", p.Host, "name the host as in the inventory", "%v", err)
	}
	if !v.Exists() {
		return Plan{}, v.nobody("look at it with: status; a cluster that is not there is made by createCluster")
	}
	h := p.Host
	refs := v.refreshmentOf(change{with: []string{h}})
	plan := Plan{
		Needs:    slices.Concat(clusterNeeds(h), []Safeguard{inventoryWritable()}, newcomerNeeds(v, h), []Safeguard{canPromote(h)}, membersReachable(v, h), refs.needs),
		Warnings: refs.warnings(),
		Subjects: []string{h},
		GiveUp:   "removeMember " + h,
		Stages: []Stage{
			{"install etcd", installEtcd(v, h)},
			{"announce as learner", []Step{snapshotBefore(isListed(h), v), announce(h)}},
			{"write it into the inventory", []Step{enlist(h)}},
			{"start as existing", startJoining(v, h)},
			{"promote to voter", promote(v, h)},
			{"reload references", refs.steps()},
		},
	}
	if _, in := v.At(h); in && len(v.Learners()) == 0 {
		return plan.ifOpen(v), nil
	}
	if n := len(v.Voters()); n == 1 {
		plan.Warnings = append(plan.Warnings, "from one voter to two nothing may fail: add the third right away")
	} else if n%2 == 1 {
		plan.Warnings = append(plan.Warnings, "an even number of voters bears no more failures than one less: add another")
	}
	return plan.ifOpen(v), nil
}

// newcomerNeeds are the safeguards of a host that is to be brought in.
func newcomerNeeds(v View, h string) []Safeguard {
	needs := []Safeguard{reachable(h), installable(h), versionFits(h), blankHost(h), quotaFits(h), certificatesGiven(h), roomOnDisk(h), peersReach(h), noProxy(h)}
	if v.layout().Form == config.Env {
		needs = append(needs, plainUnit(h))
	}
	return needs
}

// announce adds a host as a learner.
func announce(h string) Step {
	return Step{Title: "add as learner", Act: AddLearner{h}, Until: isListed(h),
		Needs: changeNeeds(h, everyVoterAnswers(), installed(h), sameVersion(h), etcdUser(h), blankHost(h), canPromote(h), settledToAdd())}
}

// enlist writes a host into the inventory.
func enlist(h string) Step {
	return Step{Title: "add to the inventory", Act: EditInventory{Host: h}, Until: wanted(h)}
}

// promote gives a learner its vote once it has caught up.
func promote(v View, h string) []Step {
	return append([]Step{
		{Title: "wait until caught up", Host: h, Until: caughtUp(h), Patience: CatchUp, Etcd: true, Sees: &Glimpse{Unit: true}},
		{Title: "promote to voter", Act: Promote{h}, Until: votes(h), Etcd: true,
			Needs: changeNeeds(h, everyVoterAnswers(), canPromote(h), aliveNow(h), reachesBack(h))},
	}, joined(v, h)...)
}

// joined takes back what was for the time of joining alone.
func joined(v View, h string) []Step {
	path := v.layout().JoinDropInPath()
	reload := daemonReload(h)
	reload.Until = All(fileGone(h, path), reload.Until)
	return together(removeFile(h, path, "remove the join drop-in"), reload)
}

// startJoining prepares the host and starts the learner. The drop-in lifts
// systemd's start timeout, which would kill a learner that fetches a large
// database.
func startJoining(v View, h string) []Step {
	steps := append(certify(v, h), prepare(v, h)...)
	conf := Install{Host: h, File: Conf, State: "existing", At: v.at(Conf)}
	// Once it votes its etcd.conf is one of the references.
	voter := func(v View) error { return votes(h)(v) }
	steps = append(steps, together(
		Step{Title: "write etcd.conf", Host: h, Act: conf, Until: either(voter, inPlace(conf))},
		Step{Title: "lift the start timeout while it joins", Host: h, Act: On{h, host.MakeDir{Path: v.layout().JoinDropInDir(), Owner: "root", Group: "root", Mode: 0o755}},
			Until: either(voter, hasDir(h, config.OwnedFile{Path: v.layout().JoinDropInDir(), Owner: "root", Group: "root", Mode: 0o755}))},
		Step{Title: "write the join drop-in", Host: h, Act: Install{Host: h, File: JoinDropIn, At: v.at(JoinDropIn)}, Until: either(voter, inPlace(Install{Host: h, File: JoinDropIn, At: v.at(JoinDropIn)}))},
	)...)
	// Apart from the files, since these decide whether systemd has to read any.
	steps = append(steps, daemonReload(h))
	steps = append(steps, together(enable(v, h), startUnit(v, h, blankHost(h), peersReach(h)))...)
	fed := &Glimpse{Unit: true, Globs: []string{snapFiles(v.Spec(h))}}
	return append(steps,
		// A learner that was fed by a snapshot takes itself for far behind, and does
		// not begin to serve, until it has applied an entry after it: on a quiet
		// cluster that never comes by itself.
		Step{Title: "wait until it answers", Host: h, Until: either(waitsInVain(h), comesUp(h)), Patience: Starting, Etcd: true, Nudge: true, Sees: fed},
		Step{Title: "let it publish its name again", Host: h, Act: On{h, host.Systemctl{Verb: host.Restart, Unit: v.unit(), NoBlock: true}}, Until: publishes(h), Patience: Starting, Etcd: true},
		Step{Title: "wait until it serves", Host: h, Until: comesUp(h), Patience: Starting, Etcd: true, Nudge: true, Sees: fed},
	)
}
