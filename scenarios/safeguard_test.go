package scenarios_test

import (
	"context"
	"crypto/rand"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
)

// guarded protects its cluster in both ways.
var guarded = strings.Replace(three, "etcd_cluster: etcd", "etcd_cluster: etcd\n        etcd_clean: false\n        etcd_safeguard: true", 1)

// fresh is createCluster as it is called: with a token that nobody had.
func fresh(t *testing.T, clean, safeguard *bool) sop.CreateCluster {
	t.Helper()
	token, err := config.NewToken(time.Now(), rand.Reader)
	require.NoError(t, err)
	return sop.CreateCluster{Clean: clean, Safeguard: safeguard, Token: token, Stamp: sop.Stamp(time.Now())}
}

// tokens are the initial-cluster-tokens in the hosts' files.
func tokens(t *testing.T, rig *scenarios.Rig, names ...string) []string {
	t.Helper()
	var all []string
	for _, name := range names {
		if f := facts(t, rig, name).Files[config.ConfPath]; f.Exists {
			c, err := config.ParseMember(f.Content)
			require.NoError(t, err)
			all = append(all, c.Token)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// disagreeing is an operator who does not consent; what was asked is kept.
func disagreeing(asked *sop.Consent) with {
	return func(o *scenarios.Operator) {
		o.Runner.Agree = func(c sop.Consent) error {
			*asked = c
			return sop.Agreement{Given: "etcd", Out: io.Discard}.Ask(context.Background(), c)
		}
	}
}

// The whole table of createCluster, destroyCluster and purgeCluster, on data
// directories that are mount points.
func TestSafeguardTable(t *testing.T) {
	t.Parallel()
	hosts := []string{h10, h11, h12}
	rig := buildSpec(t, scenarios.RigSpec{Inventory: []byte(guarded), Spares: []string{h13}, Mounts: []string{config.DefaultDataDir}})
	g := on(rig)
	var token string
	var id uint64
	yes, no := ptr(true), ptr(false)
	stamp := "20260101T000000Z"
	bothRefuse := func(t *testing.T) {
		t.Helper()
		for _, c := range []struct {
			clean, safeguard *bool
			by               string
		}{
			{nil, nil, "etcd_safeguard"},
			{yes, nil, "etcd_safeguard"},
			{no, yes, "etcd_safeguard"},
			{yes, yes, "etcd_safeguard"},
			{nil, no, "etcd_clean"},
			{no, no, "etcd_clean"},
		} {
			r := g.refused(t, sop.DestroyCluster{Clean: c.clean, Safeguard: c.safeguard, Stamp: stamp}, c.by)
			require.Contains(t, r.Hint, "for one run")
		}
	}

	chain(t, "create: etcd nowhere, cut off twice, gone on", func(t *testing.T) {
		g.unchanged(t, sop.DestroyCluster{Stamp: stamp}) // gone everywhere: done
		g.unchanged(t, sop.PurgeCluster{})
		first := fresh(t, nil, nil)
		token = first.Token
		_, err := run(t, rig, first, stoppedAt("start etcd"))
		require.ErrorIs(t, err, sop.ErrInterrupted)
		require.Equal(t, []string{token}, tokens(t, rig, hosts...))
		_, err = run(t, rig, fresh(t, nil, nil), stoppedAt("set initial-cluster-state to existing"))
		require.ErrorIs(t, err, sop.ErrInterrupted)
		res := done(t, rig, fresh(t, nil, nil))
		require.Nil(t, res.Plan.Consent, "nothing is lost")
		require.Equal(t, []string{token}, tokens(t, rig, hosts...), "it went on with what was begun")
		require.Equal(t, hosts, voters(res.View))
		id = res.View.ClusterID()
		g.known = nil
	})
	chain(t, "create: healthy and as described", func(t *testing.T) {
		for _, p := range []sop.CreateCluster{fresh(t, nil, nil), fresh(t, no, yes), fresh(t, nil, no)} {
			g.unchanged(t, p)
		}
	})
	chain(t, "create: healthy, and a rebuild is asked for", func(t *testing.T) {
		g.refused(t, fresh(t, yes, nil), "etcd_safeguard")
		var asked sop.Consent
		r := g.refused(t, fresh(t, yes, no), "consent", disagreeing(&asked))
		require.Contains(t, r.Found, "etcd", "a cluster's name is no consent")
		require.Equal(t, sop.ID(id), asked.Code)
		shown := strings.Join(asked.Shown, "\n")
		require.Contains(t, shown, rig.Inventory())
		require.Contains(t, shown, "https://"+h12+":2380")
		require.Contains(t, shown, "keys: ")
		g.refused(t, fresh(t, yes, no), "consent", func(o *scenarios.Operator) { o.Runner.Agree = nil })
	})
	chain(t, "destroy: protected", bothRefuse)
	chain(t, "one member has crashed", func(t *testing.T) {
		g.change(func() { crash(t, rig, h12) })
		g.refused(t, fresh(t, nil, nil), "etcd_safeguard")
		g.refused(t, fresh(t, nil, no), "etcd_clean")
	})
	chain(t, "all members have crashed", func(t *testing.T) {
		g.change(func() { crash(t, rig, h10); crash(t, rig, h11) })
		r := g.refused(t, fresh(t, nil, nil), "etcd_safeguard")
		for _, name := range hosts {
			require.Contains(t, r.Found, name, "its log is on disk")
		}
		g.refused(t, fresh(t, yes, nil), "etcd_safeguard")
		g.refused(t, fresh(t, nil, no), "etcd_clean")
		g.refused(t, sop.DestroyCluster{Stamp: stamp}, "etcd_safeguard")
		g.refused(t, sop.DestroyCluster{Safeguard: no, Stamp: stamp}, "etcd_clean")
		var asked sop.Consent
		g.refused(t, fresh(t, yes, no), "consent", disagreeing(&asked))
		require.Equal(t, sop.ID(id), asked.Code, "read from the logs")
	})
	chain(t, "create: rebuilt after consent", func(t *testing.T) {
		res := done(t, rig, fresh(t, yes, no))
		require.NotNil(t, res.Plan.Consent)
		require.NotEqual(t, id, res.View.ClusterID(), "another cluster")
		require.NotEqual(t, []string{token}, tokens(t, rig, hosts...), "another token")
		for _, name := range hosts {
			aside := facts(t, rig, name).Dirs[config.DefaultDataDir].Aside
			require.Len(t, aside, 1)
			_, err := os.Stat(filepath.Join(rig.Lab.Root(name), aside[0].Path, "member", "wal"))
			require.NoError(t, err, "the data was kept, beneath the mount point")
		}
		token, id = tokens(t, rig, hosts...)[0], res.View.ClusterID()
		requireConsistent(t, rig)
		g.known = nil
	})
	chain(t, "create: former data on a newcomer", func(t *testing.T) {
		aside := facts(t, rig, h12).Dirs[config.DefaultDataDir].Aside[0].Path
		g.change(func() {
			dir := filepath.Join(rig.Lab.Root(h13), config.DefaultDataDir)
			require.NoError(t, os.MkdirAll(dir, 0o700))
			require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(rig.Lab.Root(h12), aside))))
		})
		r := g.refused(t, sop.AddMember{Host: h13}, "blank-host")
		require.Contains(t, r.Hint, "purgeHost "+h13)
		require.NotContains(t, r.Found, sop.ID(id))
		done(t, rig, sop.PurgeHost{Host: h13})
		g.known = nil
	})
	chain(t, "destroy: after consent", func(t *testing.T) {
		var asked sop.Consent
		p := sop.DestroyCluster{Clean: yes, Safeguard: no, Stamp: sop.Stamp(time.Now().Add(time.Second))}
		g.refused(t, p, "consent", disagreeing(&asked))
		require.Equal(t, sop.ID(id), asked.Code)
		before := snapshots(t, rig)
		done(t, rig, p)
		require.Greater(t, len(snapshots(t, rig)), len(before), "there was a quorum, so what was there was saved")
		for _, name := range hosts {
			f := facts(t, rig, name)
			require.False(t, f.Units[config.UnitName].Runs())
			require.NotEqual(t, "enabled", f.Units[config.UnitName].Enabled)
			d := f.Dirs[config.DefaultDataDir]
			require.Empty(t, d.Entries)
			require.Len(t, d.Aside, 2)
		}
		g.known = nil
		g.unchanged(t, sop.DestroyCluster{Stamp: stamp}) // gone everywhere: done
	})
	chain(t, "create: after a destroy", func(t *testing.T) {
		res := done(t, rig, fresh(t, nil, nil))
		require.Nil(t, res.Plan.Consent)
		require.NotEqual(t, id, res.View.ClusterID())
		require.NotEqual(t, []string{token}, tokens(t, rig, hosts...))
		id = res.View.ClusterID()
		g.known = nil
	})
	chain(t, "purge: asks neither, but for consent", func(t *testing.T) {
		var asked sop.Consent
		g.refused(t, sop.PurgeCluster{}, "consent", disagreeing(&asked))
		require.Equal(t, "delete", asked.Verb)
		require.Equal(t, sop.ID(id), asked.Code)
		done(t, rig, sop.PurgeCluster{})
		for _, name := range hosts {
			f := facts(t, rig, name)
			require.False(t, f.Units[config.UnitName].Runs())
			for _, dir := range []string{config.DefaultDataDir, config.ConfDir} {
				require.Empty(t, f.Dirs[dir].Entries)
				require.Empty(t, f.Dirs[dir].Aside)
			}
			for path, file := range f.Files {
				require.False(t, file.Exists, path)
			}
		}
		g.known = nil
		g.unchanged(t, sop.PurgeCluster{})
	})
}

