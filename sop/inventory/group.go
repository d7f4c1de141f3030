package inventory

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A Group is one etcd cluster as the inventory wants it. Values that cannot be
// understood are at their defaults, except for Clean and Safeguard, which then
// protect; Lint says so. A directory that is the system's is such a value.
type Group struct {
	Name    string // of the group
	Cluster string // etcd_cluster, the first half of a member's name
	Hosts   []Host // in the order of the file

	// Values for the cluster as a whole. Where every host agrees on a value of
	// its own, that one; else the group's. Clean holds if it holds for every
	// host, Safeguard if it holds for any.
	Clean                           bool
	Safeguard                       bool
	ClientPort                      int
	PeerPort                        int
	DataDir                         string
	WALDir                          string // "" where the log is in the data directory
	ElectionMs                      int
	HeartbeatMs                     int
	QuotaBytes                      int64
	RootPassword                    string // "" unless set in clear; never to be printed
	Version                         string // without a leading v; "" unless set
	CertValidity                    time.Duration
	Package                         string
	PackageVersion                  string // as apt or dnf spells it; "" unless set
	Binary                          string // path on the hosts
	BinaryFrom                      string // path on the admin host; "" unless set
	BinarySHA256                    string // hex, lower case; "" unless set
	ClientCert, ClientKey, ClientCA string // paths on the admin host; "" unless set
	Unit                            string // systemd unit
	Conf                            string // configuration of a member
	ConfForm                        string // yaml or env; "" leaves it to the place
	Scheme                          string // https or http
	CAFile, CertFile, KeyFile       string // on the hosts
	User                            string // who runs etcd

	InfraHosts []string // inventory names of the hosts of group infra
	AdminHost  string   // admin_ip, "" unless set

	Postgres   []Postgres // hosts of PostgreSQL clusters, of any etcd
	TargetDirs []string   // where infra hosts may keep etcd's monitoring targets
	Others     []Host     // the hosts that Clients names, for reaching them
}

// A Host is one machine of the inventory with its values resolved.
type Host struct {
	Name   string // in the inventory; the IP that etcd uses
	Line   int    // of its entry
	Seq    int
	HasSeq bool

	ClientPort int
	PeerPort   int
	DataDir    string
	WALDir     string

	Addr       string // for SSH only: ansible_host, else Name
	SSHUser    string // "" leaves it to ssh
	SSHPort    int    // 0 leaves it to ssh
	SSHKey     string // "" leaves it to ssh
	Become     bool   // true unless set: the playbooks that this follows say so
	BecomeUser string
	Connection string // "ssh" or "local", or what is written there

	// Vars is every variable that applies to the host: string, bool, int64,
	// float64, nil, Vault, []any and map[string]any.
	Vars map[string]any
}

