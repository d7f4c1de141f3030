package sop_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop"
)

func TestExitStatus(t *testing.T) {
	refusal := &sop.Refusal{Safeguard: "spare"}
	for _, c := range []struct {
		err       error
		unchanged int
		changed   int
	}{
		{nil, 0, 0},
		{errAny, 1, 1},
		{refusal, 3, 1},
		{fmt.Errorf("wrapped: %w", refusal), 3, 1},
		{sop.ErrPlanChanged, 3, 1},
		{sop.ErrInventory, 2, 1},
		{sop.ErrGround, 5, 5},
		{sop.ErrUndecided, 4, 4},
		{context.Canceled, 130, 130},
		{sop.ErrInterrupted, 130, 130},
		{fmt.Errorf("%w, and %w", sop.ErrUndecided, context.Canceled), 4, 4},
		{fmt.Errorf("%w: %w", sop.ErrGround, context.Canceled), 130, 130},
		{context.DeadlineExceeded, 1, 1},
	} {
		require.Equal(t, c.unchanged, sop.ExitStatus(c.err, false), "%v", c.err)
		require.Equal(t, c.changed, sop.ExitStatus(c.err, true), "%v", c.err)
	}
}

func TestRefusalText(t *testing.T) {
	r := &sop.Refusal{Safeguard: "spare", Host: "10.10.10.11", Found: "2 of 3 voters would be left, which is a text that is longer than one line can be",
		Needed: "one that may fail", Show: "etcdctl endpoint status --cluster", Hint: "add a member first", Risk: "nothing may fail", Changed: true}
	require.Equal(t, `refused by safeguard spare on 10.10.10.11, after something had been changed
  found    2 of 3 voters would be left, which is a text that is longer than one
           line can be
  needed   one that may fail
  see      etcdctl endpoint status --cluster
  instead  add a member first
  waiving  -waive=spare passes over it; the risk: nothing may fail
`, r.Text())
	require.NotContains(t, (&sop.Refusal{Safeguard: "quorum", Found: "x"}).Text(), "waive")
}

func holds(sop.View) error { return nil }
func is(sop.View) error    { return errAny }
func add(h string) sop.Plan {
	return sop.Plan{GiveUp: "removeMember " + h, Stages: []sop.Stage{{Title: "s", Steps: []sop.Step{
		{Title: "save a snapshot", Until: holds, Act: sop.SaveSnapshot{}},
		{Title: "add as learner", Until: is, Act: sop.AddLearner{Host: h}},
		{Title: "wait", Host: h, Until: is},
		{Title: "promote to voter", Until: is, Act: sop.Promote{Host: h}},
	}}}}
}

func TestEnding(t *testing.T) {
	const h = "10.10.10.13"
	ending := func(err error, res sop.Result) string {
		return sop.Ending{Procedure: sop.AddMember{Host: h}, Err: err, Result: res, Command: "go tool mage addMember " + h, Prefix: "go tool mage ", Now: time.Unix(0, 0)}.Text()
	}
	changed := func(v sop.View) sop.Result { return sop.Result{Plan: add(h), View: v, Changed: true} }

	require.Equal(t, "Safe to walk away: the goal is reached.\n", ending(nil, changed(cluster(3, 0, 0))))

	text := ending(&sop.Refusal{Safeguard: "no-alarm", Found: "an alarm"}, sop.Result{Plan: add(h), View: cluster(3, 0, 0)})
	require.Contains(t, text, "Safe to walk away: nothing was changed.\n")
	require.Contains(t, text, "Go on:   go tool mage addMember 10.10.10.13   # once that is mended\n")
	require.NotContains(t, text, "Give up")

	text = ending(context.Canceled, changed(cluster(3, 0, 1)))
	require.Contains(t, text, "interrupted: it stopped before the next change\n")
	require.Contains(t, text, "Safe to walk away: 3 of 3 voters answer; a learner is pending")
	require.Contains(t, text, "Pending: add as learner, and 2 more\n")
	require.Contains(t, text, "Go on:   go tool mage addMember 10.10.10.13\n         $ etcdctl member add ")
	require.Contains(t, text, "Give up: go tool mage removeMember 10.10.10.13\n         $ ")
	require.Contains(t, text, "$ etcdctl member promote 4\n")

	require.Contains(t, ending(errAny, changed(cluster(3, 1, 0))), "NOT safe to walk away: 2 of 3 voters answer, and none may fail.")
	require.Contains(t, ending(errAny, changed(cluster(3, 2, 0))), "NOT safe to walk away: 1 of 3 voters answer, which is no quorum")
	require.Contains(t, ending(errAny, changed(sop.View{})), "NOT safe to walk away: something was changed, and there was no look since.")
	require.Contains(t, ending(sop.ErrUndecided, changed(cluster(3, 0, 0))), "NOT safe to walk away: a change was sent, and nobody can say")
	require.Contains(t, ending(errAny, changed(cluster(5, 0, 0))), "Safe to walk away: 5 of 5 voters answer, and 2 may fail.")
	require.Contains(t, ending(errAny, sop.Result{}), "Safe to walk away: nothing was changed.")

	down := sop.Result{Plan: add(h), View: cluster(0, 0, 0), Changed: true}
	down.Plan.NoCluster, down.View.Wanted.Name = true, "etcd"
	require.Contains(t, ending(errAny, down), "NOT safe to walk away: 3 steps are open, and until they are done no cluster\n  serves here.")

	require.Contains(t, ending(sop.ErrPlanChanged, sop.Result{View: cluster(3, 0, 0)}), "addMember 10.10.10.13 -plan   # to be reviewed again\n")

	lost := sop.Result{Plan: sop.Plan{Consent: &sop.Consent{Code: "1f"}}, View: cluster(3, 0, 0)}
	err := sop.Agreement{Out: io.Discard}.Ask(t.Context(), *lost.Plan.Consent)
	require.Contains(t, ending(err, lost), "Go on:   go tool mage addMember 10.10.10.13 -confirm=1f\n")
	err = sop.Agreement{Out: io.Discard, Given: "2f"}.Ask(t.Context(), *lost.Plan.Consent)
	require.NotContains(t, ending(err, lost), "1f\n")
}

