package scenarios

import (
	"fmt"
	"slices"
	"time"

	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
	"github.com/etcdrill/etcdrill/lab/fault"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
)

// The hosts of the rows below, by what they are at the start: members of a
// cluster of three, and spares.
const (
	firstHost  = "10.10.10.10"
	secondHost = "10.10.10.11"
	third      = "10.10.10.12"
	spare      = "10.10.10.13"
	fifth      = "10.10.10.14"
)

// Commands that many rows have in common.
const (
	addSpare    = "addMember " + spare
	giveUp      = "removeMember " + spare
	toSpares    = "migrate 10.10.10.13,10.10.10.14,10.10.10.15"
	toOthers    = "migrate 10.10.10.12,10.10.10.14,10.10.10.15"
	replaceIt   = "replaceMember " + third + " " + spare
	removeThird = "removeMember " + third + " -waive=spare -reason=scenario"
)

// grows is a cluster of three with a host to add.
func grows() Start { return Start{Spares: 1} }

// at strikes at a moment, and heals when the operator has ended.
func at(moment At, f fault.Fault) Strike { return Strike{At: moment, Fault: f} }

// from strikes before the procedure.
func from(f fault.Fault) Strike { return Strike{Fault: f} }

// brief strikes at a moment and heals after a while.
func brief(moment At, f fault.Fault, d time.Duration) Strike {
	return Strike{At: moment, Fault: f, For: d}
}

// lasts strikes at a moment and is healed at the very end.
func lasts(moment At, f fault.Fault) Strike { return Strike{At: moment, Fault: f, Stays: true} }

// cutShort interrupts an operator who waits in a step for what does not come. It
// may have found that out by itself.
func cutShort(step string) Strike {
	return Strike{At: waiting(step), Fault: fault.InterruptOperator(), Perhaps: true}
}

// partition is long enough for an election, and shorter than what a step waits.
const partition = 3 * time.Second

// impatient is for operators who wait for a leader that does not come. It is
// longer than etcd takes to stop.
const impatient = 8 * time.Second

// visit is long enough for a member that comes back to campaign several times.
const visit = 4 * time.Second

// Rows are the scenarios, by suite. Those of the kill sweep are made from the
// procedures and stand beside them.
func Rows() []Scenario {
	return slices.Concat(safeguardRows(), learnerRows(), removalRows(), crashRows(), migrationRows(), reloadRows(), operatorRows(), networkRows(), diskRows(), trustRows(), maintenanceRows(), recoveryRows(), upgradeRows(), pendingRows(),
		[]Scenario{{Name: theWalk, Suites: []string{"soak"}, Tier: Soak, Procedure: "restart", Ending: completes()}})
}

// safeguardRows: who must not be touched is not touched.
func safeguardRows() []Scenario {
	suite := []string{"safeguard"}
	guarded := Start{Vars: "etcd_clean: false\netcd_safeguard: true"}
	return []Scenario{
		{Name: "destroy-safeguarded", Suites: suite, Tier: Smoke, Start: guarded,
			Procedure: "destroyCluster -confirm=CLUSTERID", Ending: refuses("etcd_safeguard")},
		{Name: "destroy-not-clean", Suites: suite, Tier: PR, Start: Start{Vars: "etcd_clean: false"},
			Procedure: "destroyCluster -confirm=CLUSTERID", Ending: refuses("etcd_clean")},
		{Name: "destroy-wrong-consent", Suites: suite, Tier: Nightly,
			Procedure: "destroyCluster -confirm=abad1dea", Ending: refuses("consent")},
		{Name: "destroy-by-name", Suites: suite, Tier: PR,
			Procedure: "destroyCluster -confirm=etcd", Ending: refuses("consent")},
		{Name: "destroy-host-off", Suites: suite, Tier: PR,
			Strikes: []Strike{from(fault.PowerOff(third))}, Procedure: "destroyCluster -confirm=CLUSTERID", Ending: refuses("unreachable")},
		{Name: "destroy-other-cluster", Suites: suite, Tier: PR,
			Strikes:   []Strike{lasts(At{}, fault.RememberOther("etcd"))},
			Procedure: "addMember " + spare, Start: grows(), Ending: refuses("remembered-cluster")},
		{Name: "create-over-crashed", Suites: suite, Tier: Smoke, Start: guarded,
			Strikes: []Strike{from(fault.Crash(fault.Follower))}, Procedure: "createCluster", Ending: refuses("etcd_safeguard")},
		{Name: "create-over-all-crashed", Suites: suite, Tier: PR, Start: guarded,
			Strikes: []Strike{from(fault.Crash(fault.Voters))}, Procedure: "createCluster", Ending: refuses("etcd_safeguard")},
		{Name: "create-clean-over-safeguarded", Suites: suite, Tier: PR, Start: guarded,
			Procedure: "createCluster -clean=true", Ending: refuses("etcd_safeguard")},
		{Name: "create-without-ca", Suites: suite, Tier: PR,
			Strikes: []Strike{from(fault.LoseCA())}, Procedure: "createCluster -clean=true -confirm=CLUSTERID", Ending: refuses("ca")},
		{Name: "add-on-foreign-cluster", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{from(fault.Foreign(fault.Subject))}, Procedure: addSpare, Ending: refuses("blank-host")},
		{Name: "add-stale-inventory", Suites: suite, Tier: PR, Start: grows(),
			Strikes:   []Strike{from(fault.EditInventory("        "+third+": {etcd_seq: 3}\n", ""))},
			Procedure: addSpare, Ending: refuses("inventory-agrees")},
		{Name: "old-member-after-rebuild", Suites: append([]string{"removal"}, suite...), Tier: Nightly, Quiet: true,
			Strikes:   []Strike{lasts(At{}, fault.PowerOff(third))},
			Procedure: "createCluster -clean=true -waive=unreachable -reason=scenario -confirm=CONSENT",
			Ending:    completes().then("removeMember " + third), Inspections: []Inspection{staysApart(third, true)}},
		{Name: "old-member-visits-rebuilt", Suites: append([]string{"removal"}, suite...), Tier: PR, Quiet: true,
			Strikes:   []Strike{lasts(At{}, fault.PowerOff(third)), at(afterwards(), fault.Visit(third, visit))},
			Procedure: "createCluster -clean=true -waive=unreachable -reason=scenario -confirm=CONSENT",
			Ending:    completes().then("removeMember " + third), Inspections: []Inspection{freshToken(third)}},
		{Name: "destroy-killed-then-created", Suites: append([]string{"operator"}, suite...), Tier: PR, Quiet: true,
			Strikes:   []Strike{at(before("set aside"), fault.KillOperator())},
			Procedure: "destroyCluster -confirm=CLUSTERID", Ending: resumes().then(sameAgain, "createCluster")},
	}
}