// Group resolves one group. The error is ErrNoGroup.
func (v *Inventory) Group(name string) (*Group, error) {
	if _, ok := v.groups[name]; !ok {
		return nil, v.noGroup(name)
	}
	own := v.groupVars(name)
	g := &Group{
		Name:         name,
		Cluster:      own.text("etcd_cluster", defaultCluster),
		Clean:        own.boolean("etcd_clean", true, false),
		Safeguard:    own.boolean("etcd_safeguard", false, true),
		RootPassword: own.text("etcd_root_password", ""),
		AdminHost:    own.text("admin_ip", ""),
	}
	entries := v.hostsOf(name)
	hosts := make([]values, len(entries))
	if len(entries) > 0 {
		g.Clean, g.Safeguard = true, false // the hosts decide
	}
	for i, e := range entries {
		hosts[i] = v.hostVars(e.host)
		g.Hosts = append(g.Hosts, v.host(e.host, e.key.Line, hosts[i]))
		g.Clean = g.Clean && hosts[i].boolean("etcd_clean", true, false)
		g.Safeguard = g.Safeguard || hosts[i].boolean("etcd_safeguard", false, true)
	}
	// One value for all: the hosts' where they agree, else the group's.
	g.ClientPort = agreed(hosts, own, func(x values) int { return x.port("etcd_port", defaultClientPort) })
	g.PeerPort = agreed(hosts, own, func(x values) int { return x.port("etcd_peer_port", defaultPeerPort) })
	g.DataDir = agreed(hosts, own, func(x values) string { return x.dir("etcd_data", defaultDataDir) })
	g.WALDir = agreed(hosts, own, func(x values) string { return x.dir("etcd_wal_dir", "") })
	g.ElectionMs = agreed(hosts, own, func(x values) int { return int(x.positive("etcd_election_timeout", defaultElection, maxElection)) })
	g.HeartbeatMs = agreed(hosts, own, func(x values) int { return int(x.positive("etcd_heartbeat_interval", defaultHeartbeat, maxElection)) })
	g.QuotaBytes = agreed(hosts, own, func(x values) int64 { return x.positive("etcd_quota_backend_bytes", defaultQuota, 1<<62) })
	g.Version = agreed(hosts, own, func(x values) string { return strings.TrimPrefix(x.text("etcd_version", ""), "v") })
	g.Package = agreed(hosts, own, func(x values) string { return x.text("etcd_package", "etcd") })
	g.PackageVersion = agreed(hosts, own, func(x values) string { return x.text("etcd_package_version", "") })
	g.BinaryFrom = agreed(hosts, own, func(x values) string { return x.text("etcd_binary_from", "") })
	g.BinarySHA256 = agreed(hosts, own, func(x values) string { return strings.ToLower(x.text("etcd_binary_sha256", "")) })
	g.Binary = agreed(hosts, own, func(x values) string { return x.text("etcd_binary", "/usr/bin/etcd") })
	g.ClientCert = agreed(hosts, own, func(x values) string { return x.text("etcd_client_cert", "") })
	g.ClientKey = agreed(hosts, own, func(x values) string { return x.text("etcd_client_key", "") })
	g.ClientCA = agreed(hosts, own, func(x values) string { return x.text("etcd_client_ca", "") })
	g.Unit = agreed(hosts, own, func(x values) string { return matching(x.text("etcd_systemd_unit", ""), unitPattern, "etcd.service") })
	g.Conf = agreed(hosts, own, func(x values) string { return x.text("etcd_conf", "/etc/etcd/etcd.conf") })
	g.ConfForm = agreed(hosts, own, func(x values) string { return x.text("etcd_conf_form", "") })
	g.Scheme = agreed(hosts, own, func(x values) string {
		if x.text("etcd_scheme", "") == "http" {
			return "http"
		}
		return "https"
	})
	g.CAFile = agreed(hosts, own, func(x values) string { return x.text("etcd_ca_file", "/etc/etcd/ca.crt") })
	g.CertFile = agreed(hosts, own, func(x values) string { return x.text("etcd_cert_file", "/etc/etcd/server.crt") })
	g.KeyFile = agreed(hosts, own, func(x values) string { return x.text("etcd_key_file", "/etc/etcd/server.key") })
	g.User = agreed(hosts, own, func(x values) string { return matching(x.text("etcd_user", ""), namePattern, "etcd") })
	g.CertValidity = agreed(hosts, own, func(x values) time.Duration {
		d, err := parseValidity(x.text("cert_validity", defaultValidity))
		if err != nil {
			d, _ = parseValidity(defaultValidity)
		}
		return d
	})
	if _, ok := v.groups["infra"]; ok {
		for _, e := range v.hostsOf("infra") {
			if !isRange(e.host) {
				g.InfraHosts = append(g.InfraHosts, e.host)
			}
		}
	}
	g.Postgres, g.TargetDirs = v.postgres(), targetDirs(own)
	for _, name := range g.Clients() {
		g.Others = append(g.Others, v.Host(name))
	}
	return g, nil
}

// Host resolves any host by its inventory name, of whatever group; one that the
// inventory does not know has the variables of all.
func (v *Inventory) Host(name string) Host {
	line := 0
	for _, e := range v.entries {
		if e.host == name {
			line = e.key.Line
		}
	}
	return v.host(name, line, v.hostVars(name))
}

func (v *Inventory) host(name string, line int, x values) Host {
	h := Host{
		Name:       name,
		Line:       line,
		ClientPort: x.port("etcd_port", defaultClientPort),
		PeerPort:   x.port("etcd_peer_port", defaultPeerPort),
		DataDir:    x.dir("etcd_data", defaultDataDir),
		WALDir:     x.dir("etcd_wal_dir", ""),
		Addr:       x.text("ansible_host", x.text("ansible_ssh_host", name)),
		SSHUser:    x.text("ansible_user", x.text("ansible_ssh_user", "")),
		SSHPort:    x.port("ansible_port", x.port("ansible_ssh_port", 0)),
		SSHKey:     x.text("ansible_private_key_file", x.text("ansible_ssh_private_key_file", "")),
		Become:     x.boolean("ansible_become", true, true),
		BecomeUser: x.text("ansible_become_user", "root"),
		Connection: x.text("ansible_connection", "ssh"),
		Vars:       map[string]any{},
	}
	if h.Connection == "smart" || h.Connection == "ansible.builtin.ssh" {
		h.Connection = "ssh"
	}
	if n, ok := seqOf(x["etcd_seq"].value); ok {
		h.Seq, h.HasSeq = n, true
	}
	budget := 20_000
	for key, variable := range x {
		h.Vars[key] = plain(variable.value, 0, &budget)
	}
	return h
}

