package sop

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// A member whose process ends each time is told as that, and not waited for to
// the end; one that only takes its time is waited for.
func TestFalling(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		v, err := g.operator().Site.Observe(g.t.Context(), Scope{AllHosts: true})
		require.NoError(g.t, err)
		require.NoError(g.t, comesUp(hosts[1])(v))
		g.w.machines[hosts[1]].powerOff()
		for i := range v.Looks {
			if v.Looks[i].Host == hosts[1] {
				v.Looks[i] = Look{Host: hosts[1], Endpoint: v.Looks[i].Endpoint, Problem: "connection refused"}
			}
		}
		as := func(active, sub string, exit int) error {
			for i := range v.Hosts {
				if v.Hosts[i].Name == hosts[1] {
					v.Hosts[i].Facts.Units = map[string]host.Unit{config.UnitName: {Load: "loaded", Active: active, Sub: sub, Exit: exit}}
				}
			}
			return comesUp(hosts[1])(v)
		}
		starting, falling, failed := as("activating", "start", 0), as("activating", "auto-restart", 2), as("failed", "failed", 1)
		var f *Falling
		require.False(g.t, errors.As(starting, &f))
		require.ErrorContains(g.t, falling, "ends as soon as it is started (activating, auto-restart, exit status 2)")
		require.ErrorContains(g.t, falling, "journalctl -u etcd.service")
		require.ErrorContains(g.t, failed, "has ended (failed, failed, exit status 1)")

		var n falls
		for range 10 {
			require.False(g.t, n.hopeless(starting))
		}
		for range 10 {
			require.False(g.t, n.hopeless(falling), "it fell once")
		}
		require.False(g.t, n.hopeless(starting))
		require.False(g.t, n.hopeless(falling), "twice")
		require.False(g.t, n.hopeless(starting))
		require.True(g.t, n.hopeless(falling))
		require.True(g.t, (&falls{}).hopeless(failed), "systemd has given up")
	})
}

// The same where a cluster is made and where members are restarted: nobody waits
// for two minutes, and a rerun goes on once the cause is gone.
func TestFallingWhileCreated(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.w.machines[hosts[2]].broken = 1
		p, began := g.create(), time.Now()
		_, err := g.operator().do(p)
		var f *Falling
		require.ErrorAs(g.t, err, &f)
		require.Equal(g.t, hosts[2], f.Host)
		require.ErrorContains(g.t, err, "journalctl -u etcd.service")
		require.Less(g.t, time.Since(began), 30*time.Second)
		g.w.machines[hosts[2]].broken = 0
		g.must(g.create())
		require.Equal(g.t, votersText(1, 2, 3), g.roles())
	})
}

func TestFallingWhileRestarted(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.w.machines[hosts[1]].broken = 2
		since, began := time.Now(), time.Now()
		g.lead(hosts[0])
		time.Sleep(6 * time.Second)
		_, err := g.operator().do(Restart{Since: since})
		var f *Falling
		require.ErrorAs(g.t, err, &f)
		require.Equal(g.t, hosts[1], f.Host)
		require.ErrorContains(g.t, err, "exit status 2")
		require.Less(g.t, time.Since(began), 40*time.Second)
		g.w.machines[hosts[1]].broken = 0
		time.Sleep(11 * time.Second)
		g.must(Restart{Since: since})
	})
}

// A learner that ended before it wrote its log, as on a full disk, has left what
// etcd makes first. That is no foreign data.
func TestAddAfterFullDisk(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		op := g.operator()
		op.on = func(r Record) {
			if r.Title == "let systemd read the unit" && r.State == Done { // and it would be started next
				op.Runner.Journal = JournalFunc(func(Record) error { return ErrInterrupted })
			}
		}
		_, err := op.do(AddMember{Host: hosts[3]})
		require.ErrorIs(g.t, err, ErrInterrupted)
		g.w.machines[hosts[3]].mkdir("/data/etcd/member/snap", "etcd", "etcd", 0o700)
		g.w.machines[hosts[3]].mkdir("/data/etcd/member", "etcd", "etcd", 0o700)
		g.must(AddMember{Host: hosts[3]})
		require.Contains(g.t, g.roles(), hosts[3]+" etcd-4 voter")
	})
}

// The host was looked at before systemd had etcd start once more, the members
// after it: then a member is named whose log was not there yet.
func TestBegunWhileLookedAt(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.must(AddMember{Host: hosts[3]})
		v, err := g.operator().Site.Observe(g.t.Context(), Scope{AllHosts: true})
		require.NoError(g.t, err)
		i := slices.IndexFunc(v.Hosts, func(h HostView) bool { return h.Name == hosts[3] })
		facts := &v.Hosts[i].Facts
		d := facts.Dirs["/data/etcd"]
		d.WAL, d.WALHead, d.Entries = false, nil, []string{"member"}
		facts.Dirs["/data/etcd"] = d
		require.NoError(g.t, blankHost(hosts[3]).Holds(v))
		facts.Units[config.UnitName] = host.Unit{Load: "loaded", Active: "inactive"}
		require.Error(g.t, blankHost(hosts[3]).Holds(v), "nobody is about to write one")
	})
}

// A learner that comes up while the rerun looks is not taken for one behind a
// firewall.
func TestLearnerComesUpMeanwhile(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		op := g.operator()
		op.on = func(r Record) {
			if r.Title == "wait until caught up" && (r.State == Done || r.State == Skipped) {
				op.Runner.Journal = JournalFunc(func(Record) error { return ErrInterrupted })
			}
		}
		_, err := op.do(AddMember{Host: hosts[3]})
		require.ErrorIs(g.t, err, ErrInterrupted)
		require.Contains(g.t, g.roles(), "learner")
		deaf := func(is bool) {
			for _, h := range hosts[:3] {
				g.w.machines[h].deaf[hosts[3]+":2380"] = is
			}
		}
		deaf(true)
		g.refusal(g.operator(), AddMember{Host: hosts[3]}, "peers-reach")
		g.w.mu.Lock() // its process was started a moment ago
		p := g.w.machines[hosts[3]].proc
		p.ready, p.joined = false, time.Now().Add(5*time.Second)
		g.w.mu.Unlock()
		op = g.operator()
		op.on = func(r Record) {
			if r.State == Waiting && r.Title == "learner-alive" {
				deaf(false)
			}
		}
		_, err = op.do(AddMember{Host: hosts[3]})
		require.NoError(g.t, err, op.story())
		require.Contains(g.t, g.roles(), hosts[3]+" etcd-4 voter")
	})
}
