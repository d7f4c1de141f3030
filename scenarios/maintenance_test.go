package scenarios_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/sop"
)

// fillQuota writes values of a mebibyte until etcd takes no more.
func (g *ground) fillQuota(t *testing.T, key string) (written int) {
	t.Helper()
	g.ask(t, []string{h10}, func(ctx context.Context, c *clientv3.Client) {
		for err := error(nil); err == nil; written++ {
			_, err = c.Put(ctx, key, strings.Repeat("x", 1<<20))
			if err != nil {
				require.ErrorContains(t, err, "database space exceeded")
			}
		}
	})
	return written
}

// What is done with a full database, in the order in which it has to be done:
// an alarm is not taken back before its cause is gone, only a compaction makes
// room in the database, and only a defragmentation gives it back. The leadership
// is moved about beside.
func TestFullDatabase(t *testing.T) {
	t.Parallel()
	const quota = 64 << 20
	rig := build(t, three+fmt.Sprintf("        etcd_quota_backend_bytes: %d\n", quota))
	g := on(rig)
	done(t, rig, create("full"))

	chain(t, "the leadership goes where it is sent", func(t *testing.T) {
		for _, to := range []string{h12, h10, h11} {
			res := done(t, rig, sop.MoveLeadership{To: to})
			require.Equal(t, to, leader(t, res.View))
		}
		g.unchanged(t, sop.MoveLeadership{To: h11})
		res := done(t, rig, sop.MoveLeadership{From: h11})
		require.NotEqual(t, h11, leader(t, res.View))
		g.refused(t, sop.MoveLeadership{To: h13}, "known-host")
	})
	chain(t, "nothing to win, nothing to disarm", func(t *testing.T) {
		g.known = nil
		g.unchanged(t, sop.Defragment{Least: 1 << 20})
		g.unchanged(t, sop.DisarmAlarm{})
		g.refused(t, sop.Compact{Revision: 1 << 40}, "past-revision")
	})
	require.Greater(t, g.fillQuota(t, "/full"), 40)
	eventually(t, "an alarm is raised", func() bool { return len(observe(t, rig).Alarms()) > 0 })
	chain(t, "the alarm stays while its cause does", func(t *testing.T) {
		r := g.refused(t, sop.DisarmAlarm{}, "alarm-cause")
		require.Contains(t, r.Hint, "compact", "which of its two ways goes first is for the share in use to say")
		report := sop.AlarmsOf(observe(t, rig))
		require.NotEmpty(t, report.Alarms)
		require.Equal(t, "NOSPACE", report.Alarms[0].Kind)
		require.NotEmpty(t, report.Alarms[0].Cause)
		require.Equal(t, int64(quota), report.Databases[0].Quota)
	})
	chain(t, "compact", func(t *testing.T) {
		p := sop.Compact{Revision: observe(t, rig).Revision() - 2, Keep: 2}
		done(t, rig, p)
		g.known = nil
		g.unchanged(t, p)
		var used int64
		eventually(t, "what was compacted is not in use any more", func() bool {
			used = 0
			for _, d := range sop.AlarmsOf(observe(t, rig)).Databases {
				used = max(used, d.Used)
			}
			return used < quota/4
		})
		g.known = nil
		r := g.refused(t, sop.DisarmAlarm{}, "alarm-cause")
		require.Contains(t, r.Hint, "defrag", "the file is as large as it was")
	})
	chain(t, "defragment", func(t *testing.T) {
		last := leader(t, observe(t, rig))
		res := done(t, rig, sop.Defragment{Least: 16 << 20})
		require.Len(t, res.Plan.Stages, 3)
		require.NotEqual(t, last, leader(t, res.View), "no leader is defragmented")
		for _, d := range sop.AlarmsOf(res.View).Databases {
			require.Less(t, d.Size, int64(quota/4), "%s", d.Host)
		}
		g.known = nil
		g.unchanged(t, sop.Defragment{Least: 16 << 20})
	})
	chain(t, "disarm", func(t *testing.T) {
		res := done(t, rig, sop.DisarmAlarm{})
		require.Empty(t, res.View.Alarms())
		g.known = nil
		g.unchanged(t, sop.DisarmAlarm{})
		g.ask(t, []string{h10}, func(ctx context.Context, c *clientv3.Client) {
			_, err := c.Put(ctx, "/after", "x")
			require.NoError(t, err)
			r, err := c.Get(ctx, "/full")
			require.NoError(t, err)
			require.Len(t, r.Kvs, 1, "what was acknowledged last is there")
		})
		requireConsistent(t, rig)
	})
}

// A member that is dead is not passed over, and none is defragmented meanwhile.
func TestDefragmentWithOneDown(t *testing.T) {
	t.Parallel()
	rig := build(t, three)
	g := on(rig)
	done(t, rig, create("down"))
	waste(t, g, 24)
	crash(t, rig, h12)
	g.refused(t, sop.Defragment{Least: 1 << 20}, "voters-answer")
	g.refused(t, sop.MoveLeadership{To: h12}, "heir")
}

// waste makes a database hold some mebibytes that are not in use.
func waste(t *testing.T, g *ground, mebibytes int) {
	t.Helper()
	g.ask(t, []string{h10}, func(ctx context.Context, c *clientv3.Client) {
		var last int64
		for range mebibytes {
			r, err := c.Put(ctx, "/waste", strings.Repeat("x", 1<<20))
			require.NoError(t, err)
			last = r.Header.Revision
		}
		_, err := c.Put(ctx, "/waste", "small")
		require.NoError(t, err)
		_, err = c.Compact(ctx, last+1, clientv3.WithCompactPhysical())
		require.NoError(t, err)
	})
}

// Every certificate is another one afterwards, nothing was restarted, and a
// connection that was there before is still the same.
func TestRotateCertificates(t *testing.T) {
	t.Parallel()
	rig := build(t, three)
	g := on(rig)
	done(t, rig, create("rotate"))
	served := func() map[string]string {
		o := rig.Operator("look")
		defer o.Site.Close()
		v, err := o.Site.Observe(t.Context(), sop.Scope{AllHosts: true, Serving: true})
		require.NoError(t, err)
		all := map[string]string{}
		for _, m := range v.Members {
			all[v.HostOf(m)] = v.LookOf(m.ID).Served
		}
		return all
	}
	was, pids := served(), map[string]int{}
	for h := range was {
		require.NotEmpty(t, was[h])
		pids[h] = unitOf(t, rig, h).PID
	}
	since := time.Now()
	g.ask(t, []string{h11}, func(ctx context.Context, c *clientv3.Client) {
		watch := c.Watch(ctx, "/rotate")
		_, err := c.Put(ctx, "/rotate", "before")
		require.NoError(t, err)
		r := <-watch
		require.NoError(t, r.Err())
		done(t, rig, sop.RotateCerts{Since: since})
		_, err = c.Put(ctx, "/rotate", "after")
		require.NoError(t, err)
		r = <-watch
		require.NoError(t, r.Err())
		require.Equal(t, "after", string(r.Events[0].Kv.Value))
	})
	for h, now := range served() {
		require.NotEqual(t, was[h], now, "%s shows another certificate", h)
		require.Equal(t, pids[h], unitOf(t, rig, h).PID, "etcd on %s was not restarted", h)
	}
	g.unchanged(t, sop.RotateCerts{Since: since})
	// Peers take them too: after a restart all connections are new.
	done(t, rig, sop.Restart{Since: time.Now()})
	requireConsistent(t, rig)
}
