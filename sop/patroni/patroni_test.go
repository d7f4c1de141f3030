package patroni

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// In the form of 4.0.
const primary = `{"state": "running", "postmaster_start_time": "2026-01-02 15:04:05.678901+00:00", "role": "primary", "server_version": 170005,
 "xlog": {"location": 50331648}, "timeline": 3, "replication": [{"usename": "replicator", "application_name": "pg-test-2", "client_addr": "10.10.10.22",
 "state": "streaming", "sync_state": "async", "sync_priority": 0}], "dcs_last_seen": 1767366245, "tags": {"clonefrom": true},
 "database_system_identifier": "7590000000000000000", "pending_restart": true,
 "pending_restart_reason": {"shared_buffers": {"old_value": "128MB", "new_value": "1GB"}, "max_connections": {"old_value": "100", "new_value": "200"}},
 "patroni": {"version": "4.0.7", "scope": "pg-test", "name": "pg-test-1"}}`

// In that of 3.0.
const oldReplica = `{"state": "running", "role": "replica", "server_version": 150004, "xlog": {"received_location": 1, "replayed_location": 1,
 "replayed_timestamp": null, "paused": false}, "timeline": 3, "cluster_unlocked": true, "pause": true, "dcs_last_seen": 1767366240.5, "pending_restart": true,
 "patroni": {"version": "3.0.2", "scope": "pg-test"}}`

func TestParseMember(t *testing.T) {
	m, err := ParseMember([]byte(primary))
	require.NoError(t, err)
	require.Equal(t, Member{State: "running", Role: "primary", Timeline: 3, Version: "4.0.7", Scope: "pg-test", Name: "pg-test-1",
		LastSeen: time.Unix(1767366245, 0), Pending: []string{"max_connections", "shared_buffers"}}, m)
	require.True(t, m.Leads())
	require.True(t, m.Runs())
	require.True(t, m.Fresh(time.Unix(1767366275, 0), 30*time.Second))
	require.False(t, m.Fresh(time.Unix(1767366276, 0), 30*time.Second))

	m, err = ParseMember([]byte(oldReplica))
	require.NoError(t, err)
	require.Equal(t, Member{State: "running", Role: "replica", Timeline: 3, Version: "3.0.2", Scope: "pg-test", LastSeen: time.Unix(1767366240, 0),
		Paused: true, Unlocked: true, Pending: []string{"unknown"}}, m)
	require.False(t, m.Leads())

	m, err = ParseMember([]byte(`{"state": "running", "role": "master", "patroni": {"version": "2.0.1", "scope": "x"}}`))
	require.NoError(t, err)
	require.True(t, m.Leads(), "a primary was called master")
	require.True(t, m.Fresh(time.Unix(1767366276, 0), 0), "it does not tell")

	for _, bad := range []string{``, `[]`, `{}`, `{"state": 1}`, `{"state": "running", "role": "primary"}`, `<html>502</html>`,
		`{"state": "running", "role": "primary", "timeline": -1, "patroni": {"scope": "x"}}`,
		`{"state": "running", "role": "primary", "dcs_last_seen": 1e300, "patroni": {"scope": "x"}}`} {
		_, err := ParseMember([]byte(bad))
		require.ErrorIs(t, err, ErrReply, bad)
	}
}

const cluster = `{"members": [
 {"name": "pg-test-1", "role": "leader", "state": "running", "api_url": "http://10.10.10.21:8008/patroni", "host": "10.10.10.21", "port": 5432, "timeline": 3},
 {"name": "pg-test-2", "role": "quorum_standby", "state": "streaming", "api_url": "http://10.10.10.22:8008/patroni", "host": "10.10.10.22", "port": 5432, "timeline": 3, "lag": 0},
 {"name": "pg-test-3", "role": "replica", "state": "stopped", "timeline": "unknown", "lag": "unknown"}], "scope": "pg-test"}`

func TestParseCluster(t *testing.T) {
	c, err := ParseCluster([]byte(cluster))
	require.NoError(t, err)
	require.Equal(t, Cluster{Leader: "pg-test-1", Timeline: 3, Members: []Listed{
		{"pg-test-1", "leader", "running", "10.10.10.21", 3}, {"pg-test-2", "quorum_standby", "streaming", "10.10.10.22", 3}, {"pg-test-3", "replica", "stopped", "", 0},
	}}, c)
	c, err = ParseCluster([]byte(`{"members": [], "pause": true}`))
	require.NoError(t, err)
	require.Empty(t, c.Leader)
	require.True(t, c.Paused)
	for _, bad := range []string{``, `{}`, `{"members": [{"name": "a"}]}`, `{"members": [{"name": "a", "role": "leader"}, {"name": "b", "role": "leader"}]}`} {
		_, err := ParseCluster([]byte(bad))
		require.ErrorIs(t, err, ErrReply, bad)
	}
}

// FuzzParse: no panic, and no member without scope, no cluster whose leader is
// not among its members.
func FuzzParse(f *testing.F) {
	for _, s := range []string{primary, oldReplica, cluster, `{"members": [{"name": "a", "role": "master", "timeline": null}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if m, err := ParseMember(body); err == nil && (m.Scope == "" || m.State == "") {
			t.Fatalf("%q gave %+v", body, m)
		}
		c, err := ParseCluster(body)
		found := c.Leader == ""
		for _, m := range c.Members {
			found = found || m.Name == c.Leader
		}
		if err == nil && !found {
			t.Fatalf("%q gave %+v", body, c)
		}
	})
}
