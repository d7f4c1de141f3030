package sop

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"
)

// isName reports whether a host stands in the inventory by name.
func isName(host string) bool {
	_, err := netip.ParseAddr(host)
	return err != nil
}

// listenOn picks the address that etcd is to listen on for a name: the one of
// the host's own that the name leads to, as seen from the admin host. A host
// itself often takes its own name for 127.0.1.1. Where none of its addresses is
// the name's, as behind a translation, and it has several, it is all of them.
func (s *Site) listenOn(ctx context.Context, name string, own []string) string {
	if s.Resolve != nil {
		if found, err := s.Resolve(ctx, name); err == nil {
			slices.Sort(found)
			for _, a := range found {
				if slices.Contains(own, a) {
					return a
				}
			}
		}
	}
	if len(own) == 1 {
		return own[0]
	}
	return ""
}

// listenURLs gives what to listen on for an advertised URL.
func listenURLs(advertised, address string, more ...string) []string {
	u, err := url.Parse(advertised)
	if err != nil {
		return nil
	}
	if address == "" {
		address, more = "0.0.0.0", nil
	}
	var all []string
	for _, a := range append([]string{address}, more...) {
		all = append(all, u.Scheme+"://"+net.JoinHostPort(a, u.Port()))
	}
	return all
}
