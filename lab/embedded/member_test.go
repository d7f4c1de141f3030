package embedded

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
	"github.com/etcdrill/etcdrill/sop/host"
)

const unitFile = `[Service]
Type=notify
ExecStart=/usr/bin/etcd --config-file /etc/etcd/etcd.conf
Restart=no
TimeoutStartSec=60
[Install]
WantedBy=multi-user.target
`

// do makes changes on a host, one after the other.
func do(t testing.TB, h host.Host, acts ...host.Act) {
	t.Helper()
	for _, a := range acts {
		require.NoError(t, h.Do(deadline(t), a), "%s on %s", a, h.Name())
	}
}

// cluster starts a member on each host and gives a client that dials in the
// lab's network.
func cluster(t testing.TB, lab *Lab, hosts []string) *clientv3.Client {
	t.Helper()
	var initial, endpoints []string
	for i, h := range hosts {
		initial = append(initial, fmt.Sprintf("etcd-%d=http://%s:2380", i+1, h))
		endpoints = append(endpoints, h+":2379")
	}
	started := make(chan error, len(hosts))
	for i, name := range hosts {
		h := lab.Host(name)
		config := fmt.Sprintf(`name: etcd-%d
data-dir: /data/etcd
listen-peer-urls: http://%[2]s:2380
listen-client-urls: http://%[2]s:2379
initial-advertise-peer-urls: http://%[2]s:2380
advertise-client-urls: http://%[2]s:2379
initial-cluster: %[3]s
initial-cluster-state: new
initial-cluster-token: lab
`, i+1, name, strings.Join(initial, ","))
		do(t, h,
			host.MakeDir{Path: "/etc/etcd", Owner: "root", Group: "root", Mode: 0o755},
			host.MakeDir{Path: "/data/etcd", Owner: "root", Group: "root", Mode: 0o700},
			host.WriteFile{Path: "/etc/etcd/etcd.conf", Content: []byte(config), Owner: "root", Group: "root", Mode: 0o644},
			host.WriteFile{Path: "/etc/systemd/system/etcd.service", Content: []byte(unitFile), Owner: "root", Group: "root", Mode: 0o644},
			host.Systemctl{Verb: host.DaemonReload},
			host.Systemctl{Verb: host.Enable, Unit: memberUnit})
		go func() {
			started <- h.Do(deadline(t), host.Systemctl{Verb: host.Start, Unit: memberUnit})
		}()
	}
	for range hosts {
		require.NoError(t, <-started)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints,
		Logger:    zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(lab.DialContext(Client)),
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func put(t testing.TB, c *clientv3.Client, key string) {
	t.Helper()
	ctx := deadline(t)
	for {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := c.Put(try, key, "v")
		cancel()
		if err == nil {
			return
		}
		require.NoError(t, pause(ctx), "%v", err)
	}
}

func TestMembers(t *testing.T) {
	lab := up(t, Spec{Hosts: hosts4[:3]})
	ctx := deadline(t)
	client := cluster(t, lab, hosts4[:3])
	put(t, client, "a")
	pid := func(h string) host.Unit {
		facts, err := lab.Host(h).Look(ctx, host.Question{Units: []string{memberUnit}, Ports: []int{2379}})
		require.NoError(t, err)
		return facts.Units[memberUnit]
	}
	require.NotZero(t, pid(hosts4[0]).PID)

	// One killed, stopped, cut off or without power: the others go on.
	require.NoError(t, lab.Member(ctx, hosts4[0], syscall.SIGSTOP))
	put(t, client, "b")
	require.NoError(t, lab.Member(ctx, hosts4[0], syscall.SIGCONT))
	require.NoError(t, lab.Member(ctx, hosts4[0], syscall.SIGKILL))
	put(t, client, "c")
	for u := pid(hosts4[0]); u.Runs(); u = pid(hosts4[0]) {
		require.NoError(t, pause(ctx))
	}
	do(t, lab.Host(hosts4[0]), host.Systemctl{Verb: host.Start, Unit: memberUnit})
	for _, h := range hosts4[:2] {
		require.NoError(t, lab.Link(ctx, hosts4[2], h, netswitch.Rule{Cut: true}))
		require.NoError(t, lab.Link(ctx, h, hosts4[2], netswitch.Rule{Cut: true}))
	}
	put(t, client, "d")
	done, err := lab.HealLinks(ctx)
	require.NoError(t, err)
	require.Len(t, done, 4)
	require.NoError(t, lab.Power(ctx, hosts4[1], false))
	put(t, client, "e")
	require.NoError(t, lab.Power(ctx, hosts4[1], true))
	for u := pid(hosts4[1]); u.Active != "active"; u = pid(hosts4[1]) {
		require.NoError(t, pause(ctx))
	}
	put(t, client, "f")
	got, err := client.Get(ctx, "a", clientv3.WithRange("g"))
	require.NoError(t, err)
	require.Len(t, got.Kvs, 6)

	// All lost at once, and back.
	for _, h := range hosts4[:3] {
		require.NoError(t, lab.Power(ctx, h, false))
	}
	for _, h := range hosts4[:3] {
		require.NoError(t, lab.Power(ctx, h, true))
	}
	put(t, client, "g")
	got, err = client.Get(ctx, "a", clientv3.WithRange("h"))
	require.NoError(t, err)
	require.Len(t, got.Kvs, 7)
}

// BenchmarkFirstWrite is the time from nothing to a lab whose cluster of three
// has taken a write.
func BenchmarkFirstWrite(b *testing.B) {
	dir := root(b)
	for b.Loop() {
		lab, err := Up(deadline(b), Spec{Root: dir, Hosts: hosts4[:3]})
		require.NoError(b, err)
		put(b, cluster(b, lab, hosts4[:3]), "a")
		b.StopTimer()
		require.NoError(b, lab.Down(deadline(b)))
		b.StartTimer()
	}
}
