package scenarios_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
)

// TestRehearseMaintenance: a twin is given what such a procedure is about, so that
// it has something to do there.
func TestRehearseMaintenance(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args   []string
		does   string // a step of it; empty where there is nothing to do
		alarms []sop.AlarmStatus
	}{
		"move the leader": {args: []string{"moveLeader"}, does: "hand over the leadership"},
		"defragment":      {args: []string{"defrag"}},
		"compact":         {args: []string{"compact", "-revision=48211"}, does: "compact"},
		"compact but for": {args: []string{"compact", "-keep=100"}, does: "compact"},
		"rotate":          {args: []string{"rotateCerts"}, does: "issue the certificate"},
		"another CA":      {args: []string{"rotateCerts", "-ca=trust"}, does: "restart etcd"},
		"sign":            {args: []string{"rotateCerts", "-ca=sign"}, does: "issue the certificate"},
		"retire":          {args: []string{"rotateCerts", "-ca=retire"}, does: "put it aside"},
		"disarm nothing":  {args: []string{"alarm:disarm"}},
		"disarm":          {args: []string{"alarm:disarm"}, does: "disarm NOSPACE", alarms: []sop.AlarmStatus{{Kind: "NOSPACE", Host: h11}, {Kind: "NOSPACE", Member: "1267"}}},
		"enable auth":     {args: []string{"enableAuth"}, does: "enable authentication"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sum, err := scenarios.Rehearse(t.Context(), scenarios.RehearseSpec{
				Inventory: []byte(three), Args: c.args, Revision: 50_000, Alarms: c.alarms,
				Executable: executable(t), Root: t.TempDir(), Out: keep(t), Seed: 3, Rate: testRate, Report: os.Stderr,
			})
			require.NoError(t, err)
			require.Equal(t, scenarios.Pass, sum.Verdict, sum.Reasons)
			require.Zero(t, sum.LostWrites)
			require.Positive(t, sum.AckedWrites)
			p := sum.Procedures[len(sum.Procedures)-1]
			require.True(t, p.UnderLoad)
			if c.does == "" {
				require.Empty(t, p.Steps)
				return
			}
			require.Contains(t, strings.Join(titles(p.Steps), "\n"), c.does)
		})
	}
}

// TestRehearseDefragWithData: what a defragmentation takes is measured with the
// user's own data, of which the free part is kept too.
func TestRehearseDefragWithData(t *testing.T) {
	t.Parallel()
	rig := build(t, three)
	done(t, rig, fresh(t, nil, nil))
	on(rig).ask(t, []string{h10}, func(ctx context.Context, c *clientv3.Client) {
		for range 24 {
			_, err := c.Put(ctx, "/waste", strings.Repeat("x", 1<<20))
			require.NoError(t, err)
		}
		r, err := c.Delete(ctx, "/waste")
		require.NoError(t, err)
		_, err = c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
		require.NoError(t, err)
	})
	file := filepath.Join(t.TempDir(), "s.db")
	done(t, rig, sop.Snapshot{File: file, Since: time.Now()})
	for _, args := range [][]string{{"defrag", "-least=1MiB"}, {"compact", "-keep=5"}} {
		sum, err := scenarios.Rehearse(t.Context(), scenarios.RehearseSpec{
			Inventory: []byte(three), Args: append(args, "-snapshot="+file), Snapshot: file, Revision: 26,
			Executable: executable(t), Root: t.TempDir(), Out: keep(t), Seed: 3, Rate: testRate, Report: os.Stderr,
		})
		require.NoError(t, err)
		require.Equal(t, scenarios.Pass, sum.Verdict, sum.Reasons)
		p := sum.Procedures[len(sum.Procedures)-1]
		require.NotContains(t, p.Command, "-snapshot")
		require.NotEmpty(t, p.Steps)
		require.NotEmpty(t, sum.Expect)
	}
}
