package scenarios_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/scenarios"
)

func executable(t *testing.T) string { return scenarios.Executable(t) }

func TestDrill(t *testing.T) {
	out := keep(t)
	sum, err := scenarios.Drill(t.Context(), scenarios.DrillSpec{Executable: executable(t), Root: t.TempDir(), Out: out, Seed: 7, Report: os.Stderr})
	require.NoError(t, err)
	require.Equal(t, scenarios.Pass, sum.Verdict, sum.Reasons)
	require.Zero(t, sum.LostWrites)
	require.Positive(t, sum.AckedWrites)
	require.Positive(t, sum.MaxWriteGapMS)

	content, err := os.ReadFile(filepath.Join(out, ".etcdrill", "runs", "latest", "summary.json"))
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(content, &fields))
	require.Equal(t, "pass", fields["verdict"])
}

var kept = flag.String("keep", "", "directory to keep what runs leave in; a temporary one when empty")

func keep(t *testing.T) string {
	if *kept == "" {
		return t.TempDir()
	}
	dir, err := filepath.Abs(*kept)
	require.NoError(t, err)
	return dir
}