// Host finds a host by its name, or by another spelling of the same IP.
func (g *Group) Host(name string) (Host, bool) {
	for _, h := range g.Hosts {
		if sameHost(h.Name, name) {
			return h, true
		}
	}
	return Host{}, false
}

// MemberName is "<etcd_cluster>-<etcd_seq>".
func (g *Group) MemberName(h Host) string { return fmt.Sprintf("%s-%d", g.Cluster, h.Seq) }

// PeerURL is where peers dial the host's member.
func (g *Group) PeerURL(h Host) string { return url(g.Scheme, h.Name, h.PeerPort) }

// ClientURL is where clients dial the host's member.
func (g *Group) ClientURL(h Host) string { return url(g.Scheme, h.Name, h.ClientPort) }

func url(scheme, host string, port int) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.String() // IPv6 has several spellings, and URLs are compared as text
	}
	return cmp.Or(scheme, "https") + "://" + net.JoinHostPort(host, strconv.Itoa(port))
}

// matching gives a value that has the right form, else otherwise.
func matching(s string, form *regexp.Regexp, otherwise string) string {
	if form.MatchString(s) {
		return s
	}
	return otherwise
}

// NextSeq is one more than the highest etcd_seq. A gap is never filled: the
// number of a removed member is not to be used again.
func (g *Group) NextSeq() int {
	next := 1
	for _, h := range g.Hosts {
		if h.HasSeq {
			next = max(next, h.Seq+1)
		}
	}
	return next
}

