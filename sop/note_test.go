package sop

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every host that a run changes something on has one line of it, and no other.
func TestNotes(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		for _, m := range g.w.machines {
			m.notes = nil
		}
		op := g.operator()
		op.Runner.Reason = "CHG-7, the new rack"
		res, err := op.do(AddMember{Host: hosts[3]})
		require.NoError(t, err)
		for i, h := range hosts {
			if i > 3 {
				require.Empty(g.t, g.w.machines[h].notes, h)
				continue
			}
			require.Equal(g.t, []string{"addMember 10.10.10.14 by vonng on admin, run " + op.Runner.Run + ", plan " + op.Runner.digest + ", reason: CHG-7, the new rack"}, g.w.machines[h].notes, h)
		}
		require.NotEmpty(g.t, op.Runner.digest)
		require.Contains(g.t, op.story(), "plan "+op.Runner.digest+", reason: CHG-7, the new rack")
		require.Len(g.t, op.Runner.digest, 12)
		require.False(g.t, res.Plan.Empty())

		// A refusal leaves none.
		g.w.machines[hosts[4]].listeners[2379] = "consul"
		g.refusal(g.operator(), AddMember{Host: hosts[4]}, "blank-host")
		require.Empty(g.t, g.w.machines[hosts[4]].notes)
		// Nor does a run that has nothing to do.
		before := len(g.w.machines[hosts[0]].notes)
		g.must(AddMember{Host: hosts[3]})
		require.Len(g.t, g.w.machines[hosts[0]].notes, before)
	})
}

// A line that cannot be left is told, and stops nothing.
func TestNoteThatCannotBeWritten(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.w.peril = func(where, what string) fault {
			if strings.Contains(what, "journal") {
				return fault{err: errors.New("logger: socket /dev/log: Connection refused")}
			}
			return fault{}
		}
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		require.NoError(t, err)
		told := 0
		for _, r := range op.records {
			if r.State == Warned && strings.Contains(r.Detail, "no line could be left in the host's journal: logger:") {
				told++
			}
		}
		require.Equal(g.t, 4, told)
	})
}

// A waiver is kept with its reason.
func TestWaiverKeepsItsReason(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.w.machines[hosts[1]].skew = 3 * time.Second
		op := g.operator()
		op.Runner.Waive, op.Runner.Reason = []string{"clocks"}, "CHG-8"
		_, err := op.do(AddMember{Host: hosts[3]})
		require.NoError(g.t, err)
		require.Regexp(g.t, `waived clocks: .*3s off.*, reason: CHG-8`, op.story())
		names, err := filepath.Glob(filepath.Join(op.Site.RunsDir(), op.Runner.Run+"-*", "journal.jsonl"))
		require.NoError(g.t, err)
		require.Len(g.t, names, 1)
		kept, err := os.ReadFile(names[0])
		require.NoError(g.t, err)
		require.Contains(g.t, string(kept), "reason: CHG-8")
	})
}

// After its time nothing begins, whatever the moment; what was sent is waited
// for, and the same command goes on later.
func TestNotAfter(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		whole := g.clone(filepath.Join(scratch(g.t), "whole"))
		began := time.Now()
		whole.must(AddMember{Host: hosts[3]})
		took := time.Since(began)
		require.Greater(g.t, took, time.Second)
		refusals := 0
		for after := time.Duration(0); after < took; after += took / 16 {
			cut := g.clone(filepath.Join(scratch(g.t), after.String()))
			op := cut.operator()
			op.Runner.NotAfter = time.Now().Add(after)
			sent := map[int]time.Time{}
			op.on = func(r Record) {
				switch r.State {
				case Recorded:
					require.True(g.t, r.Time.Before(op.Runner.NotAfter), "%s %s began too late", r.Title, r.Host)
					sent[r.Step] = r.Time
				case Answered:
					delete(sent, r.Step)
				}
			}
			res, err := op.do(AddMember{Host: hosts[3]})
			require.Empty(g.t, sent, "something was sent and not waited for")
			if err == nil {
				continue
			}
			refusals++
			var r *Refusal
			require.ErrorAs(g.t, err, &r, op.story())
			require.Equal(g.t, "not-after", r.Safeguard)
			require.Equal(g.t, res.Changed, r.Changed)
			end := Ending{Procedure: AddMember{Host: hosts[3]}, Err: err, Result: res, Command: "x addMember " + hosts[3], Prefix: "x ", Now: time.Now()}.Text()
			require.Contains(g.t, end, "Go on:   x addMember "+hosts[3])
			if res.Changed {
				require.Contains(g.t, end, "Give up: x removeMember "+hosts[3])
			}
			cut.must(AddMember{Host: hosts[3]})
			require.Equal(g.t, votersText(1, 2, 3, 4), cut.roles())
		}
		require.Greater(g.t, refusals, 8)
	})
}

func TestParseMoment(t *testing.T) {
	zone := time.FixedZone("somewhere", 2*60*60)
	now := time.Date(2026, 3, 4, 16, 0, 0, 0, zone)
	got, err := ParseMoment("17:30", now)
	require.NoError(t, err)
	require.Equal(t, time.Date(2026, 3, 4, 17, 30, 0, 0, zone), got)
	got, err = ParseMoment("2026-03-04T18:00:00+01:00", now)
	require.NoError(t, err)
	require.True(t, got.Equal(time.Date(2026, 3, 4, 17, 0, 0, 0, time.UTC)))
	for _, bad := range []string{"", "17", "24:00", "5pm", "2026-03-04", "17:30:10"} {
		_, err := ParseMoment(bad, now)
		require.ErrorContains(t, err, "give a time as HH:MM", bad)
	}
}
