package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An rtnetlink is a route socket of one network namespace, the one of the
// thread that opened it. It sends many messages in one call, which is what
// makes a lab come up in milliseconds.
type rtnetlink struct {
	fd  int
	seq uint32
}

func openRTNetlink() (*rtnetlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bind route socket: %w", err)
	}
	return &rtnetlink{fd: fd}, nil
}

func (r *rtnetlink) close() { _ = unix.Close(r.fd) }

// A message is one request to the kernel; what names it in errors.
type message struct {
	what  string
	kind  uint16
	flags uint16
	body  []byte
}

// do sends the messages in order and gives the first failure.
func (r *rtnetlink) do(messages ...message) error {
	_, err := r.ask(messages...)
	return err
}

// ask is do for questions: it gives the bodies of the answers, in order.
func (r *rtnetlink) ask(messages ...message) ([][]byte, error) {
	var out []byte
	names := make(map[uint32]string, len(messages))
	for _, m := range messages {
		r.seq++
		names[r.seq] = m.what
		out = binary.NativeEndian.AppendUint32(out, uint32(unix.SizeofNlMsghdr+len(m.body)))
		out = binary.NativeEndian.AppendUint16(out, m.kind)
		out = binary.NativeEndian.AppendUint16(out, m.flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
		out = binary.NativeEndian.AppendUint32(out, r.seq)
		out = binary.NativeEndian.AppendUint32(out, 0)
		out = append(out, m.body...)
		out = pad(out)
	}
	if err := unix.Sendto(r.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send to kernel: %w", err)
	}
	var first error
	var answers [][]byte
	in := make([]byte, 64<<10)
	for len(names) > 0 {
		n, _, err := unix.Recvfrom(r.fd, in, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("hear from kernel: %w", err)
		}
		for b := in[:n]; len(b) >= unix.SizeofNlMsghdr+4; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr+4 || size > len(b) {
				break
			}
			seq := binary.NativeEndian.Uint32(b[8:])
			what, asked := names[seq]
			switch {
			case !asked: // of an earlier request that failed to be heard out
			case binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR:
				answers = append(answers, slices.Clone(b[unix.SizeofNlMsghdr:size]))
			default: // with code 0 it says that all went well
				delete(names, seq)
				if code := int32(binary.NativeEndian.Uint32(b[16:])); code != 0 && first == nil {
					first = fmt.Errorf("%s: %w", what, unix.Errno(-code))
				}
			}
			b = b[min(len(b), (size+3)&^3):]
		}
	}
	return answers, first
}

// awaitUp waits until links carry frames. A link that was brought up has a
// carrier at once, but its queue and its bridge port are put to work a little
// later by the kernel, and what is sent before that is lost: for TCP that is
// one second.
func (r *rtnetlink) awaitUp(ctx context.Context, indexes ...int) error {
	for _, index := range indexes {
		for {
			answers, err := r.ask(getLink(index))
			if err != nil {
				return err
			}
			if len(answers) == 1 && operState(answers[0]) == operUp {
				break
			}
			if err := pause(ctx); err != nil {
				return fmt.Errorf("wait for link %d to come up: %w", index, err)
			}
		}
	}
	return nil
}

// operState finds the operational state in a description of a link.
func operState(link []byte) int {
	for b := link[min(len(link), unix.SizeofIfInfomsg):]; len(b) >= 4; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < 4 || size > len(b) {
			break
		}
		if binary.NativeEndian.Uint16(b[2:]) == unix.IFLA_OPERSTATE && size > 4 {
			return int(b[4])
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return -1
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func attr(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return pad(append(b, value...))
}

func nest(kind uint16, attrs ...[]byte) []byte { return attr(kind, join(attrs...)) }

func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func number(n int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }

func text(s string) []byte { return append([]byte(s), 0) }

func ifinfo(index int, flags, change uint32) []byte {
	h := unix.IfInfomsg{Family: unix.AF_UNSPEC, Index: int32(index), Flags: flags, Change: change}
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&h)), unix.SizeofIfInfomsg)...)
}

