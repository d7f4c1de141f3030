package scenarios

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/lab/workload/loopback"
	"github.com/etcdrill/etcdrill/sop"
)

// TestFindings shows that what must not pass does not: the same evidence of
// real members, spoilt in one place at a time.
func TestFindings(t *testing.T) {
	t.Parallel()
	c, err := loopback.Start(t.Context(), t.TempDir(), loopback.Host(), "findings", 3)
	require.NoError(t, err)
	defer c.Close()
	dial := workload.Dialer{}.Dial
	load, err := workload.Start(t.Context(), workload.Spec{Seed: 1, Prefix: loadPrefix, Endpoints: workload.Fixed(c.Endpoints()...), Dial: dial}, nil)
	require.NoError(t, err)
	require.NoError(t, pause(t.Context(), 300*time.Millisecond))
	history, err := load.Stop()
	require.NoError(t, err)
	evidence, err := check.Collect(t.Context(), check.Query{Endpoints: c.Endpoints(), Dial: dial, History: history, Intended: c.PeerURLs(), Log: true, Hash: true})
	require.NoError(t, err)

	for name, tt := range map[string]struct {
		spoil func(e *check.Evidence)
		want  Verdict
		lost  bool
	}{
		"as it is": {func(*check.Evidence) {}, Pass, false},
		"a write that was acknowledged is not in the history": {func(e *check.Evidence) {
			h := *e.History
			h.Ops = slices.Clone(h.Ops)
			i := slices.IndexFunc(h.Ops, func(o workload.Op) bool { return o.Acked() && replaced(h.Ops, o) })
			require.GreaterOrEqual(t, i, 0)
			h.Ops = slices.Delete(h.Ops, i, i+1)
			e.History = &h
		}, Violation, false},
		"a key is gone from one voter": {func(e *check.Evidence) {
			for key := range e.Views[1].Final {
				delete(e.Views[1].Final, key)
				break
			}
		}, Violation, true},
		"a voter did not answer": {func(e *check.Evidence) { e.Views[2].Err = "no answer" }, Unknown, false},
		"a hash differs":         {func(e *check.Evidence) { e.Views[0].Hash++ }, Violation, false},
		"a member too many":      {func(e *check.Evidence) { e.Intended = e.Intended[:2] }, Violation, false},
	} {
		t.Run(name, func(t *testing.T) {
			e := evidence
			e.Views = slices.Clone(evidence.Views)
			for i := range e.Views {
				e.Views[i].Final = map[string]check.Value{}
				for k, v := range evidence.Views[i].Final {
					e.Views[i].Final[k] = v
				}
			}
			tt.spoil(&e)
			s := &stage{summary: &Summary{Verdict: Pass}, history: e.History}
			s.findings(t.Context(), e, check.ForLoad(e)...)
			s.account()
			require.Equal(t, tt.want, s.summary.Verdict, "%v", s.summary.Reasons)
			require.Equal(t, tt.lost, s.summary.LostWrites > 0)
			require.Equal(t, tt.want != Pass, len(s.summary.Reasons) > 0)
		})
	}
}

// replaced reports whether another acknowledged write names this one as what
// it replaced.
func replaced(ops []workload.Op, o workload.Op) bool {
	return slices.ContainsFunc(ops, func(next workload.Op) bool {
		return next.Acked() && next.Key == o.Key && next.ModRevision == o.Revision
	})
}