// learnerRows: a newcomer that is slow, hurt, or not what it seems.
func learnerRows() []Scenario {
	suite := []string{"learner"}
	return []Scenario{
		{Name: "add", Suites: suite, Tier: Smoke, Start: grows(), Procedure: addSpare, Ending: completes()},
		{Name: "add-from-one", Suites: suite, Tier: PR, Start: Start{Hosts: 1, Spares: 1}, Procedure: "addMember 10.10.10.11", Ending: completes()},
		{Name: "add-from-two", Suites: suite, Tier: Nightly, Start: Start{Hosts: 2, Spares: 1}, Procedure: "addMember " + third, Ending: completes()},
		{Name: "add-on-stale-data", Suites: append([]string{"safeguard"}, suite...), Tier: Smoke, Start: Start{Before: []string{removeThird}},
			Strikes: []Strike{from(fault.Revive(fault.Subject))}, Procedure: "addMember " + third, Ending: refuses("blank-host")},
		{Name: "add-on-copied-data", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{from(fault.Stale(fault.Subject, fault.Follower))}, Procedure: addSpare, Ending: refuses("blank-host")},
		{Name: "leader-killed-at-promote", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{at(recorded("promote to voter"), fault.Kill(fault.Leader))}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "leader-killed-once-promoted", Suites: suite, Tier: Nightly, Start: grows(),
			Strikes: []Strike{at(applied("promote to voter"), fault.Kill(fault.Leader))}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "leader-killed-once-announced", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{at(applied("add as learner"), fault.Kill(fault.Leader))}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "leader-killed-at-catch-up", Suites: suite, Tier: Nightly, Start: grows(),
			Strikes: []Strike{at(after("start etcd"), fault.Kill(fault.Leader))}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "learner-killed-before-promote", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{at(after("wait until caught up"), fault.Kill(fault.Subject))}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "learner-crashed-before-promote", Suites: suite, Tier: Nightly, Start: grows(),
			Strikes:   []Strike{at(after("wait until caught up"), fault.Crash(fault.Subject))},
			Procedure: addSpare, Ending: stops("learner-alive", sameAgain)},
		{Name: "learner-crashed-once-it-answered", Suites: suite, Tier: PR, Start: grows(),
			Strikes:   []Strike{at(after("wait until it answers"), fault.Crash(fault.Subject)), cutShort("wait until caught up")},
			Procedure: addSpare, Ending: stops("", sameAgain)},
		{Name: "firewall-before-promote", Suites: append([]string{"network"}, suite...), Tier: PR, Start: grows(), Quiet: true,
			Strikes:   []Strike{at(after("wait until caught up"), fault.Firewall(fault.Subject, 2380))},
			Procedure: addSpare, Ending: stops("refused by safeguard", sameAgain)},
		{Name: "add-with-quota", Suites: suite, Tier: PR, Start: Start{Spares: 1, Vars: "etcd_quota_backend_bytes: 8589934592"}, Procedure: addSpare, Ending: completes()},
		{Name: "add-after-compaction", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{from(fault.Compact())}, Procedure: addSpare, Ending: completes()},
		{Name: "learner-cut-before-promote", Suites: append([]string{"network"}, suite...), Tier: Nightly, Start: grows(),
			Strikes: []Strike{at(after("wait until caught up"), fault.Isolate(fault.Learner))}, Procedure: addSpare, Ending: stops("refused by safeguard", sameAgain)},
		{Name: "learner-cut-after-ready", Suites: append([]string{"network"}, suite...), Tier: PR, Start: grows(),
			Strikes: []Strike{brief(recorded("promote to voter"), fault.Isolate(fault.Learner), partition)}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "learner-cut-one-way", Suites: append([]string{"network"}, suite...), Tier: Nightly, Start: grows(),
			Strikes: []Strike{brief(recorded("promote to voter"), fault.CutOneWay(fault.Learner, fault.Leader), partition)}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "newcomer-never-starts", Suites: suite, Tier: PR, Start: grows(),
			Strikes:   []Strike{lasts(after("start etcd"), fault.Crash(fault.Subject)), cutShort("wait until it answers")},
			Procedure: addSpare, Ending: stops("", giveUp)},
		{Name: "newcomer-never-starts-from-one", Suites: suite, Tier: PR, Start: Start{Hosts: 1, Spares: 1},
			Strikes:   []Strike{lasts(after("start etcd"), fault.Crash(fault.Subject)), cutShort("wait until it answers")},
			Procedure: "addMember 10.10.10.11", Ending: stops("", "removeMember 10.10.10.11")},
		{Name: "newcomer-founds-its-own", Suites: suite, Tier: Nightly, Start: grows(),
			Strikes: []Strike{at(before("start etcd"), fault.Edit(fault.Subject, config.ConfPath, "existing", "new")),
				cutShort("wait until it answers")},
			Procedure: addSpare, Ending: stops("", giveUp+" -waive=own-data -reason=scenario")},
		{Name: "learner-small-quota", Suites: append([]string{"disk"}, suite...), Tier: PR, Start: grows(),
			Strikes:   []Strike{lasts(after("wait until it answers"), fault.SmallQuota(fault.Subject, 1<<16)), at(after("wait until caught up"), fault.AwaitAlarm())},
			Procedure: addSpare, Ending: stops("no-alarm", giveUp)},
	}
}

// removalRows: a member that leaves, and what may come back.
func removalRows() []Scenario {
	suite := []string{"removal"}
	return []Scenario{
		{Name: "remove", Suites: suite, Tier: Smoke, Procedure: removeThird, Ending: completes()},
		{Name: "remove-leader", Suites: suite, Tier: PR, Procedure: "removeMember LEADER -waive=spare -reason=scenario", Ending: completes()},
		{Name: "remove-without-spare", Suites: append([]string{"safeguard"}, suite...), Tier: PR, Procedure: "removeMember " + third, Ending: refuses("spare")},
		{Name: "remove-killed-once-removed", Suites: append([]string{"operator"}, suite...), Tier: PR,
			Strikes: []Strike{at(applied("remove member"), fault.KillOperator())}, Procedure: removeThird, Ending: resumes()},
		{Name: "remove-killed-before-aside", Suites: append([]string{"operator"}, suite...), Tier: Nightly,
			Strikes: []Strike{at(before("set aside"), fault.KillOperator())}, Procedure: removeThird, Ending: resumes()},
		{Name: "removed-member-restored", Suites: append([]string{"disk"}, suite...), Tier: PR,
			Strikes:   []Strike{from(fault.TakeImage(fault.Subject)), at(afterwards(), fault.RestoreImage(fault.Subject))},
			Procedure: removeThird, Ending: completes().then("reloadConfig"), Inspections: []Inspection{staysApart(third, false)}},
		{Name: "removed-member-restarts", Suites: suite, Tier: Nightly,
			Strikes:   []Strike{at(answered("remove member"), fault.PowerCycle(fault.Subject))},
			Procedure: removeThird, Ending: survives(sameAgain)},
		{Name: "remove-leader-isolated", Suites: append([]string{"network"}, suite...), Patience: impatient, Tier: PR,
			Strikes: []Strike{from(fault.Isolate(fault.Subject))}, Procedure: "removeMember LEADER -waive=spare,voters-answer -reason=scenario", Ending: survives(sameAgain)},
		{Name: "leader-killed-at-hand-over", Suites: suite, Tier: Nightly,
			Strikes: []Strike{at(recorded("hand over the leadership"), fault.Kill(fault.Leader))}, Procedure: "removeMember LEADER -waive=spare -reason=scenario", Ending: survives(sameAgain)},
		{Name: "leader-killed-once-removed", Suites: suite, Tier: Nightly,
			Strikes: []Strike{at(applied("remove member"), fault.Kill(fault.Leader))}, Procedure: removeThird, Ending: survives(sameAgain)},
		{Name: "replace-dead-member", Suites: append([]string{"learner"}, suite...), Tier: PR, Start: grows(),
			Strikes: []Strike{lasts(At{}, fault.Crash(third))}, Procedure: "removeMember " + third, Ending: completes().then(addSpare)},
		{Name: "add-with-one-dead", Suites: append([]string{"safeguard"}, suite...), Tier: PR, Start: grows(),
			Strikes: []Strike{from(fault.Crash(third))}, Procedure: addSpare + " -waive=voters-answer -reason=scenario", Ending: refuses("votes")},
		{Name: "corrupt-backend-replaced", Suites: append([]string{"disk"}, suite...), Tier: PR,
			Strikes: []Strike{from(fault.Flip(third, fault.Backend))}, Procedure: "removeMember " + third, Ending: completes().then("addMember " + third)},
		{Name: "corrupt-wal-replaced", Suites: append([]string{"disk"}, suite...), Tier: Nightly,
			Strikes: []Strike{from(fault.Truncate(third, fault.WAL))}, Procedure: "removeMember " + third, Ending: completes().then("addMember " + third)},
	}
}

