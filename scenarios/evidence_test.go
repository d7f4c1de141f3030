package scenarios

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/lab/workload/loopback"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/host"
)

// Judges read off the words of an act what it does; the words are sop's.
func TestEffects(t *testing.T) {
	for _, row := range []struct {
		act  sop.Act
		want check.Effect
		host string
	}{
		{sop.AddLearner{Host: "10.10.10.13"}, check.AddsLearner, "10.10.10.13"},
		{sop.Promote{Host: "10.10.10.13"}, check.Promotes, "10.10.10.13"},
		{sop.Expel{ID: 0xabc, Host: "fd00::12"}, check.RemovesMember, "fd00::12"},
		{sop.Downgrade{To: "3.5"}, check.TurnsVersion, ""},
		{sop.CancelDowngrade{}, check.TurnsVersion, ""},
		{sop.On{Host: "10.10.10.12", Act: host.SetAside{Path: "/data/etcd"}}, check.TakesData, "10.10.10.12"},
		{sop.On{Host: "10.10.10.12", Act: host.Delete{Path: "/data/etcd"}}, check.TakesData, "10.10.10.12"},
		{sop.On{Host: "10.10.10.12", Act: host.Delete{Path: "/data/etcd/.removed-replay"}}, check.Other, "10.10.10.12"},
		{sop.On{Host: "10.10.10.12", Act: host.Systemctl{Verb: host.Stop, Unit: "etcd.service"}}, check.StopsMember, "10.10.10.12"},
		{sop.On{Host: "10.10.10.12", Act: host.Systemctl{Verb: host.Start, Unit: "etcd.service"}}, check.StartsMember, "10.10.10.12"},
		{sop.On{Host: "10.10.10.12", Act: host.Systemctl{Verb: host.Stop, Unit: "patroni.service"}}, check.Other, "10.10.10.12"},
		{sop.On{Host: "10.10.10.12", Act: host.WriteFile{Path: "/etc/etcd/etcd.conf"}}, check.Other, "10.10.10.12"},
		{sop.SaveSnapshot{}, check.Other, ""},
		{sop.Refresh{Host: "10.10.10.12", File: sop.Conf}, check.NamesMembers, "10.10.10.12"},
		{sop.MakeCA{}, check.Other, ""},
		{sop.ChangeAuth{Verb: sop.DropRootUser}, check.DropsUser, ""},
		{sop.ChangeAuth{Verb: sop.AddRootUser}, check.MakesUser, ""},
		{sop.ChangeAuth{Verb: sop.GrantRoot}, check.MakesUser, ""},
		{sop.ChangeAuth{Verb: sop.AddRootRole}, check.Other, ""},
	} {
		effect, host := effectOf(row.act.String())
		require.Equal(t, row.want, effect, row.act.String())
		require.Equal(t, row.host, host, row.act.String())
	}
	records := recordsOf([]sop.Record{
		{Seq: 1, State: sop.Warned, Detail: "waived spare: nothing may fail afterwards"},
		{Seq: 2, State: sop.Warned, Detail: "an even number of members"},
		{Seq: 3, State: sop.Recorded, Step: 4, Title: "promote", Act: sop.Promote{Host: "h"}.String()},
		{Seq: 4, State: sop.Done, Step: 4, Title: "promote"},
	})
	require.Equal(t, "spare", records[0].Waived)
	require.Empty(t, records[1].Waived)
	require.Equal(t, check.Record{Seq: 3, Step: 4, Title: "promote", Host: "h", State: check.Recorded, Effect: check.Promotes, Act: "promote the learner on h"}, records[2])
}

