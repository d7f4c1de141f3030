package netswitch

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// epoch is when every test of the model begins. The model has no clock of its
// own, so any moment does.
func epoch() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }

func at(d time.Duration) time.Time { return epoch().Add(d) }

func testLine(seed int64, r Rule) *line {
	l := newLine(seed, Link{From: "a", To: "b"})
	l.set(epoch(), r)
	return l
}

// numbered is a UDP-like frame of n Ethernet bytes that carries a number.
func numbered(i, n int) []byte {
	f := make([]byte, offloadLen+n)
	binary.BigEndian.PutUint32(f[offloadLen+etherLen:], uint32(i))
	return f
}

func numberOf(frame []byte) int {
	return int(binary.BigEndian.Uint32(frame[offloadLen+etherLen:]))
}

// arrival is a frame that came out of a line.
type arrival struct {
	n  int
	at time.Duration // since epoch
}

// drain takes out all that comes until the line is empty, each at its time.
func drain(l *line) []arrival {
	var out []arrival
	for {
		next, ok := l.next()
		if !ok {
			return out
		}
		for {
			f, ok := l.pop(next)
			if !ok {
				break
			}
			out = append(out, arrival{numberOf(f.frame), next.Sub(epoch())})
		}
	}
}

// feed offers n frames of some bytes each, one per interval.
func feed(t testing.TB, l *line, n, bytes int, every time.Duration) {
	t.Helper()
	for i := range n {
		require.False(t, l.offer(at(time.Duration(i)*every), numbered(i, bytes), header{}))
	}
}

func numbers(as []arrival) []int {
	var ns []int
	for _, a := range as {
		ns = append(ns, a.n)
	}
	return ns
}

func TestLineZeroRuleTouchesNothing(t *testing.T) {
	t.Parallel()
	l := testLine(1, Rule{})
	require.True(t, l.offer(epoch(), numbered(0, 100), header{}))
	require.Equal(t, Counter{}, l.count)
	require.Empty(t, drain(l))
}

func TestLineDelayIsExactAndKeepsOrder(t *testing.T) {
	t.Parallel()
	l := testLine(1, Rule{Delay: 50 * time.Millisecond})
	feed(t, l, 100, 100, time.Millisecond)
	out := drain(l)
	require.Len(t, out, 100)
	for i, a := range out {
		require.Equal(t, arrival{i, time.Duration(i)*time.Millisecond + 50*time.Millisecond}, a)
	}
	require.EqualValues(t, 100, l.count.Delayed)
}

// Whatever Delay, Jitter, Rate, Loss and Duplicate are, order is kept and no
// frame is early.
func TestLineKeepsOrderWithoutReorder(t *testing.T) {
	t.Parallel()
	for seed := range int64(200) {
		rng := rand.New(rand.NewPCG(uint64(seed), 0))
		r := Rule{
			Delay:     time.Duration(rng.Int64N(int64(20 * time.Millisecond))),
			Jitter:    time.Duration(rng.Int64N(int64(50 * time.Millisecond))),
			Loss:      rng.Float64() / 2,
			Duplicate: rng.Float64() / 2,
			Rate:      rng.Int64N(2) * (10_000 + rng.Int64N(1_000_000)),
		}
		l := testLine(seed, r)
		feed(t, l, 300, 60+rng.IntN(1400), 100*time.Microsecond)
		out := drain(l)
		require.True(t, slices.IsSorted(numbers(out)), "seed %d, %v", seed, r)
		require.Zero(t, l.count.Reordered)
		for _, a := range out {
			require.GreaterOrEqual(t, a.at, time.Duration(a.n)*100*time.Microsecond+r.Delay, "seed %d, %v", seed, r)
		}
	}
}

func TestLineJitterSpreads(t *testing.T) {
	t.Parallel()
	l := testLine(7, Rule{Delay: 10 * time.Millisecond, Jitter: 10 * time.Millisecond})
	feed(t, l, 1000, 100, time.Second) // far apart, so that order binds nothing
	var least, most, total time.Duration = time.Hour, 0, 0
	for _, a := range drain(l) {
		wait := a.at - time.Duration(a.n)*time.Second
		least, most, total = min(least, wait), max(most, wait), total+wait
	}
	require.GreaterOrEqual(t, least, 10*time.Millisecond)
	require.Less(t, least, 11*time.Millisecond)
	require.Less(t, most, 20*time.Millisecond)
	require.Greater(t, most, 19*time.Millisecond)
	require.InDelta(t, 15*time.Millisecond, total/1000, float64(time.Millisecond))
}

