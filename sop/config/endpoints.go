package config

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ErrNoEndpoints says that a file names no etcd endpoints, so that there is
// nothing in it to compare or to edit.
var ErrNoEndpoints = errors.New("no etcd endpoints in it")

// An endpoint taken apart. The scheme may be empty: Patroni's lists have none.
type endpoint struct {
	scheme, host, port string
}

// splitEndpoint never fails: what it cannot take apart becomes the host, and
// so equals only itself.
func splitEndpoint(s string) endpoint {
	s = strings.TrimSuffix(strings.TrimSpace(s), "/")
	var e endpoint
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		e.scheme, s = strings.ToLower(scheme), rest
	}
	e.host = s
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		e.host, e.port = s[:i], s[i+1:]
	}
	e.host = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(e.host, "["), "]"))
	if ip, err := netip.ParseAddr(e.host); err == nil {
		e.host = ip.Unmap().String()
	}
	return e
}

func (e endpoint) matches(o endpoint) bool {
	return e.host == o.host && e.port == o.port && (e.scheme == o.scheme || e.scheme == "" || o.scheme == "")
}

// SameEndpoints reports whether two lists name the same endpoints, in any
// order. An endpoint without a scheme equals the one with any.
func SameEndpoints(a, b []string) bool {
	return covers(a, b) && covers(b, a)
}

// covers reports whether every endpoint of b is in a.
func covers(a, b []string) bool {
	for _, s := range b {
		e := splitEndpoint(s)
		if !slices.ContainsFunc(a, func(o string) bool { return splitEndpoint(o).matches(e) }) {
			return false
		}
	}
	return true
}

// MeetsCluster reports whether at least one endpoint of a file is a client URL
// of one of the members. A file for which it is false belongs to another etcd
// and must be left alone.
func MeetsCluster(fileEndpoints, memberURLs []string) bool {
	for _, s := range fileEndpoints {
		e := splitEndpoint(s)
		for _, u := range memberURLs {
			if o := splitEndpoint(u); e.host == o.host && e.port == o.port {
				return true
			}
		}
	}
	return false
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$`)

// checkEndpoints refuses what is no endpoint. The lists go into shell scripts
// and YAML files, so only addresses and names with a port are let through.
func checkEndpoints(endpoints []string) error {
	if len(endpoints) == 0 {
		return errors.New("an empty list of endpoints would cut the client off")
	}
	for i, s := range endpoints {
		if err := checkEndpoint(s); err != nil {
			return err
		}
		if slices.Contains(endpoints[:i], s) {
			return fmt.Errorf("endpoint %q stands twice in the list", s)
		}
	}
	return nil
}

func checkEndpoint(s string) error {
	rest := s
	if scheme, r, ok := strings.Cut(s, "://"); ok {
		if scheme != "https" && scheme != "http" {
			return fmt.Errorf("endpoint %q begins with neither https:// nor http://", s)
		}
		rest = r
	}
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return fmt.Errorf("endpoint %q has no port", s)
	}
	host, port := rest[:i], rest[i+1:]
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("endpoint %q has no valid port", s)
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, closed := strings.CutSuffix(inner, "]")
		if ip, err := netip.ParseAddr(inner); !closed || err != nil || !ip.Is6() || ip.Zone() != "" {
			return fmt.Errorf("endpoint %q has no valid IPv6 address in its brackets", s)
		}
		return nil
	}
	if !hostName.MatchString(host) {
		return fmt.Errorf("endpoint %q has no valid host: an address or a DNS name is expected", s)
	}
	return nil
}

// checkURL is checkEndpoint for what needs its scheme.
func checkURL(s string) error {
	if !strings.Contains(s, "://") {
		return fmt.Errorf("%q is no URL: https:// is missing", s)
	}
	return checkEndpoint(s)
}

// withoutScheme gives endpoints as host:port.
func withoutScheme(endpoints []string) []string {
	bare := make([]string, len(endpoints))
	for i, s := range endpoints {
		if _, rest, ok := strings.Cut(s, "://"); ok {
			s = rest
		}
		bare[i] = strings.TrimSuffix(s, "/")
	}
	return bare
}
