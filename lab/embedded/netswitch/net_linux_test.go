package netswitch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// patience ends a test that hangs. Nothing is asserted about it.
const patience = 60 * time.Second

// silence is how long nothing may come on a link that is cut. A cut link is
// silent for good, so that this can only miss a fault, never invent one.
const silence = 150 * time.Millisecond

// ground is the network of a test: a namespace for the lab, one for each
// host, and a veth pair between the lab and each host. It lives as long as its
// file handles, so that nothing is left even after a SIGKILL.
type ground struct {
	t     testing.TB
	lab   netns.NsHandle
	hosts map[string]*groundHost
}

type groundHost struct {
	name  string
	ns    netns.NsHandle
	ip    netip.Addr
	mac   net.HardwareAddr
	outer string // the lab's end
}

func newGround(t testing.TB, names ...string) *ground {
	g := &ground{t: t, hosts: make(map[string]*groundHost)}
	lab, err := newNamespace()
	if errors.Is(err, unix.EPERM) {
		t.Skipf("SKIPPED, NOT TESTED: needs root, or a kernel that lets users make user and network namespaces: %v", err)
	}
	require.NoError(t, err)
	g.lab = lab
	t.Cleanup(func() { require.NoError(t, g.lab.Close()) })
	for i, name := range names {
		g.addHost(name, i+1)
	}
	return g
}

// newNamespace makes a network namespace. The thread that made it is thrown
// away with its goroutine, so that no other one lands in it.
func newNamespace() (netns.NsHandle, error) {
	var ns netns.NsHandle
	err := onThread(func() (err error) {
		ns, err = netns.New()
		return err
	})
	return ns, err
}

// onThread runs f on a thread that ends afterwards.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread dies
		done <- f()
	}()
	return <-done
}

// in runs f in a namespace. Sockets that f opens stay there.
func in(t testing.TB, ns netns.NsHandle, f func() error) {
	t.Helper()
	require.NoError(t, onThread(func() error {
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("enter namespace: %w", err)
		}
		return f()
	}))
}

func (g *ground) addHost(name string, i int) {
	t := g.t
	ns, err := newNamespace()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ns.Close()) })
	h := &groundHost{name: name, ns: ns, ip: netip.AddrFrom4([4]byte{10, 10, 10, byte(10 + i)}), outer: "to-" + name}
	g.hosts[name] = h

	lab := g.handle(g.lab)
	inner := g.handle(ns)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = h.outer
	require.NoError(t, lab.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}))
	outer, err := lab.LinkByName(h.outer)
	require.NoError(t, err)
	require.NoError(t, lab.LinkSetUp(outer))
	eth0, err := inner.LinkByName("eth0")
	require.NoError(t, err)
	h.mac = eth0.Attrs().HardwareAddr
	require.NoError(t, inner.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: h.ip.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
	require.NoError(t, inner.LinkSetUp(eth0))
}

func (g *ground) handle(ns netns.NsHandle) *netlink.Handle {
	h, err := netlink.NewHandleAt(ns)
	require.NoError(g.t, err)
	g.t.Cleanup(h.Close)
	return h
}

// connect plugs hosts into a switch, with what the lab knows of them.
func (g *ground) connect(names ...string) *Switch {
	sw := New(1)
	g.t.Cleanup(func() {
		require.Empty(g.t, sw.Overruns(), "the kernel dropped frames before the switch saw them")
		require.NoError(g.t, sw.Close())
	})
	for _, name := range names {
		h := g.hosts[name]
		require.NoError(g.t, sw.AddPort(Port{Name: name, Wire: g.open(h.outer), IP: h.ip, MAC: h.mac}))
	}
	return sw
}

func (g *ground) open(ifname string) Wire {
	var w Wire
	in(g.t, g.lab, func() (err error) {
		w, err = OpenPort(ifname)
		return err
	})
	return w
}

// listen opens a TCP listener in a host.
func (g *ground) listen(host string, port int) net.Listener {
	h := g.hosts[host]
	var l net.Listener
	in(g.t, h.ns, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(h.ip, uint16(port)).String())
		return err
	})
	g.t.Cleanup(func() { l.Close() })
	return l
}