func TestStepsAndTime(t *testing.T) {
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return base.Add(time.Duration(ms) * time.Millisecond) }
	ms := time.Millisecond
	o := Outcome{Began: at(0), Ended: at(10000), CPU: 700 * ms, Journal: []sop.Record{
		{Time: at(100), State: sop.Waiting, Etcd: true, Took: time.Second},
		{Time: at(1200), State: sop.Began},
		{Time: at(1300), State: sop.Skipped, Step: 1, Title: "save", Took: 50 * ms},
		{Time: at(1400), State: sop.Waiting, Etcd: true, Title: "settled"},
		{Time: at(4400), State: sop.Recorded, Step: 2, Title: "add"},
		{Time: at(4500), State: sop.Answered, Step: 2, Title: "add"},
		{Time: at(4600), State: sop.Done, Step: 2, Title: "add", Took: 3300 * ms, Called: 40 * ms},
		{Time: at(4700), State: sop.Recorded, Step: 3, Title: "start", Host: "a"},
		{Time: at(4800), State: sop.Done, Step: 3, Title: "start", Host: "a", Took: 200 * ms},
		{Time: at(6800), State: sop.Done, Step: 4, Title: "wait", Etcd: true, Took: 2000 * ms, Called: 1900 * ms},
		{Time: at(6900), State: sop.Recorded, Step: 5, Title: "promote", Etcd: true},
	}}
	steps := stepsOf(o.Journal, o.Ended)
	require.Len(t, steps, 4, "the skipped one is left out")
	require.Equal(t, stepWindow{"add", "", sop.Done, window{at(1300), at(4600)}}, steps[0])
	require.Equal(t, stepWindow{"start", "a", sop.Done, window{at(4600), at(4800)}}, steps[1])
	require.Equal(t, stepWindow{"promote", "", sop.Recorded, window{at(6800), at(10000)}}, steps[3], "cut off with its operator")

	got := spent(o)
	require.InDelta(t, 3.0, got.Health, 1e-9)
	require.InDelta(t, 2.0+3.1+0.04, got.Etcd, 1e-9, "an answer that was waited for inside of a wait counts once")
	require.InDelta(t, 1.0, got.Watch, 1e-9)
	require.InDelta(t, 0.86, got.Own, 1e-9)
	require.InDelta(t, 10.0, got.total(), 1e-9)
	require.InDelta(t, 1.4, got.plus(got).CPU, 1e-9, "it is a part of the others")
}

// Two hosts stop their etcd side by side: each is waited for from its own record
// to its own next one, and both at once count once.
func TestStepsAndTimeSideBySide(t *testing.T) {
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return base.Add(time.Duration(ms) * time.Millisecond) }
	ms := time.Millisecond
	o := Outcome{Began: at(0), Ended: at(9000), Journal: []sop.Record{
		{Time: at(1000), State: sop.Began},
		{Time: at(1100), State: sop.Recorded, Step: 1, Title: "stop", Host: "a", Etcd: true},
		{Time: at(1200), State: sop.Recorded, Step: 3, Title: "stop", Host: "b", Etcd: true},
		{Time: at(2200), State: sop.Answered, Step: 3, Title: "stop", Host: "b", Etcd: true},
		{Time: at(2300), State: sop.Done, Step: 3, Title: "stop", Host: "b", Etcd: true, Took: 1200 * ms},
		{Time: at(2400), State: sop.Recorded, Step: 4, Title: "set aside", Host: "b"},
		{Time: at(8100), State: sop.Answered, Step: 1, Title: "stop", Host: "a", Etcd: true},
		{Time: at(8200), State: sop.Done, Step: 1, Title: "stop", Host: "a", Etcd: true, Took: 7200 * ms},
	}}
	require.Equal(t, []stepWindow{
		{"stop", "a", sop.Done, window{at(1000), at(8200)}},
		{"stop", "b", sop.Done, window{at(1100), at(2300)}},
		{"set aside", "b", sop.Recorded, window{at(2300), at(9000)}},
	}, stepsOf(o.Journal, o.Ended))
	got := spent(o)
	require.InDelta(t, 7.1, got.Etcd, 1e-9)
	require.InDelta(t, 1.9, got.Own, 1e-9)
}

func TestQuietBefore(t *testing.T) {
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return base.Add(time.Duration(s) * time.Second) }
	require.Equal(t, window{at(8), at(10)}, quietBefore(window{at(10), at(12)}, window{at(0), at(10)}), "as long as what it is held against")
	require.Equal(t, window{at(9), at(10)}, quietBefore(window{at(10), at(12)}, window{at(9), at(10)}), "all there is")
}

