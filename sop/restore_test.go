package sop

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/config"
)

// file is the snapshot of a ground, whichever clone it is.
func (g *ground) file() string { return filepath.Join(g.dir, "s.db") }

func (g *ground) snapshot() Snapshot { return Snapshot{File: g.file(), Since: time.Now()} }

// loseQuorum saves a snapshot, writes on, and takes two of three members away.
func (g *ground) loseQuorum() {
	g.t.Helper()
	g.must(g.snapshot())
	g.etcd().revision = 9
	g.w.machines[hosts[0]].kill()
	g.w.machines[hosts[1]].kill()
	time.Sleep(2 * time.Second)
}

// atRest lets members that were started come up: what falls due in the fake world
// comes about when somebody looks.
func (g *ground) atRest() {
	for range 20 {
		time.Sleep(time.Second)
		g.etcd()
	}
}

func (g *ground) restore(since time.Time) Restore {
	g.t.Helper()
	g.ops++
	var seed [32]byte
	seed[0], seed[1] = byte(g.ops), 98
	token, err := config.NewRestoreToken(time.Now(), rand.NewChaCha8(seed))
	require.NoError(g.t, err)
	p := Restore{File: g.file(), Since: since, Token: token, Stamp: stampNow()}
	if p.Snapshot, err = ReadSnapshot(p.File); err != nil {
		p.Problem = err.Error()
	}
	return p
}

func TestRestore(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		was := g.onlyID()
		g.loseQuorum()
		op := g.operator()
		res, err := op.do(g.restore(time.Now()))
		require.NoError(t, err, op.story())
		require.NotEqual(t, was, res.View.ClusterID())
		require.Len(t, res.View.LivingVoters(), 3)
		require.Contains(t, res.Plan.Warnings[0], "5 revisions, 5 to 9, are gone")
		require.Equal(t, ID(was), op.consent[0].Code)
		for _, h := range hosts[:3] {
			require.Len(t, g.w.machines[h].dirFacts(config.DefaultDataDir).Aside, 1)
		}
		empty, err := g.operator().do(g.restore(time.Now()))
		require.NoError(t, err)
		require.True(t, empty.Plan.Empty())
	})
}

// A creation that finds what a restore has left does not go on with it: blank
// members beside restored ones would have the same IDs.
func TestCreateAfterRestoreWasCutOff(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.loseQuorum()
		g.killAt(g.restore(time.Now()), "start etcd")
		v, err := g.operator().Site.Observe(context.Background(), Scope{AllHosts: true})
		require.NoError(t, err)
		require.False(t, v.cutOff())
	})
}

// An earlier restore that was given up says nothing of the cluster that came
// after it.
func TestRestoreGivenUp(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.loseQuorum()
		g.killAt(g.restore(time.Now()), "restore the data")
		g.must(DestroyCluster{Stamp: stampNow()})
		g.must(g.create())
		id := g.onlyID()
		g.w.machines[hosts[0]].kill()
		g.w.machines[hosts[2]].kill()
		time.Sleep(2 * time.Second)
		r := g.refusal(g.operator(), g.restore(time.Now()), "snapshot-cluster")
		require.NotEmpty(t, r.Risk)
		op := g.operator()
		op.Runner.Waive = []string{"snapshot-cluster"}
		_, err := op.do(g.restore(time.Now()))
		require.NoError(t, err, op.story())
		require.Equal(t, ID(id), op.consent[0].Code)
	})
}

func TestRestoreRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		safeguard string
		prepare   func(g *ground)
		change    func(p *Restore)
	}{
		"no snapshot":           {"snapshot-sound", func(g *ground) { require.NoError(g.t, os.Remove(g.file())) }, nil},
		"a living quorum":       {"living-quorum", func(g *ground) { g.w.machines[hosts[0]].powerOn(); g.atRest() }, nil},
		"an unreachable host":   {"unreachable", func(g *ground) { g.w.machines[hosts[2]].powerOff() }, nil},
		"no etcdutl":            {"etcdutl", func(g *ground) { delete(g.w.machines[hosts[1]].programs, utilityPath) }, nil},
		"etcdutl of another":    {"etcdutl", func(g *ground) { g.w.machines[hosts[1]].programs[utilityPath] = "3.5.35" }, nil},
		"another minor":         {"versions", nil, func(p *Restore) { p.Snapshot.Version = "3.6.16" }},
		"more than the quota":   {"quota", nil, func(p *Restore) { p.Snapshot.Bytes = 20 << 30 }},
		"no room":               {"disk", func(g *ground) { g.w.machines[hosts[1]].free = 100 << 20 }, nil},
		"of another cluster":    {"snapshot-cluster", nil, func(p *Restore) { p.Snapshot.ClusterID = 0xbad }},
		"nothing known of it":   {"snapshot-cluster", nil, func(p *Restore) { p.Snapshot.ClusterID, p.Snapshot.PeerURLs = 0, nil }},
		"nobody consents":       {"consent", nil, nil},
		"users that we are not": {"auth", nil, func(p *Restore) { p.Denied = "no user is given" }},
		"an old etcdutl": {"etcdutl", func(g *ground) {
			for _, h := range hosts[:3] {
				g.w.machines[h].programs[utilityPath] = "3.5.9"
				g.w.machines[h].is("3.5.9")
			}
		}, func(p *Restore) { p.Snapshot.Version = "3.5.9" }},
		"a member elsewhere":   {"unfenced", func(g *ground) { g.write(inventoryText(2, "", "")) }, nil},
		"two hosts are absent": {"votes", func(g *ground) { g.w.machines[hosts[0]].powerOff(); g.w.machines[hosts[1]].powerOff() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(g *ground) {
				g.up()
				g.loseQuorum()
				if c.prepare != nil {
					c.prepare(g)
				}
				p := g.restore(time.Now())
				if c.change != nil {
					c.change(&p)
				}
				op := g.operator()
				switch c.safeguard {
				case "votes":
					op.Runner.Waive = []string{"unreachable"}
				case "consent":
					op.Runner.Agree = nil
				}
				g.refusal(op, p, c.safeguard)
			})
		})
	}
}

// restoreElsewhere is a cluster with PostgreSQL on it that has lost its quorum, and
// of which one host is lost for good: another is in its place in the inventory.
func (g *ground) restoreElsewhere() {
	g.t.Helper()
	g.withClients(3)
	g.loseQuorum()
	text := withPostgres(4, []string{infraHost}, map[string][]string{"pg-test": pgHosts})
	g.write(strings.Replace(text, "        "+hosts[0]+": { etcd_seq: 1 } # host 1\n", "", 1))
	g.w.machines[hosts[0]].powerOff()
}

// Clients know the members that were: of those that are restored they are told, and
// PostgreSQL has the same leader and timeline as before.
func TestRestoreWithClients(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		pg := g.withClients(3)
		before := g.clientFiles()
		g.loseQuorum()
		time.Sleep(time.Minute)
		op := g.operator()
		_, err := op.do(g.restore(time.Now()))
		require.NoError(t, err, op.story())
		time.Sleep(time.Minute)
		g.clientsName(before, 1, 2, 3)
		require.Equal(t, before, g.clientFiles(), "they know these members already")
		require.Equal(t, pgHosts[0], pg.leader)
		require.Equal(t, 1, pg.timeline)
	})
	bubble(t, 3, func(g *ground) {
		g.withClients(3)
		before := g.clientFiles()
		g.restoreElsewhere()
		r := g.refusal(g.operator(), g.restore(time.Now()), "unfenced")
		require.Equal(t, hosts[0], r.Host)
		op := g.operator()
		op.Runner.Waive = []string{"unfenced"}
		_, err := op.do(g.restore(time.Now()))
		require.NoError(t, err, op.story())
		time.Sleep(time.Minute)
		g.clientsName(before, 2, 3, 4)
		pg := g.w.machines[pgHosts[0]].patroni.pg
		require.Equal(t, pgHosts[0], pg.leader)
		require.Equal(t, 1, pg.timeline)
		for _, h := range pgHosts {
			require.Subset(t, g.w.machines[h].vip.list, clientURLs(2, 3), "vip-manager on %s runs on with two that live", h)
		}
	})
}