// crashRows: a member crashes in the middle of what a change of members has it
// do. Nobody writes where it could crash with another write than with the change.
func crashRows() []Scenario {
	row := func(name string, tier Tier, moment At, who fault.Role, p fault.Point) Scenario {
		s := Scenario{Name: name, Suites: []string{"learner"}, Tier: tier, Start: Start{Spares: 1, Points: true}, Procedure: addSpare,
			Quiet: p != fault.BeforeApply, Strikes: []Strike{at(moment, fault.CrashAt(who, p))}, Ending: survives(sameAgain)}
		if moment.Step == "remove member" {
			s.Suites, s.Start.Spares, s.Procedure = []string{"removal"}, 0, removeThird
		}
		return s
	}
	loaded := func(s Scenario) Scenario { s.Quiet = false; return s }
	add, promote, remove := recorded("add as learner"), recorded("promote to voter"), recorded("remove member")
	return []Scenario{
		row("leader-crashes-before-an-addition-is-saved", Nightly, add, fault.Leader, fault.BeforeSave),
		row("leader-crashes-once-an-addition-is-saved", Nightly, add, fault.Leader, fault.AfterSave),
		row("leader-crashes-applying-an-addition", Nightly, add, fault.Leader, fault.BeforeApply),
		row("leader-crashes-before-a-promotion-is-saved", Nightly, promote, fault.Leader, fault.BeforeSave),
		row("leader-crashes-before-a-promotion-is-synced", Nightly, promote, fault.Leader, fault.BeforeSync),
		row("leader-crashes-applying-a-promotion", PR, promote, fault.Leader, fault.BeforeApply),
		row("follower-crashes-applying-a-promotion", Nightly, promote, fault.Follower, fault.BeforeApply),
		row("all-crash-applying-a-promotion", Nightly, promote, fault.Voters, fault.BeforeApply),
		loaded(row("leader-crashes-committing-a-promotion", Nightly, applied("promote to voter"), fault.Leader, fault.MidCommit)),
		row("all-crash-committing-a-promotion", Nightly, promote, fault.Voters, fault.BeforeCommit),
		loaded(row("learner-crashes-before-it-is-promoted", Nightly, after("wait until caught up"), fault.Learner, fault.BeforeSave)),
		row("learner-crashes-once-its-promotion-is-saved", Nightly, promote, fault.Learner, fault.AfterSave),
		row("learner-crashes-applying-its-promotion", Nightly, promote, fault.Learner, fault.BeforeApply),
		row("learner-crashes-committing-its-promotion", Nightly, promote, fault.Learner, fault.MidCommit),
		row("leader-crashes-before-a-removal-is-saved", Nightly, remove, fault.Leader, fault.BeforeSave),
		row("leader-crashes-once-a-removal-is-saved", Nightly, remove, fault.Leader, fault.AfterSave),
		row("leader-crashes-applying-a-removal", Nightly, remove, fault.Leader, fault.BeforeApply),
		row("others-crash-applying-a-removal", Nightly, remove, fault.Others, fault.BeforeApply),
		row("removed-crashes-applying-its-removal", Nightly, remove, fault.Subject, fault.BeforeApply),
		loaded(row("leader-crashes-committing-a-removal", Nightly, applied("remove member"), fault.Leader, fault.MidCommit)),
		row("others-crash-committing-a-removal", Nightly, remove, fault.Others, fault.MidCommit),
	}
}

// moves is a cluster of three with three hosts to move to.
func moves() Start { return Start{Spares: 3} }

// migrationRows: a whole cluster moves, or one of its members.
func migrationRows() []Scenario {
	suite := []string{"migration"}
	stale := Start{Spares: 3, Infra: true, Stale: 1}
	const leftBehind = "not to the new members: " + infraOfScenario + " (1 connection)"
	says := func(e Ending, words string) Ending { e.Says = words; return e }
	and := func(more ...string) []string { return append(more, suite...) }
	swarm := func(name string) Scenario {
		return Scenario{Name: name, Suites: and("operator"), Tier: Nightly, Start: moves(), Procedure: toSpares, Swarm: stepsOfMove(), Ending: survives(sameAgain)}
	}
	return []Scenario{
		{Name: "migrate", Suites: suite, Tier: Smoke, Start: moves(), Procedure: toSpares, Ending: completes()},
		{Name: "migrate-and-keep-one", Suites: suite, Tier: Nightly, Start: moves(), Procedure: toOthers, Ending: completes()},
		{Name: "migrate-from-one", Suites: suite, Tier: PR, Start: Start{Hosts: 1, Spares: 1}, Procedure: "migrate 10.10.10.11", Ending: completes()},
		{Name: "migrate-five-to-five", Suites: suite, Tier: Nightly, Start: Start{Hosts: 5, Spares: 5},
			Procedure: "migrate 10.10.10.15,10.10.10.16,10.10.10.17,10.10.10.18,10.10.10.19", Ending: completes()},
		{Name: "migrate-five-to-three", Suites: suite, Tier: Nightly, Start: Start{Hosts: 5, Spares: 2}, Procedure: "migrate 10.10.10.12,10.10.10.15,10.10.10.16", Ending: completes()},
		{Name: "migrate-killed-elsewhere", Suites: and("operator"), Tier: PR, Start: moves(),
			Strikes: []Strike{at(applied("promote to voter").nth(2), fault.KillOperator())}, Procedure: toSpares, Ending: resumes().then(elsewhere + sameAgain)},
		{Name: "migrate-killed-then-to-others", Suites: and("operator"), Tier: PR, Start: moves(),
			Strikes: []Strike{at(answered("start etcd"), fault.KillOperator())}, Procedure: toSpares, Ending: resumes().then(toOthers)},
		{Name: "migrate-with-one-down", Suites: and("learner"), Tier: PR, Start: moves(),
			Strikes: []Strike{from(fault.Crash("10.10.10.11"))}, Procedure: toSpares, Ending: completes()},
		{Name: "migrate-with-one-down-that-stays", Suites: and("safeguard"), Tier: PR, Start: moves(),
			Strikes: []Strike{from(fault.Crash(third))}, Procedure: toOthers, Ending: refuses("voters-answer")},
		{Name: "migrate-leader-killed-at-hand-over", Suites: suite, Patience: impatient, Tier: PR, Start: moves(),
			Strikes: []Strike{at(recorded("hand over the leadership"), fault.Kill(fault.Leader))}, Procedure: toSpares, Ending: survives(sameAgain)},
		{Name: "migrate-leader-killed-at-promote", Suites: suite, Tier: Nightly, Start: moves(),
			Strikes: []Strike{at(recorded("promote to voter").nth(2), fault.Kill(fault.Leader))}, Procedure: toSpares, Ending: survives(sameAgain)},
		{Name: "migrate-reply-lost", Suites: and("operator"), Tier: Nightly, Start: moves(),
			Strikes: []Strike{at(recorded("add as learner").nth(3), fault.LoseReply())}, Procedure: toSpares, Ending: completes()},
		{Name: "migrate-slow-disk-on-the-leader", Suites: and("disk"), Tier: Nightly, Start: Start{Spares: 3, Disks: true},
			Strikes: []Strike{from(fault.SlowSync(fault.Leader, 300*time.Millisecond))}, Procedure: toSpares, Ending: survives(sameAgain)},
		{Name: "migrate-isolated-leader", Suites: and("network"), Tier: Nightly, Start: moves(),
			Strikes: []Strike{brief(before("promote to voter").nth(3), fault.Isolate(fault.Leader), partition)}, Procedure: toSpares, Ending: survives(sameAgain)},
		// A client on another host knows the members of the start alone: it is named
		// before the last of those goes.
		{Name: "migrate-under-stale-clients", Suites: and("reload"), Tier: PR, Start: stale,
			Strikes:   []Strike{at(waiting("stale-clients"), fault.RestartClients())},
			Procedure: toSpares, Ending: says(completes(), leftBehind), Inspections: []Inspection{staleAre(true)}},
		{Name: "migrate-refused-for-stale-clients", Suites: and("reload"), Tier: PR, Start: stale,
			Strikes:   []Strike{at(afterwards(), fault.RestartClients())},
			Procedure: toSpares + " -stale=refuse", Ending: stops(leftBehind, sameAgain), Inspections: []Inspection{staleAre(true)}},
		{Name: "migrate-leaves-stale-clients-behind", Suites: and("reload"), Tier: Nightly, Start: stale,
			Procedure: toSpares + " -stale=ignore", Ending: says(completes(), leftBehind), Inspections: []Inspection{staleAre(false)}},
		swarm("migrate-under-swarm-1"), swarm("migrate-under-swarm-2"), swarm("migrate-under-swarm-3"),
		{Name: "migrate-to-the-same", Suites: and("safeguard"), Tier: PR, Procedure: "migrate 10.10.10.12,10.10.10.10,10.10.10.11", Ending: refuses("new-hosts")},
		{Name: "migrate-to-one-twice", Suites: and("safeguard"), Tier: PR, Start: moves(), Procedure: "migrate 10.10.10.13,10.10.10.14,10.10.10.13", Ending: refuses("valid-hosts")},
		{Name: "migrate-to-too-few", Suites: and("safeguard"), Tier: PR, Start: moves(), Procedure: "migrate 10.10.10.13", Ending: refuses("enough-hosts")},
		{Name: "migrate-to-a-host-that-is-off", Suites: and("safeguard"), Tier: PR, Start: moves(),
			Strikes: []Strike{from(fault.PowerOff("10.10.10.14"))}, Procedure: toSpares, Ending: refuses("reachable")},
		{Name: "replace", Suites: and("learner"), Tier: Nightly, Start: grows(), Procedure: replaceIt, Ending: completes()},
		{Name: "replace-leader", Suites: suite, Tier: Nightly, Start: grows(), Procedure: "replaceMember LEADER " + spare, Ending: completes()},
		{Name: "replace-dead", Suites: suite, Tier: PR, Start: grows(), Strikes: []Strike{lasts(At{}, fault.Crash(third))}, Procedure: replaceIt, Ending: completes()},
		{Name: "replace-dead-killed-between", Suites: and("operator"), Tier: PR, Start: grows(),
			Strikes: []Strike{lasts(At{}, fault.Crash(third)), at(before("add as learner"), fault.KillOperator())}, Procedure: replaceIt, Ending: resumes()},
		{Name: "replace-corrupt-under-its-alarm", Suites: and("disk"), Tier: PR, Start: grows(), Quiet: true,
			Strikes: []Strike{from(fault.Corrupt(third))}, Procedure: replaceIt, Ending: completes(), Inspections: []Inspection{{"no-alarm", noAlarm}}},
		{Name: "replace-corrupt-killed-before-its-alarm-is-disarmed", Suites: and("disk", "operator"), Tier: PR, Start: grows(), Quiet: true,
			Strikes:   []Strike{from(fault.Corrupt(third)), at(before("disarm"), fault.KillOperator())},
			Procedure: replaceIt, Ending: resumes(), Inspections: []Inspection{{"no-alarm", noAlarm}}},
		{Name: "replace-second-failure-at-catch-up", Suites: and("learner"), Tier: PR, Start: grows(),
			Strikes: []Strike{at(after("start etcd"), fault.Kill(fault.Leader))}, Procedure: replaceIt, Ending: survives(sameAgain)},
	}
}