// dial connects from a host.
func (g *ground) dial(host, to string, limit time.Duration) (*net.TCPConn, error) {
	var c net.Conn
	var dialErr error
	in(g.t, g.hosts[host].ns, func() error {
		c, dialErr = net.DialTimeout("tcp", to, limit)
		return nil
	})
	if dialErr != nil {
		return nil, dialErr
	}
	g.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), nil
}

// pair is an open connection between two hosts.
func (g *ground) pair(from, to string, port int) (client, server *net.TCPConn) {
	l := g.listen(to, port)
	client, err := g.dial(from, l.Addr().String(), patience)
	require.NoError(g.t, err)
	s, err := l.Accept()
	require.NoError(g.t, err)
	g.t.Cleanup(func() { s.Close() })
	for _, c := range []net.Conn{client, s} {
		require.NoError(g.t, c.SetDeadline(time.Now().Add(patience)))
	}
	return client, s.(*net.TCPConn)
}

// udp opens a datagram socket in a host.
func (g *ground) udp(host string, port int) *net.UDPConn {
	h := g.hosts[host]
	var c *net.UDPConn
	in(g.t, h.ns, func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.ip, uint16(port))))
		return err
	})
	g.t.Cleanup(func() { c.Close() })
	return c
}

// transfer sends data one way and requires that it arrives unchanged.
func transfer(t testing.TB, from, to *net.TCPConn, data []byte) {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(data)
		sent <- err
	}()
	got := make([]byte, len(data))
	_, err := io.ReadFull(to, got)
	require.NoError(t, err)
	require.NoError(t, <-sent)
	require.True(t, bytes.Equal(data, got), "data arrived changed")
}

// silent requires that nothing comes.
func silent(t testing.TB, c *net.TCPConn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(silence)))
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
}

// eventually waits for a counter.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, time.Millisecond, what)
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func set(t testing.TB, sw *Switch, from, to string, r Rule) {
	t.Helper()
	require.NoError(t, sw.SetRule(from, to, r))
}

func TestNetHealthy(t *testing.T) {
	g := newGround(t, "a", "b", "c")
	sw := g.connect("a", "b", "c")
	for _, way := range [][2]string{{"a", "b"}, {"b", "c"}, {"c", "a"}} {
		client, server := g.pair(way[0], way[1], 2380)
		transfer(t, client, server, noise(4<<20))
		transfer(t, server, client, noise(4<<20))
	}
	for link, c := range sw.Counters() {
		require.Zero(t, c.Hits(), "%v %+v", link, c)
		require.Zero(t, c.Refused, "%v %+v", link, c)
	}
}

// With a rule that changes nothing but makes the switch split superframes, the
// same data has to arrive: segments, checksums and order are right.
func TestNetSegments(t *testing.T) {
	g := newGround(t, "a", "b")
	sw := g.connect("a", "b")
	set(t, sw, "a", "b", Rule{Rate: 1 << 40})
	set(t, sw, "b", "a", Rule{Rate: 1 << 40})
	client, server := g.pair("a", "b", 2380)
	data := noise(8<<20 + 12345)
	transfer(t, client, server, data)
	transfer(t, server, client, data)
	c := sw.Counters()[Link{"a", "b"}]
	require.Greater(t, c.Frames, int64(len(data)/1500))
	require.Zero(t, c.Refused)
	require.Zero(t, c.Cut+c.Lost+c.Limited+c.Reordered)
}

func TestNetCutBothWaysAndHeal(t *testing.T) {
	g := newGround(t, "a", "b", "c")
	sw := g.connect("a", "b", "c")
	client, server := g.pair("a", "b", 2380)
	transfer(t, client, server, []byte("before"))

	set(t, sw, "a", "b", Rule{Cut: true})
	set(t, sw, "b", "a", Rule{Cut: true})
	passed := sw.Counters()[Link{"a", "b"}].Frames
	_, err := client.Write([]byte("during"))
	require.NoError(t, err)
	silent(t, server)
	_, err = g.dial("a", server.LocalAddr().String(), silence)
	require.Error(t, err, "no new connection either")
	// Not with the third host: its links are healthy.
	other, third := g.pair("a", "c", 2380)
	transfer(t, other, third, noise(1<<20))
	require.Positive(t, sw.Counters()[Link{"a", "b"}].Cut)
	require.Equal(t, passed, sw.Counters()[Link{"a", "b"}].Frames)

	set(t, sw, "a", "b", Rule{})
	set(t, sw, "b", "a", Rule{})
	got := make([]byte, 6)
	_, err = io.ReadFull(server, got)
	require.NoError(t, err)
	require.Equal(t, "during", string(got))
}

