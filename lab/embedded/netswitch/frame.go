package netswitch

import (
	"encoding/binary"
	"net/netip"
)

// A frame in this package is an Ethernet frame behind the virtio-net header
// that Linux writes and reads on packet sockets. Its ten bytes say whether the
// TCP or UDP checksum is still to be made, and whether the frame is a
// superframe still to be split. All its fields are in the machine's own byte
// order, which is why they are read with the native one.
const (
	offloadLen = 10 // flags, type, header length, segment size, checksum start, checksum offset

	offloadFlags     = 0
	offloadType      = 1
	offloadSegment   = 4
	offloadSumStart  = 6
	offloadSumOffset = 8

	needsChecksum = 1

	typeNone = 0
	typeTCP4 = 1
	typeTCP6 = 4
	typeECN  = 0x80 // a flag on top of a type
)

const (
	etherLen   = 14
	etherIPv4  = 0x0800
	etherARP   = 0x0806
	etherIPv6  = 0x86dd
	ipv4Len    = 20
	ipv6Len    = 40
	tcpLen     = 20
	protoTCP   = 6
	protoICMP6 = 58

	tcpSeq, tcpOffset, tcpFlags, tcpSum = 4, 12, 13, 16

	flagFIN, flagPSH, flagCWR = 0x01, 0x08, 0x80

	// maxFrame is the longest that a superframe can be: 64 KiB of IP.
	maxFrame = offloadLen + etherLen + 1<<16
)

type mac [6]byte

// group reports a multicast or broadcast address.
func (m mac) group() bool { return m[0]&1 != 0 }

// header is what a switch with faults has to know of a frame.
type header struct {
	dst, src mac
	dstIP    netip.Addr // zero where there is none; for ARP the address asked for

	// resolves marks ARP and IPv6 neighbour discovery.
	resolves bool

	// tcp says that the ports and offsets below are set. It is false for
	// fragments: only the first one would have ports.
	tcp              bool
	srcPort, dstPort uint16
	ipAt, tcpAt      int // offsets into the Ethernet frame
	dataAt, dataEnd  int
}

// parse reads the header of an Ethernet frame (without offload header). It
// reports false for what is too short to be one. Anything else it does not
// understand is a frame without IP.
func parse(eth []byte) (header, bool) {
	var h header
	if len(eth) < etherLen {
		return h, false
	}
	copy(h.dst[:], eth)
	copy(h.src[:], eth[6:])
	switch binary.BigEndian.Uint16(eth[12:]) {
	case etherARP:
		h.resolves = true
		// Ethernet and IPv4 only: hardware length 6, protocol length 4.
		if a := eth[etherLen:]; len(a) >= 28 && a[4] == 6 && a[5] == 4 {
			h.dstIP = netip.AddrFrom4([4]byte(a[24:28]))
		}
	case etherIPv4:
		h.parseIPv4(eth)
	case etherIPv6:
		h.parseIPv6(eth)
	}
	return h, true
}

func (h *header) parseIPv4(eth []byte) {
	ip := eth[etherLen:]
	if len(ip) < ipv4Len || ip[0]>>4 != 4 {
		return
	}
	headerLen := int(ip[0]&0xf) * 4
	total := int(binary.BigEndian.Uint16(ip[2:]))
	if total == 0 {
		total = len(ip) // more than 64 KiB does not fit the field
	}
	if headerLen < ipv4Len || total < headerLen || total > len(ip) {
		return
	}
	h.dstIP = netip.AddrFrom4([4]byte(ip[16:20]))
	fragment := binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 // more to come, or an offset
	if ip[9] == protoTCP && !fragment {
		h.parseTCP(eth, etherLen, etherLen+headerLen, etherLen+total)
	}
}

func (h *header) parseIPv6(eth []byte) {
	ip := eth[etherLen:]
	if len(ip) < ipv6Len || ip[0]>>4 != 6 {
		return
	}
	total := ipv6Len + int(binary.BigEndian.Uint16(ip[4:]))
	if total == ipv6Len {
		total = len(ip)
	}
	if total > len(ip) {
		return
	}
	h.dstIP = netip.AddrFrom16([16]byte(ip[24:40]))
	next, at := ip[6], ipv6Len
	for {
		switch next {
		case 0, 43, 60: // hop-by-hop, routing and destination options
			if at+8 > total {
				return
			}
			next, at = ip[at], at+8*(1+int(ip[at+1]))
			continue
		case protoTCP:
			h.parseTCP(eth, etherLen, etherLen+at, etherLen+total)
		case protoICMP6:
			// Router and neighbour solicitation and advertisement, redirect.
			h.resolves = at < total && ip[at] >= 133 && ip[at] <= 137
		}
		return
	}
}

