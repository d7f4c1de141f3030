package sop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/config"
)

// An operator dies at every point of every procedure, and the same command is
// run again: the end is that of a run that nobody disturbed.
func TestKillSweep(t *testing.T) {
	for _, c := range sweeps() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, c.hosts, func(g *ground) {
				c.prepare(g)
				whole := g.clone(filepath.Join(scratch(g.t), "whole"))
				points := whole.count(c.procedure(whole)(), c.waive...)
				whole.settle()
				want := whole.dump()
				for _, n := range swept(g, points) {
					cut := g.clone(filepath.Join(scratch(g.t), fmt.Sprint(n)))
					p, op := c.procedure(cut), cut.operator()
					op.Runner.Waive = c.waive
					died, at, err := op.dieAt(n, p())
					require.NoError(g.t, err, "point %d\n%s", n, op.story())
					require.True(g.t, died, "point %d was not reached", n)
					again := cut.operator()
					again.Runner.Waive = c.waive
					_, err = again.do(p())
					require.NoError(g.t, err, "killed at %+v, then\n%s", at, again.story())
					cut.settle()
					require.Equal(g.t, want, cut.dump(), "killed at %+v", at)
					empty, err := cut.operator().do(p())
					require.NoError(g.t, err)
					require.True(g.t, empty.Plan.Empty(), "killed at %+v, run again, and there is still something to do", at)
					require.Empty(g.t, cut.w.cutOff, "killed at %+v", at)
					require.NoError(g.t, os.RemoveAll(cut.dir))
				}
			})
		})
	}
}

// count runs a procedure to its end and counts the kill points.
func (g *ground) count(p Procedure, waive ...string) (n int) {
	g.t.Helper()
	op := g.operator()
	op.Runner.Waive = waive
	op.Runner.Point = func(Point) { n++ }
	_, err := op.do(p)
	require.NoError(g.t, err, "%s\n%s", p, op.story())
	return n
}

// settle lets what the operator left to itself come to an end: removed members
// stop, leases run out.
func (g *ground) settle() { time.Sleep(15 * time.Second) }

type sweep struct {
	name    string
	hosts   int
	waive   []string
	prepare func(g *ground)
	// procedure gives what is run each time, its moments fresh where a fresh
	// command would have fresh ones.
	procedure func(g *ground) func() Procedure
}

// killAt runs a procedure and kills the operator right before a step.
func (g *ground) killAt(p Procedure, title string) {
	g.t.Helper()
	op := g.operator()
	op.Runner.Point = func(pt Point) {
		if pt.State == Began && pt.Title == title {
			op.dead.Store(true)
			op.Site.abandon()
			panic(killedAt{pt})
		}
	}
	require.PanicsWithValue(g.t, killedAt{}, func() {
		defer func() {
			if _, ok := recover().(killedAt); ok {
				panic(killedAt{})
			}
		}()
		_, _ = op.do(p)
	}, "it has no step %q", title)
	g.settle()
}

// restoring is a restore as it is typed each time: with a token of its own.
func restoring(g *ground) func() Procedure {
	began := time.Now()
	return func() Procedure { return g.restore(began) }
}

func always(p Procedure) func(*ground) func() Procedure {
	return func(*ground) func() Procedure { return func() Procedure { return p } }
}

func remove(host string) func(*ground) func() Procedure {
	return func(*ground) func() Procedure {
		return func() Procedure { return RemoveMember{Host: host, Stamp: stampNow()} }
	}
}

