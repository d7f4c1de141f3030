package workload_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/lab/workload/loopback"
)

// patience is how long a test waits for what is bound to come.
const patience = 60 * time.Second

// TestMain sees that nothing is left of any load, client or member. Peers'
// idle HTTP connections are etcd's own and time out; gRPC does not use them.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
		goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead"))
}

// requireNothingRuns looks for the load's own goroutines only: the members run
// in this process too, and their goroutines come and go. Connections that a
// load left open would show in TestMain.
func requireNothingRuns(t *testing.T) {
	t.Helper()
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	require.NotContains(t, string(stacks), "lab/workload.(*client)")
	require.NotContains(t, string(stacks), "lab/workload.(*Log)")
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

func spec(endpoints ...string) workload.Spec {
	return workload.Spec{
		Seed:        7,
		Prefix:      "/etcdrill/load/",
		Endpoints:   workload.Fixed(endpoints...),
		Dial:        workload.Dialer{}.Dial,
		StartWithin: patience,
	}
}

// awaitAcked waits for n more acknowledged writes.
func awaitAcked(t *testing.T, l *workload.Load, n int) {
	t.Helper()
	want := l.Acked() + n
	require.Eventually(t, func() bool { return l.Acked() >= want }, patience, 5*time.Millisecond)
}

func TestLoadIsRecordedAndLeavesNothingRunning(t *testing.T) {
	c := startCluster(t, 1)
	path := filepath.Join(t.TempDir(), "history.jsonl")
	log, err := workload.CreateLog(path)
	require.NoError(t, err)
	s := spec(c.Endpoints()...)
	s.Timeout = patience // no call may fail here, on however busy a machine
	l, err := workload.Start(t.Context(), s, log)
	require.NoError(t, err)
	l.Mark("first")
	awaitAcked(t, l, 200)
	l.Mark("second")
	awaitAcked(t, l, 200)
	h, err := l.Stop()
	require.NoError(t, err)
	requireNothingRuns(t)

	require.True(t, h.Complete)
	require.Equal(t, map[string]string{c.Endpoint(0): "3.7.3"}, h.Etcd)
	require.Equal(t, 8, h.Clients)
	require.Equal(t, l.Acked(), h.Acked())
	require.Len(t, h.Marks, 2)

	values, gets := map[string]bool{}, 0
	for _, o := range h.Ops {
		require.Equal(t, workload.OK, o.Outcome, o.String())
		if o.Kind == workload.Get {
			gets++
			continue
		}
		require.False(t, values[o.Value], "value %s was written twice", o.Value)
		values[o.Value] = true
	}
	require.Positive(t, gets)

	read, err := workload.ReadHistory(path)
	require.NoError(t, err)
	require.Equal(t, h.Ops, read.Ops)
	require.Equal(t, h.Marks, read.Marks)
	require.Equal(t, h.StartRevision, read.StartRevision)

	again, err := l.Stop()
	require.NoError(t, err)
	require.Same(t, h, again)

	_, err = workload.CreateLog(path)
	require.ErrorIs(t, err, os.ErrExist)
}

func TestClientsOutliveTheLeader(t *testing.T) {
	c := startCluster(t, 3)
	l, err := workload.Start(t.Context(), spec(c.Endpoints()...), nil)
	require.NoError(t, err)
	awaitAcked(t, l, 200)
	leader := c.Leader()
	require.GreaterOrEqual(t, leader, 0)
	from := l.Now()
	c.Stop(leader)
	stopped := l.Now()
	awaitAcked(t, l, 500)
	to := l.Now()
	h, err := l.Stop()
	require.NoError(t, err)

	i := workload.Measure(h, from, to)
	t.Logf("without the leader: gap %s (client %d: %s), quiet gap %s, %d acknowledged writes",
		i.During.Longest, i.During.SlowestClient, i.During.SlowestLongest, i.Quiet.Longest, i.During.Acked)
	require.Positive(t, i.During.Longest)
	require.GreaterOrEqual(t, i.During.SlowestLongest, i.During.Longest)
	require.GreaterOrEqual(t, i.During.Acked, 500)
	for _, o := range h.Ops {
		// The stopped member was left, by all of its clients.
		if o.Call > stopped && o.Endpoint == c.Endpoint(leader) {
			require.NotEqual(t, workload.OK, o.Outcome, o.String())
		}
	}
	requireNothingRuns(t)
}

func TestUseEndpointsMovesAllClients(t *testing.T) {
	c := startCluster(t, 3)
	l, err := workload.Start(t.Context(), spec(c.Endpoint(0)), nil)
	require.NoError(t, err)
	awaitAcked(t, l, 100)
	l.UseEndpoints(nil) // says nothing, changes nothing
	l.UseEndpoints([]string{c.Endpoint(1), c.Endpoint(2)})
	moved := l.Now()
	awaitAcked(t, l, 200)
	h, err := l.Stop()
	require.NoError(t, err)
	seen, late := map[string]bool{}, map[int]bool{}
	for _, o := range h.Ops {
		if o.Call < moved {
			continue
		}
		// A client may have been about to call when it was told to move.
		if o.Endpoint == c.Endpoint(0) {
			require.False(t, late[o.Client], o.String())
			late[o.Client] = true
			continue
		}
		seen[o.Endpoint] = true
	}
	require.Equal(t, map[string]bool{c.Endpoint(1): true, c.Endpoint(2): true}, seen)
}

func TestClientsLeaveWhatIsNotListedAnyMore(t *testing.T) {
	c := startCluster(t, 3)
	var listed atomic.Value
	listed.Store(c.Endpoints()[:2])
	s := spec()
	s.Watchers, s.Refresh = 1, 10*time.Millisecond
	s.Endpoints = func() []string { return listed.Load().([]string) }
	l, err := workload.Start(t.Context(), s, nil)
	require.NoError(t, err)
	awaitAcked(t, l, 100)
	listed.Store(c.Endpoints()[1:])
	moved := l.Now()
	require.Eventually(t, func() bool { return l.Now() > moved+time.Second }, 10*time.Second, 10*time.Millisecond)
	h, err := l.Stop()
	require.NoError(t, err)

	// Nothing failed, and yet all have gone: those to whom it mattered.
	later, stayed := map[string]bool{}, 0
	for _, o := range h.Ops {
		if o.Call < moved+500*time.Millisecond {
			continue
		}
		later[o.Endpoint] = true
		if o.Endpoint == c.Endpoint(1) {
			stayed++
		}
	}
	require.NotContains(t, later, c.Endpoint(0))
	require.Positive(t, stayed, "whose endpoint is still listed stays there")
}

func TestStartSaysWhoWaitsAndWhy(t *testing.T) {
	dead := deadEndpoint(t)
	s := spec(dead)
	s.StartWithin = 200 * time.Millisecond
	path := filepath.Join(t.TempDir(), "history.jsonl")
	log, err := workload.CreateLog(path)
	require.NoError(t, err)
	_, err = workload.Start(t.Context(), s, log)
	require.ErrorContains(t, err, "start load: no endpoint answers a linearizable get: "+dead)
	require.ErrorContains(t, err, "connection refused")
}

func TestSpecIsChecked(t *testing.T) {
	for _, row := range []struct {
		change func(*workload.Spec)
		want   string
	}{
		{func(s *workload.Spec) { s.Prefix = "/load" }, `prefix "/load" does not end in a slash`},
		{func(s *workload.Spec) { s.Prefix = "/" }, `prefix "/" does not end in a slash`},
		{func(s *workload.Spec) { s.Mix = workload.Mix{Get: 1} }, "a mix without puts"},
		{func(s *workload.Spec) { s.Mix = workload.Mix{Put: 1, Txn: -1} }, "negative weight"},
		{func(s *workload.Spec) { s.Watchers = -1 }, "negative"},
		{func(s *workload.Spec) { s.Rate = -1 }, "negative"},
		{func(s *workload.Spec) { s.Backlog = 3 }, "a backlog without a rate"},
		{func(s *workload.Spec) { s.LeaseClients, s.LeaseTTL = 1, time.Millisecond }, "lease TTL 1ms is not whole seconds"},
		{func(s *workload.Spec) { s.Clients = -1 }, "negative"},
		{func(s *workload.Spec) { s.Endpoints = nil }, "no endpoints"},
		{func(s *workload.Spec) { s.Endpoints = workload.Fixed() }, "no endpoints"},
		{func(s *workload.Spec) { s.Dial = nil }, "no way to dial"},
	} {
		s := spec("http://127.0.0.1:1")
		row.change(&s)
		_, err := workload.Start(t.Context(), s, nil)
		require.ErrorContains(t, err, row.want)
	}
}

func TestEndedContextEndsTheLoad(t *testing.T) {
	c := startCluster(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	l, err := workload.Start(ctx, spec(c.Endpoints()...), nil)
	require.NoError(t, err)
	cancel()
	h, err := l.Stop()
	require.NoError(t, err)
	requireNothingRuns(t)
	for _, o := range h.Ops {
		if o.Outcome != workload.OK {
			require.Equal(t, workload.Unknown, o.Outcome, o.String())
		}
	}
}

func deadEndpoint(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(loopback.Host(), "0"))
	require.NoError(t, err)
	defer l.Close()
	return "http://" + l.Addr().String()
}

// Clients that find nobody at one endpoint do not wait there: a load over
// one dead and one living endpoint is soon under way.
func TestDeadEndpointIsPassedOver(t *testing.T) {
	c := startCluster(t, 1)
	s := spec(deadEndpoint(t), c.Endpoint(0))
	s.Timeout = patience
	l, err := workload.Start(t.Context(), s, nil)
	require.NoError(t, err)
	h, err := l.Stop()
	require.NoError(t, err)
	failed := 0
	for _, o := range h.Ops {
		if o.Outcome != workload.OK {
			failed++
			require.Equal(t, workload.Fail, o.Outcome, o.String()+" "+o.Error)
			require.Contains(t, o.Error, "connection refused")
		}
	}
	require.Equal(t, 4, failed, "each client of the dead endpoint tries it once")
}