func TestAudit(t *testing.T) {
	before := map[string]string{"10.10.10.10:/etc/a": "1", "10.10.10.10:/etc/b": "1", "fd00::1:/c": "1", "inventory": "1"}
	after := map[string]string{"10.10.10.10:/etc/a": "1", "fd00::1:/c": "2", "inventory": "2", "10.10.10.10:/etc/d": "1"}
	require.Equal(t, &check.Audit{Changes: []check.FileChange{
		{Host: "fd00::1", Path: "/c", What: check.Changed},
		{Host: "10.10.10.10", Path: "/etc/b", What: check.Gone},
		{Host: "10.10.10.10", Path: "/etc/d", What: check.New},
		{Path: "inventory", What: check.Changed},
	}}, auditOf(before, after))
	require.Equal(t, &check.Audit{}, auditOf(before, before))
}

// saveRun keeps a run as a play does: of a load on real members, and of one
// operator who added the third of them.
func saveRun(t *testing.T, spoil func(t *testing.T, s *stage)) string {
	t.Helper()
	c, err := loopback.Start(t.Context(), t.TempDir(), loopback.Host(), t.Name(), 3)
	require.NoError(t, err)
	defer c.Close()
	dir, err := makeRunDir(t.TempDir(), time.Now())
	require.NoError(t, err)
	sum := &Summary{Verdict: Pass, Name: "test", Seed: 4, Began: time.Now(), Dir: string(dir), Procedures: []Procedure{}, Checks: []Finding{}, Unknown: []string{}}
	require.NoError(t, dir.begin(*sum))
	log, err := workload.CreateLog(dir.path(historyFile))
	require.NoError(t, err)
	dial := workload.Dialer{}.Dial
	profile := workload.Everything()
	profile.LeaseTTL = time.Second
	load, err := workload.Start(t.Context(), workload.Spec{Profile: profile, Seed: 4, Prefix: loadPrefix, Endpoints: workload.Fixed(c.Endpoints()...), Dial: dial}, log)
	require.NoError(t, err)
	require.NoError(t, pause(t.Context(), time.Second))
	s := &stage{summary: sum, dir: dir}
	s.history, err = load.Stop()
	require.NoError(t, err)
	e, err := check.Collect(t.Context(), check.Query{Endpoints: c.Endpoints(), Dial: dial, History: s.history, Intended: c.PeerURLs(), Log: true, Hash: true})
	require.NoError(t, err)

	began := time.Now()
	host := loopback.Host() // where all three are
	journal := []sop.Record{
		{Time: began, Seq: 1, State: sop.Began},
		{Time: began, Seq: 2, Step: 1, State: sop.Recorded, Act: sop.Promote{Host: host}.String()},
		{Time: began, Seq: 3, Step: 1, State: sop.Answered, Act: sop.Promote{Host: host}.String()},
		{Time: began, Seq: 4, Step: 1, State: sop.Done},
		{Time: began, Seq: 5, State: sop.Finished},
	}
	require.NoError(t, dir.journal(journal))
	s.played = []played{{row: row{name: "addMember"}, args: []string{"addMember", host}, verdict: Pass,
		outcome: Outcome{Journal: journal, Began: began, Ended: time.Now()}, before: []string{}, after: []string{host}}}
	e.Taken = time.Now()
	s.taken = e
	if spoil != nil {
		spoil(t, s)
	}
	s.findings(t.Context(), s.taken, check.ForLoad(s.taken)...)
	s.judgeOperators(t.Context())
	s.account()
	require.NoError(t, sum.write())
	require.NoError(t, dir.keep(s.taken))
	return string(dir)
}

