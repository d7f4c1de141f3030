package scenarios_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
)

func TestRehearseAddMember(t *testing.T) {
	t.Parallel()
	sum, err := scenarios.Rehearse(t.Context(), scenarios.RehearseSpec{
		Inventory: []byte(three), Args: []string{"addMember", "10.10.10.13", "-rehearse=true"},
		Executable: executable(t), Root: t.TempDir(), Out: keep(t), Seed: 3, Rate: testRate, Report: os.Stderr,
	})
	require.NoError(t, err)
	require.Equal(t, scenarios.Pass, sum.Verdict, sum.Reasons)
	require.Zero(t, sum.LostWrites)
	require.Positive(t, sum.AckedWrites)
	require.Len(t, sum.Procedures, 2)
	add := sum.Procedures[1]
	require.True(t, add.UnderLoad)
	require.NotEmpty(t, add.Steps)
	require.Contains(t, titles(add.Steps), "promote to voter")
}

func TestRehearse(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"create":   {"createCluster"},
		"rebuild":  {"createCluster", "-clean=true"},
		"destroy":  {"destroyCluster", "-confirm=cafe"},
		"purge":    {"purgeCluster"},
		"snapshot": {"snapshot", "/nowhere/x.db"},
		"reload":   {"reloadConfig", "-only=10.10.10.11"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sum, err := scenarios.Rehearse(t.Context(), scenarios.RehearseSpec{
				Inventory: []byte(three), Args: args,
				Executable: executable(t), Root: t.TempDir(), Out: keep(t), Seed: 3, Rate: testRate, Report: os.Stderr,
			})
			require.NoError(t, err)
			require.Equal(t, scenarios.Pass, sum.Verdict, sum.Reasons)
			require.Zero(t, sum.LostWrites)
			require.Positive(t, sum.AckedWrites)
		})
	}
}

func titles(steps []scenarios.Step) []string {
	var all []string
	for _, s := range steps {
		all = append(all, s.Title)
	}
	return all
}

// TestRehearseInterrupted ends a rehearsal in the middle: what was seen is
// kept, no verdict is made up, and no lab stays.
func TestRehearseInterrupted(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	root, out := t.TempDir(), t.TempDir()
	sum, err := scenarios.Rehearse(ctx, scenarios.RehearseSpec{
		Inventory: []byte(three), Args: []string{"addMember", "10.10.10.13"},
		Executable: executable(t), Root: root, Out: out, Seed: 3, Rate: testRate, Report: writerFunc(func(b []byte) {
			if strings.Contains(string(b), "s  addMember") {
				time.AfterFunc(1500*time.Millisecond, interrupt)
			}
		}),
	})
	require.NoError(t, err)
	require.Equal(t, scenarios.Unknown, sum.Verdict, sum.Reasons)
	require.FileExists(t, filepath.Join(sum.Dir, "summary.json"))
	require.FileExists(t, filepath.Join(sum.Dir, "history.jsonl"))
	labs, err := embedded.List(t.Context(), root)
	require.NoError(t, err)
	require.Empty(t, labs)
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

// TestRehearseRefused: what production would refuse has not been rehearsed, and
// the user is told why.
func TestRehearseRefused(t *testing.T) {
	t.Parallel()
	sum, err := scenarios.Rehearse(t.Context(), scenarios.RehearseSpec{
		Inventory: []byte(three), Args: []string{"removeMember", "10.10.10.99"},
		Executable: executable(t), Root: t.TempDir(), Out: t.TempDir(), Seed: 3, Rate: testRate,
	})
	require.NoError(t, err)
	require.Equal(t, scenarios.Unknown, sum.Verdict)
	require.Contains(t, strings.Join(sum.Reasons, "\n"), "known-host")
}

// TestRehearseTwin: the twin has the members that production has, whatever the
// inventory says, and then gets production's inventory.
func TestRehearseTwin(t *testing.T) {
	t.Parallel()
	drifted := strings.Replace(three, "10.10.10.12: { etcd_seq: 3 }\n", "10.10.10.12: { etcd_seq: 3 }\n        10.10.10.13: { etcd_seq: 4 }\n", 1)
	require.NotEqual(t, three, drifted)
	sum, err := scenarios.Rehearse(t.Context(), scenarios.RehearseSpec{
		Inventory: []byte(drifted), Args: []string{"addMember", "10.10.10.13"}, Members: []string{"10.10.10.10", "10.10.10.11", "10.10.10.12"},
		Executable: executable(t), Root: t.TempDir(), Out: t.TempDir(), Seed: 3, Rate: testRate, Report: os.Stderr,
	})
	require.NoError(t, err)
	require.Equal(t, scenarios.Pass, sum.Verdict, sum.Reasons)
	require.NotContains(t, titles(sum.Procedures[1].Steps), "add to the inventory", "it was listed already")
}

// TestRehearseWithData: the twin holds what a snapshot of the real cluster has, and
// the report says what that lets one expect.
func TestRehearseWithData(t *testing.T) {
	rig := build(t, three)
	done(t, rig, fresh(t, nil, nil))
	const keys, size = 400, 50_000
	on(rig).ask(t, []string{h10}, func(ctx context.Context, c *clientv3.Client) {
		for i := range keys {
			_, err := c.Put(ctx, fmt.Sprintf("/data/%d", i), strings.Repeat("x", size))
			require.NoError(t, err)
		}
	})
	file := filepath.Join(t.TempDir(), "s.db")
	done(t, rig, sop.Snapshot{File: file, Since: time.Now()})
	sum, err := scenarios.Rehearse(t.Context(), scenarios.RehearseSpec{
		Inventory: []byte(three), Args: []string{"addMember", "10.10.10.13", "-rehearse=true", "-snapshot=" + file}, Snapshot: file,
		Executable: executable(t), Root: t.TempDir(), Out: keep(t), Seed: 3, Rate: testRate, Report: os.Stderr,
	})
	require.NoError(t, err)
	require.Equal(t, scenarios.Pass, sum.Verdict, sum.Reasons)
	require.Len(t, sum.Procedures, 3)
	require.Equal(t, "restore, to have its data", sum.Procedures[1].Name)
	require.NotContains(t, sum.Procedures[2].Command, "-snapshot")
	require.Len(t, sum.Expect, 3)
	require.Regexp(t, `the learner had the (19|2\d)\.\d MiB after`, sum.Expect[2])
	require.Contains(t, strings.Join(sum.Unknown, "\n"), "the data is its own")
}