func TestNetCutOneWay(t *testing.T) {
	g := newGround(t, "a", "b")
	sw := g.connect("a", "b")
	a, b := g.udp("a", 5000), g.udp("b", 5000)
	buf := make([]byte, 100)
	say := func(from, to *net.UDPConn, word string) {
		_, err := from.WriteTo([]byte(word), to.LocalAddr())
		require.NoError(t, err)
	}
	hear := func(at *net.UDPConn, limit time.Duration) (string, error) {
		require.NoError(t, at.SetReadDeadline(time.Now().Add(limit)))
		n, err := at.Read(buf)
		return string(buf[:n]), err
	}
	say(a, b, "hello") // both ARP caches are warm from here on
	word, err := hear(b, patience)
	require.NoError(t, err)
	require.Equal(t, "hello", word)
	say(b, a, "hello")
	_, err = hear(a, patience)
	require.NoError(t, err)

	set(t, sw, "a", "b", Rule{Cut: true})
	say(a, b, "lost")
	eventually(t, "the cut bites", func() bool { return sw.Counters()[Link{"a", "b"}].Cut > 0 })
	say(b, a, "this way is open")
	word, err = hear(a, patience)
	require.NoError(t, err)
	require.Equal(t, "this way is open", word)
	_, err = hear(b, silence)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Zero(t, sw.Counters()[Link{"b", "a"}].Cut)
}

// A broadcast goes round once.
func TestNetBroadcastArrivesOnce(t *testing.T) {
	g := newGround(t, "a", "b", "c")
	g.connect("a", "b", "c")
	a := g.udp("a", 5000)
	heard := make(map[string]*net.UDPConn)
	for _, name := range []string{"b", "c"} {
		in(t, g.hosts[name].ns, func() (err error) {
			heard[name], err = net.ListenUDP("udp4", &net.UDPAddr{Port: 5000})
			return err
		})
		defer heard[name].Close()
	}
	_, err := a.WriteTo([]byte("all"), &net.UDPAddr{IP: net.IPv4(10, 10, 10, 255), Port: 5000})
	require.NoError(t, err)
	for _, c := range heard {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
		_, err := c.Read(make([]byte, 10))
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(silence)))
		_, err = c.Read(make([]byte, 10))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	}
}

// A cut takes ARP with it, so that a host without cache entry cannot even
// learn an address; healed, it can.
func TestNetCutFromTheStart(t *testing.T) {
	g := newGround(t, "a", "b")
	sw := g.connect("a", "b")
	set(t, sw, "a", "b", Rule{Cut: true})
	l := g.listen("b", 2380)
	_, err := g.dial("a", l.Addr().String(), silence)
	require.Error(t, err)
	c := sw.Counters()[Link{"a", "b"}]
	require.Zero(t, c.Frames)
	require.Positive(t, c.Cut)
	set(t, sw, "a", "b", Rule{})
	_, err = g.dial("a", l.Addr().String(), patience)
	require.NoError(t, err)
}

func TestNetDelay(t *testing.T) {
	g := newGround(t, "a", "b")
	sw := g.connect("a", "b")
	client, server := g.pair("a", "b", 2380)
	set(t, sw, "a", "b", Rule{Delay: 40 * time.Millisecond, Jitter: 10 * time.Millisecond})
	set(t, sw, "b", "a", Rule{Delay: 20 * time.Millisecond})
	for range 5 {
		start := time.Now()
		transfer(t, client, server, []byte("ping"))
		transfer(t, server, client, []byte("pong"))
		require.GreaterOrEqual(t, time.Since(start), 60*time.Millisecond)
	}
	require.Positive(t, sw.Counters()[Link{"a", "b"}].Delayed)

	// Much data on a slow link is in order still: TCP sees nothing to repair.
	transfer(t, client, server, noise(1<<20))
	require.Zero(t, sw.Counters()[Link{"a", "b"}].Reordered)
}