func sweeps() []sweep {
	up := func(g *ground) { g.up() }
	bare := func(*ground) {}
	yes := true
	return []sweep{
		{name: "create 1", hosts: 1, prepare: bare, procedure: func(g *ground) func() Procedure { return func() Procedure { return g.create() } }},
		{name: "create 3", hosts: 3, prepare: bare, procedure: func(g *ground) func() Procedure { return func() Procedure { return g.create() } }},
		{name: "add to 1", hosts: 1, prepare: up, procedure: always(AddMember{Host: hosts[1]})},
		{name: "add to 3", hosts: 3, prepare: up, procedure: always(AddMember{Host: hosts[3]})},
		{name: "add one whose name is lost", hosts: 3, prepare: func(g *ground) { g.up(); g.w.swallows = true }, procedure: always(AddMember{Host: hosts[3]})},
		{name: "create 3 and install", hosts: 3, prepare: func(g *ground) { g.bare(hosts[:3]...) }, procedure: func(g *ground) func() Procedure { return func() Procedure { return g.create() } }},
		{name: "add to 3 and install", hosts: 3, prepare: func(g *ground) { g.up(); g.bare(hosts[3]) }, procedure: always(AddMember{Host: hosts[3]})},
		{name: "remove follower", hosts: 4, prepare: func(g *ground) { g.up(); g.lead(hosts[0]); time.Sleep(time.Second) }, procedure: remove(hosts[1])},
		{name: "remove leader", hosts: 4, prepare: func(g *ground) { g.up(); g.lead(hosts[1]); time.Sleep(time.Second) }, procedure: remove(hosts[1])},
		{name: "remove dead", hosts: 3, prepare: func(g *ground) { g.up(); g.w.machines[hosts[1]].powerOff(); time.Sleep(6 * time.Second) }, procedure: remove(hosts[1])},
		{name: "restart", hosts: 3, prepare: up, procedure: func(g *ground) func() Procedure {
			return always(Restart{Since: time.Now(), Soak: time.Second})(g)
		}},
		{name: "restart 1", hosts: 1, prepare: up, procedure: func(g *ground) func() Procedure {
			return always(Restart{Since: time.Now()})(g)
		}},
		{name: "upgrade", hosts: 3, prepare: func(g *ground) { g.runs("3.6.16"); g.up() }, procedure: always(Upgrade{Version: "3.7.3", Soak: time.Second})},
		{name: "upgrade from a binary", hosts: 3, prepare: func(g *ground) {
			g.runs("3.5.35")
			g.up()
			g.write(inventoryText(3, "", g.binary("3.6.16")))
		}, procedure: always(Upgrade{Version: "3.6.16"})},
		{name: "downgrade", hosts: 3, prepare: func(g *ground) { g.runs("3.7.3"); g.up() }, procedure: always(Upgrade{Version: "3.6.16", Down: true})},
		{name: "move the leader", hosts: 3, prepare: func(g *ground) { g.up(); g.lead(hosts[1]); time.Sleep(time.Second) }, procedure: always(MoveLeadership{From: hosts[1]})},
		{name: "move the leader to another", hosts: 3, prepare: func(g *ground) { g.up(); g.lead(hosts[1]); time.Sleep(time.Second) }, procedure: always(MoveLeadership{To: hosts[2]})},
		{name: "defragment", hosts: 3, prepare: func(g *ground) { g.up(); g.waste(500<<20, hosts[:3]...) }, procedure: always(Defragment{Least: LeastWin, Soak: time.Second})},
		{name: "compact", hosts: 3, prepare: func(g *ground) { g.up(); g.revisions(100) }, procedure: always(Compact{Revision: 50})},
		{name: "disarm", hosts: 3, prepare: func(g *ground) {
			g.up()
			for _, h := range hosts[:2] {
				g.etcd().alarms[g.idOn(h)] = "NOSPACE"
			}
		}, procedure: always(DisarmAlarm{})},
		{name: "rotate certificates", hosts: 3, prepare: up, procedure: func(g *ground) func() Procedure {
			return always(RotateCerts{Since: time.Now(), Soak: time.Second})(g)
		}},
		{name: "trust another CA", hosts: 3, prepare: func(g *ground) { g.withCerts(3) }, procedure: always(RotateAuthority{Stride: Trust, Soak: time.Second})},
		{name: "sign with another CA", hosts: 3, prepare: func(g *ground) { g.withCerts(3); g.trusting() }, procedure: always(RotateAuthority{Stride: Sign, Clients: true})},
		{name: "retire a CA", hosts: 3, prepare: func(g *ground) { g.withCerts(3); g.trusting(); g.signing() }, procedure: always(RotateAuthority{Stride: Retire, Stamp: "20260102T150405Z"})},
		{name: "abandon a CA", hosts: 3, prepare: func(g *ground) { g.withCerts(3); g.trusting() }, procedure: always(RotateAuthority{Stride: Abandon, Stamp: "20260102T150405Z"})},
		{name: "reload and restart", hosts: 3, prepare: func(g *ground) {
			g.up()
			m := g.w.machines[hosts[1]]
			text := strings.ReplaceAll(string(m.file(config.EnvPath).Content), ",https://10.10.10.13:2379", "")
			m.files[config.EnvPath] = &node{content: []byte(text), owner: "root", group: "root", mode: 0o644}
		}, procedure: func(g *ground) func() Procedure {
			return always(ReloadConfig{Restart: true, Since: time.Now()})(g)
		}},
		{name: "give up an unstarted one", hosts: 3, prepare: func(g *ground) {
			g.up()
			g.killAt(AddMember{Host: hosts[3]}, "write etcd.conf")
		}, procedure: remove(hosts[3])},
		{name: "give up a learner", hosts: 3, prepare: func(g *ground) {
			g.up()
			g.killAt(AddMember{Host: hosts[3]}, "promote to voter")
		}, procedure: remove(hosts[3])},
		{name: "purge a host", hosts: 4, prepare: func(g *ground) {
			g.up()
			g.must(RemoveMember{Host: hosts[3], Stamp: stampNow()})
		}, procedure: always(PurgeHost{Host: hosts[3]})},
		{name: "add again", hosts: 4, prepare: func(g *ground) {
			g.up()
			g.must(RemoveMember{Host: hosts[3], Stamp: stampNow()})
		}, procedure: always(AddMember{Host: hosts[3]})},
		{name: "environment", hosts: 3, prepare: func(g *ground) {
			g.up()
			for _, h := range hosts[:3] {
				delete(g.w.machines[h].files, config.EnvPath)
			}
		}, procedure: always(InstallClientEnv{})},
		{name: "add with clients", hosts: 3, prepare: func(g *ground) { g.withClients(3) }, procedure: always(AddMember{Host: hosts[3]})},
		{name: "remove with clients", hosts: 4, prepare: func(g *ground) { g.withClients(4); g.lead(hosts[0]); time.Sleep(time.Second) }, procedure: remove(hosts[1])},
		{name: "reload clients", hosts: 3, prepare: func(g *ground) { g.spentList() }, procedure: always(ReloadConfig{VIPs: true})},
		{name: "migrate 3 to 3", hosts: 3, prepare: func(g *ground) { g.up(); g.lead(hosts[0]); time.Sleep(time.Second) }, procedure: always(to(4, 5, 6))},
		{name: "migrate and keep the leader", hosts: 3, prepare: func(g *ground) { g.up(); g.lead(hosts[2]); time.Sleep(time.Second) }, procedure: always(to(3, 4, 5))},
		{name: "migrate 1 to 1", hosts: 1, prepare: up, procedure: always(to(2))},
		{name: "migrate 5 to 3", hosts: 5, prepare: func(g *ground) { g.up(); g.lead(hosts[4]); time.Sleep(time.Second) }, procedure: always(to(3, 6, 7))},
		{name: "migrate with one dead", hosts: 3, prepare: func(g *ground) { g.up(); g.w.machines[hosts[1]].kill(); time.Sleep(6 * time.Second) }, procedure: always(to(4, 5, 6))},
		{name: "migrate with clients", hosts: 3, prepare: func(g *ground) { g.withClients(3); g.lead(hosts[0]); time.Sleep(time.Second) }, procedure: always(to(2, 3, 4))},
		{name: "migrate elsewhere", hosts: 3, prepare: func(g *ground) {
			g.up()
			g.lead(hosts[0])
			time.Sleep(time.Second)
			g.killAt(to(4, 5, 6), "promote to voter")
		}, procedure: always(to(5, 6, 7))},
		{name: "replace", hosts: 3, prepare: func(g *ground) { g.up(); g.lead(hosts[1]); time.Sleep(time.Second) }, procedure: always(replace(2, 4))},
		{name: "replace dead", hosts: 3, prepare: func(g *ground) { g.up(); g.w.machines[hosts[1]].kill(); time.Sleep(6 * time.Second) }, procedure: always(replace(2, 4))},
		{name: "replace corrupt", hosts: 3, prepare: func(g *ground) {
			g.up()
			g.lead(hosts[0])
			g.corrupt(hosts[1])
			time.Sleep(time.Second)
		}, procedure: always(replace(2, 4))},
		{name: "replace corrupt under its alarm", hosts: 3, prepare: func(g *ground) {
			g.up()
			g.lead(hosts[0])
			g.corrupt(hosts[1])
			g.alarm(hosts[1])
			time.Sleep(time.Second)
		}, procedure: always(replace(2, 4))},
		{name: "restore", hosts: 3, prepare: func(g *ground) { g.up(); g.loseQuorum() }, procedure: restoring},
		{name: "restore elsewhere, with clients", hosts: 3, waive: []string{"unfenced"}, prepare: func(g *ground) { g.restoreElsewhere() }, procedure: restoring},
		{name: "restore on blank hosts", hosts: 3, prepare: func(g *ground) { g.up(); g.must(g.snapshot()); g.must(PurgeCluster{}) }, procedure: restoring},
		{name: "snapshot of survivors", hosts: 5, prepare: func(g *ground) { g.mournThree(); g.fallBehind(hosts[3], 3); g.knowsLess(hosts[4], 2) }, procedure: func(g *ground) func() Procedure {
			began := time.Now()
			return func() Procedure { return g.survivors(began) }
		}},
		{name: "destroy", hosts: 3, prepare: up, procedure: func(g *ground) func() Procedure {
			return func() Procedure { return DestroyCluster{Stamp: stampNow()} }
		}},
		{name: "purge", hosts: 3, prepare: up, procedure: always(PurgeCluster{})},
		{name: "create over 3", hosts: 3, prepare: up, procedure: func(g *ground) func() Procedure {
			began := time.Now() // each run has a token of its own
			return func() Procedure {
				p := g.create()
				p.Clean, p.Since = &yes, began
				return p
			}
		}},
		{name: "create again", hosts: 1, prepare: up, procedure: func(g *ground) func() Procedure {
			p := g.create() // that it was built is an event, and the token its name
			p.Clean = &yes
			return always(p)(g)
		}},
	}
}
