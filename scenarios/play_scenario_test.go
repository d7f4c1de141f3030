package scenarios

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/fault"
)

func playSpec(t *testing.T) PlaySpec {
	t.Helper()
	return PlaySpec{Executable: testBinary(t), Root: t.TempDir(), Out: t.TempDir(), Seed: 1}
}

func named(t *testing.T, name string) Scenario {
	t.Helper()
	all, err := All("", 0)
	require.NoError(t, err)
	i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name })
	require.GreaterOrEqual(t, i, 0, "there is no scenario %s", name)
	return all[i]
}

// A scenario passes, leaves no fault behind, and tells what it did; and by an
// operator who is wrong it does not pass.
func TestPlay(t *testing.T) {
	t.Parallel()
	spec := playSpec(t)
	sc := named(t, "remove-reply-lost")
	r := Play(t.Context(), sc, spec)
	require.Equal(t, Pass, r.Verdict, "%v", r.Reasons)
	require.Len(t, r.Strikes, 1)
	require.Equal(t, Pass, r.Strikes[0].Verdict)
	require.Equal(t, "remove member", r.Strikes[0].Step)
	require.NotZero(t, r.Summary.AckedWrites)
	states := map[string]bool{}
	for _, m := range r.Points {
		states[string(m.State)] = true
	}
	for _, s := range []string{"began", "recorded", "applied", "sent", "answered", "done"} {
		require.True(t, states[s], "no moment %s", s)
	}
	left, err := os.ReadDir(spec.Root)
	require.NoError(t, err)
	for _, e := range left {
		require.True(t, strings.HasPrefix(e.Name(), "."), "lab %s is left", e.Name())
	}

	sc.Mutant = "timeout-is-failure"
	r = Play(t.Context(), sc, spec)
	require.Equal(t, Violation, r.Verdict, "%v", r.Reasons)
	require.Contains(t, strings.Join(r.Reasons, "\n"), "exit status 1")
}

// A strike at a step that does not come proves nothing, and is no pass.
func TestPlayNeverStruck(t *testing.T) {
	t.Parallel()
	spec := playSpec(t)
	sc := Scenario{Name: "x", Suites: []string{"reload"}, Tier: PR, Quiet: true, Procedure: "reloadConfig", Ending: completes(),
		Strikes: []Strike{at(before("restart etcd"), fault.Kill(fault.Leader))}}
	r := Play(t.Context(), sc, spec)
	require.Equal(t, Unknown, r.Verdict, "%v", r.Reasons)
	require.Contains(t, strings.Join(r.Reasons, "\n"), "never struck")
	require.Equal(t, Skipped, r.Strikes[0].Verdict)

	// A lab that cannot suffer a fault skips it, aloud.
	sc.Strikes = []Strike{from(fault.DiskFull(fault.Leader))}
	r = Play(t.Context(), sc, spec)
	require.Equal(t, Skipped, r.Verdict)
	require.Contains(t, r.Reasons[0], "its disks are sound")
	res := SuiteResult{Results: []Result{r}}
	res.finish(r.Summary.Began)
	require.Equal(t, Unknown, res.Verdict)
	_, err := os.Stat(filepath.Join(r.Dir, "summary.json"))
	require.NoError(t, err)
}
