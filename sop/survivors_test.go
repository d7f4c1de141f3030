package sop

import (
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/config"
)

// lose deletes what a host has, as the loss of its disk does.
func (g *ground) lose(names ...string) {
	for _, name := range names {
		m := g.w.machines[name]
		m.kill()
		for _, p := range m.under(config.DefaultDataDir) {
			delete(m.files, p)
		}
	}
}

// walPath is where a member of the fake world has its log.
const walPath = config.DefaultDataDir + "/member/wal/0000000000000000-0000000000000000.wal"

// stands gives the cluster and the member whose data is on a host.
func (g *ground) stands(name string) (*cluster, uint64) {
	g.t.Helper()
	who, err := Identify(g.w.machines[name].file(walPath).Content)
	require.NoError(g.t, err)
	return g.w.clusters[who.Cluster], who.Member
}

// fallBehind makes a stopped member's log end so many entries before the last.
func (g *ground) fallBehind(name string, n uint64) {
	c, id := g.stands(name)
	c.applied[id] -= n
}

// knowsLess makes a member not know of the last entries that they are committed.
func (g *ground) knowsLess(name string, n uint64) {
	c, id := g.stands(name)
	c.applied[id] -= n
	c.beyond[id] += n
}

// comesBack gives a host the log of its member back.
func (g *ground) comesBack(name string) {
	c, _ := g.stands(hosts[4])
	for _, e := range c.members {
		if hostPart(e.peerURL) == name {
			g.holds(name, walHead(e.id, c.id))
		}
	}
}

// holds puts a log on a host.
func (g *ground) holds(name string, content []byte) {
	m := g.w.machines[name]
	m.mkdir(path.Dir(walPath), "etcd", "etcd", 0o700)
	m.files[walPath] = &node{content: content, owner: "etcd", group: "etcd", mode: 0o600}
}

func (g *ground) survivors(since time.Time) Snapshot {
	_, err := os.Lstat(g.file())
	return Snapshot{File: g.file(), Since: since, Survivors: true, Exists: err == nil}
}

// mournThree takes three of five members away for good; the other two are stopped.
func (g *ground) mournThree() {
	g.up()
	g.etcd().revision = 9
	g.lose(hosts[:3]...)
	g.w.machines[hosts[3]].kill()
	g.w.machines[hosts[4]].kill()
	time.Sleep(2 * time.Second)
}

// The data that came furthest gives the snapshot, whatever else speaks for another,
// and a restore of it brings the cluster back.
func TestSnapshotOfSurvivors(t *testing.T) {
	bubble(t, 5, func(g *ground) {
		g.mournThree()
		g.fallBehind(hosts[3], 3)
		g.knowsLess(hosts[4], 2)
		r := g.refusal(g.operator(), g.snapshot(), "voters-answer")
		require.Contains(t, r.Hint, "status")

		op := g.operator()
		res, err := op.do(g.survivors(time.Now()))
		require.NoError(t, err, op.story())
		require.Contains(t, res.Plan.Warnings[0], hosts[4]+" gives the snapshot: its log ends at term 2, index ")
		require.Contains(t, strings.Join(res.Plan.Warnings, "\n"), hosts[3]+" has a log that ends at term 2, index ")
		require.Contains(t, strings.Join(res.Plan.Warnings, "\n"), "the last 2 of its entries, is kept")
		saved, err := ReadSnapshot(g.file())
		require.NoError(t, err)
		require.True(t, saved.Survivor)
		require.EqualValues(t, 9, saved.Revision)
		require.Len(t, saved.PeerURLs, 5, "all who were members, not the copy alone")
		require.Empty(t, g.w.machines[hosts[4]].under(config.DefaultDataDir+"/.removed-replay"))

		op = g.operator()
		res, err = op.do(g.restore(time.Now()))
		require.NoError(t, err, op.story())
		require.Contains(t, res.Plan.Warnings[0], "nothing is gone that any member had whose data is left")
		require.Len(t, res.View.LivingVoters(), 5)
	})
}

