package check_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/lab/workload/loopback"
)

// patience is how long a test waits for what is bound to come.
const patience = 60 * time.Second

// TestMain sees that nothing is left of any load, query or member. Peers'
// idle HTTP connections are etcd's own and time out; gRPC does not use them.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
		goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead"))
}

func startCluster(t *testing.T, n int) *loopback.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := loopback.Start(ctx, t.TempDir(), loopback.Host(), t.Name(), n)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func startLoad(t *testing.T, c *loopback.Cluster) *workload.Load {
	t.Helper()
	l, err := workload.Start(t.Context(), workload.Spec{
		Seed: 5, Prefix: prefix, Endpoints: workload.Fixed(c.Endpoints()...), Dial: workload.Dialer{}.Dial, StartWithin: patience,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { l.Stop() })
	return l
}

func awaitAcked(t *testing.T, l *workload.Load, n int) {
	t.Helper()
	want := l.Acked() + n
	require.Eventually(t, func() bool { return l.Acked() >= want }, patience, 5*time.Millisecond)
}

func dial(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	etcd, err := workload.Dialer{}.Dial(t.Context(), endpoint)
	require.NoError(t, err)
	t.Cleanup(func() { etcd.Close() })
	return etcd.(*clientv3.Client)
}

func collect(t *testing.T, c *loopback.Cluster, h *workload.History) check.Evidence {
	t.Helper()
	e, err := check.Collect(t.Context(), check.Query{
		Endpoints: c.Endpoints(), Dial: workload.Dialer{}.Dial, History: h, Intended: c.PeerURLs(), Log: true, Hash: true, Timeout: patience,
	})
	require.NoError(t, err)
	return e
}

func requireAllPass(t *testing.T, e check.Evidence) {
	t.Helper()
	for _, f := range check.Judge(t.Context(), e, check.For(e)...) {
		require.NoError(t, f.Err, f.Checker)
	}
}

// The leader is stopped and comes back; nothing is lost.
func TestLeaderStopped(t *testing.T) {
	c := startCluster(t, 3)
	l := startLoad(t, c)
	awaitAcked(t, l, 200)
	leader := c.Leader()
	require.GreaterOrEqual(t, leader, 0)
	l.Mark("leader stops")
	c.Stop(leader)
	awaitAcked(t, l, 300)
	l.Mark("leader starts")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, c.Restart(ctx, leader))
	awaitAcked(t, l, 300)
	h, err := l.Stop()
	require.NoError(t, err)

	e := collect(t, c, h)
	requireAllPass(t, e)
	lost, err := check.Lost(e)
	require.NoError(t, err)
	require.Empty(t, lost)
	require.Len(t, e.Views, 3)
	require.Len(t, e.Views[0].Final, 64, "8 clients with 8 keys each")
	for _, s := range workload.StepGaps(h) {
		t.Logf("%s: gap %s, client %d alone %s, %d acknowledged writes", s.Name, s.Longest, s.SlowestClient, s.SlowestLongest, s.Acked)
		require.Positive(t, s.Longest)
	}
}

func TestLossIsSeenOnRealMembers(t *testing.T) {
	c := startCluster(t, 1)
	l := startLoad(t, c)
	awaitAcked(t, l, 200)
	h, err := l.Stop()
	require.NoError(t, err)

	requireAllPass(t, collect(t, c, h))

	// Somebody overwrites a key behind the load's back.
	client := dial(t, c.Endpoint(0))
	_, err = client.Put(t.Context(), prefix+"c0/k0", "from elsewhere")
	require.NoError(t, err)
	require.ErrorIs(t, check.NoAckedWriteLost().Check(t.Context(), collect(t, c, h)), check.ErrViolation)

	// Somebody deletes one.
	_, err = client.Delete(t.Context(), prefix+"c0/k0")
	require.NoError(t, err)
	err = check.NoAckedWriteLost().Check(t.Context(), collect(t, c, h))
	var lost *check.LostError
	require.True(t, errors.As(err, &lost), "%v", err)
	for _, o := range lost.Writes {
		require.Equal(t, prefix+"c0/k0", o.Key)
	}
}