// reloadRows: files and restarts, one member at a time.
func reloadRows() []Scenario {
	suite := []string{"reload"}
	return []Scenario{
		{Name: "restart", Suites: suite, Tier: Smoke, Procedure: "restart", Ending: completes()},
		{Name: "restart-with-one-down", Suites: append([]string{"safeguard"}, suite...), Tier: PR,
			Strikes: []Strike{from(fault.Crash(fault.Follower))}, Procedure: "restart", Ending: refuses("voters-answer")},
		{Name: "restart-leader-killed-between", Suites: suite, Tier: PR,
			Strikes: []Strike{at(before("restart etcd").nth(2), fault.Kill(fault.Leader))}, Procedure: "restart", Ending: survives(sameAgain)},
		{Name: "restart-leader-paused-between", Suites: suite, Tier: PR,
			Strikes: []Strike{brief(before("restart etcd").nth(2), fault.Pause(fault.Leader), partition)}, Procedure: "restart", Ending: survives(sameAgain)},
		{Name: "restart-one-dies-midway", Suites: suite, Tier: Nightly,
			Strikes: []Strike{at(after("wait until it answers"), fault.Crash(fault.Follower))}, Procedure: "restart", Ending: survives(sameAgain)},
		{Name: "restart-one-slow-to-return", Suites: suite, Tier: PR,
			Strikes: []Strike{brief(after("restart etcd"), fault.Pause(fault.Target), impatient)}, Procedure: "restart", Ending: completes()},
		{Name: "restart-killed-midway", Suites: append([]string{"operator"}, suite...), Tier: Nightly,
			Strikes: []Strike{at(answered("restart etcd").nth(2), fault.KillOperator())}, Procedure: "restart", Ending: resumes()},
		{Name: "reload-killed-before-restart", Suites: append([]string{"operator"}, suite...), Tier: Nightly,
			Strikes: []Strike{at(before("restart etcd"), fault.KillOperator())}, Procedure: "reloadConfig -restart=true", Ending: resumes()},
		{Name: "reload-stale-file", Suites: suite, Tier: PR,
			Strikes:   []Strike{from(fault.Edit("10.10.10.11", config.EnvPath, "https://"+third+":2379", "https://10.10.10.99:2379"))},
			Procedure: "reloadConfig", Ending: completes()},
		{Name: "leader-paused-at-promote", Suites: append([]string{"learner"}, suite...), Tier: PR, Start: grows(),
			Strikes: []Strike{brief(recorded("promote to voter"), fault.Pause(fault.Leader), partition)}, Procedure: addSpare, Ending: survives(sameAgain)},
	}
}

// operatorRows: the operator is part of what gets hurt.
func operatorRows() []Scenario {
	suite := []string{"operator"}
	return []Scenario{
		{Name: "add-killed-once-announced", Suites: suite, Tier: Smoke, Start: grows(),
			Strikes: []Strike{at(answered("add as learner"), fault.KillOperator())}, Procedure: addSpare, Ending: resumes()},
		{Name: "add-killed-unheard", Suites: suite, Tier: Nightly, Start: grows(),
			Strikes: []Strike{at(applied("promote to voter"), fault.KillOperator())}, Procedure: addSpare, Ending: resumes()},
		{Name: "add-killed-elsewhere", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{at(applied("add as learner"), fault.KillOperator())}, Procedure: addSpare, Ending: resumes().then(elsewhere + sameAgain)},
		{Name: "add-killed-given-up", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{at(answered("start etcd"), fault.KillOperator())}, Procedure: addSpare, Ending: resumes().then(giveUp)},
		{Name: "add-reply-lost", Suites: suite, Tier: Smoke, Start: grows(),
			Strikes: []Strike{at(recorded("add as learner"), fault.LoseReply())}, Procedure: addSpare, Ending: completes()},
		{Name: "promote-reply-lost", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{at(recorded("promote to voter"), fault.LoseReply())}, Procedure: addSpare, Ending: completes()},
		{Name: "remove-reply-lost", Suites: suite, Tier: PR,
			Strikes: []Strike{at(recorded("remove member"), fault.LoseReply())}, Procedure: removeThird, Ending: completes()},
		{Name: "hand-over-reply-lost", Suites: suite, Tier: Nightly,
			Strikes: []Strike{at(recorded("hand over the leadership"), fault.LoseReply())}, Procedure: "removeMember LEADER -waive=spare -reason=scenario", Ending: completes()},
		{Name: "second-operator-removes", Suites: suite, Tier: Smoke, Start: grows(),
			Strikes:   []Strike{at(before("add as learner"), fault.Second([]string{"removeMember", third, "-waive=spare", "-reason=scenario"}, "lock", 3))},
			Procedure: addSpare, Ending: completes()},
		{Name: "second-operator-adds-the-same", Suites: suite, Tier: PR, Start: grows(),
			Strikes:   []Strike{at(answered("add as learner"), fault.Second([]string{"addMember", spare}, "lock", 3))},
			Procedure: addSpare, Ending: completes()},
		{Name: "second-operator-destroys", Suites: suite, Tier: Nightly, Start: grows(),
			Strikes:   []Strike{at(before("promote to voter"), fault.Second([]string{"destroyCluster", "-confirm=abad1dea"}, "", 3))},
			Procedure: addSpare, Ending: completes()},
		{Name: "operator-paused-past-its-lock", Suites: suite, Tier: Nightly, Start: grows(),
			Strikes: []Strike{at(recorded("add as learner"), fault.PauseOperator(12*time.Second))}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "operator-overtaken-on-its-host", Suites: suite, Tier: Nightly, Start: grows(),
			Strikes:   []Strike{at(recorded("promote to voter"), fault.Overtaken(sop.LockTTL+2*time.Second, []string{"removeMember", spare}, 3))},
			Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "operator-overtaken", Suites: suite, Tier: Nightly, Start: grows(),
			Strikes:   []Strike{at(recorded("promote to voter"), fault.Overtaken(sop.LockTTL+2*time.Second, []string{"ELSEWHERE", "removeMember", spare}, 0))},
			Procedure: addSpare, Ending: stops("", addSpare)},
		{Name: "operator-interrupted", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{at(answered("add as learner"), fault.InterruptOperator())}, Procedure: addSpare, Ending: stops("", sameAgain)},
		{Name: "journal-torn", Suites: suite, Tier: PR, Start: grows(),
			Strikes:   []Strike{at(answered("start etcd"), fault.KillOperator()), at(afterwards(), fault.TearJournal())},
			Procedure: addSpare, Ending: resumes()},
		{Name: "journal-lost", Suites: suite, Tier: Nightly, Start: grows(),
			Strikes:   []Strike{at(answered("start etcd"), fault.KillOperator()), at(afterwards(), fault.ForgetJournal())},
			Procedure: addSpare, Ending: resumes()},
		{Name: "journal-cannot-be-kept", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{from(fault.BlockJournal())}, Procedure: addSpare, Ending: Ending{Statuses: []int{1, 3, 5}, Says: "journal", Untouched: true}},
		{Name: "snapshot-follower-killed", Suites: suite, Tier: Nightly,
			Strikes: []Strike{at(recorded("save and verify"), fault.Kill(fault.Followers))}, Procedure: "snapshot DIR/first.db", Ending: survives("snapshot DIR/second.db")},
		{Name: "auth-enabled-midway", Suites: append([]string{"trust"}, suite...), Tier: Nightly, Start: grows(),
			Strikes: []Strike{at(before("add as learner"), fault.EnableAuth())}, Procedure: addSpare, Ending: survives(sameAgain)},
	}
}