func TestLineProbabilities(t *testing.T) {
	t.Parallel()
	const n = 20_000
	for _, p := range []float64{0, 0.01, 0.3, 0.5, 0.99, 1} {
		near := func(got int64, name string) {
			// Five standard deviations; with p at 0 or 1 nothing is left to chance.
			require.InDelta(t, p*n, got, 5*math.Sqrt(n*p*(1-p)), "%s %v", name, p)
		}
		l := testLine(3, Rule{Loss: p, Delay: 1})
		feed(t, l, n, 60, time.Millisecond)
		require.Len(t, drain(l), n-int(l.count.Lost))
		near(l.count.Lost, "loss")

		l = testLine(3, Rule{Duplicate: p, Delay: 1})
		feed(t, l, n, 60, time.Millisecond)
		require.Len(t, drain(l), n+int(l.count.Duplicated))
		near(l.count.Duplicated, "duplicate")

		l = testLine(3, Rule{Reorder: p, Delay: time.Nanosecond})
		late := 0
		feed(t, l, n, 60, time.Second)
		for _, a := range drain(l) {
			if lag := a.at - time.Duration(a.n)*time.Second; lag > 1 {
				late++
				require.GreaterOrEqual(t, lag, minLag)
				require.LessOrEqual(t, lag, maxLag+1)
			}
		}
		near(int64(late), "reorder")
		require.Zero(t, l.count.Reordered, "frames a second apart cannot overtake")
	}
}

// The counter of reordering is proof: it counts frames that came out behind a
// later one, nothing else.
func TestLineReorder(t *testing.T) {
	t.Parallel()
	l := testLine(5, Rule{Reorder: 0.1, Delay: 5 * time.Millisecond})
	feed(t, l, 1000, 100, 100*time.Microsecond)
	out := numbers(drain(l))
	require.Len(t, out, 1000)
	behind, highest := 0, -1
	for _, n := range out {
		if n < highest {
			behind++
		}
		highest = max(highest, n)
	}
	require.EqualValues(t, behind, l.count.Reordered)
	require.Greater(t, behind, 50)
	require.Less(t, behind, 150)
	slices.Sort(out)
	for i, n := range out {
		require.Equal(t, i, n, "none lost, none twice")
	}
}

// No window of time passes more than the bucket plus what the rate pays for,
// and a line with work to do does not idle.
func TestLineRate(t *testing.T) {
	t.Parallel()
	for seed := range int64(30) {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		rate := 20_000 + rng.Int64N(1_000_000)
		l := testLine(seed, Rule{Rate: rate})
		var sizes []int
		now := time.Duration(0)
		for i := range 400 {
			sizes = append(sizes, 60+rng.IntN(1455))
			now += time.Duration(rng.Int64N(int64(5 * time.Millisecond)))
			l.offer(at(now), numbered(i, sizes[i]), header{})
		}
		out := drain(l)
		require.Len(t, out, 400-int(l.count.Limited))
		for i := range out {
			sent := 0
			for j := i; j < len(out); j++ {
				sent += sizes[out[j].n]
				window := (out[j].at - out[i].at).Seconds()
				if most := float64(burst(rate)) + float64(sizes[out[i].n]) + window*float64(rate) + 1; float64(sent) > most {
					t.Fatalf("seed %d rate %d: frames %d to %d are %d bytes, at most %v may pass", seed, rate, i, j, sent, most)
				}
			}
		}
	}

	// 100 full frames at once: some find the queue full, the rest take the time
	// that the rate says.
	const rate = 100_000
	l := testLine(1, Rule{Rate: rate})
	feed(t, l, 100, 1500, 0)
	out := drain(l)
	passed := len(out) * 1500
	require.Equal(t, 100, len(out)+int(l.count.Limited))
	require.LessOrEqual(t, passed, int(burst(rate))+minQueue+1500)
	require.Greater(t, passed, int(burst(rate))+minQueue-1500)
	last := out[len(out)-1].at
	require.InDelta(t, float64(passed-int(burst(rate)))/rate, last.Seconds(), 0.001)
}

func TestLineHoldsNoMoreThanItsLimit(t *testing.T) {
	t.Parallel()
	l := testLine(1, Rule{Delay: time.Minute})
	const bytes = 64 << 10
	feed(t, l, heldLimit/bytes+10, bytes, 0)
	require.EqualValues(t, 10, l.count.Limited)
	require.Equal(t, heldLimit, l.bytes)
	require.Len(t, drain(l), heldLimit/bytes)
	require.Zero(t, l.bytes)
}