func retransmits(t testing.TB, c *net.TCPConn) int {
	t.Helper()
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	var info *unix.TCPInfo
	var infoErr error
	require.NoError(t, raw.Control(func(fd uintptr) {
		info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}))
	require.NoError(t, infoErr)
	return int(info.Total_retrans)
}

func TestNetLoss(t *testing.T) {
	g := newGround(t, "a", "b")
	sw := g.connect("a", "b")
	client, server := g.pair("a", "b", 2380)
	set(t, sw, "a", "b", Rule{Loss: 0.03})
	transfer(t, client, server, noise(1<<20))
	require.Positive(t, sw.Counters()[Link{"a", "b"}].Lost)
	require.Positive(t, retransmits(t, client))
}

func TestNetDuplicate(t *testing.T) {
	g := newGround(t, "a", "b")
	sw := g.connect("a", "b")
	set(t, sw, "a", "b", Rule{Duplicate: 1})
	a, b := g.udp("a", 5000), g.udp("b", 5000)
	_, err := a.WriteTo([]byte("twin"), b.LocalAddr())
	require.NoError(t, err)
	for range 2 {
		buf := make([]byte, 100)
		require.NoError(t, b.SetReadDeadline(time.Now().Add(patience)))
		n, err := b.Read(buf)
		require.NoError(t, err)
		require.Equal(t, "twin", string(buf[:n]))
	}
	client, server := g.pair("a", "b", 2380)
	transfer(t, client, server, noise(1<<20))
	require.Greater(t, sw.Counters()[Link{"a", "b"}].Duplicated, int64(1<<20/1500))
}

func TestNetReorder(t *testing.T) {
	g := newGround(t, "a", "b")
	sw := g.connect("a", "b")
	client, server := g.pair("a", "b", 2380)
	set(t, sw, "a", "b", Rule{Delay: time.Millisecond, Reorder: 0.05})
	transfer(t, client, server, noise(1<<20))
	require.Positive(t, sw.Counters()[Link{"a", "b"}].Reordered)
}

// No more bytes pass than the rate pays for, whatever the sender tries. The
// bound holds on any machine, however slow.
func TestNetRate(t *testing.T) {
	g := newGround(t, "a", "b")
	sw := g.connect("a", "b")
	client, server := g.pair("a", "b", 2380)
	const rate = 2 << 20
	start, before := time.Now(), sw.Counters()[Link{"a", "b"}].Bytes
	set(t, sw, "a", "b", Rule{Rate: rate})
	transfer(t, client, server, noise(1<<20))
	passed, took := sw.Counters()[Link{"a", "b"}].Bytes-before, time.Since(start)
	require.Greater(t, passed, int64(1<<20))
	require.LessOrEqual(t, float64(passed), float64(burst(rate))+took.Seconds()*rate)
	require.Positive(t, sw.Counters()[Link{"a", "b"}].Delayed)
}

func TestNetPorts(t *testing.T) {
	g := newGround(t, "a", "b")
	sw := g.connect("a", "b")
	peer, peerServer := g.pair("a", "b", 2380)
	client, clientServer := g.pair("a", "b", 2379)
	set(t, sw, "a", "b", Rule{Cut: true, Ports: []int{2380}})

	_, err := peer.Write([]byte("held"))
	require.NoError(t, err)
	transfer(t, client, clientServer, noise(1<<20))
	transfer(t, clientServer, client, noise(1<<20))
	silent(t, peerServer)
	require.Positive(t, sw.Counters()[Link{"a", "b"}].Cut)

	set(t, sw, "a", "b", Rule{})
	got := make([]byte, 4)
	_, err = io.ReadFull(peerServer, got)
	require.NoError(t, err)
	require.Equal(t, "held", string(got))
}

