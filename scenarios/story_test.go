package scenarios_test

import (
	"errors"
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/container"
	"github.com/etcdrill/etcdrill/scenarios"
)

var stories = flag.Bool("stories", false, "tell the end-to-end stories too, which take minutes each")

// The end-to-end stories, on real machines with real PostgreSQL: one after the
// other, since two of their sites are more than a small machine bears at once.
func TestStory(t *testing.T) {
	if !*stories {
		t.Skip("NOT TESTED: the stories under PostgreSQL are told with -stories")
	}
	t.Parallel()
	for _, tale := range []scenarios.Tale{scenarios.Membership(), scenarios.Trust(), scenarios.Renewal()} {
		t.Run(tale.Name, func(t *testing.T) { tell(t, tale) })
	}
}

// tell plays a story, in which nothing may happen to anybody.
func tell(t *testing.T, tale scenarios.Tale) {
	t.Helper()
	_, cache := places(t)
	sum, err := scenarios.Story(t.Context(), scenarios.StorySpec{
		Tale: tale, Executable: executable(t), Root: t.TempDir(), Cache: cache,
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
	require.Len(t, sum.Procedures, len(tale.Chapters))
	require.Len(t, d.Procedures, len(tale.Chapters))
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
