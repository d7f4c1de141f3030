package check_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// rewrite has the test write testdata/history anew.
func rewrite() bool {
	f := flag.Lookup("rewrite")
	return f != nil && f.Value.String() == "true"
}

func init() {
	if flag.Lookup("rewrite") == nil {
		flag.Bool("rewrite", false, "write the histories in testdata anew")
	}
}

// small is the history that all in testdata are made from.
var small = simulation{seed: 3, clients: 4, keys: 2, ops: 60, reads: 0.3, doubt: 0.15}

// spoilt are the histories that are bad on purpose: what was done to a good
// one, and which checkers must see it. Those not named must pass.
var spoilt = []struct {
	name  string
	spoil func(t *testing.T, h *workload.History, e *check.Evidence)
	want  map[string]string // checker to part of its message
}{
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
	}, map[string]string{"no-acked-write-lost": "1 acknowledged writes are missing", "linearizable": "was found instead of"}},
	{"stale-read", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// A get was served by a member that had not heard of the last write,
		// as its revision admits.
		i := slices.IndexFunc(h.Ops, func(o workload.Op) bool { return o.Kind == workload.Get && o.ModRevision > 0 })
		w := slices.IndexFunc(h.Ops, func(o workload.Op) bool { return o.Acked() && o.Revision == h.Ops[i].ModRevision })
		h.Ops[i].Value, h.Ops[i].ModRevision, h.Ops[i].Revision = h.Ops[w].Prev, h.Ops[w].ModRevision, h.Ops[w].Revision-1
	}, map[string]string{"linearizable": "had been seen"}},
	{"hidden-write", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// The same, from a member that claims to be up to date.
		i := slices.IndexFunc(h.Ops, func(o workload.Op) bool { return o.Kind == workload.Get && o.ModRevision > 0 })
		w := slices.IndexFunc(h.Ops, func(o workload.Op) bool { return o.Acked() && o.Revision == h.Ops[i].ModRevision })
		h.Ops[i].Value, h.Ops[i].ModRevision = h.Ops[w].Prev, h.Ops[w].ModRevision
	}, map[string]string{"linearizable": "was found instead of"}},
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
	}, map[string]string{"linearizable": "two writes made revision", "no-acked-write-lost": "", "membership-agrees": "cluster ID is c1"}},
	{"failed-write-read", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// What was refused took effect after all.
		i := slices.IndexFunc(h.Ops, func(o workload.Op) bool { return o.Kind == workload.Get && o.ModRevision > 0 })
		w := slices.IndexFunc(h.Ops, func(o workload.Op) bool { return o.Acked() && o.Revision == h.Ops[i].ModRevision })
		h.Ops[w].Outcome, h.Ops[w].Revision, h.Ops[w].ModRevision, h.Ops[w].Prev = workload.Fail, 0, 0, ""
		h.Ops[w].Error = "raft proposal dropped"
	}, map[string]string{"linearizable": "of a write that had failed", "no-acked-write-lost": "of a write that had failed"}},
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

func lastAcked(h *workload.History, ok func(workload.Op) bool) int {
	last, at := int64(0), -1
	for i, o := range h.Ops {
		if o.Acked() && o.Revision > last && ok(o) {
			last, at = o.Revision, i
		}
	}
	return at
}

// covered is an acknowledged write that was replaced by another, and that.
func covered(h *workload.History) (first, next int) {
	for next, o := range h.Ops {
		for first, p := range h.Ops {
			if o.Acked() && p.Acked() && o.Key == p.Key && o.ModRevision == p.Revision && !readBy(h, p) {
				return first, next
			}
		}
	}
	panic("no write was covered")
}

func readBy(h *workload.History, w workload.Op) bool {
	return slices.ContainsFunc(h.Ops, func(o workload.Op) bool { return o.Kind == workload.Get && o.ModRevision == w.Revision })
}

// met is a write of unknown outcome that another operation met.
func met(h *workload.History) (write, by int) {
	for write, w := range h.Ops {
		for by, o := range h.Ops {
			if w.Outcome == workload.Unknown && o.Outcome == workload.OK && (o.Prev == w.Value || o.Kind == workload.Get && o.Value == w.Value) {
				return write, by
			}
		}
	}
	panic("no write of unknown outcome was met")
}

