package netswitch

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// memoryWire is a Wire whose other end is the test.
type memoryWire struct {
	in     chan []byte
	fail   chan error
	closed chan struct{}
	once   sync.Once

	mu     sync.Mutex
	came   []delivery
	refuse error
}

type delivery struct {
	frame []byte
	at    time.Time
}

func newWire() *memoryWire {
	return &memoryWire{in: make(chan []byte, 1024), fail: make(chan error), closed: make(chan struct{})}
}

func (w *memoryWire) ReadFrame(buf []byte) (int, error) {
	select {
	case f := <-w.in:
		return copy(buf, f), nil
	case err := <-w.fail:
		return 0, err
	case <-w.closed:
		return 0, net.ErrClosed
	}
}

func (w *memoryWire) WriteFrame(f []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	w.came = append(w.came, delivery{append([]byte(nil), f...), time.Now()})
	return nil
}

func (w *memoryWire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

func (w *memoryWire) isClosed() bool {
	select {
	case <-w.closed:
		return true
	default:
		return false
	}
}

// take returns what came since the last look.
func (w *memoryWire) take() []delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	came := w.came
	w.came = nil
	return came
}

// bench is a switch with three hosts a, b and c, at 10.0.0.1 to 3.
type bench struct {
	t     *testing.T
	sw    *Switch
	wires map[string]*memoryWire
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, sw: New(1), wires: make(map[string]*memoryWire)}
	for _, name := range []string{"a", "b", "c"} {
		b.plug(name, macOf(name), ipOf(name))
	}
	t.Cleanup(func() { require.NoError(t, b.sw.Close()) })
	return b
}

func (b *bench) plug(name string, m mac, ip netip.Addr) *memoryWire {
	w := newWire()
	b.wires[name] = w
	p := Port{Name: name, Wire: w, IP: ip}
	if m != (mac{}) {
		p.MAC = m[:]
	}
	require.NoError(b.t, b.sw.AddPort(p))
	return w
}

func macOf(host string) mac { return mac{2, 0, 0, 0, 0, host[0] - 'a' + 1} }

func ipOf(host string) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, host[0] - 'a' + 1}) }

// tcp is a frame between hosts, to port 2380 unless said otherwise.
func tcp(from, to string, port uint16, data string) []byte {
	return tcpSpec{
		src: macOf(from), dst: macOf(to),
		from: netip.AddrPortFrom(ipOf(from), 40000), to: netip.AddrPortFrom(ipOf(to), port),
		data: []byte(data),
	}.frame()
}

// send puts frames in at a host and waits until the switch has dealt with them.
func (b *bench) send(from string, frames ...[]byte) {
	for _, f := range frames {
		b.wires[from].in <- f
	}
	synctest.Wait()
}

// came says which data each host got since the last look, in order.
func (b *bench) came() map[string][]string {
	got := make(map[string][]string)
	for name, w := range b.wires {
		for _, d := range w.take() {
			h, _ := parse(d.frame[offloadLen:])
			got[name] = append(got[name], string(d.frame[offloadLen:][h.dataAt:h.dataEnd]))
		}
	}
	return got
}

func (b *bench) rule(from, to string, r Rule) { require.NoError(b.t, b.sw.SetRule(from, to, r)) }

type traffic = map[string][]string

func TestSwitchForwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.send("a", tcp("a", "b", 2380, "one"), tcp("a", "c", 2380, "two"))
		require.Equal(t, traffic{"b": {"one"}, "c": {"two"}}, b.came())

		b.send("a", tcp("a", "a", 2380, "to itself"))
		require.Empty(t, b.came(), "a frame never goes back")

		b.send("a", arpFrame(macOf("a"), ipOf("b")))
		require.Equal(t, traffic{"b": {""}, "c": {""}}, b.came(), "a broadcast goes to all others")

		b.send("a", []byte{1, 2, 3}, make([]byte, offloadLen+5), make([]byte, maxFrame+1))
		require.Empty(t, b.came(), "what is no frame goes nowhere")
		require.EqualValues(t, 2, b.sw.Counters()[Link{"a", "b"}].Frames)
	})
}

func TestSwitchPassesSuperframesWholeAndCountsSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		spec := tcpSpec{
			src: macOf("a"), dst: macOf("b"), segment: 1000,
			from: netip.AddrPortFrom(ipOf("a"), 40000), to: netip.AddrPortFrom(ipOf("b"), 2380),
			data: counted(9500),
		}
		b.send("a", spec.frame())
		came := b.wires["b"].take()
		require.Len(t, came, 1)
		require.Equal(t, spec.frame(), came[0].frame)
		require.EqualValues(t, 10, b.sw.Counters()[Link{"a", "b"}].Frames)

		b.rule("a", "b", Rule{Delay: time.Nanosecond})
		b.send("a", spec.frame())
		time.Sleep(time.Nanosecond) // fake time
		synctest.Wait()
		require.Len(t, b.wires["b"].take(), 10)
		require.EqualValues(t, 20, b.sw.Counters()[Link{"a", "b"}].Frames)
	})
}

func TestSwitchLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, sw: New(1), wires: make(map[string]*memoryWire)}
		defer func() { require.NoError(t, b.sw.Close()) }()
		for _, name := range []string{"a", "b", "c"} {
			b.plug(name, mac{}, netip.Addr{})
		}
		b.send("a", tcp("a", "b", 2380, "flooded"))
		require.Equal(t, traffic{"b": {"flooded"}, "c": {"flooded"}}, b.came())
		b.send("b", tcp("b", "a", 2380, "back"))
		require.Equal(t, traffic{"a": {"back"}}, b.came())
		b.send("a", tcp("a", "b", 2380, "known"))
		require.Equal(t, traffic{"b": {"known"}}, b.came())

		// The host moves: what was learned of its old port is forgotten with it.
		require.NoError(t, b.sw.RemovePort("b"))
		b.plug("d", mac{}, netip.Addr{})
		b.send("d", tcp("b", "a", 2380, "from elsewhere"))
		b.came()
		b.send("a", tcp("a", "b", 2380, "found"))
		require.Equal(t, traffic{"d": {"found"}}, b.came())
	})
}

// All hosts have one MAC and ask nobody for it: the IP decides.
func TestSwitchSharedMAC(t *testing.T) {
	for _, declared := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := &bench{t: t, sw: New(1), wires: make(map[string]*memoryWire)}
			defer func() { require.NoError(t, b.sw.Close()) }()
			one, say := mac{2, 9, 9, 9, 9, 9}, mac{}
			if declared {
				say = one
			}
			for _, name := range []string{"a", "b", "c"} {
				b.plug(name, say, ipOf(name))
			}
			frame := func(from, to string) []byte {
				f := tcp(from, to, 2380, from+to)
				copy(f[offloadLen:], one[:])
				copy(f[offloadLen+6:], one[:])
				return f
			}
			for range 2 {
				b.send("c", frame("c", "b"))
				b.send("b", frame("b", "a"))
				b.send("a", frame("a", "b"), frame("a", "c"))
				require.Equal(t, traffic{"a": {"ba"}, "b": {"cb", "ab"}, "c": {"ac"}}, b.came())
			}
			require.NoError(t, b.sw.RemovePort("c"))
			b.send("a", frame("a", "b"))
			require.Equal(t, traffic{"b": {"ab"}}, b.came())
		})
	}
}

// Of two hosts with one MAC, a third one reaches the one it means.
func TestSwitchSharedMACLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, sw: New(1), wires: make(map[string]*memoryWire)}
		defer func() { require.NoError(t, b.sw.Close()) }()
		for _, name := range []string{"a", "b", "c"} {
			b.plug(name, mac{}, ipOf(name))
		}
		one := mac{2, 9, 9, 9, 9, 9}
		for _, from := range []string{"a", "b"} {
			f := tcp(from, "c", 2380, from)
			copy(f[offloadLen+6:], one[:])
			b.send(from, f)
		}
		b.came()
		for _, to := range []string{"a", "b"} {
			f := tcp("c", to, 2380, "to "+to)
			copy(f[offloadLen:], one[:])
			b.send("c", f)
		}
		require.Equal(t, traffic{"a": {"to a"}, "b": {"to b"}}, b.came())
	})
}

// A port without IP or MAC stands for a bridge with many hosts behind it.
func TestSwitchUplink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.plug("bridge", mac{}, netip.Addr{})
		b.send("bridge", tcp("x", "a", 2380, "xa"), tcp("y", "b", 2380, "yb"))
		require.Equal(t, traffic{"a": {"xa"}, "b": {"yb"}}, b.came())
		b.send("a", tcp("a", "x", 2380, "ax"), tcp("a", "y", 2380, "ay"))
		require.Equal(t, traffic{"bridge": {"ax", "ay"}}, b.came())

		b.send("bridge", tcp("x", "y", 2380, "the bridge's own"))
		require.Empty(t, b.came(), "both are on the side it came from")

		// x leaves the bridge for a port of its own, which says so.
		b.plug("x", macOf("x"), netip.Addr{})
		b.send("a", tcp("a", "x", 2380, "moved"))
		require.Equal(t, traffic{"x": {"moved"}}, b.came())
		// A declared MAC is not unlearned by a stray frame from elsewhere.
		b.send("bridge", tcp("x", "a", 2380, "stray"))
		b.came()
		b.send("a", tcp("a", "x", 2380, "still"))
		require.Equal(t, traffic{"x": {"still"}}, b.came())
		// And back.
		require.NoError(t, b.sw.RemovePort("x"))
		delete(b.wires, "x")
		b.send("bridge", tcp("x", "a", 2380, "home"))
		b.came()
		b.send("a", tcp("a", "x", 2380, "again"))
		require.Equal(t, traffic{"bridge": {"again"}}, b.came())
	})
}

