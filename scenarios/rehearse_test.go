package scenarios_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/scenarios"
)

func TestRehearseAddMember(t *testing.T) {
	sum, err := scenarios.Rehearse(t.Context(), scenarios.RehearseSpec{
		Inventory: []byte(three), Args: []string{"addMember", "10.10.10.13", "-rehearse=true"},
		Executable: executable(t), Root: t.TempDir(), Out: keep(t), Seed: 3, Report: os.Stderr,
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
	for name, args := range map[string][]string{
		"create":   {"createCluster"},
		"rebuild":  {"createCluster", "-clean=true"},
		"destroy":  {"destroyCluster", "-confirm=cafe"},
		"purge":    {"purgeCluster"},
		"snapshot": {"snapshot", "/nowhere/x.db"},
		"reload":   {"reloadConfig", "-only=10.10.10.11"},
	} {
		t.Run(name, func(t *testing.T) {
			sum, err := scenarios.Rehearse(t.Context(), scenarios.RehearseSpec{
				Inventory: []byte(three), Args: args,
				Executable: executable(t), Root: t.TempDir(), Out: keep(t), Seed: 3, Report: os.Stderr,
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
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	root, out := t.TempDir(), t.TempDir()
	sum, err := scenarios.Rehearse(ctx, scenarios.RehearseSpec{
		Inventory: []byte(three), Args: []string{"addMember", "10.10.10.13"},
		Executable: executable(t), Root: root, Out: out, Seed: 3, Report: writerFunc(func(b []byte) {
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
	sum, err := scenarios.Rehearse(t.Context(), scenarios.RehearseSpec{
		Inventory: []byte(three), Args: []string{"removeMember", "10.10.10.99"},
		Executable: executable(t), Root: t.TempDir(), Out: t.TempDir(), Seed: 3,
	})
	require.NoError(t, err)
	require.Equal(t, scenarios.Unknown, sum.Verdict)
	require.Contains(t, strings.Join(sum.Reasons, "\n"), "known-host")
}

// TestRehearseTwin: the twin has the members that production has, whatever the
// inventory says, and then gets production's inventory.
func TestRehearseTwin(t *testing.T) {
	drifted := strings.Replace(three, "10.10.10.12: { etcd_seq: 3 }\n", "10.10.10.12: { etcd_seq: 3 }\n        10.10.10.13: { etcd_seq: 4 }\n", 1)
	require.NotEqual(t, three, drifted)
	sum, err := scenarios.Rehearse(t.Context(), scenarios.RehearseSpec{
		Inventory: []byte(drifted), Args: []string{"addMember", "10.10.10.13"}, Members: []string{"10.10.10.10", "10.10.10.11", "10.10.10.12"},
		Executable: executable(t), Root: t.TempDir(), Out: t.TempDir(), Seed: 3, Report: os.Stderr,
	})
	require.NoError(t, err)
	require.Equal(t, scenarios.Pass, sum.Verdict, sum.Reasons)
	require.NotContains(t, titles(sum.Procedures[1].Steps), "add to the inventory", "it was listed already")
}
