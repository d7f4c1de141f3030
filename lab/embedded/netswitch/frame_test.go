package netswitch

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// tcpSpec describes a TCP frame to build.
type tcpSpec struct {
	dst, src         mac
	from, to         netip.AddrPort
	seq              uint32
	flags            byte
	id               uint16
	options          int // bytes of TCP options, a multiple of four
	data             []byte
	segment          int // split into pieces of this size; 0 is an ordinary frame
	extensionHeaders int // IPv6 only
}

func (s tcpSpec) frame() []byte {
	tcp := make([]byte, tcpLen+s.options)
	binary.BigEndian.PutUint16(tcp, s.from.Port())
	binary.BigEndian.PutUint16(tcp[2:], s.to.Port())
	binary.BigEndian.PutUint32(tcp[tcpSeq:], s.seq)
	tcp[tcpOffset] = byte(len(tcp)/4) << 4
	tcp[tcpFlags] = s.flags
	for i := tcpLen; i < len(tcp); i++ {
		tcp[i] = 1 // no operation
	}
	body := append(tcp, s.data...)

	var ip []byte
	kind, offload := uint16(etherIPv4), byte(typeTCP4)
	if s.from.Addr().Is4() {
		ip = make([]byte, ipv4Len)
		ip[0] = 0x45
		binary.BigEndian.PutUint16(ip[2:], uint16(ipv4Len+len(body)))
		binary.BigEndian.PutUint16(ip[4:], s.id)
		ip[6] = 0x40 // do not fragment
		ip[8], ip[9] = 64, protoTCP
		copy(ip[12:], s.from.Addr().AsSlice())
		copy(ip[16:], s.to.Addr().AsSlice())
		binary.BigEndian.PutUint16(ip[10:], ^fold(sum(0, ip)))
	} else {
		kind, offload = etherIPv6, typeTCP6
		ip = make([]byte, ipv6Len+8*s.extensionHeaders)
		ip[0] = 0x60
		binary.BigEndian.PutUint16(ip[4:], uint16(8*s.extensionHeaders+len(body)))
		next := 6
		for i := range s.extensionHeaders {
			ip[next] = 60 // destination options
			next = ipv6Len + 8*i
		}
		ip[next], ip[7] = protoTCP, 64
		copy(ip[8:], s.from.Addr().AsSlice())
		copy(ip[24:], s.to.Addr().AsSlice())
	}

	f := make([]byte, offloadLen)
	f = append(f, s.dst[:]...)
	f = append(f, s.src[:]...)
	f = binary.BigEndian.AppendUint16(f, kind)
	f = append(f, ip...)
	f = append(f, body...)
	if s.segment > 0 {
		f[offloadFlags], f[offloadType] = needsChecksum, offload
		binary.NativeEndian.PutUint16(f[offloadSegment:], uint16(s.segment))
		binary.NativeEndian.PutUint16(f[offloadSumStart:], uint16(etherLen+len(ip)))
		binary.NativeEndian.PutUint16(f[offloadSumOffset:], tcpSum)
	}
	return f
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// counted returns n bytes that differ from each other as far as bytes can.
func counted(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8)
	}
	return b
}

// checksumHolds finishes a partial TCP checksum as the kernel would and
// verifies it as a receiver would: all words of pseudo-header and segment add
// up to ones.
func checksumHolds(t *testing.T, frame []byte) {
	t.Helper()
	eth := append([]byte(nil), frame[offloadLen:]...)
	h, ok := parse(eth)
	require.True(t, ok)
	require.True(t, h.tcp)
	require.Equal(t, byte(needsChecksum), frame[offloadFlags])
	start := int(binary.NativeEndian.Uint16(frame[offloadSumStart:]))
	offset := int(binary.NativeEndian.Uint16(frame[offloadSumOffset:]))
	require.Equal(t, h.tcpAt, start)
	binary.BigEndian.PutUint16(eth[start+offset:], ^fold(sum(0, eth[start:])))

	tcp := eth[h.tcpAt:h.dataEnd]
	acc := uint64(protoTCP) + uint64(len(tcp))
	if ip := eth[h.ipAt:h.tcpAt]; ip[0]>>4 == 4 {
		require.Equal(t, uint16(0xffff), fold(sum(0, ip)), "IPv4 header checksum")
		acc = sum(acc, ip[12:20])
	} else {
		acc = sum(acc, ip[8:40])
	}
	require.Equal(t, uint16(0xffff), fold(sum(acc, tcp)), "TCP checksum")
}