// bridge makes a kernel bridge in the lab's namespace.
func (g *ground) bridge() (*netlink.Handle, netlink.Link) {
	h := g.handle(g.lab)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	require.NoError(g.t, h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	br, err := h.LinkByName("br0")
	require.NoError(g.t, err)
	require.NoError(g.t, h.LinkSetUp(br))
	return h, br
}

// A connection lives through the way from the bridge to the switch, a fault
// there, and the way back: MACs do not change, so ARP caches stay true.
func TestNetFromBridgeAndBack(t *testing.T) {
	g := newGround(t, "a", "b")
	lab, br := g.bridge()
	outer := func(name string) netlink.Link {
		l, err := lab.LinkByName(g.hosts[name].outer)
		require.NoError(t, err)
		return l
	}
	for name := range g.hosts {
		require.NoError(t, lab.LinkSetMaster(outer(name), br))
	}
	client, server := g.pair("a", "b", 2380)
	transfer(t, client, server, noise(1<<20))

	for range 3 {
		for name := range g.hosts {
			require.NoError(t, lab.LinkSetNoMaster(outer(name)))
		}
		sw := g.connect("a", "b")
		transfer(t, client, server, noise(1<<20))
		set(t, sw, "a", "b", Rule{Cut: true})
		_, err := client.Write([]byte("x"))
		require.NoError(t, err)
		silent(t, server)
		set(t, sw, "a", "b", Rule{})
		_, err = io.ReadFull(server, make([]byte, 1))
		require.NoError(t, err)

		require.NoError(t, sw.Close())
		for name := range g.hosts {
			require.NoError(t, lab.LinkSetMaster(outer(name), br))
		}
		transfer(t, server, client, noise(1<<20))
	}
}

// Hosts on the switch reach hosts that stayed on the bridge over a veth pair
// between the two.
func TestNetUplink(t *testing.T) {
	g := newGround(t, "a", "b", "c", "d")
	lab, br := g.bridge()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up-switch"
	require.NoError(t, lab.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "up-bridge"}))
	for _, name := range []string{"up-switch", "up-bridge", g.hosts["c"].outer, g.hosts["d"].outer} {
		l, err := lab.LinkByName(name)
		require.NoError(t, err)
		require.NoError(t, lab.LinkSetUp(l))
		if name != "up-switch" {
			require.NoError(t, lab.LinkSetMaster(l, br))
		}
	}
	sw := g.connect("a", "b")
	require.NoError(t, sw.AddPort(Port{Name: "bridge", Wire: g.open("up-switch")}))
	set(t, sw, "a", "b", Rule{Cut: true})

	for i, way := range [][2]string{{"a", "c"}, {"d", "a"}, {"c", "d"}, {"b", "d"}} {
		client, server := g.pair(way[0], way[1], 3000+i)
		transfer(t, client, server, noise(1<<20))
		transfer(t, server, client, noise(1<<20))
	}
	l := g.listen("b", 2380)
	_, err := g.dial("a", l.Addr().String(), silence)
	require.Error(t, err)
	require.Positive(t, sw.Counters()[Link{"a", "b"}].Cut)
}

// Two hosts, one MAC, no ARP at all: the switch goes by IP.
func TestNetSharedMACWithoutARP(t *testing.T) {
	g := newGround(t, "a", "b", "c")
	same := net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
	for _, h := range g.hosts {
		inner := g.handle(h.ns)
		eth0, err := inner.LinkByName("eth0")
		require.NoError(t, err)
		require.NoError(t, inner.LinkSetDown(eth0))
		require.NoError(t, inner.LinkSetHardwareAddr(eth0, same))
		require.NoError(t, inner.LinkSetARPOff(eth0))
		require.NoError(t, inner.LinkSetUp(eth0))
		h.mac = same
	}
	// Without ARP the kernel puts the zero MAC where it knows none.
	for _, h := range g.hosts {
		inner := g.handle(h.ns)
		eth0, err := inner.LinkByName("eth0")
		require.NoError(t, err)
		for _, other := range g.hosts {
			if other != h {
				require.NoError(t, inner.NeighSet(&netlink.Neigh{
					LinkIndex: eth0.Attrs().Index, State: netlink.NUD_PERMANENT,
					IP: other.ip.AsSlice(), HardwareAddr: same,
				}))
			}
		}
	}
	sw := g.connect("a", "b", "c")
	for i, way := range [][2]string{{"a", "b"}, {"b", "c"}, {"c", "a"}} {
		client, server := g.pair(way[0], way[1], 3000+i)
		transfer(t, client, server, noise(1<<20))
	}
	require.NotContains(t, sw.Counters(), Link{"a", "a"})
}