// lineage is a group with those above or below it, itself first.
func (v *Inventory) lineage(name string, next func(*group) []string) []string {
	names := []string{name}
	for i := 0; i < len(names); i++ {
		g, ok := v.groups[names[i]]
		if !ok {
			continue
		}
		for _, n := range next(g) {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}

func (v *Inventory) above(name string) []string {
	return v.lineage(name, func(g *group) []string { return g.parents })
}

func (v *Inventory) below(name string) []string {
	return v.lineage(name, func(g *group) []string { return g.children })
}

// hostsOf lists the hosts of a group and of those below it, each host once.
func (v *Inventory) hostsOf(name string) []entry {
	var hosts []entry
	seen := map[string]bool{}
	for _, n := range v.below(name) {
		for _, e := range v.groups[n].entries {
			if !seen[e.host] {
				seen[e.host] = true
				hosts = append(hosts, e)
			}
		}
	}
	slices.SortStableFunc(hosts, func(a, b entry) int { return cmp.Compare(a.key.Line, b.key.Line) })
	return hosts
}

// values are variables by name, after precedence.
type values map[string]variable

func (x values) add(vars []variable) {
	for _, v := range vars {
		x[v.name] = v
	}
}

// groupVars resolves for a group, leaving its hosts aside.
func (v *Inventory) groupVars(name string) values {
	x := values{}
	for _, g := range v.sorted(v.above(name)) {
		x.add(g.vars)
	}
	return x
}

// hostVars resolves for a host, with every group it is in.
func (v *Inventory) hostVars(host string) values {
	names := []string{"all"}
	for _, e := range v.entries {
		if e.host != host {
			continue
		}
		for _, n := range v.above(e.group) {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	x := values{}
	for _, g := range v.sorted(names) {
		x.add(g.vars)
	}
	for _, e := range v.entries {
		if e.host == host {
			x.add(e.vars)
		}
	}
	return x
}

// sorted puts groups in Ansible's order, the strongest last.
func (v *Inventory) sorted(names []string) []*group {
	var groups []*group
	for _, n := range names {
		if g, ok := v.groups[n]; ok {
			groups = append(groups, g)
		}
	}
	slices.SortFunc(groups, func(a, b *group) int {
		return cmp.Or(cmp.Compare(a.depth, b.depth), cmp.Compare(a.priority, b.priority), cmp.Compare(a.name, b.name))
	})
	return groups
}

// scalar is a usable value: set, in clear, and no template.
func (x values) scalar(name string) (scalar, bool) {
	v, ok := x[name]
	if !ok {
		return scalar{}, false
	}
	s := readScalar(v.value)
	return s, s.kind != null && s.kind != vault && s.kind != other && !isTemplate(s.text)
}

func (x values) text(name, otherwise string) string {
	if s, ok := x.scalar(name); ok && s.text != "" {
		return s.text
	}
	return otherwise
}

// dir gives otherwise for a directory that must not be touched.
func (x values) dir(name, otherwise string) string {
	p := x.text(name, otherwise)
	if pathFault(p) != "" {
		return otherwise
	}
	return p
}

// boolean gives unclear for a value that is set and is no boolean.
func (x values) boolean(name string, otherwise, unclear bool) bool {
	v, ok := x[name]
	if !ok {
		return otherwise
	}
	s := readScalar(v.value)
	if s.kind != boolean {
		return unclear
	}
	return s.bool
}

func (x values) port(name string, otherwise int) int {
	return int(x.positive(name, int64(otherwise), 65535))
}

// positive gives a number from 1 to most, else otherwise. Digits in quotes
// count, since templates make no difference.
func (x values) positive(name string, otherwise, most int64) int64 {
	if s, ok := x.scalar(name); ok {
		if n, ok := number(s); ok && n >= 1 && n <= most {
			return n
		}
	}
	return otherwise
}

// number reads a whole number, quoted or not.
func number(s scalar) (int64, bool) {
	if s.kind == integer {
		return s.int, true
	}
	if s.kind == text && s.quoted {
		n, err := strconv.ParseInt(s.text, 10, 64)
		return n, err == nil
	}
	return 0, false
}

// seqOf reads an etcd_seq.
func seqOf(n *yaml.Node) (int, bool) {
	if n == nil {
		return 0, false
	}
	i, ok := number(readScalar(n))
	if !ok || i < 0 || i > maxSeq {
		return 0, false
	}
	return int(i), true
}

// Bounds: etcd itself allows no longer election timeout.
const (
	maxElection = 50_000
	maxSeq      = 1 << 30
)

func agreed[T comparable](hosts []values, group values, get func(values) T) T {
	if len(hosts) == 0 {
		return get(group)
	}
	first := get(hosts[0])
	for _, h := range hosts[1:] {
		if get(h) != first {
			return get(group)
		}
	}
	return first
}

// parseValidity reads a duration as Ansible's certificate modules take it:
// numbers with w, d, h, m or s.
func parseValidity(s string) (time.Duration, error) {
	rest := strings.TrimPrefix(s, "+")
	units := map[byte]time.Duration{'w': 7 * 24 * time.Hour, 'd': 24 * time.Hour, 'h': time.Hour, 'm': time.Minute, 's': time.Second}
	var total time.Duration
	for rest != "" {
		i := 0
		for i < len(rest) && rest[i] >= '0' && rest[i] <= '9' {
			i++
		}
		if i == len(rest) {
			return 0, fmt.Errorf("%q has a number without one of w, d, h, m, s", s)
		}
		unit, ok := units[rest[i]]
		n, err := strconv.ParseInt(rest[:i], 10, 64)
		if !ok || err != nil {
			return 0, fmt.Errorf("%q is no duration in w, d, h, m, s", s)
		}
		const most = time.Duration(1<<63 - 1)
		if n > int64(most/unit) || total > most-time.Duration(n)*unit {
			return 0, fmt.Errorf("%q is too long", s)
		}
		total += time.Duration(n) * unit
		rest = rest[i+1:]
	}
	if total <= 0 {
		return 0, fmt.Errorf("%q is no time at all", s)
	}
	return total, nil
}

// sameHost compares names, IPs in any spelling.
func sameHost(a, b string) bool {
	if a == b {
		return true
	}
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	return errX == nil && errY == nil && x.Unmap() == y.Unmap()
}

// isRange says whether a host key stands for several hosts.
func isRange(name string) bool { return strings.Contains(name, "[") }

// plain turns a node into a value; budget is how many nodes may still be used.
func plain(n *yaml.Node, depth int, budget *int) any {
	n = resolve(n)
	if *budget--; n == nil || depth > depthLimit || *budget <= 0 {
		return nil
	}
	switch n.Kind {
	case yaml.SequenceNode:
		list := []any{}
		for _, c := range n.Content {
			list = append(list, plain(c, depth+1, budget))
		}
		return list
	case yaml.MappingNode:
		m := map[string]any{}
		r := &reader{v: &Inventory{}, budget: *budget}
		for _, p := range r.pairs("", n, 0) {
			m[p.name] = plain(p.value, depth+1, budget)
		}
		*budget -= len(m)
		return m
	}
	switch s := readScalar(n); s.kind {
	case null:
		return nil
	case boolean:
		return s.bool
	case integer:
		return s.int
	case float:
		f, err := strconv.ParseFloat(strings.ReplaceAll(s.text, "_", ""), 64)
		if err != nil {
			return s.text // such as a number in sixties
		}
		return f
	case vault:
		return Vault{}
	default:
		return s.text
	}
}