func TestLineCutDropsWhatIsHeld(t *testing.T) {
	t.Parallel()
	l := testLine(1, Rule{Delay: time.Minute})
	feed(t, l, 10, 100, 0)
	l.set(at(time.Second), Rule{Cut: true})
	require.EqualValues(t, 10, l.count.Cut)
	require.False(t, l.offer(at(time.Second), numbered(0, 100), header{resolves: true}))
	require.EqualValues(t, 11, l.count.Cut)
	require.Empty(t, drain(l))
	require.Zero(t, l.bytes)
}

func TestLineCutCountsSegments(t *testing.T) {
	t.Parallel()
	l := testLine(1, Rule{Cut: true})
	f := tcpSpec{from: addrPort("10.0.0.1:1"), to: addrPort("10.0.0.2:2"), data: counted(10_000), segment: 1000}.frame()
	h, _ := parse(f[offloadLen:])
	require.False(t, l.offer(epoch(), f, h))
	require.EqualValues(t, 10, l.count.Cut)
}

func TestLineHealReleasesAtOnceInOrder(t *testing.T) {
	t.Parallel()
	for seed := range int64(20) {
		l := testLine(seed, Rule{Delay: time.Minute, Jitter: time.Second, Reorder: 0.5})
		feed(t, l, 50, 100, time.Millisecond)
		l.set(at(time.Second), Rule{})
		out := drain(l)
		require.Len(t, out, 50)
		for i, a := range out {
			require.Equal(t, arrival{i, time.Second}, a)
		}
	}
}

func TestLineNewDelayCountsFromArrival(t *testing.T) {
	t.Parallel()
	l := testLine(1, Rule{Delay: time.Minute})
	feed(t, l, 3, 100, time.Second) // at 0s, 1s, 2s
	l.set(at(4*time.Second), Rule{Delay: 3 * time.Second})
	require.Equal(t, []arrival{{0, 4 * time.Second}, {1, 4 * time.Second}, {2, 5 * time.Second}}, drain(l))

	// The same rule again changes nothing, not even when frames are due.
	l = testLine(1, Rule{Delay: time.Minute, Jitter: time.Minute})
	feed(t, l, 1, 100, 0)
	before, _ := l.next()
	l.set(at(time.Second), Rule{Delay: time.Minute, Jitter: time.Minute})
	after, _ := l.next()
	require.Equal(t, before, after)
}

func TestLinePorts(t *testing.T) {
	t.Parallel()
	hit := func(from, to uint16) header { return header{tcp: true, srcPort: from, dstPort: to} }
	l := testLine(1, Rule{Cut: true, Ports: []int{2380}})
	require.False(t, l.offer(epoch(), numbered(0, 100), hit(40000, 2380)))
	require.False(t, l.offer(epoch(), numbered(0, 100), hit(2380, 40000)), "answers too")
	require.True(t, l.offer(epoch(), numbered(0, 100), hit(40000, 2379)))
	require.True(t, l.offer(epoch(), numbered(0, 100), header{srcPort: 2380}), "not TCP")
	require.True(t, l.offer(epoch(), numbered(0, 100), header{resolves: true}))
	require.Equal(t, Counter{Cut: 2}, l.count)

	// A narrower rule lets go of what it does not see.
	l = testLine(1, Rule{Delay: time.Minute})
	l.offer(epoch(), numbered(0, 100), hit(1, 2379))
	l.offer(epoch(), numbered(1, 100), hit(1, 2380))
	l.set(at(time.Second), Rule{Cut: true, Ports: []int{2380}})
	require.Equal(t, []arrival{{0, time.Second}}, drain(l))
	require.EqualValues(t, 1, l.count.Cut)
}

func TestLineSparesAddressResolution(t *testing.T) {
	t.Parallel()
	worst := Rule{Delay: time.Hour, Jitter: time.Hour, Loss: 1, Duplicate: 1, Reorder: 1, Rate: 1}
	l := testLine(1, worst)
	require.True(t, l.offer(epoch(), numbered(0, 60), header{resolves: true}))
	require.Equal(t, Counter{}, l.count)
}

