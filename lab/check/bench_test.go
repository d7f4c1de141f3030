package check_test

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// million are the histories that the benchmarks judge: a million operations of
// the load that drills run, and of one with all kinds of calls, leases,
// watchers and a log.
func million(name string) simulation {
	if name == "puts" {
		return simulation{seed: 1, clients: 8, keys: 8, ops: 1_000_000, reads: 0.1, doubt: 0.01}
	}
	return simulation{seed: 1, clients: 16, keys: 32, ops: 1_000_000, reads: 0.3, doubt: 0.01,
		rich: true, leaseClients: 2, watchers: 1, step: 2 * time.Millisecond}
}

// BenchmarkVerdict is the verdict on a whole history: the order of all
// revisions, whether all fits it, and whether anything is lost. peak-MB is the
// most that this process ever held, history and making it up included; cpu-s/op
// is processor time, which other work on the machine changes less.
func BenchmarkVerdict(b *testing.B) {
	for _, name := range []string{"puts", "everything"} {
		b.Run(name, func(b *testing.B) {
			_, e := million(name).run()
			b.ReportAllocs()
			began := cpu(b)
			for b.Loop() {
				for _, f := range check.Judge(b.Context(), e, check.NoAckedWriteLost(), check.Linearizable()) {
					require.NoError(b, f.Err)
				}
			}
			b.ReportMetric(float64(len(e.History.Ops)), "ops/history")
			b.ReportMetric((cpu(b)-began).Seconds()/float64(b.N), "cpu-s/op")
			b.ReportMetric(peak(b), "peak-MB")
		})
	}
}

// BenchmarkCheckers are the others, each with an order of its own.
func BenchmarkCheckers(b *testing.B) {
	_, e := million("everything").run()
	for _, c := range []check.Checker{check.Watches(), check.Leases(), check.SecondOpinion()} {
		b.Run(c.Name, func(b *testing.B) {
			for b.Loop() {
				require.NoError(b, c.Check(context.Background(), e))
			}
		})
	}
}

// BenchmarkRead is how long it takes to read a history of a million operations.
func BenchmarkRead(b *testing.B) {
	h, _ := million("puts").run()
	var text bytes.Buffer
	_, err := h.WriteTo(&text)
	require.NoError(b, err)
	for b.Loop() {
		_, err := workload.Read(bytes.NewReader(text.Bytes()))
		require.NoError(b, err)
	}
	b.SetBytes(int64(text.Len()))
}

// cpu is the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak is the high-water mark of this process's memory.
func peak(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(b, err)
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kb, err := strconv.Atoi(string(bytes.Fields(rest)[0]))
			require.NoError(b, err)
			return float64(kb) / 1024
		}
	}
	b.Fatal("no high-water mark")
	return 0
}