func TestSplit(t *testing.T) {
	t.Parallel()
	v4 := tcpSpec{from: addrPort("10.10.10.11:40000"), to: addrPort("10.10.10.12:2380")}
	v6 := tcpSpec{from: addrPort("[fd00::1]:40000"), to: addrPort("[fd00::2]:2380")}
	v6long := v6
	v6long.extensionHeaders = 2
	for name, base := range map[string]tcpSpec{"ipv4": v4, "ipv6": v6, "ipv6 with extension headers": v6long} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base.options, base.segment = 12, 1448
			base.seq, base.id = 1<<32-2000, 65535 // both wrap
			base.flags = flagFIN | flagPSH | flagCWR | 0x10
			base.data = counted(5*1448 + 17)
			frame := base.frame()
			h, ok := parse(frame[offloadLen:])
			require.True(t, ok)
			require.True(t, h.tcp)
			require.EqualValues(t, 6, wireFrames(frame, h))

			segments := split(frame, h)
			require.Len(t, segments, 6)
			var data []byte
			for i, s := range segments {
				checksumHolds(t, s)
				sh, _ := parse(s[offloadLen:])
				eth := s[offloadLen:]
				require.Equal(t, base.seq+uint32(len(data)), binary.BigEndian.Uint32(eth[sh.tcpAt+tcpSeq:]))
				if base.from.Addr().Is4() {
					require.Equal(t, base.id+uint16(i), binary.BigEndian.Uint16(eth[sh.ipAt+4:]))
				}
				first, last := i == 0, i == len(segments)-1
				require.Equal(t, last, eth[sh.tcpAt+tcpFlags]&flagFIN != 0)
				require.Equal(t, last, eth[sh.tcpAt+tcpFlags]&flagPSH != 0)
				require.Equal(t, first, eth[sh.tcpAt+tcpFlags]&flagCWR != 0)
				require.Equal(t, len(eth), sh.dataEnd, "nothing behind the data")
				require.Equal(t, h.dstIP, sh.dstIP)
				data = append(data, eth[sh.dataAt:sh.dataEnd]...)
			}
			require.Equal(t, base.data, data)
		})
	}
}

func TestSplitLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	spec := tcpSpec{from: addrPort("10.0.0.1:1"), to: addrPort("10.0.0.2:2"), data: counted(3000)}
	plain := spec.frame()
	spec.segment = 1448
	unknown := spec.frame()
	unknown[offloadType] = 5 // UDP
	udp := spec.frame()
	udp[offloadLen+etherLen+9] = 17
	spec.segment = 3000
	exact := spec.frame()
	for name, f := range map[string][]byte{"no superframe": plain, "unknown kind": unknown, "not TCP": udp, "one segment": exact} {
		h, ok := parse(f[offloadLen:])
		require.True(t, ok, name)
		got := split(f, h)
		require.Len(t, got, 1, name)
		require.Equal(t, f, got[0], name)
		require.NotSame(t, &f[0], &got[0][0], name)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	spec := tcpSpec{
		dst: mac{2, 0, 0, 0, 0, 2}, src: mac{2, 0, 0, 0, 0, 1},
		from: addrPort("10.0.0.1:40000"), to: addrPort("10.0.0.2:2380"), data: counted(10),
	}
	eth := spec.frame()[offloadLen:]

	h, ok := parse(eth)
	require.True(t, ok)
	require.Equal(t, spec.dst, h.dst)
	require.Equal(t, spec.src, h.src)
	require.Equal(t, netip.MustParseAddr("10.0.0.2"), h.dstIP)
	require.True(t, h.tcp)
	require.EqualValues(t, 40000, h.srcPort)
	require.EqualValues(t, 2380, h.dstPort)
	require.False(t, h.resolves)

	h, _ = parse(append(bytes.Clone(eth), 0, 0, 0)) // padding
	require.Equal(t, len(eth), h.dataEnd)

	for _, n := range []int{0, 13} {
		_, ok = parse(eth[:n])
		require.False(t, ok)
	}
	for n := 14; n < len(eth); n++ { // cut anywhere: a frame, no ports
		h, ok = parse(eth[:n])
		require.True(t, ok)
		require.False(t, h.tcp)
	}

	fragment := bytes.Clone(eth)
	fragment[etherLen+7] = 3
	h, _ = parse(fragment)
	require.False(t, h.tcp)
	require.True(t, h.dstIP.IsValid())

	h, ok = parse(arpFrame(spec.src, netip.MustParseAddr("10.0.0.2"))[offloadLen:])
	require.True(t, ok)
	require.True(t, h.resolves)
	require.True(t, h.dst.group())
	require.Equal(t, netip.MustParseAddr("10.0.0.2"), h.dstIP)

	v6 := tcpSpec{from: addrPort("[fd00::1]:1"), to: addrPort("[fd00::2]:2"), data: counted(8)}
	solicit := v6.frame()[offloadLen:]
	solicit[etherLen+6], solicit[etherLen+ipv6Len] = protoICMP6, 135
	h, _ = parse(solicit)
	require.True(t, h.resolves)
	require.False(t, h.tcp)
	solicit[etherLen+ipv6Len] = 128 // an echo request is no neighbour discovery
	h, _ = parse(solicit)
	require.False(t, h.resolves)
}

// arpFrame is a broadcast ARP request.
func arpFrame(src mac, wanted netip.Addr) []byte {
	f := make([]byte, offloadLen+etherLen+28)
	eth := f[offloadLen:]
	copy(eth, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	copy(eth[6:], src[:])
	binary.BigEndian.PutUint16(eth[12:], etherARP)
	copy(eth[14:], []byte{0, 1, 8, 0, 6, 4, 0, 1})
	copy(eth[38:], wanted.AsSlice())
	return f
}

// FuzzFrame feeds arbitrary bytes to everything that looks into frames.
func FuzzFrame(f *testing.F) {
	spec := tcpSpec{from: addrPort("10.0.0.1:1"), to: addrPort("10.0.0.2:2"), data: counted(40), segment: 16}
	f.Add(spec.frame())
	spec.from, spec.to = addrPort("[fd00::1]:1"), addrPort("[fd00::2]:2")
	spec.extensionHeaders = 1
	f.Add(spec.frame())
	f.Add(arpFrame(mac{2}, netip.MustParseAddr("10.0.0.2")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < offloadLen || len(frame) > maxFrame {
			return
		}
		before := bytes.Clone(frame)
		h, ok := parse(frame[offloadLen:])
		if !ok {
			return
		}
		segments := split(frame, h)
		require.Equal(t, before, frame, "the frame is only read")
		require.EqualValues(t, len(segments), wireFrames(frame, h))
		if len(segments) == 1 {
			require.Equal(t, frame, segments[0])
			return
		}
		step := segmentSize(frame, h)
		var data []byte
		for i, s := range segments {
			sh, ok := parse(s[offloadLen:])
			require.True(t, ok)
			require.True(t, sh.tcp)
			piece := s[offloadLen:][sh.dataAt:sh.dataEnd]
			require.LessOrEqual(t, len(piece), step)
			if i < len(segments)-1 {
				require.Len(t, piece, step)
			}
			checksumHolds(t, s)
			data = append(data, piece...)
		}
		require.Equal(t, frame[offloadLen:][h.dataAt:h.dataEnd], data)
	})
}
