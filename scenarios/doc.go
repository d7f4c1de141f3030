// Package scenarios plays procedures on labs, under load, and judges what is
// left of the cluster and of what its clients were told.
//
// A Rig is a lab with an inventory and operators for it: in this process, for
// tests, or as processes of their own, which can be killed. The Drill is the
// standard play: every procedure in turn, on real members, with eight clients
// writing all the while and an operator that is killed halfway. A Rehearsal is
// one procedure on a twin of the user's own cluster.
//
// A Scenario is a procedure under faults, as a row of data: the cluster that it
// begins with, the strikes and their moments, how it has to end, and what is
// looked at beside what is always looked at. The operator waits at a gate at
// every moment of its run, so a strike comes exactly "before promote to voter":
//
//	{Name: "leader-paused-at-promote", Suites: []string{"learner"}, Tier: PR, Start: grows(),
//		Strikes:   []Strike{brief(recorded("promote to voter"), fault.Pause(fault.Leader), partition)},
//		Procedure: addSpare, Ending: survives(sameAgain)},
//
// A strike that never struck, or never bit, makes the verdict unknown: it
// proves nothing. Each scenario is played on an embedded lab of its own, or one
// after the other on machines (ground.go, stand.go); rows.go has the rows,
// watch.go what no scenario of a procedure may see, sweep.go kills operators at
// every point, and mutant.go has operators who are wrong on purpose, each of
// whom some scenario has to find out.
//
// All leave a directory with the journal of every operator, the history of
// every client, the members' logs, and a summary of what was seen.
//
// This is the one package that knows both a procedure and a way to hurt it.
package scenarios
