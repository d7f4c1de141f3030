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
	third = "10.10.10.12"
	spare = "10.10.10.13"
)

// Commands that many rows have in common.
const (
	addSpare    = "addMember " + spare
	giveUp      = "removeMember " + spare
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

// partition is long enough for an election, and shorter than what a step waits.
const partition = 3 * time.Second

// Rows are the scenarios, by suite. Those of the kill sweep are made from the
// procedures and stand beside them.
func Rows() []Scenario {
	return slices.Concat(safeguardRows(), learnerRows(), removalRows(), reloadRows(), operatorRows(), networkRows(), diskRows(), trustRows(), pendingRows(),
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
		{Name: "destroy-wrong-consent", Suites: suite, Tier: PR,
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
			Strikes:   []Strike{from(fault.EditInventory("        "+third+": { etcd_seq: 3 }\n", ""))},
			Procedure: addSpare, Ending: refuses("inventory-agrees")},
		{Name: "old-member-after-rebuild", Suites: append([]string{"removal"}, suite...), Tier: Nightly, Quiet: true,
			Strikes:   []Strike{lasts(At{}, fault.PowerOff(third))},
			Procedure: "createCluster -clean=true -waive=unreachable -reason=scenario -confirm=CONSENT",
			Ending:    completes().then("removeMember " + third), Inspections: []Inspection{staysApart(third, true)}},
		{Name: "old-member-visits-rebuilt", Suites: append([]string{"removal"}, suite...), Tier: PR, Quiet: true,
			Strikes:   []Strike{lasts(At{}, fault.PowerOff(third)), at(afterwards(), fault.Visit(third, 6*time.Second))},
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
			Strikes:   []Strike{at(after("wait until it answers"), fault.Crash(fault.Subject)), at(waiting("wait until caught up"), fault.InterruptOperator())},
			Procedure: addSpare, Ending: stops("", sameAgain)},
		{Name: "firewall-before-promote", Suites: append([]string{"network"}, suite...), Tier: PR, Start: grows(), Quiet: true,
			Strikes:   []Strike{at(after("wait until caught up"), fault.Firewall(fault.Subject, 2380))},
			Procedure: addSpare, Ending: stops("refused by safeguard", sameAgain)},
		{Name: "add-with-quota", Suites: suite, Tier: PR, Start: Start{Spares: 1, Vars: "etcd_quota_backend_bytes: 8589934592"}, Procedure: addSpare, Ending: completes()},
		{Name: "add-after-compaction", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{from(fault.Compact())}, Procedure: addSpare, Ending: completes()},
		{Name: "learner-cut-before-promote", Suites: append([]string{"network"}, suite...), Tier: PR, Start: grows(),
			Strikes: []Strike{at(after("wait until caught up"), fault.Isolate(fault.Learner))}, Procedure: addSpare, Ending: stops("refused by safeguard", sameAgain)},
		{Name: "learner-cut-after-ready", Suites: append([]string{"network"}, suite...), Tier: PR, Start: grows(),
			Strikes: []Strike{brief(recorded("promote to voter"), fault.Isolate(fault.Learner), partition)}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "learner-cut-one-way", Suites: append([]string{"network"}, suite...), Tier: Nightly, Start: grows(),
			Strikes: []Strike{brief(recorded("promote to voter"), fault.CutOneWay(fault.Learner, fault.Leader), partition)}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "newcomer-never-starts", Suites: suite, Tier: PR, Start: grows(),
			Strikes:   []Strike{lasts(after("start etcd"), fault.Crash(fault.Subject)), at(waiting("wait until it answers"), fault.InterruptOperator())},
			Procedure: addSpare, Ending: stops("", giveUp)},
		{Name: "newcomer-never-starts-from-one", Suites: suite, Tier: PR, Start: Start{Hosts: 1, Spares: 1},
			Strikes:   []Strike{lasts(after("start etcd"), fault.Crash(fault.Subject)), at(waiting("wait until it answers"), fault.InterruptOperator())},
			Procedure: "addMember 10.10.10.11", Ending: stops("", "removeMember 10.10.10.11")},
		{Name: "newcomer-founds-its-own", Suites: suite, Tier: Nightly, Start: grows(),
			Strikes: []Strike{at(before("start etcd"), fault.Edit(fault.Subject, config.ConfPath, "existing", "new")),
				at(waiting("wait until it answers"), fault.InterruptOperator())},
			Procedure: addSpare, Ending: survives(giveUp)},
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
		{Name: "remove-killed-before-aside", Suites: append([]string{"operator"}, suite...), Tier: PR,
			Strikes: []Strike{at(before("set aside"), fault.KillOperator())}, Procedure: removeThird, Ending: resumes()},
		{Name: "removed-member-restored", Suites: append([]string{"disk"}, suite...), Tier: PR,
			Strikes:   []Strike{from(fault.TakeImage(fault.Subject)), at(afterwards(), fault.RestoreImage(fault.Subject))},
			Procedure: removeThird, Ending: completes().then("reloadConfig"), Inspections: []Inspection{staysApart(third, false)}},
		{Name: "removed-member-restarts", Suites: suite, Tier: Nightly,
			Strikes:   []Strike{at(answered("remove member"), fault.PowerCycle(fault.Subject))},
			Procedure: removeThird, Ending: survives(sameAgain)},
		{Name: "remove-leader-isolated", Suites: append([]string{"network"}, suite...), Tier: PR,
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
		{Name: "restart-killed-midway", Suites: append([]string{"operator"}, suite...), Tier: PR,
			Strikes: []Strike{at(answered("restart etcd").nth(2), fault.KillOperator())}, Procedure: "restart", Ending: resumes()},
		{Name: "reload-killed-before-restart", Suites: append([]string{"operator"}, suite...), Tier: PR,
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
		{Name: "add-killed-unheard", Suites: suite, Tier: PR, Start: grows(),
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
		{Name: "second-operator-destroys", Suites: suite, Tier: PR, Start: grows(),
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
		{Name: "members-cut-from-each-other", Suites: append([]string{"safeguard"}, suite...), Tier: PR,
			Strikes: []Strike{from(fault.Cut(fault.Voters, fault.Voters))}, Procedure: "restart", Ending: refuses("")},
		{Name: "operator-cut-from-a-follower", Suites: suite, Tier: PR, Start: grows(),
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
			Strikes:   []Strike{lasts(before("start etcd"), fault.DiskFull(fault.Subject)), at(waiting("wait until it answers"), fault.InterruptOperator())},
			Procedure: addSpare, Ending: stops("", giveUp)},
		{Name: "disk-full-from-the-start", Suites: append([]string{"learner"}, suite...), Tier: PR, Start: badDisks,
			Strikes: []Strike{from(fault.DiskFull(fault.Subject))}, Procedure: addSpare, Ending: refuses("disk")},
		{Name: "disk-full-once-promoted", Suites: append([]string{"learner"}, suite...), Tier: Nightly, Start: badDisks,
			Strikes: []Strike{brief(after("promote to voter"), fault.DiskFull(fault.Subject), partition)}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "slow-disk-on-the-leader", Suites: suite, Tier: PR, Start: badDisks,
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
		{Name: "certificate-expires-midway", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{at(before("promote to voter"), fault.Expired(fault.Follower))}, Procedure: addSpare, Ending: survives(sameAgain)},
		{Name: "wrong-ca-on-a-member", Suites: suite, Tier: PR, Start: grows(),
			Strikes: []Strike{from(fault.WrongCA(fault.Follower))}, Procedure: addSpare, Ending: refuses("certificates")},
		{Name: "wrong-ca-on-the-newcomer", Suites: append([]string{"learner"}, suite...), Tier: PR, Start: grows(),
			Strikes:   []Strike{lasts(before("start etcd"), fault.WrongCA(fault.Subject)), at(waiting("wait until it answers"), fault.InterruptOperator())},
			Procedure: addSpare, Ending: stops("", giveUp)},
		{Name: "clock-off", Suites: suite, Tier: PR,
			Strikes: []Strike{from(fault.ClockOff(fault.Follower, 5*time.Second))}, Procedure: "restart", Ending: refuses("clocks")},
		{Name: "clock-off-waived", Suites: suite, Tier: Nightly,
			Strikes: []Strike{from(fault.ClockOff(fault.Follower, 5*time.Second))}, Procedure: "restart -waive=clocks -reason=scenario", Ending: completes()},
	}
}

// pendingRows are what cannot be played yet.
func pendingRows() []Scenario {
	const migrate, restore, upgrade, replace = "there is no migrate yet", "there is no restore yet", "there is no upgrade yet", "there is no replaceMember yet"
	pending := func(name, suite, why string) Scenario {
		return Scenario{Name: name, Suites: []string{suite}, Tier: Nightly, Pending: why}
	}
	return []Scenario{
		pending("migrate-killed-at-every-step", "operator", migrate),
		pending("migrate-with-one-down", "learner", migrate),
		pending("migrate-under-stale-clients", "reload", migrate),
		pending("migrate-slow-disk-on-the-leader", "disk", migrate),
		pending("replace-second-failure-at-catch-up", "learner", replace),
		pending("upgrade-after-two-promotions", "reload", upgrade),
		pending("restore-old-majority-comes-back", "safeguard", restore),
		pending("old-member-after-restore", "removal", restore),
		pending("peer-url-updated-not-restarted", "reload", "there is no procedure that changes a peer URL"),
		pending("defragment-killed-before-rename", "disk", "there is no procedure that defragments"),
	}
}
