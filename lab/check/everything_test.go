package check_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// Everything that clients can do, while the leader is stopped twice and comes
// back: all checkers find it right, and each of them had something to judge.
func TestEverythingOnRealMembers(t *testing.T) {
	c := startCluster(t, 3)
	profile := workload.Everything()
	profile.LeaseTTL = time.Second
	l, err := workload.Start(t.Context(), workload.Spec{
		Seed: 9, Prefix: prefix, Endpoints: workload.Fixed(c.Endpoints()...), Dial: workload.Dialer{}.Dial, StartWithin: patience, Profile: profile,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { l.Stop() })
	for range 2 {
		awaitAcked(t, l, 300)
		leader := -1
		require.Eventually(t, func() bool { leader = c.Leader(); return leader >= 0 }, patience, 5*time.Millisecond)
		c.Stop(leader)
		awaitAcked(t, l, 300)
		require.NoError(t, c.Restart(t.Context(), leader))
		require.NoError(t, wait(t, 2*time.Second)) // leases end in their own time
	}
	h, err := l.Stop()
	require.NoError(t, err)
	e := collect(t, c, h)
	require.NotNil(t, e.Log, e.LogErr)
	require.Equal(t, h.StartRevision+1, e.Log.From)
	requireAllPass(t, e)

	unknown, gone := 0, 0
	for _, o := range h.Ops {
		if o.Outcome == workload.Unknown {
			unknown++
		}
	}
	deletes := map[int64]bool{}
	for _, o := range h.Ops {
		if o.Outcome == workload.OK && (o.Kind == workload.Delete || o.Kind == workload.Revoke) {
			deletes[o.Revision] = true
		}
	}
	for _, x := range e.Log.Events {
		if x.Deleted && !deletes[x.ModRevision] {
			gone++
		}
	}
	t.Logf("%d operations, %d of unknown outcome, %d notices, %d events, %d keys whose lease ran out", len(h.Ops), unknown, len(h.Notices), len(e.Log.Events), gone)

	// The load's own record is as good as a log, as far as it goes.
	e.Log = nil
	for _, f := range check.Judge(t.Context(), e, check.Linearizable(), check.Leases(), check.Watches(), check.SecondOpinion()) {
		require.NoError(t, f.Err, f.Checker)
	}
}

func wait(t *testing.T, d time.Duration) error {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.Context().Done():
		return t.Context().Err()
	}
}