func store(t *testing.T, name string, h *workload.History, e check.Evidence) {
	t.Helper()
	f, err := os.Create(historyPath(name))
	require.NoError(t, err)
	defer f.Close()
	_, err = h.WriteTo(f)
	require.NoError(t, err)
	b, err := json.MarshalIndent(e, "", " ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(evidencePath(name), append(b, '\n'), 0o644))
}

func historyPath(name string) string { return filepath.Join("testdata", "history", name+".jsonl") }
func evidencePath(name string) string {
	return filepath.Join("testdata", "history", name+".evidence.json")
}

func load(t *testing.T, name string) check.Evidence {
	t.Helper()
	h, err := workload.ReadHistory(historyPath(name))
	require.NoError(t, err)
	b, err := os.ReadFile(evidencePath(name))
	require.NoError(t, err)
	var e check.Evidence
	require.NoError(t, json.Unmarshal(b, &e))
	e.History = h
	return e
}

// Each checker is seen to pass, and seen to fail.
func TestHistories(t *testing.T) {
	if rewrite() {
		require.NoError(t, os.MkdirAll(filepath.Join("testdata", "history"), 0o755))
		h, e := small.run()
		store(t, "plain-ok", h, e)
		for _, row := range spoilt {
			h, e := small.run()
			row.spoil(t, h, &e)
			store(t, row.name+"-bad", h, e)
		}
	}
	for _, f := range check.Judge(t.Context(), load(t, "plain-ok"), check.All()...) {
		require.NoError(t, f.Err, f.Checker)
		require.Equal(t, check.Pass, f.Verdict)
	}
	seen := map[string]bool{}
	for _, row := range spoilt {
		t.Run(row.name, func(t *testing.T) {
			for _, f := range check.Judge(t.Context(), load(t, row.name+"-bad"), check.All()...) {
				part, bad := row.want[f.Checker]
				if !bad {
					require.NoError(t, f.Err, f.Checker)
					continue
				}
				require.ErrorIs(t, f.Err, check.ErrViolation, f.Checker)
				require.ErrorContains(t, f.Err, part)
				require.Equal(t, check.Violation, f.Verdict)
				seen[f.Checker] = true
			}
		})
	}
	for _, c := range check.All() {
		require.True(t, seen[c.Name], "%s was never seen to fail", c.Name)
	}
	files, err := filepath.Glob(filepath.Join("testdata", "history", "*.jsonl"))
	require.NoError(t, err)
	require.Len(t, files, len(spoilt)+1, "files without a test")
}

// What cannot be decided has not passed.
func TestUndecided(t *testing.T) {
	for _, row := range []struct {
		name    string
		spoil   func(h *workload.History, e *check.Evidence)
		checker check.Checker
		want    string
	}{
		{"no writes", func(h *workload.History, e *check.Evidence) { h.Ops = nil }, check.NoAckedWriteLost(), "no write was acknowledged"},
		{"no writes", func(h *workload.History, e *check.Evidence) { h.Ops = nil }, check.Linearizable(), "no write was acknowledged"},
		{"no history", func(h *workload.History, e *check.Evidence) { e.History = nil }, check.Linearizable(), "no write was acknowledged"},
		{"silent member", func(h *workload.History, e *check.Evidence) { e.Views[1].Err = "dial: connection refused" }, check.NoAckedWriteLost(), "member at https://m1:2379: dial: connection refused"},
		{"silent member", func(h *workload.History, e *check.Evidence) { e.Views[1].Err = "dial: connection refused" }, check.HashesAgree(), "connection refused"},
		{"silent member", func(h *workload.History, e *check.Evidence) { e.Views[1].Err = "dial: connection refused" }, check.MembershipAgrees(), "connection refused"},
		{"nobody asked", func(h *workload.History, e *check.Evidence) { e.Views = nil }, check.NoAckedWriteLost(), "no member was asked"},
		{"nobody asked", func(h *workload.History, e *check.Evidence) { e.Views = nil }, check.HashesAgree(), "no member was asked"},
		{"nobody asked", func(h *workload.History, e *check.Evidence) { e.Views = nil }, check.MembershipAgrees(), "no member was asked"},
		{"one not asked", func(h *workload.History, e *check.Evidence) { e.Views = e.Views[:2] }, check.MembershipAgrees(), "was not asked"},
		{"no intention", func(h *workload.History, e *check.Evidence) { e.Intended = nil }, check.MembershipAgrees(), "nobody said"},
		{"no hash", func(h *workload.History, e *check.Evidence) { e.Views[0].HashRevision = 0 }, check.HashesAgree(), "was not asked for its hash"},
		{"unlike spans", func(h *workload.History, e *check.Evidence) { e.Views[1].CompactRevision++ }, check.HashesAgree(), "hashes cover revisions 4 to"},
		{"learners only", func(h *workload.History, e *check.Evidence) {
			for v := range e.Views {
				e.Views[v].IsLearner = true
			}
		}, check.NoAckedWriteLost(), "no voter was asked"},
		{"a call that was not taken down", func(h *workload.History, e *check.Evidence) {
			h.Complete = false
			i, _ := met(h)
			h.Ops = slices.Delete(h.Ops, i, i+1)
		}, check.Linearizable(), "the history is incomplete"},
	} {
		t.Run(row.checker.Name+"/"+row.name, func(t *testing.T) {
			h, e := small.run()
			row.spoil(h, &e)
			f := check.Judge(t.Context(), e, row.checker)[0]
			require.ErrorIs(t, f.Err, check.ErrUnknown)
			require.NotErrorIs(t, f.Err, check.ErrViolation)
			require.ErrorContains(t, f.Err, row.want)
			require.Equal(t, check.Undecided, f.Verdict)
		})
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, e := small.run()
	require.Equal(t, check.Undecided, check.Judge(ended, e, check.Linearizable())[0].Verdict)
}

func TestLostNamesTheWrites(t *testing.T) {
	h, e := small.run()
	// Everything from the tenth acknowledged write on is gone, everywhere.
	var acked []workload.Op
	for _, o := range h.Ops {
		if o.Acked() {
			acked = append(acked, o)
		}
	}
	slices.SortFunc(acked, func(a, b workload.Op) int { return int(a.Revision - b.Revision) })
	kept := map[string]check.Value{}
	want := 0
	for i, o := range acked {
		if i < 10 {
			kept[o.Key] = check.Value{Value: o.Value, ModRevision: o.Revision}
		} else {
			want++
		}
	}
	for v := range e.Views {
		e.Views[v].Final = kept
	}
	lost, err := check.Lost(e)
	require.NoError(t, err)
	require.Len(t, lost, want)

	err = check.NoAckedWriteLost().Check(t.Context(), e)
	var named *check.LostError
	require.True(t, errors.As(err, &named))
	require.Equal(t, lost, named.Writes)
	require.Equal(t, min(want, 11), strings.Count(err.Error(), "\n"))
}
