package sop

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/config"
)

func (g *ground) plain() *operator {
	op := g.operator()
	op.plain = true
	return op
}

// Without root, status and -plan refuse nothing and claim nothing of what they
// could not see.
func TestPlanWithoutRoot(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		op := g.plain()
		plan, v, err := op.Runner.Explain(context.Background(), AddMember{Host: hosts[3]})
		require.NoError(g.t, err)
		require.Empty(g.t, plan.Objections(v))
		text := plan.Text(v)
		require.NotContains(g.t, text, "would refuse")
		require.Regexp(g.t, `\? certificates: /etc/etcd/server.crt on 10.10.10.1[123] is not known without root; a run looks at it before it changes anything\n`, text)
		require.Contains(g.t, text, "? quota: /etc/etcd/etcd.conf on ")
		require.Contains(g.t, text, "   ? 10.10.10.11     refresh etcd.conf\n")
		require.Contains(g.t, text, "   = 10.10.10.14     install etcd\n", "what can be seen is told")

		// The plan is the one that root sees.
		full, rv, err := g.operator().Runner.Explain(context.Background(), AddMember{Host: hosts[3]})
		require.NoError(g.t, err)
		require.Equal(g.t, full.Digest(rv), plan.Digest(v))

		// What can be seen still refuses.
		g.w.machines[hosts[3]].listeners[2379] = "consul"
		plan, v, err = g.plain().Runner.Explain(context.Background(), AddMember{Host: hosts[3]})
		require.NoError(g.t, err)
		require.Contains(g.t, plan.Text(v), "! blank-host would refuse now: port 2379 is taken by consul")
		require.Len(g.t, plan.Objections(v), 1)

		for _, p := range []Procedure{RemoveMember{Host: hosts[2], Stamp: stampNow()}, Restart{}, ReloadConfig{}, DestroyCluster{Stamp: stampNow()}, PurgeCluster{}, Snapshot{File: g.dir + "/x.db"}, InstallClientEnv{}, g.create()} {
			plan, v, err := g.plain().Runner.Explain(context.Background(), p)
			require.NoError(g.t, err, "%s", p)
			for _, o := range plan.Objections(v) {
				require.Equal(g.t, "spare", o.Safeguard, "%s", p) // from three to two, whoever asks
			}
		}
	})
}

func TestStatusWithoutRoot(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		m := g.w.machines[hosts[1]]
		m.files[config.ServerCertPath].content = []byte("broken") // which cannot be seen
		v, err := g.plain().Site.Observe(context.Background(), Scope{AllHosts: true})
		require.NoError(g.t, err)
		r := ReportOf(v)
		require.Empty(g.t, r.Findings)
		require.Len(g.t, r.Unknown, 3)
		require.Equal(g.t, "not known without root on 10.10.10.11: /data/etcd, /etc/etcd, /etc/etcd/ca.crt, /etc/etcd/etcd.conf, /etc/etcd/server.crt, /etc/etcd/server.key", r.Unknown[0])
		require.Contains(g.t, r.Text(), "\n? not known without root on 10.10.10.12: ")
		v, err = g.operator().Site.Observe(context.Background(), Scope{AllHosts: true})
		require.NoError(g.t, err)
		require.Contains(g.t, strings.Join(ReportOf(v).Findings, "\n"), "certificates: ")
		require.Empty(g.t, ReportOf(v).Unknown)
	})
}

// A run is not content with not knowing.
func TestRunWithoutRoot(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		op := g.plain()
		r := g.refusal(op, AddMember{Host: hosts[3]}, "certificates")
		require.Contains(g.t, r.Found, "/etc/etcd/server.crt cannot be read")
		require.Contains(g.t, r.Hint, "ansible_become")
	})
}