func snapshots(t *testing.T, rig *scenarios.Rig) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(rig.State(), "snapshots", "*.db"))
	require.NoError(t, err)
	return all
}

// A host that was without power while the others were rebuilt comes back with
// the old member, and must not disturb the new ones.
func TestOldMemberComesBack(t *testing.T) {
	t.Parallel()
	rig := build(t, three)
	g := on(rig)
	old := done(t, rig, fresh(t, nil, nil)).View.ClusterID()
	g.ask(t, []string{h10}, func(ctx context.Context, c *clientv3.Client) {
		_, err := c.Put(ctx, "/old", "old")
		require.NoError(t, err)
	})
	g.change(func() { require.NoError(t, rig.Lab.Power(t.Context(), h12, false)) })
	g.refused(t, fresh(t, ptr(true), nil), "unreachable")

	without := fresh(t, ptr(true), nil)
	without.Unreachable = true // as where the waiver is given
	res := done(t, rig, without, waiving("unreachable"))
	id := res.View.ClusterID()
	require.NotEqual(t, old, id)
	written := map[string]string{}
	g.ask(t, []string{h10, h11}, func(ctx context.Context, c *clientv3.Client) {
		for _, k := range []string{"/new/a", "/new/b", "/new/c"} {
			_, err := c.Put(ctx, k, "before")
			require.NoError(t, err)
			written[k] = "before"
		}
	})
	require.NoError(t, rig.Lab.Power(t.Context(), h12, true))
	eventually(t, "the old member runs", func() bool { return unitOf(t, rig, h12).PID != 0 })
	g.ask(t, []string{h10, h11}, func(ctx context.Context, c *clientv3.Client) {
		// Long enough for it to stand for election, had it a voice.
		for began := time.Now(); time.Since(began) < 4*time.Second; {
			_, err := c.Put(ctx, "/new/d", "after")
			require.NoError(t, err)
			require.NoError(t, pause(ctx, 100*time.Millisecond))
		}
		written["/new/d"] = "after"
		r, err := c.Get(ctx, "/", clientv3.WithPrefix())
		require.NoError(t, err)
		got := map[string]string{}
		for _, kv := range r.Kvs {
			if !strings.HasPrefix(string(kv.Key), "/etcdrill/") {
				got[string(kv.Key)] = string(kv.Value)
			}
		}
		require.True(t, maps.Equal(written, got), "%v", got)
	})
	for _, l := range observe(t, rig).Looks {
		switch l.Host {
		case h10, h11:
			require.True(t, l.Answers(), l.Problem)
			require.Equal(t, id, l.ClusterID)
		case h12:
			require.NotEqual(t, id, l.ClusterID, "it did not join")
		}
	}
}