func TestSilentMemberLeavesChecksUndecided(t *testing.T) {
	c := startCluster(t, 3)
	l := startLoad(t, c)
	h, err := l.Stop()
	require.NoError(t, err)

	stopped := (max(c.Leader(), 0) + 1) % 3
	c.Stop(stopped)
	e := collect(t, c, h)
	require.Contains(t, e.Views[stopped].Err, "connection refused")
	for _, f := range check.Judge(t.Context(), e, check.NoAckedWriteLost(), check.HashesAgree(), check.MembershipAgrees()) {
		require.Equal(t, check.Undecided, f.Verdict, "%s: %v", f.Checker, f.Err)
	}
	require.NoError(t, check.Linearizable().Check(t.Context(), e), "it needs no member")
}

func TestLearnerLeftBehindIsSeen(t *testing.T) {
	c := startCluster(t, 1)
	l := startLoad(t, c)
	h, err := l.Stop()
	require.NoError(t, err)
	client := dial(t, c.Endpoint(0))
	_, err = client.MemberAddAsLearner(t.Context(), []string{"http://127.0.0.1:1"})
	require.NoError(t, err)
	err = check.MembershipAgrees().Check(t.Context(), collect(t, c, h))
	require.ErrorIs(t, err, check.ErrViolation)
	require.ErrorContains(t, err, "is a learner in the list of")
	require.ErrorContains(t, err, "has not started")
	require.ErrorContains(t, err, "were intended")
}

func TestCollectIsChecked(t *testing.T) {
	h := &workload.History{}
	dial := workload.Dialer{}.Dial
	for _, row := range []struct {
		query check.Query
		want  string
	}{
		{check.Query{Dial: dial, History: h}, "no endpoints"},
		{check.Query{Endpoints: []string{"http://127.0.0.1:1"}, History: h}, "no way to dial"},
		{check.Query{Endpoints: []string{"http://127.0.0.1:1"}, Dial: dial}, "no history"},
	} {
		_, err := check.Collect(t.Context(), row.query)
		require.EqualError(t, err, "collect evidence: "+row.want)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := check.Collect(ended, check.Query{Endpoints: []string{"http://127.0.0.1:1"}, Dial: dial, History: h})
	require.ErrorIs(t, err, context.Canceled)
}

// A long history is told in parts: all of it, once and in order, and what a
// compaction left of it.
func TestLogIsWholeAcrossItsParts(t *testing.T) {
	c := startCluster(t, 1)
	client := dial(t, c.Endpoint(0))
	first, err := client.Get(t.Context(), prefix)
	require.NoError(t, err)
	h := &workload.History{}
	h.Prefix, h.StartRevision = prefix, first.Header.Revision

	const writers, each, partOf = 50, 90, 2000 // some parts, and not one
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				_, err := client.Put(t.Context(), fmt.Sprintf("%sw%d/k%d", prefix, w, i%3), fmt.Sprint(i))
				assert.NoError(t, err)
			}
		})
	}
	writing.Wait()
	for _, compacted := range []int64{0, 7, partOf, partOf + 1} {
		if compacted > 0 {
			_, err := client.Compact(t.Context(), h.StartRevision+compacted)
			require.NoError(t, err)
		}
		e, err := check.Collect(t.Context(), check.Query{Endpoints: c.Endpoints(), Dial: workload.Dialer{}.Dial, History: h, Log: true, Timeout: patience})
		require.NoError(t, err)
		require.NotNil(t, e.Log, e.LogErr)
		require.Equal(t, h.StartRevision+compacted+1, e.Log.From)
		require.Equal(t, h.StartRevision+writers*each, e.Log.To)
		require.EqualValues(t, writers*each-compacted, len(e.Log.Events))
		for i, x := range e.Log.Events {
			require.Equal(t, e.Log.From+int64(i), x.ModRevision)
		}
	}
}
