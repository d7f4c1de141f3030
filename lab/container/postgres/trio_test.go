package postgres

import (
	"context"
	"crypto/rand"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// A real cluster, on a single etcd: what nobody touches passes every check, and
// what really goes wrong is seen.
func TestTrio(t *testing.T) {
	machines, vip := machinesOf(t.Context(), t, 3) // images take as long as they take
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	ca, err := pki.NewCA(rand.Reader, time.Now())
	require.NoError(t, err)
	endpoint := etcdOn(ctx, t, machines[0], ca)
	began := time.Now()
	trio, err := Up(ctx, Spec{Machines: machines, VIP: vip, Endpoints: []string{endpoint},
		CA: ca, Generation: 3, Random: rand.Reader, Clock: time.Now})
	require.NoError(t, err)
	t.Logf("up in %s", time.Since(began))
	leader := trio.instances[0]

	// watched plays something while the load runs, and gives what was seen.
	watched := func(t *testing.T, play func()) Evidence {
		t.Helper()
		load, err := trio.Load(ctx, LoadSpec{})
		require.NoError(t, err)
		watch, err := trio.Watch(ctx)
		require.NoError(t, err)
		play()
		writes := load.Stop()
		e, err := watch.Stop(ctx)
		require.NoError(t, err)
		e.Writes = writes
		e.Rows, err = trio.Rows(ctx)
		require.NoError(t, err)
		gap, _, acked := e.WriteGap(e.Began, e.Ended)
		t.Logf("%d rows, gap %s, VIP gone %v, %v", acked, gap, e.Gone(), verdicts(e))
		for _, f := range check.Judge(ctx, check.Evidence{}, e.Checkers()...) {
			if f.Err != nil {
				t.Log(f.Err)
			}
		}
		return e
	}

	t.Run("quiet", func(t *testing.T) {
		e := watched(t, func() { wait(ctx, t, 3*time.Second) })
		require.Empty(t, verdicts(e))
		require.Empty(t, e.Gone())
		require.Positive(t, e.Acked())
	})
	t.Run("vip-manager restarted", func(t *testing.T) {
		e := watched(t, func() { require.NoError(t, leader.systemctl(ctx, "restart", "vip-manager")); wait(ctx, t, time.Second) })
		require.Empty(t, verdicts(e))
		require.Len(t, e.Gone(), 1)
	})
	t.Run("row deleted", func(t *testing.T) {
		before := watched(t, func() {})
		_, err := leader.psql(ctx, "DELETE FROM public.load WHERE id = (SELECT max(id) FROM public.load);")
		require.NoError(t, err)
		before.Rows, err = trio.Rows(ctx)
		require.NoError(t, err)
		require.Equal(t, map[string]check.Verdict{"no-acked-row-lost": check.Violation}, verdicts(before))
	})
	t.Run("two holders", func(t *testing.T) {
		e := watched(t, func() {
			require.NoError(t, leader.systemctl(ctx, "stop", "vip-manager"))
			switchover(ctx, t, trio, leader.Name, trio.instances[1].Name)
			require.NoError(t, await(ctx, lookEvery, func(ctx context.Context) error { return trio.leads(ctx, trio.instances[1]) }))
			require.NoError(t, leader.systemctl(ctx, "start", "vip-manager"))
			require.NoError(t, await(ctx, lookEvery, trio.Settled))
		})
		bad := verdicts(e)
		require.Equal(t, check.Violation, bad["one-vip-holder"])
		require.Equal(t, check.Violation, bad["same-primary"])
		require.NotContains(t, bad, "vip-on-primary")
	})
}

func switchover(ctx context.Context, t *testing.T, c *Cluster, from, to string) {
	t.Helper()
	require.NoError(t, c.instances[0].Machine.Exec(ctx, nil, io.Discard,
		"patronictl", "-c", PatroniPath, "switchover", "--leader", from, "--candidate", to, "--force"))
}

func wait(ctx context.Context, t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
}

// etcdOn starts an etcd of one member on a machine, and gives its client URL.
func etcdOn(ctx context.Context, t *testing.T, m Machine, ca *pki.CA) string {
	t.Helper()
	pair, err := ca.Issue(rand.Reader, time.Now(), pki.Leaf{Name: "etcd-1", Host: m.Host(), Validity: time.Hour})
	require.NoError(t, err)
	url := "https://" + m.Host() + ":2379"
	tls := `{cert-file: /etc/etcd/server.crt, key-file: /etc/etcd/server.key, trusted-ca-file: /etc/etcd/ca.crt}`
	conf := strings.Join([]string{
		"name: etcd-1", "data-dir: /data/etcd",
		"initial-cluster: etcd-1=https://" + m.Host() + ":2380",
		"initial-advertise-peer-urls: https://" + m.Host() + ":2380", "listen-peer-urls: https://" + m.Host() + ":2380",
		"advertise-client-urls: " + url, "listen-client-urls: " + url,
		"client-transport-security: " + tls, "peer-transport-security: " + tls, "",
	}, "\n")
	unit := "[Service]\nType=notify\nExecStart=/usr/bin/etcd --config-file " + config.ConfPath + "\n"
	i := instance{Name: "etcd-1", Machine: m}
	require.NoError(t, i.install(ctx, time.Now(), []file{
		{path: "/data/etcd", owner: "root", group: "root", mode: 0o700}, {path: "/etc/etcd", owner: "root", group: "root", mode: 0o755},
		{path: config.ConfPath, owner: "root", group: "root", mode: 0o644, content: []byte(conf)},
		{path: "/etc/etcd/ca.crt", owner: "root", group: "root", mode: 0o644, content: ca.CertPEM},
		{path: "/etc/etcd/server.crt", owner: "root", group: "root", mode: 0o644, content: pair.CertPEM},
		{path: "/etc/etcd/server.key", owner: "root", group: "root", mode: 0o600, content: pair.KeyPEM},
		{path: "/etc/systemd/system/etcd.service", owner: "root", group: "root", mode: 0o644, content: []byte(unit)},
	}))
	require.NoError(t, i.systemctl(ctx, "start", "etcd.service"))
	return url
}
