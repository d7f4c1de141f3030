package scenarios_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	rig := build(t, one, h11, h12, h13, h14)
	res := done(t, rig, create("grow"))
	require.NotEmpty(t, res.Plan.Warnings, "one member is said aloud")

	chain(t, "grow from 1 to 5", func(t *testing.T) {
		for i, name := range []string{h11, h12, h13, h14} {
			res := done(t, rig, sop.AddMember{Host: name})
			require.Len(t, res.View.Voters(), i+2)
			require.Empty(t, res.View.Learners())
			requireConsistent(t, rig)
			if i == 0 {
				require.Contains(t, res.Plan.Warnings[0], "nothing may fail")
			}
		}
	})
	chain(t, "shrink from 5 to 3", func(t *testing.T) {
		v := observe(t, rig)
		first := leader(t, v)
		for _, name := range []string{first, follower(t, v, first)} { // the second may lead by then
			res := done(t, rig, remove(name))
			require.NotContains(t, voters(res.View), name)
			requireRetired(t, rig, name)
			requireConsistent(t, rig)
		}
		require.Len(t, voters(observe(t, rig)), 3)
	})
	chain(t, "from 3 to 1 needs the waiver", func(t *testing.T) {
		for n := 3; n > 1; n-- {
			name := leader(t, observe(t, rig))
			_, err := run(t, rig, remove(name))
			var r *sop.Refusal
			require.ErrorAs(t, err, &r)
			require.Equal(t, "spare", r.Safeguard)
			res := done(t, rig, remove(name), waiving(r.Safeguard))
			require.Len(t, res.View.Voters(), n-1)
			requireRetired(t, rig, name)
		}
		requireConsistent(t, rig)
	})
	chain(t, "add back one that was removed", func(t *testing.T) {
		last := voters(observe(t, rig))
		back := h13
		if last[0] == back {
			back = h14
		}
		require.Equal(t, "masked", unitOf(t, rig, back).Load)
		res := done(t, rig, sop.AddMember{Host: back})
		require.Equal(t, sorted([]string{last[0], back}), voters(res.View))
		f := facts(t, rig, back)
		require.True(t, f.Units[config.UnitName].Runs())
		require.Equal(t, "enabled", f.Units[config.UnitName].Enabled)
		require.NotEmpty(t, f.Dirs[config.DefaultDataDir].Aside, "what was set aside stays")
		requireConsistent(t, rig)
	})
}

// Members that are dead when they are removed: without process, without power,
// and before they ever started.
func TestRemoveTheDead(t *testing.T) {
	t.Parallel()
	rig := build(t, three, h13, h14)
	g := on(rig)
	done(t, rig, create("dead"))

	chain(t, "voter without process", func(t *testing.T) {
		crash(t, rig, h12)
		res := done(t, rig, remove(h12))
		require.Equal(t, []string{h10, h11}, voters(res.View))
		requireRetired(t, rig, h12)
	})
	chain(t, "voter that hangs", func(t *testing.T) {
		done(t, rig, sop.AddMember{Host: h12})
		require.NoError(t, rig.Lab.Member(t.Context(), h12, syscall.SIGSTOP))
		res := done(t, rig, remove(h12))
		require.Equal(t, []string{h10, h11}, voters(res.View))
		requireRetired(t, rig, h12)
	})
	chain(t, "voter without power", func(t *testing.T) {
		done(t, rig, sop.AddMember{Host: h13})
		require.NoError(t, rig.Lab.Power(t.Context(), h13, false))
		res := done(t, rig, remove(h13))
		require.Equal(t, []string{h10, h11}, voters(res.View))
		require.Contains(t, res.Plan.Warnings[len(res.Plan.Warnings)-1], "purgeHost "+h13)
		// It comes back with its data and finds that it is none of them any more.
		require.NoError(t, rig.Lab.Power(t.Context(), h13, true))
		eventually(t, "its etcd stops for good", func() bool { return !unitOf(t, rig, h13).Runs() })
		require.Equal(t, []string{h10, h11}, voters(observe(t, rig)))
		r := g.refused(t, sop.AddMember{Host: h13}, "blank-host")
		require.Contains(t, r.Hint, "purgeHost "+h13)
		done(t, rig, sop.PurgeHost{Host: h13})
		f := facts(t, rig, h13)
		require.False(t, f.Units[config.UnitName].Runs())
		require.Empty(t, f.Dirs[config.DefaultDataDir].Entries)
		require.Empty(t, f.Dirs[config.ConfDir].Entries)
	})
	announce := func(t *testing.T, name string) {
		g.ask(t, []string{h10, h11}, func(ctx context.Context, c *clientv3.Client) {
			eventually(t, "etcd takes the learner", func() bool {
				_, err := c.MemberAddAsLearner(ctx, []string{"https://" + name + ":2380"})
				return err == nil
			})
		})
	}
	chain(t, "learner that never started, on a living host", func(t *testing.T) {
		announce(t, h14)
		res := done(t, rig, remove(h14))
		require.Len(t, res.View.Members, 2)
	})
	chain(t, "learner that never started, without power", func(t *testing.T) {
		announce(t, h14)
		require.NoError(t, rig.Lab.Power(t.Context(), h14, false))
		res := done(t, rig, remove(h14))
		require.Len(t, res.View.Members, 2)
		require.NoError(t, rig.Lab.Power(t.Context(), h14, true))
	})
	chain(t, "learner that ran, without power", func(t *testing.T) {
		_, err := run(t, rig, sop.AddMember{Host: h14}, stoppedAt("promote to voter"))
		require.ErrorIs(t, err, sop.ErrInterrupted)
		require.NoError(t, rig.Lab.Power(t.Context(), h14, false))
		res := done(t, rig, remove(h14))
		require.Len(t, res.View.Members, 2)
		requireConsistent(t, rig)
	})
}

