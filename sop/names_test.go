package sop

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// inventoryOf is an inventory of a group with these hosts.
func inventoryOf(group, cluster string, names ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "    %s:\n      hosts:\n", group)
	for i, h := range names {
		fmt.Fprintf(&b, "        %q: { etcd_seq: %d }\n", h, i+1)
	}
	fmt.Fprintf(&b, "      vars: { etcd_cluster: %s }\n", cluster)
	return b.String()
}

// members tells the members by host, in the order of their hosts.
func (g *ground) members() []string { return strings.Split(g.roles(), ", ") }

// Hosts by name: what is advertised and certified is the name, what is listened
// on is an address.
func TestHostsByName(t *testing.T) {
	names := []string{"db-1.example", "db-2.example", "db-3.example", "db-4.example"}
	bubble(t, 3, func(g *ground) {
		for i, n := range names {
			m := g.w.machine(n)
			m.addrs = map[string]bool{fmt.Sprintf("10.10.10.%d", 11+i): true, fmt.Sprintf("192.0.2.%d", 11+i): true}
		}
		g.w.machine(names[2]).addrs = map[string]bool{"192.0.2.99": true, "198.51.100.7": true} // none is the name's
		g.write("all:\n  children:\n" + inventoryOf("etcd", "etcd", names[:3]...))
		resolve := func(op *operator) *operator {
			op.Site.Resolve = func(_ context.Context, name string) ([]string, error) {
				for i, n := range names {
					if n == name {
						return []string{"203.0.113.1", fmt.Sprintf("10.10.10.%d", 11+i)}, nil
					}
				}
				return nil, fmt.Errorf("no such host %s", name)
			}
			return op
		}
		op := resolve(g.operator())
		_, err := op.do(g.create())
		require.NoError(g.t, err, op.story())
		settle := resolve(g.operator())
		g.settle()
		_, err = settle.do(AddMember{Host: names[3]})
		require.NoError(g.t, err, settle.story())
		require.Equal(g.t, []string{"db-1.example etcd-1 voter", "db-2.example etcd-2 voter", "db-3.example etcd-3 voter", "db-4.example etcd-4 voter"}, g.members())
		require.Contains(g.t, g.read(), "db-4.example")
		for i, n := range names {
			c, err := config.ParseMember(g.w.machines[n].file(config.ConfPath).Content)
			require.NoError(g.t, err)
			require.Equal(g.t, "https://"+n+":2380", c.PeerURL)
			require.Equal(g.t, "https://"+n+":2379", c.ClientURL)
			if i == 2 {
				require.Empty(g.t, c.ListenPeer, "all addresses")
				require.Contains(g.t, string(g.w.machines[n].file(config.ConfPath).Content), `listen-client-urls: "https://0.0.0.0:2379"`)
				continue
			}
			require.Equal(g.t, []string{fmt.Sprintf("https://10.10.10.%d:2380", 11+i)}, c.ListenPeer)
			require.Equal(g.t, []string{fmt.Sprintf("https://10.10.10.%d:2379", 11+i), "https://127.0.0.1:2379"}, c.ListenClient)
			p, err := pki.Dir(g.dir + "/files/pki").LoadPair(fmt.Sprintf("etcd-%d", i+1))
			require.NoError(g.t, err)
			require.True(g.t, pki.IssuedTo(p.CertPEM, n))
		}
		last := resolve(g.operator())
		_, err = last.do(RemoveMember{Host: names[0], Stamp: stampNow()})
		require.NoError(g.t, err, last.story())
		require.Len(g.t, g.members(), 3)
		v, err := resolve(g.operator()).Site.Observe(context.Background(), Scope{AllHosts: true})
		require.NoError(g.t, err)
		require.Empty(g.t, ReportOf(v).Findings)
	})
}

// IPv6 addresses, in whatever spelling.
func TestHostsByIPv6(t *testing.T) {
	names := []string{"fd00:0::11", "fd00::12", "fd00::13"}
	bubble(t, 3, func(g *ground) {
		g.w.machines["fd00::11"] = g.w.machine(names[0])
		g.write("all:\n  children:\n" + inventoryOf("etcd", "etcd", names...))
		g.must(g.create())
		g.settle()
		g.must(AddMember{Host: "fd00::14"})
		require.Equal(g.t, []string{"fd00::11 etcd-1 voter", "fd00::12 etcd-2 voter", "fd00::13 etcd-3 voter", "fd00::14 etcd-4 voter"}, g.members())
		env := string(g.w.machines["fd00::14"].file(config.EnvPath).Content)
		require.Contains(g.t, env, `ETCDCTL_ENDPOINTS="https://[fd00::11]:2379,https://[fd00::12]:2379,https://[fd00::13]:2379,https://[fd00::14]:2379"`)
		conf := string(g.w.machines["fd00::14"].file(config.ConfPath).Content)
		require.Contains(g.t, conf, `listen-peer-urls: "https://[fd00::14]:2380"`)
		require.Contains(g.t, conf, "etcd-1=https://[fd00::11]:2380")
		g.must(RemoveMember{Host: "fd00::12", Stamp: stampNow()})
		require.Len(g.t, g.members(), 3)
		require.NotContains(g.t, g.read(), "fd00::12")
		require.Contains(g.t, g.read(), "fd00:0::11")
	})
}

// Two clusters of one inventory leave each other alone.
func TestSeveralGroups(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.write("all:\n  children:\n" + inventoryOf("etcd", "etcd", hosts[0]) + inventoryOf("etcd-b", "etcd-b", hosts[1], hosts[2], hosts[3]))
		in := func(group string) *operator {
			op := g.operator()
			op.Site.Group = group
			return op
		}
		run := func(group string, p Procedure) {
			g.t.Helper()
			op := in(group)
			_, err := op.do(p)
			require.NoError(g.t, err, op.story())
			g.settle()
		}
		run("etcd", g.create())
		run("etcd-b", g.create())
		before, err := os.ReadFile(g.dir + "/.etcdrill/cluster-id.etcd")
		require.NoError(g.t, err)
		first := g.w.machines[hosts[0]].dump(func(_ *machine, p string, n *node) string { return p + string(n.content) })
		run("etcd-b", AddMember{Host: hosts[4]})
		run("etcd-b", RemoveMember{Host: hosts[2], Stamp: stampNow()})
		v, err := in("etcd-b").Site.Observe(context.Background(), Scope{AllHosts: true})
		require.NoError(g.t, err)
		require.Empty(g.t, ReportOf(v).Findings)
		require.Len(g.t, v.Voters(), 3)
		m, ok := v.At(hosts[4])
		require.True(g.t, ok)
		require.Equal(g.t, "etcd-b-4", m.Name)
		require.Equal(g.t, first, g.w.machines[hosts[0]].dump(func(_ *machine, p string, n *node) string { return p + string(n.content) }))
		after, err := os.ReadFile(g.dir + "/.etcdrill/cluster-id.etcd")
		require.NoError(g.t, err)
		require.Equal(g.t, before, after)

		// A host of the other cluster is not taken.
		op := in("etcd")
		_, err = op.do(AddMember{Host: hosts[1]})
		require.ErrorIs(g.t, err, ErrRefused)
		require.ErrorContains(g.t, err, "cluster ID mismatch")
		// What was removed from one was not removed from the other.
		v, err = in("etcd").Site.Observe(context.Background(), Scope{AllHosts: true})
		require.NoError(g.t, err)
		require.Empty(g.t, v.Admin.Removed)
	})
}
