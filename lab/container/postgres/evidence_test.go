package postgres

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// at is a time in the middle of a night, in milliseconds.
func at(ms int) time.Time {
	return time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
}

// uneventful is evidence of which nobody can complain.
func uneventful() Evidence {
	topology := Topology{Leader: "pg-1", Timeline: 3, Promotions: 2, Replicas: map[string]string{"pg-2": "streaming", "pg-3": "streaming"}}
	e := Evidence{
		Instances: []string{"pg-1", "pg-2", "pg-3"},
		Began:     at(0), Ended: at(1000), From: at(0), To: at(1000),
		Before: topology, After: topology,
		Holdings: []Holding{{"pg-1", at(0), at(1000)}},
		Rows:     map[string][]int64{},
	}
	for n := range 4 {
		e.States = append(e.States,
			State{At: at(n * 250), Instance: "pg-1", Role: "primary", State: "running", Timeline: 3, Started: "monday"},
			State{At: at(n * 250), Instance: "pg-2", Role: "replica", State: "running", Timeline: 3, Started: "tuesday"})
		e.Writes = append(e.Writes, Write{ID: int64(n + 1), Call: at(n*200 - 10), Return: at(n * 200), Outcome: workload.OK, Instance: "pg-1"})
	}
	e.Writes = append(e.Writes, Write{ID: 5, Outcome: workload.Unknown, Return: at(900)}, Write{ID: 6, Outcome: workload.Fail, Return: at(950)})
	for _, name := range e.Instances {
		e.Rows[name] = []int64{1, 2, 3, 4, 5}
	}
	return e
}

// verdicts are those that differ from a pass, by name.
func verdicts(e Evidence) map[string]check.Verdict {
	bad := map[string]check.Verdict{}
	for _, f := range check.Judge(context.Background(), check.Evidence{}, e.Checkers()...) {
		if f.Verdict != check.Pass {
			bad[f.Checker] = f.Verdict
		}
	}
	return bad
}

func TestUneventfulPasses(t *testing.T) {
	require.Empty(t, verdicts(uneventful()))
}

