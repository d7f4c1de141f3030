package check_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"maps"
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

// settledRead is a get of a write that was acknowledged before it was called,
// and that write.
func settledRead(h *workload.History) (get, put int) {
	for get, o := range h.Ops {
		for put, w := range h.Ops {
			if o.Kind == workload.Get && w.Acked() && o.Key == w.Key && o.ModRevision == w.Revision && w.Return < o.Call {
				return get, put
			}
		}
	}
	panic("no write was read later")
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

// store writes a history and its evidence, and, where there are any, the log
// and the operators' journals.
func store(t *testing.T, name string, h *workload.History, e check.Evidence) {
	t.Helper()
	write := func(kind string, to func(w io.Writer) error) {
		f, err := os.Create(stored(name, kind))
		require.NoError(t, err)
		defer f.Close()
		require.NoError(t, to(f))
	}
	asJSON := func(v any) func(io.Writer) error {
		return func(w io.Writer) error {
			enc := json.NewEncoder(w)
			enc.SetIndent("", " ")
			return enc.Encode(v)
		}
	}
	write("jsonl", func(w io.Writer) error { _, err := h.WriteTo(w); return err })
	write("evidence.json", asJSON(e))
	if e.Log != nil {
		write("events.jsonl", e.Log.Write)
	}
	if len(e.Operators) > 0 {
		var journals [][]check.Record
		for _, o := range e.Operators {
			journals = append(journals, o.Records)
		}
		write("journals.json", asJSON(journals))
	}
}

func stored(name, kind string) string { return filepath.Join("testdata", "history", name+"."+kind) }

func load(t *testing.T, name string) check.Evidence {
	t.Helper()
	h, err := workload.ReadHistory(stored(name, "jsonl"))
	require.NoError(t, err)
	read := func(kind string, v any) {
		b, err := os.ReadFile(stored(name, kind))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, v))
	}
	var e check.Evidence
	read("evidence.json", &e)
	e.History = h
	if _, err := os.Stat(stored(name, "events.jsonl")); err == nil {
		e.Log, err = check.ReadLog(stored(name, "events.jsonl"))
		require.NoError(t, err)
	}
	if len(e.Operators) > 0 {
		var journals [][]check.Record
		read("journals.json", &journals)
		require.Len(t, journals, len(e.Operators))
		for i := range e.Operators {
			e.Operators[i].Records = journals[i]
		}
	}
	return e
}

// suites are the good histories, and what is made from each by spoiling it.
func suites() []suite {
	return []suite{
		{"plain", small.run, spoilt},
		{"everything", rich.run, spoiltRich},
		{"operators", operated, spoiltOperators},
	}
}

type suite struct {
	name string
	make func() (*workload.History, check.Evidence)
	bad  []spoiltRow
}

// Each checker is seen to pass, and seen to fail.
func TestHistories(t *testing.T) {
	if rewrite() {
		require.NoError(t, os.RemoveAll(filepath.Join("testdata", "history")))
		require.NoError(t, os.MkdirAll(filepath.Join("testdata", "history"), 0o755))
	}
	passed, failed, files := map[string]bool{}, map[string]bool{}, 0
	for _, s := range suites() {
		if rewrite() {
			h, e := s.make()
			store(t, s.name+"-ok", h, e)
			for _, row := range s.bad {
				h, e := s.make()
				row.spoil(t, h, &e)
				if !strings.Contains(row.name, "hole") {
					renumber(&e)
				}
				store(t, row.name+"-bad", h, e)
			}
		}
		good := load(t, s.name+"-ok")
		for _, f := range check.Judge(t.Context(), good, check.For(good)...) {
			require.NoError(t, f.Err, f.Checker)
			require.Equal(t, check.Pass, f.Verdict)
			passed[f.Checker] = true
		}
		files += 1 + len(s.bad)
		for _, row := range s.bad {
			t.Run(s.name+"/"+row.name, func(t *testing.T) {
				bad := load(t, row.name+"-bad")
				left := maps.Clone(row.want)
				for _, f := range check.Judge(t.Context(), bad, check.For(bad)...) {
					part, bad := row.want[f.Checker]
					delete(left, f.Checker)
					if !bad {
						require.NoError(t, f.Err, f.Checker)
						continue
					}
					require.ErrorIs(t, f.Err, check.ErrViolation, f.Checker)
					require.ErrorContains(t, f.Err, part)
					require.Equal(t, check.Violation, f.Verdict)
					failed[f.Checker] = true
				}
				require.Empty(t, left, "checkers that were not asked")
			})
		}
	}
	for name := range passed {
		require.True(t, failed[name], "%s was never seen to fail", name)
	}
	require.Len(t, passed, 14, "every checker was seen to pass")
	on, err := filepath.Glob(filepath.Join("testdata", "history", "*.evidence.json"))
	require.NoError(t, err)
	require.Len(t, on, files, "files without a test")
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
