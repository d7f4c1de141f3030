package scenarios_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/container"
	"github.com/etcdrill/etcdrill/scenarios"
)

// The end-to-end story, on real machines with real PostgreSQL.
func TestStory(t *testing.T) {
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	sum, err := scenarios.Story(t.Context(), scenarios.StorySpec{
		Executable: executable(t), Root: t.TempDir(), Cache: filepath.Join(cache, "etcdrill", "images"),
		Out: keep(t), Path: os.Getenv("PATH"), Seed: 11, Report: os.Stderr,
	})
	if errors.Is(err, container.ErrNoDocker) {
		t.Skipf("NOT TESTED: %v", err)
	}
	require.NoError(t, err)
	require.Equal(t, scenarios.Pass, sum.Verdict, sum.Reasons)
	require.Zero(t, sum.LostWrites)
	require.Positive(t, sum.AckedWrites)
	d := sum.Database
	require.NotNil(t, d)
	require.Positive(t, d.AckedRows)
	require.Zero(t, d.LostRows)
	require.Zero(t, d.VIPTwiceMS)
	require.Equal(t, 1, d.Timeline, "nobody was ever promoted but the first primary")
	require.Positive(t, d.VIPGoneTimes, "vip-manager was restarted on the primary, and takes the address away for that")
	require.Len(t, d.Procedures, len(sum.Procedures))
	for _, p := range d.Procedures {
		require.Positive(t, p.AckedRows, p.Name)
		require.Positive(t, p.MaxWriteGapMS, p.Name)
	}
	checks := map[string]scenarios.Verdict{}
	for _, c := range sum.Checks {
		checks[c.Checker] = c.Verdict
	}
	for _, name := range []string{"no-acked-row-lost", "same-primary", "one-vip-holder", "vip-on-primary", "no-acked-write-lost", "membership-agrees"} {
		require.Equal(t, scenarios.Pass, checks[name], "%s was looked at", name)
	}
}
