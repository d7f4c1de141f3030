package workload_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/workload"
)

// All that a client can do is done, and taken down as it was.
func TestEverything(t *testing.T) {
	c := startCluster(t, 3)
	path := filepath.Join(t.TempDir(), "history.jsonl")
	log, err := workload.CreateLog(path)
	require.NoError(t, err)
	s := spec(c.Endpoints()...)
	s.Profile = workload.Everything()
	s.LeaseTTL = time.Second
	s.Timeout = patience // no call may fail for being slow, on however busy a machine
	l, err := workload.Start(t.Context(), s, log)
	require.NoError(t, err)
	// Until a lease client has seen its second lease, all has happened.
	awaitAcked(t, l, 500)
	require.NoError(t, wait(t, 6*time.Second))
	h, err := l.Stop()
	require.NoError(t, err)
	requireNothingRuns(t)

	seen := map[workload.Kind]int{}
	done, values := [2]int{}, map[string]bool{}
	for _, o := range h.Ops {
		if o.Outcome == workload.Fail {
			continue // a lease may have run out on a slow machine
		}
		require.Equal(t, workload.OK, o.Outcome, o.String()+o.Error)
		seen[o.Kind]++
		if o.Kind == workload.Txn {
			done[map[bool]int{false: 0, true: 1}[o.Done]]++
			require.Equal(t, o.Done, o.ModRevision == o.Expect, o.String())
		}
		if o.Kind == workload.Put || o.Kind == workload.Txn {
			require.False(t, values[o.Value], "value %s was written twice", o.Value)
			values[o.Value] = true
		}
		if o.Client < h.Clients {
			require.Zero(t, o.Lease)
		}
	}
	for k := workload.Put; k <= workload.Revoke; k++ {
		require.Positive(t, seen[k], k.String())
	}
	require.Positive(t, done[0])
	require.Positive(t, done[1])

	opened := make([]int, h.Watchers)
	newest := make([]int64, h.Watchers)
	progress := 0
	for _, n := range h.Notices {
		switch n.Kind {
		case workload.Opened:
			opened[n.Watcher]++
			require.LessOrEqual(t, n.From, max(newest[n.Watcher], h.StartRevision)+1)
		case workload.Progress:
			progress++
			newest[n.Watcher] = max(newest[n.Watcher], n.Revision)
		}
		for _, e := range n.Events {
			newest[n.Watcher] = max(newest[n.Watcher], e.ModRevision)
		}
	}
	last := int64(0)
	for _, o := range h.Ops {
		if o.Acked() {
			last = max(last, o.Revision)
		}
	}
	for i := range h.Watchers {
		require.Greater(t, opened[i], 1, "a watcher cuts itself off and resumes")
		require.GreaterOrEqual(t, newest[i], last, "the last write was told of")
	}
	require.Positive(t, progress)

	read, err := workload.ReadHistory(path)
	require.NoError(t, err)
	require.Equal(t, h.Ops, read.Ops)
	require.Equal(t, h.Notices, read.Notices)
	require.Equal(t, h.Profile, read.Profile)
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

// An open loop calls as often as it is told to, and what finds no room is
// turned away and not made up for later.
func TestRate(t *testing.T) {
	c := startCluster(t, 1)
	s := spec(c.Endpoints()...)
	s.Profile = workload.Profile{Clients: 4, Rate: 200}
	s.Timeout = patience
	l, err := workload.Start(t.Context(), s, nil)
	require.NoError(t, err)
	require.NoError(t, wait(t, time.Second))
	took := l.Now()
	h, err := l.Stop()
	require.NoError(t, err)
	allowed := 200*took.Seconds() + 4 + 1
	require.LessOrEqual(t, float64(len(h.Ops)), allowed, "no more than have arrived")
	require.Greater(t, len(h.Ops), 4)

	s.Prefix = "/etcdrill/other/"
	s.Profile = workload.Profile{Clients: 1, Rate: 1e6, Backlog: 1}
	l, err = workload.Start(t.Context(), s, nil)
	require.NoError(t, err)
	awaitAcked(t, l, 20)
	_, err = l.Stop()
	require.NoError(t, err)
	require.Positive(t, l.TurnedAway(), "nobody makes a million calls a second with one client")
}

const (
	envVictim    = "ETCDRILL_TEST_VICTIM_HISTORY"
	envEndpoints = "ETCDRILL_TEST_VICTIM_ENDPOINTS"
)

// TestVictim is not a test but the process that TestHistoryOutlivesSIGKILL
// kills.
func TestVictim(t *testing.T) {
	path := os.Getenv(envVictim)
	if path == "" {
		t.Skip("only as a child of TestHistoryOutlivesSIGKILL")
	}
	log, err := workload.CreateLog(path)
	require.NoError(t, err)
	s := spec(strings.Split(os.Getenv(envEndpoints), ",")...)
	s.Profile = workload.Everything()
	_, err = workload.Start(context.Background(), s, log)
	require.NoError(t, err)
	<-t.Context().Done()
}

// What was written when the load was killed is readable, a last line that was
// cut off is told apart from corruption, and no write is in the cluster whose
// call is not in the file.
func TestHistoryOutlivesSIGKILL(t *testing.T) {
	c := startCluster(t, 1)
	path := filepath.Join(t.TempDir(), "history.jsonl")
	victim := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestVictim$", "-test.timeout=2m")
	victim.Env = append(os.Environ(), envVictim+"="+path, envEndpoints+"="+strings.Join(c.Endpoints(), ","))
	require.NoError(t, victim.Start())
	t.Cleanup(func() { _ = victim.Process.Kill() })
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(path)
		return err == nil && bytes.Count(b, []byte("\n")) > 2000
	}, patience, 20*time.Millisecond)
	require.NoError(t, victim.Process.Kill())
	require.Error(t, victim.Wait())

	h, err := workload.ReadHistory(path)
	require.ErrorIs(t, err, workload.ErrTruncated)
	require.NotErrorIs(t, err, workload.ErrCorrupt)
	require.NotNil(t, h)
	require.False(t, h.Complete)
	require.Greater(t, len(h.Ops), 500)

	sent := map[string]bool{}
	for _, o := range h.Ops {
		sent[o.Value] = true
	}
	for key, value := range keys(t, c.Endpoint(0), "/etcdrill/load/") {
		require.True(t, sent[value], "%s = %s was written, and no call is in the history", key, value)
	}

	// The same file, cut anywhere: never taken for whole, never for corrupt.
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	head := bytes.IndexByte(b, '\n') + 1
	for cut := head; cut < head+3000; cut += 7 {
		_, err := workload.Read(bytes.NewReader(b[:cut]))
		require.ErrorIs(t, err, workload.ErrTruncated, "cut at %d", cut)
		require.False(t, errors.Is(err, workload.ErrCorrupt))
	}
}