// Each check is seen to fail, on evidence that is bad in one way.
func TestCheckersComplain(t *testing.T) {
	for name, row := range map[string]struct {
		spoil func(e *Evidence)
		want  map[string]check.Verdict
		says  string
	}{
		"row missing on the primary": {
			spoil: func(e *Evidence) { e.Rows["pg-1"] = []int64{1, 2, 4} },
			want:  map[string]check.Verdict{"no-acked-row-lost": check.Violation},
			says:  "1 acknowledged rows are missing on pg-1, the first is 3",
		},
		"row missing on a replica": {
			spoil: func(e *Evidence) { e.Rows["pg-3"] = nil },
			want:  map[string]check.Verdict{"no-acked-row-lost": check.Violation},
			says:  "4 acknowledged rows are missing on pg-3",
		},
		"row that nobody sent": {
			spoil: func(e *Evidence) { e.Rows["pg-1"] = append(e.Rows["pg-1"], 77) },
			want:  map[string]check.Verdict{"no-acked-row-lost": check.Violation},
			says:  "row 77, which nobody sent",
		},
		"refused row is there": {
			spoil: func(e *Evidence) { e.Rows["pg-1"] = append(e.Rows["pg-1"], 6) },
			want:  map[string]check.Verdict{"no-acked-row-lost": check.Undecided},
			says:  "taken for refused",
		},
		"rows of one instance not read": {
			spoil: func(e *Evidence) { delete(e.Rows, "pg-2") },
			want:  map[string]check.Verdict{"no-acked-row-lost": check.Undecided},
			says:  "the rows of pg-2 were not read",
		},
		"nothing written": {
			spoil: func(e *Evidence) { e.Writes = nil },
			want:  map[string]check.Verdict{"no-acked-row-lost": check.Undecided},
			says:  "no row was acknowledged",
		},
		"failed over": {
			spoil: func(e *Evidence) { e.After.Leader = "pg-2" },
			want:  map[string]check.Verdict{"same-primary": check.Violation, "vip-on-primary": check.Violation},
			says:  "leader was pg-1 and is pg-2",
		},
		"failed over and back": {
			spoil: func(e *Evidence) { e.After.Timeline, e.After.Promotions = 5, 4 },
			want:  map[string]check.Verdict{"same-primary": check.Violation},
			says:  "timeline was 3 and is 5",
		},
		"promoted, timeline not told": {
			spoil: func(e *Evidence) { e.After.Promotions = 3 },
			want:  map[string]check.Verdict{"same-primary": check.Violation},
			says:  "1 promotions",
		},
		"primary restarted": {
			spoil: func(e *Evidence) { e.States[4].Started = "sunday" },
			want:  map[string]check.Verdict{"same-primary": check.Violation},
			says:  "started anew at sunday",
		},
		"primary demoted for a while": {
			spoil: func(e *Evidence) { e.States[4].Role = "replica" },
			want:  map[string]check.Verdict{"same-primary": check.Violation},
			says:  "pg-1 was replica and running",
		},
		"two primaries": {
			spoil: func(e *Evidence) { e.States[5].Role = "primary" },
			want:  map[string]check.Verdict{"same-primary": check.Violation},
			says:  "pg-2 was a primary as well",
		},
		"Patroni never answered": {
			spoil: func(e *Evidence) {
				for i := range e.States {
					e.States[i] = State{Instance: e.States[i].Instance, Problem: "connection refused"}
				}
			},
			want: map[string]check.Verdict{"same-primary": check.Undecided},
			says: "pg-1 never told",
		},
		"no leader in the end": {
			spoil: func(e *Evidence) { e.After = Topology{} },
			want:  map[string]check.Verdict{"same-primary": check.Undecided, "no-acked-row-lost": check.Undecided, "vip-on-primary": check.Violation},
			says:  "did not tell",
		},
		"row taken by a replica": {
			spoil: func(e *Evidence) { e.Writes[2].Instance = "pg-3" },
			want:  map[string]check.Verdict{"same-primary": check.Violation},
			says:  "row 3 was taken by pg-3",
		},
		"VIP on two machines": {
			spoil: func(e *Evidence) {
				e.Holdings = append(e.Holdings, Holding{"pg-2", at(500), at(500).Add(3 * time.Microsecond)})
			},
			want: map[string]check.Verdict{"one-vip-holder": check.Violation},
			says: "on pg-1 and pg-2 at once from 02:00:00.500Z, for 3µs",
		},
		"VIP never came back": {
			spoil: func(e *Evidence) { e.Holdings[0].To = at(400) },
			want:  map[string]check.Verdict{"vip-on-primary": check.Violation},
			says:  "in the end the VIP is on []",
		},
		"watch broke off": {
			spoil: func(e *Evidence) { e.Blind = []string{"pg-2: EOF"} },
			want:  map[string]check.Verdict{"one-vip-holder": check.Undecided, "vip-on-primary": check.Undecided},
			says:  "not watched all the while: pg-2: EOF",
		},
		"not watched": {
			spoil: func(e *Evidence) { e.From, e.To, e.Holdings = time.Time{}, time.Time{}, nil },
			want:  map[string]check.Verdict{"one-vip-holder": check.Undecided, "vip-on-primary": check.Undecided},
			says:  "the VIP was not watched",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := uneventful()
			row.spoil(&e)
			require.Equal(t, row.want, verdicts(e))
			var said string
			for _, f := range check.Judge(t.Context(), check.Evidence{}, e.Checkers()...) {
				if f.Err != nil {
					said += f.Err.Error() + "\n"
				}
			}
			require.Contains(t, said, row.says)
		})
	}
}

func TestGone(t *testing.T) {
	e := uneventful()
	require.Empty(t, e.Gone())
	e.Holdings = []Holding{{"pg-1", at(0), at(300)}, {"pg-2", at(310), at(600)}, {"pg-1", at(550), at(990)}}
	require.Equal(t, []Span{{at(300), at(310)}, {at(990), at(1000)}}, e.Gone())
	require.Equal(t, 10*time.Millisecond, e.Gone()[0].Length())
	require.Len(t, e.Overlaps(), 1)
	e.Holdings = nil
	require.Equal(t, []Span{{at(0), at(1000)}}, e.Gone())
}

func TestWriteGap(t *testing.T) {
	e := uneventful() // acknowledged at 0, 200, 400 and 600
	gap, when, acked := e.WriteGap(at(0), at(1000))
	require.Equal(t, 400*time.Millisecond, gap, "what was in doubt fills no gap")
	require.Equal(t, at(600), when)
	require.Equal(t, 4, acked)
	gap, when, acked = e.WriteGap(at(150), at(450))
	require.Equal(t, 200*time.Millisecond, gap)
	require.Equal(t, at(200), when)
	require.Equal(t, 2, acked)
}