// What may have more than the others and cannot be looked at is waived by name, or
// it is refused.
func TestSurvivorsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		prepare          func(g *ground)
		safeguard, found string
		host             string
		waive            string // lets it go on; empty where nothing does
	}{
		"a host is off":    {func(g *ground) { g.w.machines[hosts[2]].powerOff() }, "survivors", "cannot be looked at", hosts[2], "survivors:" + hosts[2]},
		"a damaged log":    {func(g *ground) { g.holds(hosts[3], []byte("this is no log at all")) }, "survivors", "how far its member came cannot be read", hosts[3], "survivors:" + hosts[3]},
		"another's data":   {func(g *ground) { g.holds(hosts[0], walHead(0xabc, 0xdef)) }, "survivors", "its data is of cluster def", hosts[0], "survivors:" + hosts[0]},
		"nothing is left":  {func(g *ground) { g.lose(hosts[3], hosts[4]) }, "survivors", "no host has data", "", ""},
		"a quorum is left": {func(g *ground) { g.comesBack(hosts[2]) }, "data-quorum", "3 of 5 members have their data", "", "data-quorum"},
		"one of them runs": {func(g *ground) { g.w.machines[hosts[4]].powerOn(); time.Sleep(time.Second) }, "stopped", "is activating, and serves nobody", hosts[4], ""},
		"no room":          {func(g *ground) { g.w.machines[hosts[4]].free = 10 }, "disk", "are free", hosts[4], "disk"},
		"not remembered, and of two": {func(g *ground) {
			g.holds(hosts[0], walHead(0xabc, 0xdef))
			require.NoError(g.t, os.Remove(g.dir+"/.etcdrill/cluster-id.etcd"))
		}, "one-cluster", "which of them was here is not remembered", "", ""},
		"a member that is not in the inventory": {func(g *ground) {
			g.write(strings.Replace(inventoryText(5, "", ""), "        "+hosts[2]+": { etcd_seq: 3 } # host 3\n", "", 1))
		}, "survivors", "cannot be looked at", hosts[2], "survivors:" + hosts[2]},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 5, func(g *ground) {
				g.mournThree()
				g.fallBehind(hosts[3], 3)
				c.prepare(g)
				r := g.refusal(g.operator(), g.survivors(time.Now()), c.safeguard)
				require.Contains(t, r.Found, c.found)
				require.Equal(t, c.host, r.Host)
				if c.waive == "" {
					require.Empty(t, r.Risk)
					return
				}
				op := g.operator()
				op.Runner.Waive = []string{c.waive}
				_, err := op.do(g.survivors(time.Now()))
				require.NoError(t, err, op.story())
			})
		})
	}
}

// A member that runs gives the snapshot itself, unless its log has more than it has
// applied: then it is to be stopped first.
func TestSurvivorThatRuns(t *testing.T) {
	bubble(t, 5, func(g *ground) {
		g.up()
		g.etcd().revision = 9
		for _, h := range hosts[:4] {
			g.w.machines[h].kill()
		}
		g.lose(hosts[0], hosts[1])
		g.w.machines[hosts[2]].powerOff()
		time.Sleep(2 * time.Second)
		g.etcd()
		g.fallBehind(hosts[3], 3)
		r := g.refusal(g.operator(), g.snapshot(), "quorum")
		require.Contains(t, r.Hint, "-survivors")
		waive := []string{"survivors:" + hosts[2]}
		op := g.operator()
		op.Runner.Waive = waive
		_, err := op.do(g.survivors(time.Now()))
		require.NoError(t, err, op.story())
		saved, err := ReadSnapshot(g.file())
		require.NoError(t, err)
		require.Equal(t, "https://"+hosts[4]+":2379", saved.From)
		require.NoError(t, os.Remove(g.file()))

		g.knowsLess(hosts[4], 2)
		op = g.operator()
		op.Runner.Waive = waive
		r = g.refusal(op, g.survivors(time.Now()), "log-applied")
		require.Contains(t, r.Hint, "systemctl stop etcd")
		g.w.machines[hosts[4]].kill()
		op = g.operator()
		op.Runner.Waive = waive
		_, err = op.do(g.survivors(time.Now()))
		require.NoError(t, err, op.story())
		saved, err = ReadSnapshot(g.file())
		require.NoError(t, err)
		require.Equal(t, "the data on "+hosts[4], saved.From)
	})
}