// What is judged again comes to what was found.
func TestCheckComesToTheSame(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		spoil  func(t *testing.T, s *stage)
		want   Verdict
		reason string
	}{
		"pass": {nil, Pass, ""},
		"a key is gone": {func(t *testing.T, s *stage) {
			for key := range s.taken.Views[1].Final {
				delete(s.taken.Views[1].Final, key)
				break
			}
		}, Violation, "acknowledged writes are missing"},
		"a voter did not answer": {func(t *testing.T, s *stage) { s.taken.Views[2].Err = "no answer" }, Unknown, "no answer"},
		"an operator failed":     {func(t *testing.T, s *stage) { s.summary.blame(Violation, "addMember: exit status 1") }, Violation, "addMember: exit status 1"},
		"the lab failed":         {func(t *testing.T, s *stage) { s.summary.blame(Infra, "take the lab down: no") }, Infra, "take the lab down: no"},
		"the lab's own check failed": {func(t *testing.T, s *stage) {
			f := Finding{Checker: "inventory-agrees", Verdict: Violation, Reason: "it lists others"}
			s.summary.Checks = append(s.summary.Checks, f)
			s.summary.blamed(f)
		}, Violation, "inventory-agrees: it lists others"},
		"the journal has a hole": {func(t *testing.T, s *stage) { s.played[0].outcome.Journal[3].Seq = 9; rewriteJournal(t, s) }, Violation, "journal-truthful"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := saveRun(t, row.spoil)
			var live Summary
			b, err := os.ReadFile(filepath.Join(dir, summaryFile))
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(b, &live))
			require.Equal(t, row.want, live.Verdict, "%v", live.Reasons)

			again, err := Check(t.Context(), dir)
			require.NoError(t, err)
			require.Equal(t, row.want, again.Verdict, "%v", again.Reasons)
			require.Equal(t, live.LostWrites, again.LostWrites)
			require.ElementsMatch(t, live.Checks, again.Checks)
			require.ElementsMatch(t, live.Reasons, again.Reasons)
			if row.reason != "" {
				require.Contains(t, strings.Join(again.Reasons, "\n"), row.reason)
			}
			names := []string{}
			for _, f := range again.Checks {
				names = append(names, f.Checker)
			}
			require.Subset(t, names, []string{"watches", "leases", "second-opinion", "votes-kept"})
		})
	}
}

func rewriteJournal(t *testing.T, s *stage) {
	t.Helper()
	require.NoError(t, os.Remove(s.dir.path(journalFile)))
	require.NoError(t, s.dir.journal(s.played[0].outcome.Journal))
}

