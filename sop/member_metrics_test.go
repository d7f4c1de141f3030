package sop

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A member's own words about its disk, as etcd 3.7 writes them.
func TestFsyncFromMetrics(t *testing.T) {
	const page = `# HELP etcd_disk_wal_fsync_duration_seconds The latency distributions of fsync called by WAL.
# TYPE etcd_disk_wal_fsync_duration_seconds histogram
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} 10
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.002"} 900
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.016"} 985
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.032"} 995
etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 1000
etcd_disk_wal_fsync_duration_seconds_sum 2.5
etcd_disk_wal_fsync_duration_seconds_count 1000
etcd_debugging_mvcc_watcher_total 7
`
	body, status := page, http.StatusOK
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	defer web.Close()
	m := &member{endpoint: web.URL, web: &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}} //nolint:gosec // a test's own server

	d, err := m.Fsync(t.Context())
	require.NoError(t, err)
	require.Equal(t, 16*time.Millisecond, d, "the lower bound of the bucket of the 990th")
	n, err := m.Watchers(t.Context())
	require.NoError(t, err)
	require.Equal(t, 7, n)

	body = "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 0\n"
	d, err = m.Fsync(t.Context())
	require.NoError(t, err)
	require.Zero(t, d, "no sync yet")
	_, err = m.Watchers(t.Context())
	require.ErrorContains(t, err, "number of watchers")

	body = "etcd_debugging_mvcc_watcher_total many\n"
	_, err = m.Watchers(t.Context())
	require.ErrorContains(t, err, "read metrics")
	status = http.StatusForbidden
	_, err = m.Fsync(t.Context())
	require.ErrorContains(t, err, "403")
}

// Corruption that is copied to a newcomer is found when all is done.
func TestHashesAreComparedAfterwards(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		c := g.etcd()
		c.compacted = 1
		op := g.operator()
		op.Runner.Point = func(p Point) {
			if p.Title == "promote to voter" && p.State == Answered {
				for id, e := range c.members {
					if hostPart(e.peerURL) == hosts[3] {
						c.hashes[id] = 1
					}
				}
			}
		}
		_, err := op.do(AddMember{Host: hosts[3]})
		require.ErrorContains(g.t, err, "corruption")
		require.Equal(g.t, 1, ExitStatus(err, true), "what was done is done")
	})
}

// A disk that is too slow for etcd is said aloud and stops nothing.
func TestSlowDisksAreTold(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		c := g.etcd()
		c.fsync[c.voters()[1]] = 64 * time.Millisecond
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		require.NoError(g.t, err)
		require.Contains(g.t, op.story(), "slow disk")
		require.Contains(g.t, op.story(), "64ms")

		v, err := g.operator().Site.Observe(context.Background(), Scope{AllHosts: true, Disks: true})
		require.NoError(g.t, err)
		require.Contains(g.t, ReportOf(v).Text(), "! slow disk on ")
	})
}
