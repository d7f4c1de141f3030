package scenarios_test

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/scenarios"
)

var (
	benchOnly  = flag.String("benchonly", "LabUp,LabThroughput", "benchmarks that TestBench runs, comma separated")
	benchCount = flag.Int("benchcount", 1, "how often TestBench runs each")
)

// TestBench looks at the form of the lines, and at no number.
func TestBench(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := scenarios.Bench(t.Context(), scenarios.BenchSpec{
		Executable: executable(t), Root: t.TempDir(), Out: keep(t), Seed: 1,
		Count: *benchCount, Only: strings.Split(*benchOnly, ","), Report: os.Stderr,
	}, &out)
	t.Log("\n" + out.String())
	require.NoError(t, err)
	line := regexp.MustCompile(`^Benchmark[A-Z]\w*-\d+\t\d+\t\d+ ns/op(\t-?[\d.]+ [\w/-]+)*$`)
	n := 0
	for text := range strings.Lines(out.String()) {
		if strings.HasPrefix(text, "Benchmark") {
			require.Regexp(t, line, strings.TrimSuffix(text, "\n"))
			n++
		}
	}
	require.GreaterOrEqual(t, n, *benchCount*len(strings.Split(*benchOnly, ",")))
}
