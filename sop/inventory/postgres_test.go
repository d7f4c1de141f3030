package inventory

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const withPostgres = `all:
  vars: { admin_ip: 10.10.10.9, patroni_port: 8009, prometheus_sd_dir: /srv/targets }
  children:
    infra: { hosts: { 10.10.10.10: { infra_seq: 1 } } }
    etcd: { hosts: { 10.10.10.10: { etcd_seq: 1 }, 10.10.10.11: { etcd_seq: 2 }, 10.10.10.12: { etcd_seq: 3 } } }
    pg-meta:
      hosts: { 10.10.10.10: { pg_seq: 1, pg_role: primary } }
      vars: { pg_cluster: pg-meta, pg_vip_enabled: true, pg_vip_address: 10.10.10.2/24 }
    pg-test:
      hosts:
        10.10.10.21: { pg_seq: 1, pg_role: primary, patroni_ssl_enabled: yes, ansible_user: dba }
        10.10.10.22: { pg_seq: 2, pg_role: replica, patroni_port: 8010 }
      vars: { pg_cluster: pg-test, pg_vip_address: 10.10.10.3/24 }
    pg-bare: { hosts: { 10.10.10.31: { pg_role: primary } } }
    pg-grouped: { hosts: { 10.10.10.32: } , vars: { pg_cluster: pg-g, pg_vip_enabled: true, pg_vip_address: soon } }
    minio: { hosts: { 10.10.10.40: { minio_seq: 1 }, 10.10.10.22: { minio_seq: 2 } } }
`

func TestPostgresHosts(t *testing.T) {
	v, err := Parse("pigsty.yml", []byte(withPostgres))
	require.NoError(t, err)
	g, err := v.Group("etcd")
	require.NoError(t, err)
	require.Equal(t, []Postgres{
		{Host: "10.10.10.10", Cluster: "pg-meta", Role: "primary", Port: 8009, VIP: "10.10.10.2"},
		{Host: "10.10.10.21", Cluster: "pg-test", Role: "primary", Port: 8009, TLS: true},
		{Host: "10.10.10.22", Cluster: "pg-test", Role: "replica", Port: 8010},
		{Host: "10.10.10.31", Cluster: "pg-bare", Role: "primary", Port: 8009},
		{Host: "10.10.10.32", Cluster: "pg-g", Port: 8009},
	}, g.Postgres)
	require.Equal(t, []string{"/srv/targets/etcd", "/infra/targets/etcd"}, g.TargetDirs)
	require.Equal(t, []string{"10.10.10.9", "10.10.10.21", "10.10.10.22", "10.10.10.31", "10.10.10.32"}, g.Clients(), "hosts of the group are none")
	require.Equal(t, "10.10.10.21", g.Others[1].Name)
	require.Equal(t, "dba", g.Others[1].SSHUser, "how they are reached is the inventory's to say")
	_, ok := g.PostgresOn("10.10.10.40")
	require.False(t, ok)
	p, ok := g.PostgresOn("10.10.10.22")
	require.True(t, ok)
	require.Equal(t, "pg-test", p.Cluster)
}

// pg_cluster for all makes no PostgreSQL host of every machine.
func TestPostgresOfAll(t *testing.T) {
	v, err := Parse("x.yml", []byte("all: { vars: { pg_cluster: x, prometheus_sd_dir: '{{ y }}' }, children: { etcd: { hosts: { 10.0.0.1: { etcd_seq: 1 } } }, redis: { hosts: { 10.0.0.2: } } } }"))
	require.NoError(t, err)
	g, err := v.Group("etcd")
	require.NoError(t, err)
	require.Empty(t, g.Postgres)
	require.Empty(t, g.Clients())
	require.Equal(t, []string{"/etc/prometheus/targets/etcd", "/infra/targets/etcd"}, g.TargetDirs)
}
