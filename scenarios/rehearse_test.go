package scenarios_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/scenarios"
)

func TestRehearseAddMember(t *testing.T) {
	sum, err := scenarios.Rehearse(t.Context(), scenarios.RehearseSpec{
		Inventory: []byte(three), Args: []string{"addMember", "10.10.10.13", "-rehearse=true"},
		Executable: executable(t), Root: t.TempDir(), Out: keep(t), Seed: 3, Report: os.Stderr,
	})
	require.NoError(t, err)
	require.Equal(t, scenarios.Pass, sum.Verdict, sum.Reasons)
	require.Zero(t, sum.LostWrites)
	require.Positive(t, sum.AckedWrites)
	require.Len(t, sum.Procedures, 2)
	add := sum.Procedures[1]
	require.True(t, add.UnderLoad)
	require.NotEmpty(t, add.Steps)
	require.Contains(t, titles(add.Steps), "promote to voter")
}

func TestRehearse(t *testing.T) {
	for name, args := range map[string][]string{
		"create":   {"createCluster"},
		"rebuild":  {"createCluster", "-clean=true"},
		"destroy":  {"destroyCluster", "-confirm=cafe"},
		"purge":    {"purgeCluster"},
		"snapshot": {"snapshot", "/nowhere/x.db"},
		"reload":   {"reloadConfig", "-only=10.10.10.11"},
	} {
		t.Run(name, func(t *testing.T) {
			sum, err := scenarios.Rehearse(t.Context(), scenarios.RehearseSpec{
				Inventory: []byte(three), Args: args,
				Executable: executable(t), Root: t.TempDir(), Out: keep(t), Seed: 3, Report: os.Stderr,
			})
			require.NoError(t, err)
			require.Equal(t, scenarios.Pass, sum.Verdict, sum.Reasons)
			require.Zero(t, sum.LostWrites)
			require.Positive(t, sum.AckedWrites)
		})
	}
}

func titles(steps []scenarios.Step) []string {
	var all []string
	for _, s := range steps {
		all = append(all, s.Title)
	}
	return all
}
