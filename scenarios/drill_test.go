package scenarios_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
)

func executable(t *testing.T) string { return scenarios.Executable(t) }

func TestDrill(t *testing.T) {
	t.Parallel()
	out := keep(t)
	sum, err := scenarios.Drill(t.Context(), scenarios.DrillSpec{Executable: executable(t), Root: t.TempDir(), Out: out, Seed: 7, Rate: testRate, Report: os.Stderr})
	require.NoError(t, err)
	require.Equal(t, scenarios.Pass, sum.Verdict, sum.Reasons)
	require.Zero(t, sum.LostWrites)
	require.Positive(t, sum.AckedWrites)
	require.Positive(t, sum.MaxWriteGapMS)

	run := filepath.Join(out, ".etcdrill", "runs", "latest")
	content, err := os.ReadFile(filepath.Join(run, "summary.json"))
	require.NoError(t, err)
	// The names that others read.
	var fields struct {
		Verdict       *string  `json:"verdict"`
		Seed          *int64   `json:"seed"`
		EtcdVersion   *string  `json:"etcd_version"`
		AckedWrites   *int     `json:"acked_writes"`
		LostWrites    *int     `json:"lost_writes"`
		MaxWriteGapMS *float64 `json:"max_write_gap_ms"`
		Procedures    []struct {
			Name    *string  `json:"name"`
			Verdict *string  `json:"verdict"`
			Seconds *float64 `json:"seconds"`
			Steps   []struct {
				Title         *string  `json:"title"`
				Host          *string  `json:"host"`
				Seconds       *float64 `json:"seconds"`
				MaxWriteGapMS *float64 `json:"max_write_gap_ms"`
			} `json:"steps"`
		} `json:"procedures"`
	}
	require.NoError(t, json.Unmarshal(content, &fields))
	require.Equal(t, "pass", *fields.Verdict)
	require.Equal(t, int64(7), *fields.Seed)
	require.Regexp(t, `^3\.\d+\.\d+$`, *fields.EtcdVersion)
	require.NotNil(t, fields.AckedWrites)
	require.Zero(t, *fields.LostWrites)
	require.NotNil(t, fields.MaxWriteGapMS)
	steps := 0
	for _, p := range fields.Procedures {
		require.NotEmpty(t, *p.Name)
		require.Equal(t, "pass", *p.Verdict, *p.Name)
		require.Positive(t, *p.Seconds)
		require.NotNil(t, p.Steps, *p.Name)
		for _, s := range p.Steps {
			require.NotEmpty(t, *s.Title)
			require.NotNil(t, s.Host)
			require.NotNil(t, s.Seconds)
			require.NotNil(t, s.MaxWriteGapMS)
			steps++
		}
	}
	require.Greater(t, steps, 50)

	for _, p := range sum.Procedures {
		require.FileExists(t, filepath.Join(run, p.Output+".out"))
		require.FileExists(t, filepath.Join(run, p.Output+".err"))
		require.Equal(t, strings.HasSuffix(p.Name, ", killed"), p.Killed, p.Name)
	}
	for _, host := range []string{"10.10.10.10", "10.10.10.15"} {
		require.FileExists(t, filepath.Join(run, "members", host+".log"))
	}
	history, err := workload.ReadHistory(filepath.Join(run, "history.jsonl"))
	require.NoError(t, err)
	require.Equal(t, sum.AckedWrites, history.Acked())
	journal, err := os.Open(filepath.Join(run, "journal.jsonl"))
	require.NoError(t, err)
	defer journal.Close()
	records, err := sop.ReadJournal(journal)
	require.NoError(t, err)
	require.Equal(t, "createCluster", records[0].Procedure, "a run that was cut off is never found in here")
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
