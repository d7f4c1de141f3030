package workload_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/workload"
)

const ms = time.Millisecond

// acks makes a history of acknowledged writes: for each client the moments,
// in milliseconds, at which it was answered.
func acks(clients ...[]int) *workload.History {
	h := &workload.History{Header: workload.Header{Clients: len(clients)}}
	for c, times := range clients {
		for _, t := range times {
			h.Ops = append(h.Ops, workload.Op{Client: c, Kind: workload.Put, Outcome: workload.OK, Return: time.Duration(t) * ms, Revision: 1})
		}
	}
	return h
}

func TestWriteGap(t *testing.T) {
	two := acks([]int{10, 20, 90}, []int{15, 60, 95})
	for _, row := range []struct {
		name     string
		h        *workload.History
		from, to int
		want     workload.Gap
	}{
		{"over all clients, and the slowest's own", two, 10, 100,
			workload.Gap{Longest: 40 * ms, At: 20 * ms, SlowestClient: 0, SlowestLongest: 70 * ms, Acked: 6}},
		{"the first edge counts", two, 0, 21, workload.Gap{Longest: 10 * ms, At: 0, SlowestClient: 1, SlowestLongest: 15 * ms, Acked: 3}},
		{"the last edge counts", two, 60, 200, workload.Gap{Longest: 105 * ms, At: 95 * ms, SlowestClient: 0, SlowestLongest: 110 * ms, Acked: 3}},
		{"a window without writes is one gap", two, 30, 50, workload.Gap{Longest: 20 * ms, At: 30 * ms, SlowestClient: 0, SlowestLongest: 20 * ms}},
		{"no window", two, 50, 50, workload.Gap{At: 50 * ms}},
		{"nothing at all", acks(nil), 0, 10, workload.Gap{Longest: 10 * ms, SlowestLongest: 10 * ms}},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.want.From, row.want.To = time.Duration(row.from)*ms, time.Duration(row.to)*ms
			require.Equal(t, row.want, workload.WriteGap(row.h, row.want.From, row.want.To))
		})
	}
	// Only acknowledged writes end a gap.
	other := acks([]int{10, 90})
	other.Ops = append(other.Ops,
		workload.Op{Kind: workload.Get, Outcome: workload.OK, Return: 50 * ms, Revision: 1},
		workload.Op{Kind: workload.Put, Outcome: workload.Unknown, Return: 60 * ms},
		workload.Op{Kind: workload.Put, Outcome: workload.Fail, Return: 70 * ms})
	require.Equal(t, 80*ms, workload.WriteGap(other, 10*ms, 90*ms).Longest)
}

func TestMeasureAgainstTheQuietWindowBefore(t *testing.T) {
	h := acks([]int{0, 5, 10, 20, 30, 32, 34, 60, 70})
	i := workload.Measure(h, 34*ms, 64*ms)
	require.Equal(t, 26*ms, i.During.Longest)
	require.Equal(t, 10*ms, i.Quiet.Longest)
	require.Equal(t, 4*ms, i.Quiet.From)
	require.Equal(t, 34*ms, i.Quiet.To)
	require.False(t, i.QuietShort)
	require.Equal(t, 16*ms, i.Net())

	i = workload.Measure(h, 30*ms, 70*ms)
	require.True(t, i.QuietShort)
	require.Equal(t, time.Duration(0), i.Quiet.From)

	i = workload.Measure(acks([]int{0, 100, 101, 102}), 100*ms, 102*ms)
	require.Zero(t, i.Net(), "less than the noise is nothing")
}

func TestStepGaps(t *testing.T) {
	h := acks([]int{0, 10, 20, 50, 55, 80})
	h.Marks = []workload.Mark{{At: 22 * ms, Name: "two"}, {At: 5 * ms, Name: "one"}, {At: 52 * ms, Name: "three"}}
	var names []string
	var gaps []time.Duration
	var acked int
	for _, s := range workload.StepGaps(h) {
		names, gaps, acked = append(names, s.Name), append(gaps, s.Longest), acked+s.Acked
	}
	require.Equal(t, []string{"one", "two", "three"}, names)
	require.Equal(t, []time.Duration{10 * ms, 28 * ms, 25 * ms}, gaps)
	require.Equal(t, 5, acked)
	require.Empty(t, workload.StepGaps(acks(nil)))
}
