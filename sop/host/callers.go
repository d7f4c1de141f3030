package host

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// CallersIn reads who is connected to some ports from the kernel's tables of
// sockets, /proc/net/tcp and tcp6, as Facts tell it.
func CallersIn(tables string, ports []int) (map[int][]string, error) {
	var found map[int][]string
	for line := range strings.Lines(tables) {
		f := strings.Fields(line)
		const local, remote, state, established = 1, 2, 3, "01"
		if len(f) <= state || f[state] != established {
			continue
		}
		here, err := socketEnd(f[local])
		if err != nil {
			return nil, err
		}
		if !slices.Contains(ports, int(here.Port())) {
			continue
		}
		there, err := socketEnd(f[remote])
		if err != nil {
			return nil, err
		}
		if found == nil {
			found = map[int][]string{}
		}
		found[int(here.Port())] = append(found[int(here.Port())], there.String())
	}
	for _, all := range found {
		slices.Sort(all)
	}
	return found, nil
}

// socketEnd reads an address and port as the kernel writes them: words of 32
// bits, each as a machine with the small end first has it.
func socketEnd(text string) (netip.AddrPort, error) {
	address, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(address)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read socket %s: %w", text, err)
	}
	for i := 0; i+4 <= len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, ok := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf("read socket %s: no address and port", text)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}