// What is no run, of another schema, truncated, corrupt or changed is a clear
// error, and never a pass.
func TestCheckNeverPassesWhatIsNoRun(t *testing.T) {
	t.Parallel()
	good := saveRun(t, nil)
	edit := func(name string, change func(b []byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, name)
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			changed := change(slices.Clone(b))
			require.NotEqual(t, b, changed)
			require.NoError(t, os.WriteFile(path, changed, 0o644))
		}
	}
	replace := func(old, new string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }
	}
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, name))) }
	}
	// resum has evidence.json agree with what was done to another file.
	resum := func(name string, change func([]byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			was, err := runDir(dir).sum(name)
			require.NoError(t, err)
			edit(name, change)(t, dir)
			now, err := runDir(dir).sum(name)
			require.NoError(t, err)
			edit(evidenceFile, replace(was, now))(t, dir)
		}
	}
	for name, row := range map[string]struct {
		spoil    func(t *testing.T, dir string)
		sentinel error // nil where there is a verdict
		want     string
	}{
		"no run.json":                {remove(runFile), ErrNoRun, "there is no run.json in it"},
		"run of another schema":      {edit(runFile, replace(`"etcdrill_run": 1`, `"etcdrill_run": 2`)), ErrNoRun, "schema 2 in run.json, this program reads 1"},
		"run.json is no JSON":        {edit(runFile, cut(5)), ErrDamaged, "run.json"},
		"evidence of another schema": {edit(evidenceFile, replace(`"etcdrill_evidence": 1`, `"etcdrill_evidence": 7`)), ErrNoRun, "schema 7 in evidence.json, this program reads 1"},
		"evidence truncated":         {edit(evidenceFile, cut(40)), ErrDamaged, "evidence.json: unexpected end of JSON input"},
		"evidence without files":     {edit(evidenceFile, replace(`"summary.json"`, `"summary"`)), ErrDamaged, "names no summary.json"},
		"history truncated":          {edit(historyFile, cut(40)), ErrDamaged, "history.jsonl is not as it was when the run ended"},
		"history changed":            {edit(historyFile, replace(`"outcome":"ok"`, `"outcome":"no"`)), ErrDamaged, "history.jsonl is not as it was"},
		"history gone":               {remove(historyFile), ErrDamaged, "history.jsonl"},
		"events gone":                {remove(eventsFile), ErrDamaged, "events.jsonl"},
		"journal truncated":          {edit(journalFile, cut(40)), ErrDamaged, "journal.jsonl is not as it was"},
		"summary changed":            {edit(summaryFile, replace(`"seed": 4`, `"seed": 5`)), ErrDamaged, "summary.json is not as it was"},
		"history of another schema":  {resum(historyFile, replace(`"etcdrill_history":2`, `"etcdrill_history":1`)), ErrNoRun, "schema 1, this program reads 2"},
		"events of another schema":   {resum(eventsFile, replace(`"etcdrill_events":1`, `"etcdrill_events":3`)), ErrNoRun, "schema 3, this program reads 1"},
		"history corrupt":            {resum(historyFile, replace(`"outcome":"ok"`, `"outcome":"no"`)), ErrDamaged, "history is corrupt"},
		"journal of fewer":           {resum(journalFile, func([]byte) []byte { return nil }), ErrDamaged, "journal.jsonl ends before the records of addMember"},
		"cut off":                    {remove(evidenceFile), nil, "the run was cut off before its evidence was taken"},
		"cut off, history truncated": {func(t *testing.T, dir string) { remove(evidenceFile)(t, dir); edit(historyFile, cut(40))(t, dir) }, nil, "history is truncated"},
		"cut off before any load":    {func(t *testing.T, dir string) { remove(evidenceFile)(t, dir); remove(historyFile)(t, dir) }, nil, "cut off"},
		"cut off, history corrupt": {func(t *testing.T, dir string) {
			remove(evidenceFile)(t, dir)
			edit(historyFile, replace(`"outcome":"ok"`, `"outcome":"no"`))(t, dir)
		}, ErrDamaged, "history is corrupt"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			require.NoError(t, os.CopyFS(dir, os.DirFS(good)))
			row.spoil(t, dir)
			sum, err := Check(t.Context(), dir)
			require.NotEqual(t, Pass, sum.Verdict)
			if row.sentinel == nil {
				require.NoError(t, err)
				require.Equal(t, Unknown, sum.Verdict)
				require.Contains(t, strings.Join(sum.Reasons, "\n"), row.want)
				return
			}
			require.ErrorIs(t, err, row.sentinel)
			require.ErrorContains(t, err, row.want)
			require.NotEqual(t, errors.Is(err, ErrNoRun), errors.Is(err, ErrDamaged), "one or the other")
		})
	}
	_, err := Check(t.Context(), t.TempDir())
	require.ErrorIs(t, err, ErrNoRun)
	_, err = Check(t.Context(), filepath.Join(t.TempDir(), "nowhere"))
	require.ErrorIs(t, err, ErrNoRun)
}

// A violation shows in what is left of a run, too.
func TestCutOffRunCanBeAViolation(t *testing.T) {
	t.Parallel()
	dir := saveRun(t, nil)
	require.NoError(t, os.Remove(filepath.Join(dir, evidenceFile)))
	h, err := workload.ReadHistory(filepath.Join(dir, historyFile))
	require.NoError(t, err)
	i := slices.IndexFunc(h.Ops, func(o workload.Op) bool { return o.Kind == workload.Txn && o.Done })
	h.Ops[i].Expect++
	f, err := os.Create(filepath.Join(dir, historyFile))
	require.NoError(t, err)
	_, err = h.WriteTo(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	sum, err := Check(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, Violation, sum.Verdict)
	require.Contains(t, strings.Join(sum.Reasons, "\n"), "was answered wrong")
}