func TestLineLosesSegmentsNotSuperframes(t *testing.T) {
	t.Parallel()
	l := testLine(1, Rule{Loss: 0.5})
	f := tcpSpec{from: addrPort("10.0.0.1:1"), to: addrPort("10.0.0.2:2"), data: counted(60_000), segment: 1000}.frame()
	h, _ := parse(f[offloadLen:])
	require.False(t, l.offer(epoch(), f, h))
	came := len(drain(l))
	require.Equal(t, 60, came+int(l.count.Lost))
	require.Greater(t, came, 15)
	require.Less(t, came, 45)
}

// fates tells what became of each of n frames: how often it came out.
func fates(l *line, n int) []int {
	got := make([]int, n)
	for i := range n {
		l.offer(at(time.Duration(i)*time.Millisecond), numbered(i, 100), header{})
	}
	for _, a := range drain(l) {
		got[a.n]++
	}
	return got
}

func TestLineIsSeeded(t *testing.T) {
	t.Parallel()
	r := Rule{Loss: 0.3, Duplicate: 0.3, Reorder: 0.3, Jitter: time.Second}
	run := func(seed int64, from, to string) []arrival {
		l := newLine(seed, Link{From: from, To: to})
		l.set(epoch(), r)
		feed(t, l, 200, 100, time.Millisecond)
		return drain(l)
	}
	require.Equal(t, run(1, "a", "b"), run(1, "a", "b"))
	require.NotEqual(t, run(1, "a", "b"), run(2, "a", "b"))
	require.NotEqual(t, run(1, "a", "b"), run(1, "b", "a"))

	// Pinned: a printed seed must mean the same next year.
	l := newLine(42, Link{From: "etcd-1", To: "etcd-2"})
	l.set(epoch(), Rule{Loss: 0.3, Duplicate: 0.2})
	require.Equal(t, "[0 1 1 0 0 2 1 1 1 0 0 1 0 0 0 1 0 1 1 1 2 0 1 2]", fmt.Sprint(fates(l, 24)))
}

// What one field of the rule does does not depend on the others.
func TestLineFieldsDrawApart(t *testing.T) {
	t.Parallel()
	duplicated := fates(testLine(9, Rule{Duplicate: 0.5}), 500)
	both := fates(testLine(9, Rule{Duplicate: 0.5, Loss: 0.5, Jitter: time.Second}), 500)
	lost := fates(testLine(9, Rule{Loss: 0.5}), 500)
	for i := range both {
		if lost[i] == 0 {
			require.Zero(t, both[i])
		} else {
			require.Equal(t, duplicated[i], both[i])
		}
	}
}

// Every frame is accounted for, under any rules changed at any time: what went
// in came out, or a counter says where it went.
func TestLineConserves(t *testing.T) {
	t.Parallel()
	for seed := range int64(300) {
		rng := rand.New(rand.NewPCG(uint64(seed), 2))
		some := func(p float64) float64 {
			if rng.IntN(2) == 0 {
				return 0
			}
			return rng.Float64() * p
		}
		l := testLine(seed, Rule{})
		now := time.Duration(0)
		var in, through, out int64
		for range 300 {
			now += time.Duration(rng.Int64N(int64(3 * time.Millisecond)))
			switch rng.IntN(12) {
			case 0:
				l.set(at(now), Rule{
					Cut:       rng.IntN(5) == 0,
					Delay:     time.Duration(some(float64(20 * time.Millisecond))),
					Jitter:    time.Duration(some(float64(20 * time.Millisecond))),
					Loss:      some(1),
					Duplicate: some(1),
					Reorder:   some(1),
					Rate:      int64(some(1e6)),
					Ports:     [][]int{nil, {1}, {2}}[rng.IntN(3)],
				})
			case 1, 2:
				for {
					f, ok := l.pop(at(now))
					if !ok {
						break
					}
					require.False(t, f.due.After(at(now)))
					require.False(t, f.due.Before(f.arrived))
					out++
				}
			default:
				in++
				if l.offer(at(now), numbered(0, 60+rng.IntN(1400)), header{tcp: true, srcPort: 1 + uint16(rng.IntN(2))}) {
					through++
				}
			}
			held := 0
			for _, f := range l.queue {
				held += size(f.frame)
			}
			require.Equal(t, held, l.bytes)
		}
		out += int64(len(drain(l)))
		c := l.count
		require.Equal(t, in+c.Duplicated, through+out+c.Cut+c.Lost+c.Limited, "seed %d: %+v", seed, c)
		require.Zero(t, l.bytes)
	}
}
