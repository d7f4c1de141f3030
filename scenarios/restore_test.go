package scenarios_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// restore is the procedure as it is called: with a token that nobody had.
func restore(t *testing.T, file string) sop.Restore {
	t.Helper()
	token, err := config.NewRestoreToken(time.Now(), rand.Reader)
	require.NoError(t, err)
	p := sop.Restore{File: file, Since: time.Now(), Token: token, Stamp: sop.Stamp(time.Now())}
	if p.Snapshot, err = sop.ReadSnapshot(file); err != nil {
		p.Problem = err.Error()
	}
	return p
}

// puts writes keys PREFIX/1 to PREFIX/N and gives the revision of the last.
func (g *ground) puts(t *testing.T, at, prefix string, n int) (revision int64) {
	t.Helper()
	g.ask(t, []string{at}, func(ctx context.Context, c *clientv3.Client) {
		for i := range n {
			r, err := c.Put(ctx, fmt.Sprintf("%s/%d", prefix, i+1), fmt.Sprint(i+1))
			require.NoError(t, err)
			revision = r.Header.Revision
		}
	})
	return revision
}

// count gives the number of keys below a prefix, as a member has them.
func (g *ground) count(t *testing.T, at, prefix string) (n int64) {
	t.Helper()
	g.ask(t, []string{at}, func(ctx context.Context, c *clientv3.Client) {
		r, err := c.Get(ctx, prefix+"/", clientv3.WithPrefix(), clientv3.WithCountOnly(), clientv3.WithSerializable())
		require.NoError(t, err)
		n = r.Count
	})
	return n
}

// wipe takes the data of a host away, as the loss of a disk does.
func wipe(t *testing.T, rig *scenarios.Rig, name string) {
	t.Helper()
	require.NoError(t, rig.Lab.Host(name).Do(t.Context(), host.Delete{Path: config.DefaultDataDir}))
}

func TestRestore(t *testing.T) {
	t.Parallel()
	hosts := []string{h10, h11, h12}
	rig := build(t, three)
	g := on(rig)
	old := done(t, rig, fresh(t, nil, nil)).View.ClusterID()
	file := filepath.Join(t.TempDir(), "s.db")
	kept := g.puts(t, h10, "/kept", 20)
	done(t, rig, sop.Snapshot{File: file, Since: time.Now()})
	newest := g.puts(t, h11, "/lost", 7)
	var id uint64

	chain(t, "a quorum lives", func(t *testing.T) {
		r := g.refused(t, restore(t, file), "living-quorum")
		require.Contains(t, r.Found, fmt.Sprintf("at revision %d; the snapshot is of revision %d", newest, kept))
	})
	chain(t, "two of three have lost their disks", func(t *testing.T) {
		for _, name := range []string{h10, h12} {
			crash(t, rig, name)
			wipe(t, rig, name)
		}
		var asked sop.Consent
		_, err := run(t, rig, restore(t, file), disagreeing(&asked))
		require.ErrorIs(t, err, sop.ErrRefused)
		require.Equal(t, sop.ID(old), asked.Code)
		require.Contains(t, fmt.Sprint(asked.Shown), fmt.Sprintf("the writes of 7 revisions, %d to %d, are gone", kept+1, newest))

		res := done(t, rig, restore(t, file))
		id = res.View.ClusterID()
		require.NotEqual(t, old, id)
		require.Equal(t, hosts, voters(res.View))
		requireConsistent(t, rig)
		for _, name := range hosts {
			require.EqualValues(t, 20, g.count(t, name, "/kept"))
			require.Zero(t, g.count(t, name, "/lost"))
			l := res.View.LookAt(name)
			require.GreaterOrEqual(t, l.Revision, kept+sop.Bump)
			f := facts(t, rig, name)
			require.Equal(t, "enabled", f.Units[config.UnitName].Enabled)
		}
		d := facts(t, rig, h11).Dirs[config.DefaultDataDir]
		require.NotEmpty(t, d.Aside)
		require.Greater(t, d.Aside[len(d.Aside)-1].Bytes, int64(64_000_000), "the old log is there still")
		left, err := filepath.Glob(filepath.Join(rig.Lab.Root(h11), config.DefaultDataDir, host.AsidePrefix+"*", "restore", "*"))
		require.NoError(t, err)
		require.Empty(t, left, "what was needed on the way is gone")
	})
	chain(t, "who watches from an old revision is told", func(t *testing.T) {
		g.ask(t, hosts, func(ctx context.Context, c *clientv3.Client) {
			r := <-c.Watch(ctx, "/kept/", clientv3.WithPrefix(), clientv3.WithRev(newest+1))
			require.True(t, r.Canceled)
			require.Equal(t, kept+sop.Bump, r.CompactRevision)
		})
	})
	chain(t, "again: nothing to do", func(t *testing.T) {
		g.known = nil
		g.unchanged(t, restore(t, file))
	})
	chain(t, "again, and meant", func(t *testing.T) {
		g.puts(t, h10, "/later", 3)
		p := restore(t, file)
		p.Again = true
		g.refused(t, p, "living-quorum")
		p = restore(t, file)
		p.Again = true
		res := done(t, rig, p, waiving("living-quorum"))
		require.NotEqual(t, id, res.View.ClusterID())
		requireConsistent(t, rig)
		require.EqualValues(t, 20, g.count(t, h12, "/kept"))
		require.Zero(t, g.count(t, h12, "/later"))
	})
}

// What is no snapshot of this cluster is refused, and nothing touched.
func TestRestoreRefusals(t *testing.T) {
	t.Parallel()
	rig := build(t, three)
	g := on(rig)
	done(t, rig, fresh(t, nil, nil))
	dir := t.TempDir()
	file := filepath.Join(dir, "s.db")
	g.puts(t, h10, "/kept", 20)
	done(t, rig, sop.Snapshot{File: file, Since: time.Now()})
	sound, err := os.ReadFile(file)
	require.NoError(t, err)
	record, err := os.ReadFile(file + ".json")
	require.NoError(t, err)
	crash(t, rig, h10)
	crash(t, rig, h11)
	eventually(t, "the third knows of no leader", func() bool {
		_, st, err := g.status(t, h12)
		return err == nil && st != nil && st.Leader == 0
	})

	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	flipped := append([]byte{}, sound...)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		file, found string
	}{
		"absent":           {filepath.Join(dir, "nothing.db"), "no such file"},
		"empty":            {write("empty.db", nil), "it was cut off"},
		"truncated":        {write("truncated.db", sound[:len(sound)-4096]), "its trailer says"},
		"without trailer":  {write("plain.db", sound[:len(sound)-32]), "it was cut off"},
		"a flipped bit":    {write("flipped.db", flipped), "its trailer says"},
		"another's record": {write("other.db", sound), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "another's record" {
				write("other.db.json", []byte(`{"sha256": "00"}`))
				c.found = "is about one with 00"
			}
			r := g.refused(t, restore(t, c.file), "snapshot-sound")
			require.Contains(t, r.Found, c.found)
		})
	}
	t.Run("of another cluster", func(t *testing.T) {
		p := restore(t, file)
		write("foreign.db", sound)
		write("foreign.db.json", record)
		p = restore(t, filepath.Join(dir, "foreign.db"))
		p.Snapshot.ClusterID = 0xbad
		r := g.refused(t, p, "snapshot-cluster")
		require.Contains(t, r.Found, "of cluster bad")
	})
	t.Run("a host without power", func(t *testing.T) {
		require.NoError(t, rig.Lab.Power(t.Context(), h12, false))
		g.known = nil
		g.refused(t, restore(t, file), "unreachable")
	})
}
