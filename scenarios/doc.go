// Package scenarios plays procedures on labs, under load, and judges what is
// left of the cluster and of what its clients were told.
//
// A Rig is a lab with an inventory and operators for it: in this process, for
// tests, or as processes of their own, which can be killed. The Drill is the
// standard play: every procedure in turn, on real members, with eight clients
// writing all the while and an operator that is killed halfway. A Rehearsal is
// one procedure on a twin of the user's own cluster.
//
// Both leave a directory with the journal of every operator, the history of
// every client, the members' logs, and a summary of what was seen.
//
// This is the one package that knows both a procedure and a way to hurt it.
package scenarios