func TestNetPortSurvivesItsInterfaceGoingDown(t *testing.T) {
	g := newGround(t, "a", "b")
	sw := g.connect("a", "b")
	client, server := g.pair("a", "b", 2380)
	lab := g.handle(g.lab)
	outer, err := lab.LinkByName(g.hosts["b"].outer)
	require.NoError(t, err)
	require.NoError(t, lab.LinkSetDown(outer))
	_, err = client.Write([]byte("x"))
	require.NoError(t, err)
	eventually(t, "frames are refused", func() bool { return sw.Counters()[Link{"a", "b"}].Refused > 0 })
	require.NoError(t, lab.LinkSetUp(outer))
	_, err = io.ReadFull(server, make([]byte, 1))
	require.NoError(t, err)

	// One that is gone for good ends neither the switch nor the other ports.
	require.NoError(t, lab.LinkDel(outer))
	_, err = client.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, sw.RemovePort("b"))
}

func TestOpenPortSaysWhatIsMissing(t *testing.T) {
	g := newGround(t)
	in(t, g.lab, func() error {
		_, err := OpenPort("nowhere")
		require.ErrorContains(t, err, "find interface nowhere")
		return nil
	})
}

// A port hears its host, not what others in the lab send to the host.
func TestOpenPortHearsItsHostOnly(t *testing.T) {
	g := newGround(t, "a")
	port, other := g.open(g.hosts["a"].outer), g.open(g.hosts["a"].outer)
	var host Wire
	in(t, g.hosts["a"].ns, func() (err error) {
		host, err = OpenPort("eth0")
		return err
	})
	for _, w := range []Wire{port, other, host} {
		defer w.Close()
	}
	marked := func(mark byte) []byte {
		f := make([]byte, offloadLen+60)
		f[offloadLen+12], f[offloadLen+13], f[offloadLen+14] = 0x88, 0xb5, mark
		return f
	}
	require.NoError(t, other.WriteFrame(marked('x')))
	require.NoError(t, host.WriteFrame(marked('y')))
	buf := make([]byte, maxFrame)
	for { // past whatever the host's kernel says by itself
		n, err := port.ReadFrame(buf)
		require.NoError(t, err)
		require.GreaterOrEqual(t, n, offloadLen+etherLen)
		if f := buf[offloadLen:n]; f[12] == 0x88 && f[13] == 0xb5 {
			require.Equal(t, byte('y'), f[14])
			return
		}
	}
}

// BenchmarkSwitchTCP is what one TCP connection gets through the switch.
func BenchmarkSwitchTCP(b *testing.B) {
	for _, c := range []struct {
		name string
		rule Rule
	}{
		{"healthy", Rule{}},
		{"ruled", Rule{Rate: 1 << 40}}, // split into segments, otherwise unharmed
		{"delay=1ms", Rule{Delay: time.Millisecond}},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := newGround(b, "a", "b")
			sw := g.connect("a", "b")
			set(b, sw, "a", "b", c.rule)
			set(b, sw, "b", "a", c.rule)
			client, server := g.pair("a", "b", 2380)
			chunk := noise(1 << 20)
			b.SetBytes(int64(len(chunk)))
			var all sync.WaitGroup
			all.Go(func() {
				if _, err := io.Copy(io.Discard, io.LimitReader(server, int64(len(chunk))*int64(b.N))); err != nil {
					b.Error(err)
				}
			})
			b.ResetTimer()
			for range b.N {
				if _, err := client.Write(chunk); err != nil {
					b.Fatal(err)
				}
			}
			all.Wait()
		})
	}
}