// BenchmarkLog is what it costs to take down one call and its reply.
func BenchmarkLog(b *testing.B) {
	log, err := workload.CreateLog(filepath.Join(b.TempDir(), "history.jsonl"))
	require.NoError(b, err)
	b.ReportAllocs()
	workload.FillLog(log, b.N)
}

// keys are the keys and values below a prefix.
func keys(t *testing.T, endpoint, prefix string) map[string]string {
	t.Helper()
	etcd, err := workload.Dialer{}.Dial(t.Context(), endpoint)
	require.NoError(t, err)
	defer etcd.Close()
	r, err := etcd.Get(t.Context(), prefix, clientv3.WithPrefix())
	require.NoError(t, err)
	all := map[string]string{}
	for _, kv := range r.Kvs {
		all[string(kv.Key)] = string(kv.Value)
	}
	require.NotEmpty(t, all)
	return all
}

// deafened opens no watch once it is deaf: it holds the call.
type deafened struct {
	workload.Etcd
	deaf *atomic.Bool
	held chan<- struct{}
}

func (d deafened) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	if !d.deaf.Load() {
		return d.Etcd.Watch(ctx, key, opts...)
	}
	select {
	case d.held <- struct{}{}:
	default:
	}
	<-ctx.Done()
	closed := make(chan clientv3.WatchResponse)
	close(closed)
	return closed
}

// A member that is gone may hold the call that opens a watch for ever; the load
// ends all the same.
func TestWatchThatIsNeverOpened(t *testing.T) {
	c := startCluster(t, 1)
	s := spec(c.Endpoints()...)
	s.Watchers = 1
	var deaf atomic.Bool
	held := make(chan struct{}, 1)
	dial := s.Dial
	s.Dial = func(ctx context.Context, endpoint string) (workload.Etcd, error) {
		etcd, err := dial(ctx, endpoint)
		if err != nil {
			return nil, err
		}
		return deafened{etcd, &deaf, held}, nil
	}
	l, err := workload.Start(t.Context(), s, nil)
	require.NoError(t, err)
	deaf.Store(true)
	select {
	case <-held: // it cut itself off, and would resume
	case <-time.After(patience):
		t.Fatal("no watch was resumed")
	}
	ended := make(chan error, 1)
	go func() {
		_, err := l.Stop()
		ended <- err
	}()
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("the load does not end")
	}
	requireNothingRuns(t)
}