// networkRows: every link may be bad.
func networkRows() []Scenario {
	suite := []string{"network"}
	rows := []Scenario{
		{Name: "operator-sees-a-minority", Suites: suite, Tier: PR, Start: grows(),
			Strikes:   []Strike{from(fault.Isolate(fault.Minority)), from(fault.Cut(fault.Admin, fault.Majority))},
			Procedure: addSpare, Ending: refuses("")},
		{Name: "members-cut-from-each-other", Suites: append([]string{"safeguard"}, suite...), Patience: impatient, Tier: PR,
			Strikes: []Strike{from(fault.Cut(fault.Voters, fault.Voters))}, Procedure: "restart", Ending: refuses("quorum")},
		{Name: "operator-cut-from-a-follower", Suites: suite, Tier: Nightly, Start: grows(),
			Strikes: []Strike{from(fault.Blackhole(fault.Follower))}, Procedure: addSpare, Ending: refuses("")},
		{Name: "operator-cut-from-the-leader-midway", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{brief(before("add as learner"), fault.Blackhole(fault.Leader), partition)}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "firewall-on-newcomer", Suites: append([]string{"learner"}, suite...), Tier: PR, Start: grows(),
			Strikes: []Strike{from(fault.Firewall(fault.Subject, 2380))}, Procedure: addSpare, Ending: refuses("peers-reach")},
		{Name: "firewall-midway", Suites: append([]string{"learner"}, suite...), Tier: Nightly, Start: grows(),
			Strikes: []Strike{brief(after("start etcd"), fault.Firewall(fault.Subject, 2380), partition)}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "leader-isolated-at-promote", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{brief(recorded("promote to voter"), fault.Isolate(fault.Leader), partition)}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "follower-cut-one-way-at-removal", Suites: suite, Tier: Nightly, Start: Start{Hosts: 5},
			Strikes:   []Strike{brief(recorded("remove member"), fault.CutOneWay(fault.Follower, fault.Leader), partition)},
			Procedure: "removeMember 10.10.10.14", Ending: survives(sameAgain)},
		{Name: "ring-while-shrinking", Suites: append([]string{"removal"}, suite...), Tier: Nightly, Start: Start{Hosts: 5},
			Strikes: []Strike{brief(before("remove member"), fault.Ring(), partition)}, Procedure: "removeMember 10.10.10.14", Ending: survives(sameAgain)},
		{Name: "bridge-while-growing", Suites: append([]string{"learner"}, suite...), Tier: PR, Start: grows(),
			Strikes: []Strike{brief(before("add as learner"), fault.Bridge(), partition)}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "client-cut-from-the-leader", Suites: suite, Tier: PR,
			Strikes: []Strike{brief(before("restart etcd"), fault.Cut(fault.Client, fault.Leader), partition)}, Procedure: "restart", Ending: survives(sameAgain)},
	}
	for _, d := range []struct {
		name string
		rule netswitch.Rule
		tier Tier
	}{
		{"slow", fault.Slow(20*time.Millisecond, 10*time.Millisecond), PR},
		{"lossy", netswitch.Rule{Loss: 0.05}, PR},
		{"duplicating", netswitch.Rule{Duplicate: 0.2}, Nightly},
		{"reordering", netswitch.Rule{Reorder: 0.2}, Nightly},
		{"narrow", netswitch.Rule{Rate: 24 << 10}, Nightly},
	} {
		rows = append(rows, Scenario{Name: d.name + "-links", Suites: suite, Tier: d.tier, Start: grows(),
			Strikes: []Strike{from(fault.Degrade(fault.Voters, fault.Subject, d.rule))}, Procedure: addSpare, Ending: survives(sameAgain)})
	}
	return rows
}

// diskRows: disks that are full, slow, or forget.
func diskRows() []Scenario {
	suite := []string{"disk"}
	badDisks := Start{Spares: 1, Disks: true}
	return []Scenario{
		{Name: "alarm-raised", Suites: append([]string{"safeguard"}, suite...), Tier: PR, Start: Start{Spares: 1, Vars: fmt.Sprintf("etcd_quota_backend_bytes: %d", 16<<20)},
			Strikes: []Strike{from(fault.FillQuota())}, Procedure: addSpare, Ending: refuses("no-alarm")},
		{Name: "disk-full-on-newcomer", Suites: append([]string{"learner"}, suite...), Tier: PR, Start: badDisks,
			Strikes:   []Strike{lasts(before("start etcd"), fault.DiskFull(fault.Subject)), cutShort("wait until it answers")},
			Procedure: addSpare, Ending: stops("", giveUp)},
		{Name: "disk-full-from-the-start", Suites: append([]string{"learner"}, suite...), Tier: PR, Start: badDisks,
			Strikes: []Strike{from(fault.DiskFull(fault.Subject))}, Procedure: addSpare, Ending: refuses("disk")},
		{Name: "disk-full-once-promoted", Suites: append([]string{"learner"}, suite...), Tier: Nightly, Start: badDisks,
			Strikes: []Strike{brief(after("promote to voter"), fault.DiskFull(fault.Subject), partition)}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "slow-disk-on-the-leader", Suites: suite, Patience: impatient, Tier: PR, Start: badDisks,
			Strikes: []Strike{from(fault.SlowSync(fault.Leader, 300*time.Millisecond))}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "unsynced-lost-once-promoted", Suites: suite, Tier: PR, Start: badDisks,
			Strikes: []Strike{at(answered("promote to voter"), fault.PowerLoss(fault.Voters))}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "unsynced-lost-once-removed", Suites: suite, Tier: Nightly, Start: badDisks,
			Strikes: []Strike{at(answered("remove member"), fault.PowerLoss(fault.Others))}, Procedure: removeThird, Ending: survives(sameAgain)},
		{Name: "power-lost-once-promoted", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{at(after("promote to voter"), fault.PowerCycle(fault.Leader))}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "all-power-lost-once-promoted", Suites: suite, Tier: Nightly, Start: grows(),
			Strikes: []Strike{at(after("promote to voter"), fault.PowerCycle(fault.Everyone))}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "all-power-lost-once-removed", Suites: suite, Tier: Nightly,
			Strikes: []Strike{at(answered("remove member"), fault.PowerCycle(fault.Others))}, Procedure: removeThird, Ending: survives(sameAgain)},
	}
}

