package sop

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// hold starts a run that stops at its first change and stays there, as an
// operator does who has been suspended. It gives the operator, what kills it,
// and what lets it go on.
func (g *ground) hold(op *operator, p Procedure) (kill func(), wait func() error) {
	g.t.Helper()
	reached, goOn, ended := make(chan struct{}), make(chan bool), make(chan error, 1)
	op.Runner.Point = func(pt Point) {
		if pt.N == 1 {
			close(reached)
			if die := <-goOn; die {
				op.dead.Store(true)
				op.Site.abandon()
				panic(killedAt{pt})
			}
		}
	}
	go func() {
		defer func() {
			if r := recover(); r != nil {
				ended <- errKilled
			}
		}()
		_, err := op.do(p)
		ended <- err
	}()
	<-reached
	return func() { goOn <- true; <-ended }, func() error { goOn <- false; return <-ended }
}

// other is a second admin host with a copy of everything.
func (g *ground) other() *operator {
	g.t.Helper()
	dir := filepath.Join(scratch(g.t), "other")
	require.NoError(g.t, os.CopyFS(dir, os.DirFS(g.dir)))
	require.NoError(g.t, os.RemoveAll(filepath.Join(dir, ".etcdrill/operator.etcd")))
	return g.operatorAt(dir, "admin2")
}

// A second operator is told who the first one is, from where, and since when.
func TestSecondOperatorIsRefused(t *testing.T) {
	for name, second := range map[string]func(g *ground) *operator{
		"same host":  (*ground).operator,
		"other host": (*ground).other,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(g *ground) {
				g.up()
				first := g.operator()
				_, finish := g.hold(first, AddMember{Host: hosts[3]})
				op := second(g)
				var waited time.Duration
				began := time.Now()
				_, err := op.do(AddMember{Host: hosts[4]})
				waited = time.Since(began)
				var r *Refusal
				require.ErrorAs(g.t, err, &r, op.story())
				require.Equal(g.t, "lock", r.Safeguard)
				require.False(g.t, r.Changed)
				for _, word := range []string{"vonng", "admin", "since 2000-01-01T00:00:", "addMember " + hosts[3]} {
					require.Contains(g.t, r.Found, word)
				}
				require.Less(g.t, waited, 20*time.Second)
				require.NoError(g.t, finish())
				require.Equal(g.t, votersText(1, 2, 3, 4), g.roles())
				if name == "same host" { // the other has an old copy of the inventory now
					g.must(AddMember{Host: hosts[4]})
				}
			})
		})
	}
}

// A holder that was killed on this host is gone: its lock is taken over at
// once. On another host one waits until it runs out.
func TestTakeover(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		kill, _ := g.hold(g.operator(), AddMember{Host: hosts[3]})
		kill()
		require.Len(g.t, g.etcd().keys, 1, "the lock of the dead")
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		require.NoError(g.t, err)
		require.NotContains(g.t, op.story(), "the lock of", "it did not wait")
		require.Empty(g.t, g.etcd().keys)
		require.Empty(g.t, g.etcd().leases)
	})
	bubble(t, 3, func(g *ground) {
		g.up()
		kill, _ := g.hold(g.operator(), AddMember{Host: hosts[3]})
		kill()
		op := g.other()
		began := time.Now()
		op.Runner.Point = func(p Point) {
			if p.N == 1 {
				g.w.mu.Lock()
				defer g.w.mu.Unlock()
				for _, le := range g.w.clusters[g.onlyID()].leases {
					require.Greater(g.t, time.Until(le.due), LockTTL/2, "its own lease was kept while it waited")
				}
			}
		}
		_, err := op.do(AddMember{Host: hosts[3]})
		require.NoError(g.t, err, op.story())
		require.Contains(g.t, op.story(), "which runs out in")
		require.Greater(g.t, time.Since(began), LockTTL-2*time.Second)
	})
}

