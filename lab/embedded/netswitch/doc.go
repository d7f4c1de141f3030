// Package netswitch is a layer-2 switch in user space that can be hurt.
//
// The healthy links of a lab run over a kernel bridge. While a link is
// faulted, the outer veth ends of the hosts are taken off the bridge and
// plugged in here, and every network fault there is happens in this package:
//
//	sw := netswitch.New(seed)
//	defer sw.Close()
//
//	// Rules first, ports second: then no frame passes unhurt.
//	err := sw.SetRule("etcd-1", "etcd-2", netswitch.Rule{Cut: true})
//	for _, h := range hosts {
//		wire, err := netswitch.OpenPort(h.OuterVeth) // in the lab's network namespace
//		err = sw.AddPort(netswitch.Port{Name: h.Name, Wire: wire, IP: h.IP, MAC: h.MAC})
//	}
//	...
//	err = sw.SetRule("etcd-1", "etcd-2", netswitch.Rule{}) // heal
//
// # Links and rules
//
// A Link is directed: etcd-1 to etcd-2 and etcd-2 to etcd-1 are two links, and
// cutting one of them is a one-way partition. A link has at most one Rule; one
// that is not the Zero rule applies, in this order:
//
//	cut      every frame is dropped, address resolution too
//	loss     a frame is dropped
//	rate     a token bucket before a bounded queue; what finds it full is dropped
//	delay    a frame is held for Delay and up to Jitter more
//	reorder  a frame is held 1 to 10 ms longer still, while later ones go ahead
//	duplicate  the frame arrives twice
//
// Frames keep their order under any Delay, Jitter and Rate; only Reorder
// breaks it. Where Ports is set, the rule sees only TCP segments from or to
// these ports, as a firewall does. ARP and IPv6 neighbour discovery are
// touched by a cut of the whole link and by nothing else: a lost ARP request
// is a second without a connection, which would drown the fault that was
// asked for.
//
// SetRule works at once. When it returns, frames that arrive meet the new
// rule, and frames that were being held have met it as well: a cut has dropped
// them, a heal has delivered them.
//
// A rule may name ports that are not there yet, and outlives those that are
// removed: it belongs to the link's name.
//
// # What is seeded
//
// Each directed link draws from a generator of its own, made from the seed and
// the link's two names. A frame under a rule takes four draws, whatever the
// rule is. So the fate of the nth such frame of a link does not depend on
// other links, and turning up Loss does not change which frames are
// duplicated. What is not seeded is the traffic: TCP retransmits when the
// machine's scheduler lets it.
//
// # Did it bite
//
// Counters tells per link what passed and what was done to it. A fault whose
// counters stay at zero has not been tested. Overruns tells what the kernel
// dropped before the switch saw it; it must be zero for a seeded fault to be
// the only one.
//
// # Checksums and large frames
//
// A veth hands its frames on without TCP checksums and up to 64 KiB long: both
// are left to a network card that is not there. OpenPort asks the kernel for
// the virtio-net header that says what is missing, and the switch carries it
// along. On a link without a rule such a frame passes whole, header and all,
// and the receiving kernel takes it as its own. On a link with a rule it is
// first split into the segments that a wire would have carried, so that loss,
// order and rate mean what they say. Nothing has to be switched off in the
// hosts, and nothing has to be switched on again after a crash.
//
// # Which port a frame goes to
//
// A frame to a group address goes to all other ports. One to a host's address
// goes to the port that declared this MAC or was seen sending from it. Where
// several ports share one MAC the destination IP decides. Where nothing is
// known, the frame goes to all other ports. A bridge may be plugged in as a
// port like any other (declare no IP or MAC for it), so that hosts still on
// the bridge reach those on the switch; rules then see all of these hosts as
// one.
//
// # Parts
//
// The model of a link (line.go) has no sockets, no goroutines and no clock:
// frames and times go in, frames that are due come out. switch.go is the pump
// around it, wire_linux.go the packet socket, frame.go all that is known of
// bytes.
package netswitch