// A newcomer that gets the database as a snapshot of more than 5000 entries
// answers nobody until it has applied an entry after it. Where nobody writes,
// the operator has to.
func TestAddToAQuietCluster(t *testing.T) {
	t.Parallel()
	rig := build(t, one, h11)
	done(t, rig, create("quiet"))
	const entries, writers = 11_000, 50 // etcd drops the log behind 10 000
	on(rig).ask(t, []string{h10}, func(ctx context.Context, c *clientv3.Client) {
		failed := make(chan error, writers)
		for w := range writers {
			go func() {
				var err error
				for i := 0; i < entries/writers && err == nil; i++ {
					_, err = c.Put(ctx, fmt.Sprintf("/quiet/%d", w), "x")
				}
				failed <- err
			}()
		}
		for range writers {
			require.NoError(t, <-failed)
		}
	})
	res := done(t, rig, sop.AddMember{Host: h11})
	require.Equal(t, []string{h10, h11}, voters(res.View))
	requireConsistent(t, rig)
}

// requireRetired: etcd on a host is stopped for good, and its data set aside.
func requireRetired(t *testing.T, rig *scenarios.Rig, name string) {
	t.Helper()
	f := facts(t, rig, name)
	u := f.Units[config.UnitName]
	require.False(t, u.Runs(), "%s on %s is %s", config.UnitName, name, u.Active)
	require.Equal(t, "masked", u.Load)
	err := rig.Lab.Host(name).Do(t.Context(), host.Systemctl{Verb: host.Start, Unit: config.UnitName})
	require.Error(t, err, "nobody starts it again, nor does a boot")
	d := f.Dirs[config.DefaultDataDir]
	require.Empty(t, d.Entries)
	require.NotEmpty(t, d.Aside)
	require.Positive(t, d.Aside[len(d.Aside)-1].Bytes)
}

// requireConsistent: inventory, member lists and files tell the same, and every
// member takes a write.
func requireConsistent(t *testing.T, rig *scenarios.Rig) {
	t.Helper()
	v := observe(t, rig)
	var wanted []string
	for _, h := range v.Wanted.Hosts {
		wanted = append(wanted, h.Name)
	}
	require.Equal(t, voters(v), sorted(wanted), "inventory and members")
	require.Empty(t, v.Learners())
	for _, m := range v.Members {
		l := v.LookOf(m.ID)
		require.True(t, v.Alive(m), "member on %s: %s", v.HostOf(m), l.Problem)
		require.Equal(t, v.Members, l.Members, "the list of %s", v.HostOf(m))
		h, _ := v.Host(v.HostOf(m))
		c, err := config.ParseMember(h.Facts.Files[config.ConfPath].Content)
		require.NoError(t, err)
		require.Equal(t, config.StateExisting, c.State, "so that a wiped host founds no cluster")
		require.Len(t, c.Initial, len(v.Members), "etcd.conf on %s", h.Name)
		require.False(t, h.Facts.Files[config.JoinDropInPath].Exists)
		env, err := config.ParseClientEnv(h.Facts.Files[config.EnvPath].Content)
		require.NoError(t, err)
		require.Equal(t, v.VoterURLs(), sorted(env.Endpoints), "etcdctl.sh on %s", h.Name)
		on(rig).ask(t, []string{v.HostOf(m)}, func(ctx context.Context, c *clientv3.Client) {
			_, err := c.Put(ctx, "/consistent", time.Now().String())
			require.NoError(t, err, "write through %s", v.HostOf(m))
		})
	}
}

// follower is a voter that does not lead.
func follower(t *testing.T, v sop.View, not string) string {
	t.Helper()
	for _, name := range voters(v) {
		if name != leader(t, v) && name != not {
			return name
		}
	}
	t.Fatal("there is no follower")
	return ""
}
