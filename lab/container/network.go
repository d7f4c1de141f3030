package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// pool is where labs take their networks from: addresses that RFC 2544 sets
// apart for tests, so that they are nobody's production. Its lower half is left
// alone, since some proxies use it for addresses that they invent.
func pool() netip.Prefix { return netip.MustParsePrefix("198.19.0.0/16") }

const block = 24 // bits of the networks that are mapped one by one

// A mapping says which network of the lab stands for which of the inventory.
type mapping struct {
	from []netip.Prefix // in the inventory's order, each of 24 bits
	to   netip.Prefix   // the lab's, large enough for all
}

// networksOf finds the networks that hosts are in.
func networksOf(hosts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	seen := map[netip.Addr]bool{}
	for _, h := range hosts {
		a, err := netip.ParseAddr(h)
		if err != nil || !a.Is4() {
			return nil, fmt.Errorf("host %s is no IPv4 address: machines have those alone; the embedded lab (-kind=embedded) has names and IPv6 as well", h)
		}
		if seen[a] {
			return nil, fmt.Errorf("host %s stands there twice", h)
		}
		seen[a] = true
		p, err := a.Prefix(block)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("lab without machines")
	}
	const most = 16
	if len(all) > most {
		return nil, fmt.Errorf("the hosts are in %d networks of /24; a lab has at most %d", len(all), most)
	}
	return all, nil
}

// bits is the size of a network for that many blocks.
func bits(blocks int) int {
	b := block
	for n := 1; n < blocks; n *= 2 {
		b--
	}
	return b
}

// nth gives the nth network of a size in a pool.
func nth(pool netip.Prefix, bits, n int) (netip.Prefix, bool) {
	a := pool.Addr().As4()
	v := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	v += uint32(n) << (32 - bits)
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), bits)
	return p, pool.Contains(p.Addr())
}

// addr maps an address into the lab; false for one of another network.
func (m mapping) addr(a netip.Addr) (netip.Addr, bool) {
	for i, from := range m.from {
		if from.Contains(a) {
			p, ok := nth(m.to, block, i)
			b := p.Addr().As4()
			b[3] = a.As4()[3]
			return netip.AddrFrom4(b), ok
		}
	}
	return netip.Addr{}, false
}

// usable says what is wrong with an address for a machine: a network's first and
// last mean all of it.
func (m mapping) usable(a netip.Addr) error {
	last := m.to.Addr().As4()
	host := uint32(1)<<(32-m.to.Bits()) - 1
	last[1] |= byte(host >> 16)
	last[2] |= byte(host >> 8)
	last[3] |= byte(host)
	if a == m.to.Addr() || a == netip.AddrFrom4(last) {
		return fmt.Errorf("%s is the first or last address of its network, which no machine can have", a)
	}
	return nil
}

// free picks the highest address of the lab's network that is not taken.
func (m mapping) free(taken func(netip.Addr) bool) (netip.Addr, error) {
	p, _ := nth(m.to, block, 1<<(block-m.to.Bits())-1)
	b := p.Addr().As4()
	for last := 254; last > 0; last-- {
		b[3] = byte(last)
		if a := netip.AddrFrom4(b); m.usable(a) == nil && !taken(a) {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address is left in %s", m.to)
}

// routes are the networks that this machine has a way to, whatever table it
// stands in. The way to everything is none of them, and its halves and
// quarters, as VPNs write it, are not either.
func routes() ([]netip.Prefix, error) {
	const short = 8
	all, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var prefixes []netip.Prefix
	for _, r := range all {
		if r.Dst == nil {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP.To4())
		ones, _ := r.Dst.Mask.Size()
		if ok && ones >= short {
			prefixes = append(prefixes, netip.PrefixFrom(a, ones))
		}
	}
	return prefixes, nil
}

// makeNetwork makes the lab's network, at the first place that no route of this
// machine and no network of the engine has a part of.
func (e engine) makeNetwork(ctx context.Context, from []netip.Prefix, gateway func(mapping) (netip.Addr, error), labels map[string]string) (m mapping, name string, err error) {
	taken, err := routes()
	if err != nil {
		return m, "", err
	}
	// What is left of a lab may have no network any more, and still its names.
	there, err := e.labelled(ctx, labelMachine)
	if err != nil {
		return m, "", err
	}
	for _, c := range there {
		if a, err := netip.ParseAddr(c.Labels[labelMachine]); err == nil {
			taken = append(taken, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	// An engine that was asked for a network makes it, whether or not somebody
	// still waits for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	m.from = from
	var last error
	for n := 0; ; n++ {
		p, ok := nth(pool(), bits(len(from)), n)
		if !ok {
			break
		}
		if slices.ContainsFunc(taken, p.Overlaps) {
			continue
		}
		m.to = p
		gate, err := gateway(m)
		if err != nil {
			return m, "", err
		}
		name = "etcdrill-" + p.Addr().String()
		_, err = e.docker.NetworkCreate(ctx, name, client.NetworkCreateOptions{
			Driver: "bridge", Internal: true, Labels: labels,
			IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: p, Gateway: gate}}},
		})
		if err == nil {
			return m, name, nil
		}
		if !overlaps(err) {
			return m, "", fmt.Errorf("make network %s: %w", name, err)
		}
		last = err
	}
	return m, "", fmt.Errorf("no network is free in %s: this machine's routes or other labs have all of it (%w)", pool(), last)
}

// overlaps reports whether an engine refused a network since another has the
// name or a part of the addresses.
func overlaps(err error) bool {
	return errdefs.IsConflict(err) || strings.Contains(err.Error(), "overlaps") || strings.Contains(err.Error(), "already exists")
}

// local reports whether this machine is on the lab's network: the engine runs
// here, and machines are reached without a detour.
func local(gateway netip.Addr) (bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("list this machine's addresses: %w", err)
	}
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		b, ok := netip.AddrFromSlice(n.IP.To4())
		return ok && b == gateway
	}), nil
}

// removeNetwork removes a network; that it is gone already is no error.
func (e engine) removeNetwork(ctx context.Context, name string) error {
	_, err := e.docker.NetworkRemove(ctx, name, client.NetworkRemoveOptions{})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove network %s: %w", name, err)
	}
	return nil
}