// The lock of a host that has booted since is taken over from its file.
func TestTakeoverAfterBoot(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		kill, _ := g.hold(g.operator(), g.create())
		kill()
		require.NotEmpty(g.t, g.w.machines[hosts[0]].claim.Token)
		other := g.other()
		_, err := other.do(g.create())
		require.ErrorIs(g.t, err, ErrRefused, "another admin host cannot know")
		require.ErrorContains(g.t, err, "vonng@admin")
		op := g.operator()
		op.Site.Self.BootID = "another boot"
		_, err = op.do(g.create())
		require.NoError(g.t, err, op.story())
		for _, h := range hosts[:3] {
			require.Empty(g.t, g.w.machines[h].claim.Token)
		}
	})
}

// A lock that was lost stops the run before its next change.
func TestLockLost(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		op := g.operator()
		n := 0
		op.Runner.Point = func(p Point) {
			if p.Title == "add to the inventory" && p.State == Answered {
				g.w.mu.Lock()
				for id := range g.w.clusters[g.onlyID()].leases {
					g.w.clusters[g.onlyID()].revoke(id)
				}
				g.w.mu.Unlock()
				n = len(g.w.sent)
			}
		}
		_, err := op.do(AddMember{Host: hosts[3]})
		require.ErrorIs(g.t, err, ErrLockLost)
		require.Len(g.t, g.w.sent, n, "nothing was changed without it")
	})
}

func (g *ground) onlyID() uint64 {
	for id, c := range g.w.clusters {
		if len(c.procs) > 0 {
			return id
		}
	}
	return 0
}

// The lock is renewed for as long as the run takes, also when its leader goes.
func TestLockIsKept(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.w.transfer = 100 * time.Second
		done := make(chan error)
		op := g.operator()
		go func() {
			_, err := op.do(AddMember{Host: hosts[3]})
			done <- err
		}()
		time.Sleep(50 * time.Second)
		g.w.mu.Lock()
		c := g.w.clusters[g.onlyID()]
		require.Len(g.t, c.keys, 1)
		require.Contains(g.t, c.keys, LockKey)
		require.Contains(g.t, string(c.keys[LockKey].Value), "addMember")
		g.w.mu.Unlock()
		require.NoError(g.t, <-done)
		require.NotContains(g.t, op.story(), "lost")
		require.Empty(g.t, g.etcd().keys)
	})
}

// A voter that answers and cannot write is found out by the probe, before any
// change.
func TestProbe(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		before := g.dump()
		g.w.peril = func(where, what string) fault {
			return fault{drop: what == "put" && strings.Contains(where, hosts[1]) && hostPart(where) != g.leaderLocked()}
		}
		g.lead(hosts[0])
		time.Sleep(time.Second)
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		var r *Refusal
		require.ErrorAs(g.t, err, &r, op.story())
		require.Equal(g.t, "probe-write", r.Safeguard)
		require.Contains(g.t, r.Found, hosts[1])
		g.w.peril = nil
		require.Equal(g.t, before, g.dump())
	})
}

// What a voter forwards to a leader that is just gone is lost; it is written
// again, and the run goes on.
func TestProbeWaits(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.lead(hosts[0])
		time.Sleep(time.Second)
		began := time.Now()
		g.w.peril = func(where, what string) fault {
			return fault{drop: what == "put" && strings.Contains(where, hosts[1]) && time.Since(began) < 7*time.Second}
		}
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		require.NoError(g.t, err, op.story())
		require.Contains(g.t, op.story(), "writing again")
	})
}

// leaderLocked is leader for those who hold the world's lock.
func (g *ground) leaderLocked() string {
	c := g.w.clusters[g.onlyID()]
	if e := c.members[c.leader]; e != nil {
		return hostPart(e.peerURL)
	}
	return ""
}

// Neither an explanation nor a refusal takes the lock.
func TestRefusalTakesNoLock(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.refusal(g.operator(), AddMember{Host: hosts[0]}, "no-member-yet")
		_, _, err := g.operator().Runner.Explain(context.Background(), AddMember{Host: hosts[3]})
		require.NoError(g.t, err)
		require.Empty(g.t, g.etcd().keys)
	})
}