func TestWorse(t *testing.T) {
	for _, tt := range []struct{ a, b, want Verdict }{
		{Pass, Pass, Pass}, {Pass, Unknown, Unknown}, {Unknown, Violation, Violation},
		{Infra, Unknown, Infra}, {Violation, Infra, Violation}, {Skipped, Pass, Skipped},
	} {
		require.Equal(t, tt.want, worse(tt.a, tt.b))
		require.Equal(t, tt.want, worse(tt.b, tt.a))
	}
}

// TestReport looks at the form: 80 columns, but for a path, and ASCII.
func TestReport(t *testing.T) {
	s := Summary{Verdict: Violation, Seed: 1, EtcdVersion: "3.7.3", AckedWrites: 123456, LostWrites: 3, MaxWriteGapMS: 12345.6, Dir: "/d",
		Checks: []Finding{{Checker: "no-acked-write-lost", Verdict: Violation}}, Unknown: []string{strings.Repeat("word ", 40)},
		Procedures: []Procedure{
			{Name: strings.Repeat("long ", 20), Verdict: Violation, Seconds: 1234.5, UnderLoad: true, MaxWriteGapMS: 12345, QuietGapMS: 12345, AckedWrites: 1234567, LostWrites: 12345, Output: "operators/1-x"},
			{Name: "not loaded", Verdict: Pass, Seconds: 1}, {Name: "never played", Verdict: Skipped},
		},
		Time: Spent{Etcd: 1000, Health: 1000, Watch: 1000, Quiet: 1000, Own: 1000, CPU: 1000}}
	s.blame(Violation, "an operator said \x1b[31mred\x1b[0m and\n%s", strings.Repeat("more ", 40))
	text := s.Text()
	for line := range strings.Lines(text) {
		require.LessOrEqual(t, len(strings.TrimSuffix(line, "\n")), columns, line)
	}
	require.NotContains(t, text, "\x1b")
	require.Contains(t, text, "less /d/operators/1-x.err")
	require.Contains(t, text, "3 lost")
}

// TestRowsThatMustFail plays rows on a real cluster that are to see red.
func TestRowsThatMustFail(t *testing.T) {
	t.Parallel()
	red := func(t *testing.T, want Verdict, reason string, rows ...row) *Summary {
		t.Helper()
		inventory, spares := BuiltIn()
		sum, err := perform(t.Context(), show{name: "red", seed: 1, out: t.TempDir(),
			rig: RigSpec{Root: t.TempDir(), Executable: testBinary(t), Inventory: inventory, Spares: spares, Seed: 1},
			rows: func(context.Context, *stage) ([]row, error) {
				return append([]row{{command: "createCluster"}}, rows...), nil
			}})
		require.NoError(t, err)
		require.Equal(t, want, sum.Verdict, "%v", sum.Reasons)
		require.Contains(t, strings.Join(sum.Reasons, "\n"), reason)
		return &sum
	}
	t.Run("another exit status", func(t *testing.T) {
		t.Parallel()
		sum := red(t, Violation, "exit status 0, 3 was wanted",
			row{command: "createCluster", status: 3}, row{command: "status"})
		require.Equal(t, Skipped, sum.Procedures[2].Verdict, "what comes after is not played")
	})
	t.Run("a refusal that touches", func(t *testing.T) {
		t.Parallel()
		red(t, Violation, "it touched what it was to leave alone", row{command: "removeMember 10.10.10.12 -waive=spare -reason=test", untouched: true})
	})
	t.Run("an operator that could not be killed", func(t *testing.T) {
		t.Parallel()
		red(t, Unknown, "before it could be killed", row{command: "restart -plan=true", kill: &Kill{Title: "no such step", State: sop.Done}})
	})
	t.Run("words that were not said", func(t *testing.T) {
		t.Parallel()
		red(t, Violation, "it was to say", row{command: "status", says: "all is lost"})
	})
	t.Run("a member that nobody intended", func(t *testing.T) {
		t.Parallel()
		sum := red(t, Violation, "membership-agrees",
			row{command: "addMember 10.10.10.13", loaded: true, check: func(_ context.Context, s *stage, _ Outcome) error {
				s.intended = s.intended[:3]
				return nil
			}})
		require.Contains(t, strings.Join(sum.Reasons, "\n"), "inventory-agrees")
	})
}