// Numbers of linux/veth.h, linux/if_addr.h and linux/if.h that x/sys lacks.
const (
	vethInfoPeer = 1
	ifaFlags     = 8
	operUp       = 6
)

func addBridge(name string, index int) message {
	return message{
		what: "make bridge", kind: unix.RTM_NEWLINK, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		body: join(ifinfo(index, unix.IFF_UP, unix.IFF_UP),
			attr(unix.IFLA_IFNAME, text(name)),
			nest(unix.IFLA_LINKINFO, attr(unix.IFLA_INFO_KIND, []byte("bridge")))),
	}
}

// addVeth makes a pair: this end in the socket's own namespace, up and joined
// to the master, the other end in the namespace of peerNS, still down.
func addVeth(name string, index, master int, peerName string, peerIndex int, peerMAC net.HardwareAddr, peerNS int) message {
	return message{
		what: "make veth pair " + name, kind: unix.RTM_NEWLINK, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		body: join(ifinfo(index, unix.IFF_UP, unix.IFF_UP),
			attr(unix.IFLA_IFNAME, text(name)),
			attr(unix.IFLA_MASTER, number(master)),
			nest(unix.IFLA_LINKINFO,
				attr(unix.IFLA_INFO_KIND, []byte("veth")),
				nest(unix.IFLA_INFO_DATA, attr(vethInfoPeer, join(
					ifinfo(peerIndex, 0, 0),
					attr(unix.IFLA_IFNAME, text(peerName)),
					attr(unix.IFLA_ADDRESS, peerMAC),
					attr(unix.IFLA_NET_NS_FD, number(peerNS)),
				))))),
	}
}

func delLink(index int) message {
	return message{what: "remove link", kind: unix.RTM_DELLINK, body: ifinfo(index, 0, 0)}
}

func getLink(index int) message {
	return message{what: "look at link", kind: unix.RTM_GETLINK, body: ifinfo(index, 0, 0)}
}

func linkUp(index int) message {
	return message{what: "bring link up", kind: unix.RTM_NEWLINK, body: ifinfo(index, unix.IFF_UP, unix.IFF_UP)}
}

// setMaster joins a link to a bridge, or takes it off its bridge (0).
func setMaster(index, master int) message {
	return message{what: "set the link's bridge", kind: unix.RTM_NEWLINK,
		body: join(ifinfo(index, 0, 0), attr(unix.IFLA_MASTER, number(master)))}
}

func addAddress(index int, a netip.Addr) message {
	h := unix.IfAddrmsg{Family: family(a), Prefixlen: uint8(a.BitLen()), Index: uint32(index)}
	return message{
		what: "give address " + a.String(), kind: unix.RTM_NEWADDR, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		body: join(unsafe.Slice((*byte)(unsafe.Pointer(&h)), unix.SizeofIfAddrmsg),
			attr(unix.IFA_LOCAL, a.AsSlice()),
			attr(unix.IFA_ADDRESS, a.AsSlice()),
			// No duplicate address detection: an address works at once.
			attr(ifaFlags, number(unix.IFA_F_NODAD))),
	}
}

// addRoute says that one address is found directly on a link.
func addRoute(index int, to, from netip.Addr) message {
	h := unix.RtMsg{
		Family: family(to), Dst_len: uint8(to.BitLen()), Table: unix.RT_TABLE_MAIN,
		Protocol: unix.RTPROT_STATIC, Scope: unix.RT_SCOPE_LINK, Type: unix.RTN_UNICAST,
	}
	return message{
		what: "route to " + to.String(), kind: unix.RTM_NEWROUTE, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		body: join(unsafe.Slice((*byte)(unsafe.Pointer(&h)), unix.SizeofRtMsg),
			attr(unix.RTA_DST, to.AsSlice()),
			attr(unix.RTA_PREFSRC, from.AsSlice()),
			attr(unix.RTA_OIF, number(index))),
	}
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