// trustRows: certificates and clocks.
func trustRows() []Scenario {
	suite := []string{"trust"}
	return []Scenario{
		{Name: "certificate-expired", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{from(fault.Expired(fault.Follower))}, Procedure: addSpare, Ending: refuses("certificates")},
		{Name: "certificate-expires-midway", Suites: suite, Tier: Nightly, Start: grows(),
			Strikes: []Strike{at(before("promote to voter"), fault.Expired(fault.Follower))}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "wrong-ca-on-a-member", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{from(fault.WrongCA(fault.Follower))}, Procedure: addSpare, Ending: refuses("certificates")},
		{Name: "wrong-ca-on-the-newcomer", Suites: append([]string{"learner"}, suite...), Tier: PR, Start: grows(),
			Strikes:   []Strike{lasts(before("start etcd"), fault.WrongCA(fault.Subject)), cutShort("wait until it answers")},
			Procedure: addSpare, Ending: stops("", giveUp)},
		{Name: "clock-off", Suites: suite, Tier: PR,
			Strikes: []Strike{from(fault.ClockOff(fault.Follower, 5*time.Second))}, Procedure: "restart", Ending: refuses("clocks")},
		{Name: "clock-off-waived", Suites: suite, Tier: Nightly,
			Strikes: []Strike{from(fault.ClockOff(fault.Follower, 5*time.Second))}, Procedure: "restart -waive=clocks -reason=scenario", Ending: completes()},
	}
}

// maintenanceRows: what is done to a cluster that stays as it is.
func maintenanceRows() []Scenario {
	suite := []string{"maintenance"}
	const defrag, compact = "defrag -least=1MiB", "compact -revision=5"
	const trustCA, signCA = "rotateCerts -ca=trust", "rotateCerts -ca=sign -waive=unknown-clients -reason=scenario"
	const retireCA = "rotateCerts -ca=retire -waive=unknown-clients -reason=scenario"
	wasted, users := Start{Waste: 8}, Start{Users: true}
	return []Scenario{
		{Name: "move-leader", Suites: suite, Tier: PR, Procedure: "moveLeader", Ending: completes()},
		{Name: "move-leader-killed-unheard", Suites: append([]string{"operator"}, suite...), Tier: PR,
			Strikes: []Strike{at(applied("hand over the leadership"), fault.KillOperator())}, Procedure: "moveLeader", Ending: resumes()},
		{Name: "move-leader-to-the-dead", Suites: append([]string{"safeguard"}, suite...), Tier: PR,
			Strikes: []Strike{from(fault.Crash(third))}, Procedure: "moveLeader -to=" + third, Ending: refuses("heir")},
		{Name: "move-leader-heir-killed", Suites: suite, Tier: Nightly,
			Strikes: []Strike{at(recorded("hand over the leadership"), fault.Kill(third))}, Procedure: "moveLeader -to=" + third, Ending: survives(sameAgain)},
		{Name: "defragment", Suites: suite, Tier: PR, Start: wasted, Procedure: defrag, Ending: completes()},
		{Name: "defragment-killed", Suites: append([]string{"operator"}, suite...), Tier: PR, Start: wasted,
			Strikes: []Strike{at(recorded("defragment").nth(2), fault.KillOperator())}, Procedure: defrag, Ending: resumes()},
		{Name: "defragment-leader-killed", Suites: suite, Tier: PR, Start: wasted,
			Strikes: []Strike{at(recorded("defragment"), fault.Kill(fault.Leader))}, Procedure: defrag, Ending: survives(sameAgain)},
		{Name: "defragment-member-killed", Suites: append([]string{"disk"}, suite...), Tier: Nightly, Start: wasted,
			Strikes: []Strike{at(recorded("defragment"), fault.Kill(fault.Follower))}, Procedure: defrag, Ending: survives(sameAgain)},
		{Name: "defragment-with-one-down", Suites: append([]string{"safeguard"}, suite...), Tier: PR, Start: wasted,
			Strikes: []Strike{from(fault.Crash(third))}, Procedure: defrag, Ending: refuses("voters-answer")},
		{Name: "compact", Suites: suite, Tier: PR, Procedure: compact, Ending: completes()},
		{Name: "compact-killed-unheard", Suites: append([]string{"operator"}, suite...), Tier: PR,
			Strikes: []Strike{at(applied("compact"), fault.KillOperator())}, Procedure: compact, Ending: resumes()},
		{Name: "compact-the-future", Suites: append([]string{"safeguard"}, suite...), Tier: PR,
			Procedure: "compact -revision=999999999", Ending: refuses("past-revision")},
		{Name: "rotate-certificates", Suites: append([]string{"trust"}, suite...), Tier: PR, Procedure: "rotateCerts", Ending: completes()},
		{Name: "rotate-killed-before-it-is-served", Suites: append([]string{"trust", "operator"}, suite...), Tier: PR,
			Strikes: []Strike{at(recorded("write").nth(2), fault.KillOperator())}, Procedure: "rotateCerts", Ending: resumes()},
		{Name: "rotate-leader-killed", Suites: append([]string{"trust"}, suite...), Tier: PR,
			Strikes: []Strike{at(answered("write"), fault.Kill(fault.Leader))}, Procedure: "rotateCerts", Ending: survives(sameAgain)},
		{Name: "enable-auth", Suites: append([]string{"trust"}, suite...), Tier: PR, Start: users, Procedure: "enableAuth", Ending: completes(), Inspections: []Inspection{asksForUsers()}},
		{Name: "enable-auth-without-users", Suites: append([]string{"trust", "safeguard"}, suite...), Tier: PR, Procedure: "enableAuth", Ending: refusesOnceRead("root-password"), Inspections: []Inspection{asksNobody()}},
		{Name: "enable-auth-killed-before-it-asks", Suites: append([]string{"trust", "operator"}, suite...), Tier: PR, Start: users, Inspections: []Inspection{asksForUsers()},
			Strikes: []Strike{at(recorded("enable authentication"), fault.KillOperator())}, Procedure: "enableAuth", Ending: resumes()},
		{Name: "enable-auth-killed-once-it-asks", Suites: append([]string{"trust", "operator"}, suite...), Tier: Nightly, Start: users, Inspections: []Inspection{asksForUsers()},
			Strikes: []Strike{at(answered("enable authentication"), fault.KillOperator())}, Procedure: "enableAuth", Ending: resumes()},
		{Name: "enable-auth-leader-killed", Suites: append([]string{"trust"}, suite...), Tier: PR, Start: users, Inspections: []Inspection{asksForUsers()},
			Strikes: []Strike{at(recorded("enable authentication"), fault.Kill(fault.Leader))}, Procedure: "enableAuth", Ending: survives(sameAgain)},
		{Name: "enable-auth-with-one-down", Suites: append([]string{"trust", "safeguard"}, suite...), Tier: PR, Start: users,
			Strikes: []Strike{from(fault.Crash(third))}, Procedure: "enableAuth", Ending: refusesOnceRead("voters-answer"), Inspections: []Inspection{asksNobody()}},
		{Name: "rotate-ca-killed-between-restarts", Suites: append([]string{"trust", "operator"}, suite...), Tier: PR,
			Strikes: []Strike{at(recorded("restart etcd").nth(2), fault.KillOperator())}, Procedure: trustCA, Ending: resumes()},
		{Name: "rotate-ca-member-killed", Suites: append([]string{"trust"}, suite...), Tier: Nightly,
			Strikes: []Strike{at(recorded("restart etcd"), fault.Kill(fault.Leader))}, Procedure: trustCA, Ending: survives(sameAgain)},
		{Name: "rotate-ca-killed-as-it-signs", Suites: append([]string{"trust", "operator"}, suite...), Tier: PR, Start: Start{Before: []string{trustCA}},
			Strikes: []Strike{at(recorded("write").nth(2), fault.KillOperator())}, Procedure: signCA, Ending: resumes()},
		{Name: "rotate-ca-killed-as-it-retires", Suites: append([]string{"trust", "operator"}, suite...), Tier: PR, Start: Start{Before: []string{trustCA, signCA}},
			Strikes: []Strike{at(answered("restart etcd").nth(2), fault.KillOperator())}, Procedure: retireCA, Ending: resumes()},
		{Name: "rotate-ca-before-it-is-trusted", Suites: append([]string{"trust", "safeguard"}, suite...), Tier: PR,
			Procedure: signCA, Ending: refuses("ca-rotation")},
		{Name: "disarm-a-full-database", Suites: append([]string{"safeguard", "disk"}, suite...), Tier: PR, Start: Start{Vars: fmt.Sprintf("etcd_quota_backend_bytes: %d", 16<<20)},
			Strikes: []Strike{from(fault.FillQuota())}, Procedure: "alarm:disarm", Ending: refuses("alarm-cause")},
	}
}

