package check_test

import (
	"slices"
	"testing"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// small is the history that all in testdata are made from.
var small = simulation{seed: 3, clients: 4, keys: 2, ops: 60, reads: 0.3, doubt: 0.15}

// A spoilt row is a history that is bad on purpose: what was done to a good
// one, and which checkers must see it. Those not named must pass.
type spoiltRow struct {
	name  string
	spoil func(t *testing.T, h *workload.History, e *check.Evidence)
	want  map[string]string // checker to part of its message
}

// spoilt are those made from small.
var spoilt = []spoiltRow{
	{"lost-at-the-end", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// A member came back with its data as of one write ago.
		i := lastAcked(h, func(o workload.Op) bool { return o.Prev != "" })
		o := h.Ops[i]
		e.Views[1].Final[o.Key] = check.Value{Value: o.Prev, ModRevision: o.ModRevision}
	}, map[string]string{"no-acked-write-lost": "1 acknowledged writes are missing"}},
	{"lost-and-covered", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// A write vanished; the next on its key found the one before it.
		i, next := covered(h)
		h.Ops[next].Prev, h.Ops[next].ModRevision = h.Ops[i].Prev, h.Ops[i].ModRevision
	}, map[string]string{"no-acked-write-lost": "1 acknowledged writes are missing", "linearizable": "was found instead of", "second-opinion": ""}},
	{"stale-read", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// A get was served by a member that had not heard of the last write,
		// as its revision admits.
		i, w := settledRead(h)
		h.Ops[i].Value, h.Ops[i].ModRevision, h.Ops[i].Revision = h.Ops[w].Prev, h.Ops[w].ModRevision, h.Ops[w].Revision-1
	}, map[string]string{"linearizable": "had been seen", "second-opinion": ""}},
	{"hidden-write", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// The same, from a member that claims to be up to date.
		i, w := settledRead(h)
		h.Ops[i].Value, h.Ops[i].ModRevision = h.Ops[w].Prev, h.Ops[w].ModRevision
	}, map[string]string{"linearizable": "was found instead of", "second-opinion": "there is no order"}},
	{"two-clusters", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// Two leaders counted revisions side by side.
		i := lastAcked(h, func(workload.Op) bool { return true })
		j := slices.IndexFunc(h.Ops, func(o workload.Op) bool { return o.Acked() && o.Key != h.Ops[i].Key })
		h.Ops[i].Revision = h.Ops[j].Revision
		for v := range e.Views {
			e.Views[v].Final[h.Ops[i].Key] = check.Value{Value: h.Ops[i].Value, ModRevision: h.Ops[i].Revision}
		}
		h.Ops[i].Prev, h.Ops[i].ModRevision = "", 0
		e.Views[2].ClusterID++
	}, map[string]string{"linearizable": "two writes made revision", "no-acked-write-lost": "", "membership-agrees": "cluster ID is c1", "second-opinion": ""}},
	{"failed-write-read", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// What was refused took effect after all.
		_, w := settledRead(h)
		h.Ops[w].Outcome, h.Ops[w].Revision, h.Ops[w].ModRevision, h.Ops[w].Prev = workload.Fail, 0, 0, ""
		h.Ops[w].Error = "raft proposal dropped"
	}, map[string]string{"linearizable": "of a write that had failed", "no-acked-write-lost": "of a write that had failed", "second-opinion": ""}},
	{"value-from-nowhere", func(t *testing.T, h *workload.History, e *check.Evidence) {
		for _, v := range e.Views {
			v.Final[prefix+"c0/k0"] = check.Value{Value: "stranger", ModRevision: v.Revision}
		}
	}, map[string]string{"linearizable": "no client did that", "no-acked-write-lost": "no client did that"}},
	{"twice", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// A write was proposed again behind its client's back, took effect a
		// second time, and covered what had come between.
		i, _ := met(h)
		for v := range e.Views {
			e.Views[v].Revision++
			e.Views[v].Final[h.Ops[i].Key] = check.Value{Value: h.Ops[i].Value, ModRevision: e.Views[v].Revision}
		}
	}, map[string]string{"linearizable": "it took effect twice", "no-acked-write-lost": "it took effect twice"}},
	{"hashes-differ", func(t *testing.T, h *workload.History, e *check.Evidence) {
		e.Views[2].Hash++
	}, map[string]string{"hashes-agree": "the hash is 0000feed at https://m0:2379 and 0000feee at https://m2:2379"}},
	{"zombie-member", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// A removed member is back in one member's list.
		e.Views[1].Members = append(e.Views[1].Members, check.Member{ID: 4, Name: "m3", PeerURLs: []string{"https://m3:2380"}})
	}, map[string]string{"membership-agrees": "were intended"}},
	{"secret-learner", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// All lists call it a voter; it does not know.
		e.Views[2].IsLearner = true
	}, map[string]string{"membership-agrees": "member 3 at https://m2:2379 takes itself for a learner"}},
	{"unstarted-member", func(t *testing.T, h *workload.History, e *check.Evidence) {
		for v := range e.Views {
			e.Views[v].Members[2].Name = ""
		}
	}, map[string]string{"membership-agrees": "has not started"}},
}