func (h *header) parseTCP(eth []byte, ipAt, at, end int) {
	if at+tcpLen > end {
		return
	}
	data := at + int(eth[at+tcpOffset]>>4)*4
	if data < at+tcpLen || data > end {
		return
	}
	h.tcp = true
	h.srcPort = binary.BigEndian.Uint16(eth[at:])
	h.dstPort = binary.BigEndian.Uint16(eth[at+2:])
	h.ipAt, h.tcpAt, h.dataAt, h.dataEnd = ipAt, at, data, end
}

// segmentSize is how much data each segment of a TCP superframe takes, or 0
// when the frame is not one.
func segmentSize(frame []byte, h header) int {
	kind := frame[offloadType] &^ typeECN
	size := int(binary.NativeEndian.Uint16(frame[offloadSegment:]))
	if !h.tcp || kind != typeTCP4 && kind != typeTCP6 || size >= h.dataEnd-h.dataAt {
		return 0
	}
	return size
}

// wireFrames is how many frames a wire would carry for this one.
func wireFrames(frame []byte, h header) int64 {
	size := segmentSize(frame, h)
	if size == 0 {
		return 1
	}
	return int64((h.dataEnd - h.dataAt + size - 1) / size)
}

// split makes of a TCP superframe the segments that a network card would have
// made, each in memory of its own. Any other frame comes back alone, as a
// copy. The checksum of a segment is left partial, as its offload header says:
// only the sum over addresses and length, which the kernel completes or takes
// on trust as it does for its own.
func split(frame []byte, h header) [][]byte {
	size := segmentSize(frame, h)
	if size == 0 {
		return [][]byte{append([]byte(nil), frame...)}
	}
	eth := frame[offloadLen:]
	data := eth[h.dataAt:h.dataEnd]
	seq := binary.BigEndian.Uint32(eth[h.tcpAt+tcpSeq:])
	v4 := eth[h.ipAt]>>4 == 4

	segments := make([][]byte, 0, wireFrames(frame, h))
	for at := 0; at < len(data); at += size {
		piece := data[at:min(at+size, len(data))]
		out := make([]byte, offloadLen+h.dataAt+len(piece))
		out[offloadFlags] = needsChecksum
		out[offloadType] = typeNone
		binary.NativeEndian.PutUint16(out[offloadSumStart:], uint16(h.tcpAt))
		binary.NativeEndian.PutUint16(out[offloadSumOffset:], tcpSum)

		seg := out[offloadLen:]
		copy(seg, eth[:h.dataAt])
		copy(seg[h.dataAt:], piece)

		ip, tcp := seg[h.ipAt:h.tcpAt], seg[h.tcpAt:]
		if v4 {
			binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(tcp)))
			id := binary.BigEndian.Uint16(ip[4:])
			binary.BigEndian.PutUint16(ip[4:], id+uint16(len(segments)))
			ip[10], ip[11] = 0, 0
			binary.BigEndian.PutUint16(ip[10:], ^fold(sum(0, ip)))
		} else {
			binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-ipv6Len+len(tcp)))
		}
		binary.BigEndian.PutUint32(tcp[tcpSeq:], seq+uint32(at))
		if at > 0 {
			tcp[tcpFlags] &^= flagCWR // the first segment alone answers a congestion mark
		}
		if at+len(piece) < len(data) {
			tcp[tcpFlags] &^= flagFIN | flagPSH // these belong to the end of the data
		}
		binary.BigEndian.PutUint16(tcp[tcpSum:], fold(pseudoSum(ip, v4, len(tcp))))
		segments = append(segments, out)
	}
	return segments
}

// pseudoSum is the part of the TCP checksum that covers addresses, protocol
// and length.
func pseudoSum(ip []byte, v4 bool, tcpLen int) uint64 {
	addresses := ip[8:40]
	if v4 {
		addresses = ip[12:20]
	}
	return sum(uint64(protoTCP)+uint64(tcpLen), addresses)
}

// sum adds the 16-bit words of b, the Internet checksum before folding.
func sum(acc uint64, b []byte) uint64 {
	for ; len(b) >= 2; b = b[2:] {
		acc += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		acc += uint64(b[0]) << 8
	}
	return acc
}

func fold(acc uint64) uint16 {
	for acc > 0xffff {
		acc = acc>>16 + acc&0xffff
	}
	return uint16(acc)
}