// recoveryRows: a cluster that has lost its quorum, and a snapshot of it.
func recoveryRows() []Scenario {
	const restore = "restore DIR/s.db -confirm=CONSENT"
	suite := []string{"recovery"}
	// A check of clientEnv leaves revisions for a snapshot to hold.
	saved := Start{Before: []string{"clientEnv -check", "snapshot DIR/s.db"}}
	lost := lasts(At{}, fault.Crash(fault.Voters))
	killed := func(name string, tier Tier, moment At) Scenario {
		return Scenario{Name: name, Suites: append([]string{"operator"}, suite...), Tier: tier, Quiet: true, Start: saved,
			Strikes: []Strike{lost, at(moment, fault.KillOperator())}, Procedure: restore, Ending: resumes()}
	}
	const survivors = "snapshot DIR/s.db -survivors"
	left := func(name string, tier Tier, ending Ending, more ...Strike) Scenario {
		sc := Scenario{Name: name, Suites: suite, Tier: tier, Quiet: true, Start: Start{Hosts: 5}, Procedure: survivors, Ending: ending, Inspections: []Inspection{keeps(50)},
			Strikes: []Strike{from(fault.Lead(firstHost)), from(fault.Write(10)), from(fault.Unwritten(spare)), from(fault.Write(10)), from(fault.Rest(time.Second)),
				lasts(At{}, fault.Crash(fifth)), lasts(At{}, fault.Crash(third)), from(fault.Write(30))}}
		for _, h := range []fault.Role{spare, firstHost, secondHost} {
			sc.Strikes = append(sc.Strikes, lasts(At{}, fault.Crash(h)))
		}
		for _, h := range []fault.Role{firstHost, secondHost, third} {
			sc.Strikes = append(sc.Strikes, from(fault.LoseData(h)))
		}
		sc.Strikes = append(append(sc.Strikes, from(fault.Leave(fifth))), more...)
		if ending.Untouched {
			sc.Suites = append([]string{"safeguard"}, suite...)
		}
		return sc
	}
	return []Scenario{
		{Name: "restore", Suites: suite, Tier: Smoke, Quiet: true, Start: saved,
			Strikes: []Strike{lost}, Procedure: restore, Ending: completes().then("restart")},
		{Name: "restore-on-blank-hosts", Suites: suite, Tier: PR, Quiet: true,
			Start:     Start{Before: append(slices.Clone(saved.Before), "purgeCluster -confirm=CLUSTERID")},
			Procedure: "restore DIR/s.db", Ending: completes().then("restore DIR/s.db")},
		{Name: "restore-with-a-log-elsewhere", Suites: suite, Tier: Nightly, Quiet: true, Start: Start{Vars: "etcd_wal_dir: /wal/etcd", Before: saved.Before},
			Strikes: []Strike{lost}, Procedure: restore, Ending: completes()},
		{Name: "restore-of-3.5", Suites: suite, Tier: PR, Quiet: true, Start: Start{Etcd: "3.5.35", Before: saved.Before},
			Strikes: []Strike{lost}, Procedure: restore, Ending: completes().then("restart"), Inspections: []Inspection{allRun("3.5.35")}},
		{Name: "restore-of-3.6", Suites: suite, Tier: Nightly, Quiet: true, Start: Start{Etcd: "3.6.16", Before: saved.Before},
			Strikes: []Strike{lost}, Procedure: restore, Ending: completes().then("upgrade 3.7.3"), Inspections: []Inspection{allRun("3.7.3")}},
		{Name: "restore-of-an-older-version", Suites: append([]string{"safeguard"}, suite...), Tier: Nightly, Start: Start{Etcd: "3.6.16", Before: append(slices.Clone(saved.Before), "upgrade 3.7.3")},
			Strikes: []Strike{lasts(At{}, fault.Crash(fault.Voters))}, Procedure: restore, Ending: refuses("versions")},
		{Name: "restore-over-a-living-quorum", Suites: append([]string{"safeguard"}, suite...), Tier: PR, Start: saved,
			Procedure: restore, Ending: refuses("living-quorum")},
		{Name: "restore-host-off", Suites: append([]string{"safeguard"}, suite...), Tier: PR, Start: saved,
			Strikes:   []Strike{from(fault.Crash(firstHost)), from(fault.PowerOff(third))},
			Procedure: restore, Ending: refuses("unreachable")},
		killed("restore-killed-before-aside", PR, before("set aside").nth(2)),
		killed("restore-killed-once-sent", Nightly, answered("send the snapshot").nth(2)),
		killed("restore-killed-while-restoring", PR, recorded("restore the data").nth(2)),
		killed("restore-killed-before-start", PR, before("start etcd").nth(2)),
		killed("restore-killed-before-it-is-known", Nightly, before("remember the cluster's ID")),
		{Name: "old-member-after-restore", Suites: append([]string{"removal"}, suite...), Tier: PR, Quiet: true, Start: saved,
			Strikes:   []Strike{lasts(At{}, fault.PowerOff(third)), from(fault.Crash(firstHost)), at(afterwards(), fault.Visit(third, visit))},
			Procedure: "restore DIR/s.db -waive=unreachable -reason=scenario -confirm=CONSENT",
			Ending:    completes().then("removeMember " + third), Inspections: []Inspection{freshToken(third)}},
		// Three of five are lost for good, and the two that are left do not run. One of
		// them was behind; its backend is the newer on disk, and so are its files. All
		// that was acknowledged is in the log of the other.
		left("survivors-one-behind", PR, completes().then(restore)),
		left("survivors-killed-while-replaying", PR, resumes().then(sameAgain, restore), at(recorded("replay the log"), fault.KillOperator())),
		left("survivors-killed-once-saved", Nightly, resumes().then(sameAgain, restore), at(answered("fetch and verify"), fault.KillOperator())),
		// Its host comes back, with nothing on it. To start the members as they are would
		// be no way back: those without data vote for whoever asks first, and the one that
		// was behind would lead.
		left("survivors-one-unread", PR, refuses("survivors").then(sameAgain, restore), from(fault.PowerOff(third))),
		{Name: "survivors-are-a-quorum", Suites: append([]string{"safeguard"}, suite...), Tier: PR, Quiet: true,
			Strikes:   []Strike{lasts(At{}, fault.Crash(fault.Voters)), from(fault.LoseData(third))},
			Procedure: survivors, Ending: refuses("data-quorum")},
		{Name: "survivor-that-runs", Suites: suite, Tier: PR, Quiet: true,
			Strikes: []Strike{from(fault.Lead(firstHost)), from(fault.Write(10)), from(fault.Rest(time.Second)),
				lasts(At{}, fault.Crash(firstHost)), lasts(At{}, fault.Crash(secondHost)), from(fault.LoseData(firstHost)), from(fault.LoseData(secondHost))},
			Procedure: survivors, Ending: completes().then(restore), Inspections: []Inspection{keeps(10)}},
		{Name: "restore-old-majority-comes-back", Suites: append([]string{"safeguard"}, suite...), Tier: Nightly, Quiet: true, Start: saved,
			Strikes: []Strike{from(fault.TakeImage(secondHost)), from(fault.TakeImage(third)), lost,
				at(afterwards(), fault.RestoreImage(secondHost)), at(afterwards(), fault.RestoreImage(third))},
			Procedure: restore,
			Ending:    completes().then("restore DIR/s.db -waive=living-quorum -reason=scenario -confirm=CONSENT")},
	}
}