func TestSwitchCutIsDirectedAndTakesARP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.rule("a", "b", Rule{Cut: true})
		b.send("a", tcp("a", "b", 2380, "lost"), tcp("a", "c", 2380, "ac"), arpFrame(macOf("a"), ipOf("b")))
		b.send("b", tcp("b", "a", 2380, "ba"))
		require.Equal(t, traffic{"a": {"ba"}, "c": {"ac", ""}}, b.came())
		require.EqualValues(t, 2, b.sw.Counters()[Link{"a", "b"}].Cut)
		require.EqualValues(t, 2, b.sw.Counters()[Link{"a", "b"}].Hits())
		require.Equal(t, map[Link]Rule{{"a", "b"}: {Cut: true}}, b.sw.Rules())

		b.rule("a", "b", Rule{})
		require.Empty(t, b.sw.Rules())
		b.send("a", tcp("a", "b", 2380, "healed"))
		require.Equal(t, traffic{"b": {"healed"}}, b.came())
	})
}

func TestSwitchDelaysToTheNanosecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.rule("a", "b", Rule{Delay: 50 * time.Millisecond})
		start := time.Now()
		for range 20 {
			b.send("a", tcp("a", "b", 2380, "x"), arpFrame(macOf("a"), ipOf("b")))
			time.Sleep(3 * time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		var waits []time.Duration
		for _, d := range b.wires["b"].take() {
			if h, _ := parse(d.frame[offloadLen:]); h.tcp {
				waits = append(waits, d.at.Sub(start))
			}
		}
		require.Len(t, waits, 20)
		for i, w := range waits {
			require.Equal(t, time.Duration(i)*3*time.Millisecond+50*time.Millisecond, w)
		}
		require.EqualValues(t, 20, b.sw.Counters()[Link{"a", "b"}].Delayed)
	})
}

func TestSwitchRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		const rate = 100_000
		b.rule("a", "b", Rule{Rate: rate})
		start := time.Now()
		body := string(counted(1000))
		for range 2000 { // ten times what the link carries
			b.send("a", tcp("a", "b", 2380, body))
			time.Sleep(time.Millisecond)
		}
		c, passed := b.sw.Counters()[Link{"a", "b"}], time.Since(start)
		require.LessOrEqual(t, float64(c.Bytes), float64(burst(rate))+passed.Seconds()*rate)
		require.Greater(t, float64(c.Bytes), passed.Seconds()*rate-2000)
		require.Positive(t, c.Limited)
	})
}

// Once SetRule has returned, a cut link is silent and a healed one has given
// back what it held.
func TestSwitchSetRuleIsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.rule("a", "b", Rule{Delay: time.Minute})
		b.send("a", tcp("a", "b", 2380, "1"), tcp("a", "b", 2380, "2"))
		b.rule("a", "b", Rule{})
		require.Equal(t, traffic{"b": {"1", "2"}}, b.came())

		b.rule("a", "b", Rule{Delay: time.Minute})
		b.send("a", tcp("a", "b", 2380, "3"))
		b.rule("a", "b", Rule{Cut: true})
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Empty(t, b.came())
		require.EqualValues(t, 1, b.sw.Counters()[Link{"a", "b"}].Cut)

		b.rule("a", "b", Rule{Delay: time.Minute})
		b.send("a", tcp("a", "b", 2380, "4"))
		b.rule("a", "b", Rule{Delay: time.Second}) // the timer has to wake earlier
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, traffic{"b": {"4"}}, b.came())
	})
}

func TestSwitchPortsRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.rule("a", "b", Rule{Cut: true, Ports: []int{2380}})
		b.send("a", tcp("a", "b", 2380, "peer"), tcp("a", "b", 2379, "client"), arpFrame(macOf("a"), ipOf("b")))
		require.Equal(t, traffic{"b": {"client", ""}, "c": {""}}, b.came())
	})
}

func TestSwitchRulesComeBeforePortsAndOutliveThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, sw: New(1), wires: make(map[string]*memoryWire)}
		defer func() { require.NoError(t, b.sw.Close()) }()
		b.rule("a", "b", Rule{Cut: true})
		b.plug("a", macOf("a"), ipOf("a"))
		b.plug("b", macOf("b"), ipOf("b"))
		b.send("a", tcp("a", "b", 2380, "x"))
		require.NoError(t, b.sw.RemovePort("b"))
		b.plug("b", macOf("b"), ipOf("b"))
		b.send("a", tcp("a", "b", 2380, "y"))
		require.Empty(t, b.came())
		require.EqualValues(t, 2, b.sw.Counters()[Link{"a", "b"}].Cut)
		require.Len(t, b.sw.Rules(), 1)
	})
}

func TestSwitchRemovePortDropsWhatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.rule("a", "b", Rule{Delay: time.Minute})
		b.send("a", tcp("a", "b", 2380, "x"))
		old := b.wires["b"]
		require.NoError(t, b.sw.RemovePort("b"))
		require.True(t, old.isClosed())
		require.Error(t, b.sw.RemovePort("b"))
		b.plug("b", macOf("b"), ipOf("b"))
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Empty(t, b.came())
		require.Empty(t, old.take())
		require.EqualValues(t, 1, b.sw.Counters()[Link{"a", "b"}].Refused)
	})
}

func TestSwitchCountsRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.wires["b"].refuse = errors.New("network is down")
		b.send("a", tcp("a", "b", 2380, "x"))
		require.Equal(t, Counter{Refused: 1}, b.sw.Counters()[Link{"a", "b"}])
	})
}

func TestSwitchAddPortRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for _, p := range []Port{
			{Name: ""},
			{Name: "x->y"},
			{Name: "a"},
			{Name: "x", IP: ipOf("a")},
			{Name: "x", IP: netip.AddrFrom16(ipOf("a").As16())}, // the same, written as IPv6
			{Name: "x", MAC: net.HardwareAddr{1, 2, 3}},
		} {
			w := newWire()
			p.Wire = w
			require.Error(t, b.sw.AddPort(p), "%+v", p)
			require.True(t, w.isClosed())
		}
		require.Error(t, b.sw.AddPort(Port{Name: "x"}))
		require.Error(t, b.sw.SetRule("a", "a", Rule{Cut: true}))
		require.Error(t, b.sw.SetRule("", "a", Rule{Cut: true}))
		require.Error(t, b.sw.SetRule("a", "b", Rule{Loss: 2}))
		require.Empty(t, b.sw.Rules())
	})
}

func TestSwitchClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.rule("a", "b", Rule{Delay: time.Minute})
		b.send("a", tcp("a", "b", 2380, "x"))
		b.wires["c"].fail <- errors.New("cable melted")
		require.EqualError(t, b.sw.Close(), "read port c: cable melted")
		// synctest fails the test if a goroutine is left.
		require.NoError(t, b.sw.Close())
		for _, w := range b.wires {
			require.True(t, w.isClosed())
		}
		w := newWire()
		require.ErrorIs(t, b.sw.AddPort(Port{Name: "d", Wire: w}), ErrClosed)
		require.True(t, w.isClosed())
		require.ErrorIs(t, b.sw.SetRule("a", "b", Rule{Cut: true}), ErrClosed)
		require.Error(t, b.sw.RemovePort("a"))
		require.Empty(t, b.sw.Overruns())
		require.Len(t, b.sw.Rules(), 1, "reports are still there")
		require.EqualValues(t, 1, b.sw.Counters()[Link{"a", "b"}].Delayed)
	})
}

// Everything at once, for the race detector and for leaks.
func TestSwitchStorm(t *testing.T) {
	b := &bench{t: t, sw: New(1), wires: make(map[string]*memoryWire)}
	b.plug("a", macOf("a"), ipOf("a"))
	b.plug("b", macOf("b"), ipOf("b"))
	var all sync.WaitGroup
	for _, way := range [][2]string{{"a", "b"}, {"b", "a"}} {
		all.Go(func() {
			f := tcp(way[0], way[1], 2380, "x")
			for range 5000 {
				b.wires[way[0]].in <- f
			}
		})
		all.Go(func() {
			rules := []Rule{{Delay: time.Millisecond, Jitter: time.Millisecond}, {Cut: true}, {}, {Loss: 0.5, Duplicate: 0.5, Reorder: 0.5}, {Rate: 1000}}
			for i := range 500 {
				if err := b.sw.SetRule(way[0], way[1], rules[i%len(rules)]); err != nil {
					t.Error(err)
				}
				b.sw.Counters()
				b.sw.Rules()
			}
		})
	}
	all.Go(func() {
		for range 200 {
			if err := b.sw.AddPort(Port{Name: "c", Wire: newWire()}); err != nil {
				t.Error(err)
			}
			if err := b.sw.RemovePort("c"); err != nil {
				t.Error(err)
			}
		}
	})
	all.Wait()
	require.NoError(t, b.sw.Close())
	before := b.sw.Counters()
	b.wires["a"].take()
	b.wires["b"].take()
	require.Equal(t, before, b.sw.Counters(), "a closed switch does nothing")
}