func TestAgreement(t *testing.T) {
	c := sop.Consent{Verb: "delete", Code: "1f", Shown: []string{"keys: 7", "leased: \x1b[2J"}}
	var shown strings.Builder
	require.NoError(t, sop.Agreement{Given: "1f", Out: &shown}.Ask(t.Context(), c))
	require.Equal(t, "This will delete:\n  keys: 7\n  leased: \\x1b[2J\n", shown.String())
	require.NoError(t, sop.Agreement{In: strings.NewReader(" 1f \n"), Out: io.Discard}.Ask(t.Context(), c))

	for name, a := range map[string]sop.Agreement{
		"no terminal":           {},
		"wrong code":            {Given: "etcd"},
		"wrong code, terminal":  {Given: "etcd", In: strings.NewReader("1f\n")},
		"typed the name":        {In: strings.NewReader("etcd\n")},
		"typed yes":             {In: strings.NewReader("yes\n")},
		"typed nothing":         {In: strings.NewReader("\n")},
		"closed the terminal":   {In: strings.NewReader("")},
		"terminal is not there": {In: iotest.ErrReader(errAny)},
	} {
		a.Out = io.Discard
		err := a.Ask(t.Context(), c)
		require.ErrorIs(t, err, sop.ErrRefused, name)
		require.Equal(t, 3, sop.ExitStatus(err, false), name)
	}
	// An empty code agrees to nothing.
	require.ErrorIs(t, sop.Agreement{Out: io.Discard}.Ask(t.Context(), sop.Consent{}), sop.ErrRefused)
	require.ErrorIs(t, sop.Agreement{In: strings.NewReader("\n"), Out: io.Discard}.Ask(t.Context(), sop.Consent{}), sop.ErrRefused)

	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, sop.Agreement{In: r, Out: io.Discard}.Ask(ctx, c), context.Canceled)
	require.ErrorIs(t, sop.Agreement{Given: "1f", Out: brokenPipe{}}.Ask(t.Context(), c), sop.ErrInterrupted)
}

// TestCutOff: a rerun goes on with the event of the first run that was cut off.
func TestCutOff(t *testing.T) {
	s := &sop.Site{State: t.TempDir()}
	base := time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC)
	run := func(minute int, procedure string, states ...sop.State) {
		at := base.Add(time.Duration(minute) * time.Minute)
		dir := filepath.Join(s.RunsDir(), at.Format("20060102T150405.000Z")+"-"+procedure)
		require.NoError(t, os.MkdirAll(dir, 0o700))
		j, err := sop.OpenJournal(filepath.Join(dir, "journal.jsonl"))
		require.NoError(t, err)
		defer j.Close()
		for _, state := range states {
			require.NoError(t, j.Append(sop.Record{Time: at, Procedure: procedure, State: state}))
		}
	}
	at := func(minute int) (int, bool) {
		began, ok := s.CutOff("restart", base.Add(time.Duration(minute)*time.Minute))
		return int(began.Sub(base) / time.Minute), ok
	}
	none := func(minute int) {
		t.Helper()
		_, ok := at(minute)
		require.False(t, ok)
	}
	none(0)
	run(1, "restart", sop.Began, sop.Recorded, sop.Finished)
	none(2)
	run(3, "restart", sop.Began, sop.Refused)
	none(4)
	run(5, "restart", sop.Began, sop.Recorded)
	run(6, "status", sop.Began, sop.Finished)
	run(7, "restart", sop.Began, sop.Recorded, sop.Failed)
	run(8, "restart", sop.Began, sop.Refused)
	require.NoError(t, os.Symlink(filepath.Base(base.Add(5*time.Minute).Format("20060102T150405.000Z")+"-restart"), filepath.Join(s.RunsDir(), "latest")))
	began, ok := at(9)
	require.True(t, ok)
	require.Equal(t, 5, began)
	none(9 + 60)
	run(10, "restart", sop.Began, sop.Recorded, sop.Finished)
	none(11)
	// A drill beside it.
	dir := filepath.Join(s.RunsDir(), "20260101T101100.000Z")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "journal.jsonl"), []byte(`{"time":"2026-01-01T10:11:00Z","procedure":"restart","state":"recorded"}`), 0o600))
	none(12)
}