// upgradeRows: from one version of etcd to the next, and what stands in the way.
func upgradeRows() []Scenario {
	suite := []string{"upgrade"}
	const to36, to37 = "upgrade 3.6.16", "upgrade 3.7.3"
	of35, of36 := Start{Etcd: "3.5.35"}, Start{Etcd: "3.6.16"}
	arrived := func(version string) []Inspection { return []Inspection{allRun(version)} }
	return []Scenario{
		{Name: "upgrade-to-3.6", Suites: suite, Tier: Nightly, Start: of35, Procedure: to36, Ending: completes(), Inspections: arrived("3.6.16")},
		{Name: "upgrade-to-3.7", Suites: suite, Tier: Nightly, Start: of36, Procedure: to37, Ending: completes(), Inspections: arrived("3.7.3")},
		// Without raft snapshots between 3.6 and 3.7 the first member would not start.
		{Name: "upgrade-all-the-way", Suites: suite, Tier: PR, Start: of35, Procedure: to36, Ending: completes().then(to37), Inspections: arrived("3.7.3")},
		{Name: "upgrade-of-one", Suites: suite, Tier: Nightly, Start: Start{Hosts: 1, Etcd: "3.6.16"}, Procedure: to37, Ending: completes(), Inspections: arrived("3.7.3")},
		{Name: "downgrade", Suites: suite, Tier: PR, Start: Start{Etcd: "3.7.3"}, Procedure: "upgrade 3.6.16 -downgrade", Ending: completes(), Inspections: arrived("3.6.16")},
		{Name: "downgrade-to-3.5", Suites: suite, Tier: Nightly, Start: of36, Procedure: "upgrade 3.5.35 -downgrade", Ending: completes(), Inspections: arrived("3.5.35")},
		{Name: "upgrade-taken-back", Suites: append([]string{"operator"}, suite...), Tier: PR, Start: of36,
			Strikes:   []Strike{at(before("restart etcd").nth(3), fault.KillOperator())},
			Procedure: to37, Ending: Ending{Killed: true, Then: []string{"upgrade 3.6.16 -downgrade"}}, Inspections: arrived("3.6.16")},
		{Name: "downgrade-cancelled", Suites: append([]string{"operator"}, suite...), Tier: Nightly, Start: Start{Etcd: "3.7.3"},
			Strikes:   []Strike{at(answered("restart etcd"), fault.KillOperator())},
			Procedure: "upgrade 3.6.16 -downgrade", Ending: Ending{Killed: true, Then: []string{to37}}, Inspections: arrived("3.7.3")},
		{Name: "upgrade-killed-once-put", Suites: append([]string{"operator"}, suite...), Tier: Nightly, Start: of36,
			Strikes: []Strike{at(answered("install etcd"), fault.KillOperator())}, Procedure: to37, Ending: resumes(), Inspections: arrived("3.7.3")},
		{Name: "upgrade-killed-midway", Suites: append([]string{"operator"}, suite...), Tier: Nightly, Start: of35,
			Strikes: []Strike{at(answered("restart etcd").nth(2), fault.KillOperator())}, Procedure: to36, Ending: resumes(), Inspections: arrived("3.6.16")},
		{Name: "upgrade-leader-killed-between", Suites: suite, Tier: PR, Start: of36,
			Strikes: []Strike{at(before("restart etcd").nth(2), fault.Kill(fault.Leader))}, Procedure: to37, Ending: survives(sameAgain), Inspections: arrived("3.7.3")},
		{Name: "upgrade-one-dies-midway", Suites: suite, Tier: Nightly, Start: of36,
			Strikes: []Strike{at(after("wait until it answers"), fault.Crash(fault.Follower))}, Procedure: to37, Ending: survives(sameAgain), Inspections: arrived("3.7.3")},
		{Name: "upgrade-follower-cut-off-midway", Suites: append([]string{"network"}, suite...), Tier: Nightly, Start: of35,
			Strikes: []Strike{brief(before("restart etcd").nth(2), fault.Isolate(fault.Follower), partition)}, Procedure: to36, Ending: survives(sameAgain), Inspections: arrived("3.6.16")},
		{Name: "upgrade-with-one-down", Suites: append([]string{"safeguard"}, suite...), Tier: PR, Start: of36,
			Strikes: []Strike{from(fault.Crash(fault.Follower))}, Procedure: to37, Ending: refuses("voters-answer")},
		{Name: "upgrade-two-minors", Suites: append([]string{"safeguard"}, suite...), Tier: PR, Start: of35, Procedure: to37, Ending: refuses("one-minor")},
		{Name: "upgrade-to-an-older", Suites: append([]string{"safeguard"}, suite...), Tier: Nightly, Start: of36, Procedure: "upgrade 3.5.35", Ending: refuses("not-older")},
		{Name: "upgrade-to-what-is-not-to-be-had", Suites: append([]string{"safeguard"}, suite...), Tier: PR, Start: of36, Procedure: "upgrade 3.7.1", Ending: refuses("to-be-had")},
		{Name: "upgrade-to-no-version", Suites: append([]string{"safeguard"}, suite...), Tier: Nightly, Start: of36, Procedure: "upgrade latest", Ending: refuses("valid-version")},
		{Name: "upgrade-with-a-setting-that-is-gone", Suites: append([]string{"safeguard"}, suite...), Tier: PR, Start: of36,
			Strikes:   []Strike{from(fault.Edit(third, config.ConfPath, "data-dir:", "experimental-initial-corrupt-check: true\ndata-dir:"))},
			Procedure: to37, Ending: refuses("settings-known")},
		// 3.5 does not know the setting and goes on; 3.6 knows it, and no such feature.
		{Name: "upgrade-with-a-bad-configuration", Suites: suite, Tier: PR, Start: of35,
			Strikes:   []Strike{from(fault.Edit(third, config.ConfPath, "data-dir:", "feature-gates: NoSuchFeature=true\ndata-dir:"))},
			Procedure: to36, Ending: stops("takes-configuration", "upgrade 3.5.35 -downgrade"), Inspections: arrived("3.5.35")},
		// What etcd issues 19557 and 20793 are about. Naively, the members would not
		// come up with 3.6; and that all run a 3.5 that knows the trap is not enough.
		{Name: "upgrade-from-before-the-trap", Suites: append([]string{"safeguard"}, suite...), Tier: PR, Start: Start{Etcd: "3.5.16"}, Procedure: to36, Ending: refuses("patch-level")},
		{Name: "upgrade-after-two-promotions", Suites: append([]string{"safeguard"}, suite...), Tier: Nightly,
			Start:     Start{Spares: 2, Etcd: "3.5.16", Before: []string{addSpare, "addMember 10.10.10.14"}},
			Procedure: to36, Ending: refuses("patch-level").then("upgrade 3.5.35", "restart", to36), Inspections: arrived("3.6.16")},
	}
}

// pendingRows are what cannot be played yet.
func pendingRows() []Scenario {
	pending := func(name, suite, why string) Scenario {
		return Scenario{Name: name, Suites: []string{suite}, Tier: Nightly, Pending: why}
	}
	return []Scenario{
		pending("peer-url-updated-not-restarted", "reload", "there is no procedure that changes a peer URL"),
	}
}
