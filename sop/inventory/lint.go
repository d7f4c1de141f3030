package inventory

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Level says how much a Finding matters.
type Level int

// A Fault makes the inventory unfit for making or changing a cluster. A
// Warning is likely a mistake, a Note only worth knowing.
const (
	Fault Level = iota
	Warning
	Note
)

func (l Level) String() string {
	switch l {
	case Fault:
		return "fault"
	case Warning:
		return "warning"
	}
	return "note"
}

// A Finding is one thing to say about an inventory.
type Finding struct {
	Line  int // from 1; 0 when it is about the file as a whole
	Level Level
	Text  string
	Fix   string // what to do; may be empty
}

func (f Finding) String() string {
	s := f.Level.String() + ": " + f.Text
	if f.Line > 0 {
		s = fmt.Sprintf("line %d: %s", f.Line, s)
	}
	if f.Fix != "" {
		s += " (" + f.Fix + ")"
	}
	return s
}

// Lint checks all that bears on one group and gives every finding, by line.
func (v *Inventory) Lint(name string) []Finding {
	l := &linter{v: v, name: name}
	g, err := v.Group(name)
	if err != nil {
		l.add(0, Fault, "there is no group "+name, v.there())
	} else {
		l.group = g
		l.structure()
		l.variables()
		l.hosts()
		l.values()
		l.cluster()
	}
	slices.SortFunc(l.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Level, b.Level), cmp.Compare(a.Text, b.Text), cmp.Compare(a.Fix, b.Fix))
	})
	return slices.Compact(l.found)
}

func (v *Inventory) there() string {
	if names := v.Groups(); len(names) > 0 {
		return "groups with members: " + strings.Join(names, ", ")
	}
	return "no group has hosts with etcd_seq"
}

type linter struct {
	v     *Inventory
	name  string
	group *Group
	found []Finding
}

func (l *linter) add(line int, level Level, text, fix string) {
	l.found = append(l.found, Finding{line, level, text, fix})
}

// related are the groups whose structure decides about this one.
func (l *linter) related() []string {
	return append(l.v.above(l.name), l.v.below(l.name)...)
}

// structure passes on what reading found. What is broken in a group that has
// nothing to do with this one is not held against it.
func (l *linter) structure() {
	related := l.related()
	for _, d := range l.v.defects {
		f := d.Finding
		if d.group != "" && !slices.Contains(related, d.group) {
			f.Level = max(f.Level, Warning)
		}
		l.found = append(l.found, f)
	}
}

// inScope lists every variable that applies to the group or one of its hosts.
func (l *linter) inScope() []variable {
	groups := l.v.above(l.name)
	var hosts []string
	for _, e := range l.v.hostsOf(l.name) {
		hosts = append(hosts, e.host)
	}
	var vars []variable
	for _, e := range l.v.entries {
		if slices.Contains(hosts, e.host) {
			groups = append(groups, l.v.above(e.group)...)
			vars = append(vars, e.vars...)
		}
	}
	for _, name := range l.v.order {
		if slices.Contains(groups, name) {
			vars = append(vars, l.v.groups[name].vars...)
		}
	}
	return vars
}

// variables checks names and values one by one.
func (l *linter) variables() {
	for _, x := range l.inScope() {
		k, ok := known(x.name)
		if !ok {
			l.unknown(x)
			continue
		}
		if k.check == anyValue {
			continue
		}
		l.value(x, k)
		if x.name == "etcd_seq" && !strings.HasPrefix(x.on, "host ") {
			l.add(x.key.Line, Fault, "etcd_seq is set on "+x.on+", so that hosts share it", "set it on each host")
		}
	}
}

func (l *linter) unknown(x variable) {
	name, edits := nearest(x.name)
	near := edits <= 2 && strings.HasPrefix(name, "etcd_")
	switch {
	case near && (strings.HasPrefix(x.name, "etcd_") || x.on != "all.vars"):
		l.add(x.key.Line, Fault, fmt.Sprintf("%s on %s is not known", x.name, x.on), "did you mean "+name+"?")
	case strings.HasPrefix(x.name, "etcd_"):
		fix := "see the reference of variables"
		if edits <= 5 {
			fix = "the nearest known name is " + name
		}
		l.add(x.key.Line, Warning, fmt.Sprintf("%s on %s is not known and has no effect", x.name, x.on), fix)
	}
}

var (
	namePattern    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	unitPattern    = regexp.MustCompile(`^[A-Za-z0-9:_.@-]+\.service$`)
	sumPattern     = regexp.MustCompile(`^[0-9A-Fa-f]{64}$`)
	versionPattern = regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)
)

// value checks one value by what its variable must be.
func (l *linter) value(x variable, k Variable) {
	line, s := x.key.Line, readScalar(x.value)
	said := func(level Level, what, fix string) {
		l.add(line, level, fmt.Sprintf("%s on %s %s", x.name, x.on, what), fix)
	}
	switch {
	case k.check == anotherBool:
		if b, ok := readBool(s.text); s.kind == text && ok {
			said(Warning, fmt.Sprintf("is text, %q", s.text), fmt.Sprintf("take the quotes off: %t", b))
		}
		return
	case s.kind == vault || isTemplate(s.text):
		what := "is encrypted with Ansible Vault, which is not opened here"
		if s.kind != vault {
			what = "is a Jinja template, which is not evaluated here"
		}
		switch {
		case k.Name == "pg_etcd_password":
		case k.check == aSecret:
			said(Warning, what, "pass it as ETCDCTL_PASSWORD when auth is on")
		default:
			said(Fault, what, "write the value itself")
		}
		return
	case s.kind == other && s.note != "":
		said(Fault, fmt.Sprintf("is %s: %s", s.text, s.note), "write a smaller one")
		return
	case s.kind == other:
		said(Fault, "is no single value", "write one value")
		return
	case s.kind == null:
		if k.check == aSeq {
			said(Fault, "is empty", "give it a whole number")
		} else if k.Default != "" {
			said(Warning, "is empty, so "+k.Default+" is used", "write a value or take the line out")
		}
		return
	}
	if s.note != "" && k.check != aSecret && k.check != aText {
		said(Note, "is written in an unusual way: "+s.note, "write it as a plain decimal")
	}
	switch k.check {
	case aBool:
		l.boolean(said, s)
	case aSeq:
		n, ok := number(s)
		switch {
		case !ok:
			said(Fault, fmt.Sprintf("is %s, not a whole number", s.text), "give it a whole number")
		case n < 0:
			said(Fault, fmt.Sprintf("is %d, below zero", n), "give it a whole number from 0")
		case n > maxSeq:
			said(Fault, fmt.Sprintf("is %d, too large", n), "give it a small number")
		case s.kind == text:
			said(Warning, fmt.Sprintf("is text, %q", s.text), "take the quotes off")
		}
	case aPort:
		if n, ok := number(s); !ok || n < 1 || n > 65535 {
			said(Fault, fmt.Sprintf("is %s, not a port", s.text), "give it a number from 1 to 65535")
		}
	case aMillis:
		if n, ok := number(s); !ok || n < 1 || n > maxElection {
			said(Fault, fmt.Sprintf("is %s, not a time in ms", s.text), fmt.Sprintf("give it a number from 1 to %d", maxElection))
		}
	case aSize:
		switch n, ok := number(s); {
		case !ok || n < 1:
			said(Fault, fmt.Sprintf("is %s, not a size in bytes", s.text), "give it a whole number, such as 8589934592")
		case n > defaultQuota:
			said(Note, fmt.Sprintf("is %d, more than the 8 GiB that etcd suggests as the most", n), "")
		}
	case aPath:
		if fault := pathFault(s.text); fault != "" {
			said(Fault, fmt.Sprintf("is %q: %s", s.text, fault), "use a directory of etcd's own, such as "+defaultDataDir)
		}
	case aName:
		if !namePattern.MatchString(s.text) {
			said(Fault, fmt.Sprintf("is %q, and file names are made from it", s.text), "use letters, digits, dot, dash, underscore")
		}
	case aVersion:
		if !versionPattern.MatchString(s.text) {
			said(Fault, fmt.Sprintf("is %s, not a full version", s.text), "write all three numbers, as in 3.6.4")
		}
	case aValidity:
		if _, err := parseValidity(s.text); err != nil {
			said(Fault, "is no duration: "+err.Error(), "write it as in "+defaultValidity)
		}
	case aState:
		if s.text != "new" && s.text != "existing" {
			said(Warning, fmt.Sprintf("is %q, neither new nor existing", s.text), "take the line out")
		}
	case aSecret:
		if k.Name == "etcd_root_password" {
			l.password(said, x, s)
		}
	case anAddress:
		if _, err := netip.ParseAddr(s.text); err != nil {
			said(Warning, fmt.Sprintf("is %q, not an IP", s.text), "Pigsty requires the IP")
		}
	case aUnit:
		if !unitPattern.MatchString(s.text) {
			said(Fault, fmt.Sprintf("is %q, not the name of a service", s.text), "write it as in etcd.service")
		}
	case aForm:
		if s.text != "yaml" && s.text != "env" {
			said(Fault, fmt.Sprintf("is %q", s.text), "write yaml or env")
		}
	case aScheme:
		switch s.text {
		case "https":
		case "http":
			said(Warning, "is http: whoever reaches the ports reads and writes everything, and can join", "use TLS")
		default:
			said(Fault, fmt.Sprintf("is %q", s.text), "write https or http")
		}
	case aSum:
		if !sumPattern.MatchString(s.text) {
			said(Fault, "is no sha256", "write its 64 hexadecimal digits, as sha256sum tells them")
		}
	case anyFile:
		if !path.IsAbs(s.text) || path.Clean(s.text) != s.text || strings.ContainsAny(s.text, "\x00\n\r") {
			said(Fault, fmt.Sprintf("is %q, not a plain absolute path", s.text), "write it as in "+k.Default)
		}
	case anAccess:
		if !slices.Contains([]string{"ssh", "smart", "ansible.builtin.ssh", "local"}, s.text) {
			said(Fault, fmt.Sprintf("is %q, which is not supported", s.text), "use ssh or local")
		}
	case aMethod:
		if s.text != "sudo" && s.text != "ansible.builtin.sudo" {
			said(Fault, fmt.Sprintf("is %q, which is not supported", s.text), "use sudo")
		}
	}
}

func (l *linter) boolean(said func(Level, string, string), s scalar) {
	if s.kind == boolean {
		return
	}
	if b, ok := readBool(s.text); ok && s.kind == text {
		said(Fault, fmt.Sprintf("is text, %q, and any text counts as true in the original playbooks", s.text),
			fmt.Sprintf("take the quotes off: %t", b))
		return
	}
	said(Fault, fmt.Sprintf("is %s, not a boolean", s.text), "write true or false")
}

func (l *linter) password(said func(Level, string, string), x variable, s scalar) {
	if s.text == "Etcd.Root" {
		said(Warning, "is the default that Pigsty publishes", "choose one of your own")
	}
	if x.on != "all.vars" && !l.setOnAll(x) {
		said(Warning, "is not in all.vars, where the roles of PostgreSQL read it", "set it in all.vars")
	}
}

// setOnAll says whether all.vars holds the same value under the same name.
func (l *linter) setOnAll(x variable) bool {
	return slices.ContainsFunc(l.v.groups["all"].vars, func(y variable) bool {
		return y.name == x.name && readScalar(y.value).text == readScalar(x.value).text
	})
}

// pathFault says why a directory must not be emptied or moved, or nothing.
func pathFault(p string) string {
	switch {
	case !path.IsAbs(p):
		return "it is not absolute"
	case strings.ContainsAny(p, "\x00\n\r"):
		return "it has characters that no directory should have"
	case path.Clean(p) != strings.TrimSuffix(p, "/"):
		return "it is not written plainly, as " + path.Clean(p)
	}
	parts := strings.Split(strings.Trim(p, "/"), "/")
	if len(parts) < 2 || parts[0] == "" {
		return "it is less than two levels deep"
	}
	switch parts[0] {
	case "etc", "usr", "bin", "sbin", "lib", "lib64", "boot", "dev", "proc", "sys", "run":
		return "/" + parts[0] + " is the system's"
	}
	switch path.Clean(p) {
	case "/var/lib", "/var/log", "/var/cache", "/var/spool", "/var/tmp", "/var/run", "/var/lock":
		return "it is the system's"
	}
	return ""
}

// hosts checks the names and numbers of the members.
func (l *linter) hosts() {
	g := l.group
	next := g.NextSeq()
	advice := func() string {
		next++
		return fmt.Sprintf("give it etcd_seq: %d", next-1)
	}
	seqs := map[int]Host{}
	ips := map[netip.Addr]Host{}
	for _, h := range g.Hosts {
		l.hostName(h, ips)
		if !h.HasSeq {
			if _, set := h.Vars["etcd_seq"]; !set {
				l.add(h.Line, Fault, fmt.Sprintf("host %s has no etcd_seq", h.Name), advice())
			}
			continue
		}
		if first, taken := seqs[h.Seq]; taken {
			l.add(h.Line, Fault, fmt.Sprintf("host %s has etcd_seq %d, which %s on line %d has too", h.Name, h.Seq, first.Name, first.Line),
				advice())
			continue
		}
		seqs[h.Seq] = h
	}
	for _, name := range l.v.Groups() {
		if name == l.name || slices.Contains(l.related(), name) {
			continue
		}
		o, err := l.v.Group(name)
		if err != nil || o.Cluster != g.Cluster {
			continue
		}
		for _, h := range o.Hosts {
			if mine, same := seqs[h.Seq]; same && h.HasSeq && !sameHost(mine.Name, h.Name) {
				l.add(mine.Line, Fault, fmt.Sprintf("member %s is also on host %s of group %s, and certificates are kept by member name",
					g.MemberName(mine), h.Name, name), "give one of the two groups another etcd_cluster")
			}
		}
	}
}

func (l *linter) hostName(h Host, ips map[netip.Addr]Host) {
	if isRange(h.Name) {
		l.add(h.Line, Fault, fmt.Sprintf("host range %s is not supported: every member needs its own etcd_seq", h.Name), "write one line for each host")
		return
	}
	if isTemplate(h.Name) {
		l.add(h.Line, Fault, fmt.Sprintf("host %s is a Jinja template", h.Name), "write the IP")
		return
	}
	ip, err := netip.ParseAddr(h.Name)
	switch {
	case err != nil:
		if _, portErr := netip.ParseAddrPort(h.Name); portErr == nil {
			l.add(h.Line, Fault, fmt.Sprintf("host %s has a port in its name", h.Name), "write the IP alone, and ansible_port beside it")
			return
		}
		if strings.Trim(h.Name, "0123456789.") == "" {
			l.add(h.Line, Fault, fmt.Sprintf("host %s is no valid IP", h.Name), "write four numbers from 0 to 255 without leading zeros")
			return
		}
		if !namePattern.MatchString(h.Name) {
			l.add(h.Line, Fault, fmt.Sprintf("host %q is neither an IP nor a host name", h.Name), "write the IP")
			return
		}
		l.add(h.Line, Note, fmt.Sprintf("host %s is a name: URLs and certificates are made from it, so every host has to resolve it alike", h.Name),
			"Pigsty's own playbooks want the IP")
		return
	case ip.Zone() != "":
		l.add(h.Line, Fault, fmt.Sprintf("host %s has a zone, which means nothing to other hosts", h.Name), "use an address with a wider scope")
	case ip.IsUnspecified() || ip.IsMulticast():
		l.add(h.Line, Fault, fmt.Sprintf("host %s is no address of a host", h.Name), "write the host's own IP")
	case ip.IsLoopback():
		l.add(h.Line, Warning, fmt.Sprintf("host %s is a loopback address, which other hosts cannot reach", h.Name), "write the host's own IP")
	}
	if first, taken := ips[ip.Unmap()]; taken {
		l.add(h.Line, Fault, fmt.Sprintf("host %s is the same IP as %s on line %d", h.Name, first.Name, first.Line), "keep one of them")
		return
	}
	ips[ip.Unmap()] = h
}

// values checks what only shows once values are resolved and put together.
func (l *linter) values() {
	g := l.group
	resolved := map[string]values{"": l.v.groupVars(l.name)}
	for _, h := range g.Hosts {
		resolved[h.Name] = l.v.hostVars(h.Name)
	}
	// at finds where a value comes from, so that one on a group is named once.
	at := func(h Host, names ...string) (line int, on string) {
		for _, n := range names {
			if x, ok := resolved[h.Name][n]; ok {
				return x.key.Line, x.on
			}
		}
		return h.Line, "host " + h.Name
	}
	for _, h := range g.Hosts {
		if h.ClientPort == h.PeerPort {
			line, on := at(h, "etcd_peer_port", "etcd_port")
			l.add(line, Fault, fmt.Sprintf("port %d on %s is for clients and for peers", h.PeerPort, on), "use two ports")
		}
		data, wal := path.Clean(h.DataDir), path.Clean(h.WALDir)
		if h.WALDir != "" && (data == wal || strings.HasPrefix(wal+"/", data+"/") || strings.HasPrefix(data+"/", wal+"/")) {
			line, on := at(h, "etcd_wal_dir")
			l.add(line, Fault, fmt.Sprintf("etcd_wal_dir %s on %s and etcd_data %s are one within the other", wal, on, data), "keep them apart")
		}
		x := resolved[h.Name]
		election := x.positive("etcd_election_timeout", defaultElection, maxElection)
		heartbeat := x.positive("etcd_heartbeat_interval", defaultHeartbeat, maxElection)
		if election < 5*heartbeat {
			line, on := at(h, "etcd_election_timeout", "etcd_heartbeat_interval")
			l.add(line, Fault, fmt.Sprintf("the election timeout of %d ms on %s is less than 5 heartbeats of %d ms; etcd would not start", election, on, heartbeat),
				fmt.Sprintf("give it etcd_election_timeout: %d", min(10*heartbeat, maxElection)))
		}
	}
	l.binary(resolved)
	l.client(resolved)
	l.ports(resolved)
	for _, name := range []string{"etcd_cluster", "etcd_election_timeout", "etcd_heartbeat_interval", "etcd_quota_backend_bytes", "etcd_version", "etcd_root_password"} {
		for _, h := range g.Hosts {
			x, set := resolved[h.Name][name]
			if set && strings.HasPrefix(x.on, "host ") && len(g.Hosts) > 1 {
				l.add(x.key.Line, Warning, fmt.Sprintf("%s is set on host %s alone, and members should be alike", name, h.Name), "set it on the group")
			}
		}
	}
}

// binary checks what is said of a binary that is put on the hosts.
func (l *linter) binary(resolved map[string]values) {
	for _, h := range append([]Host{{}}, l.group.Hosts...) {
		x := resolved[h.Name]
		from, sum := x.text("etcd_binary_from", ""), x.text("etcd_binary_sha256", "")
		switch {
		case from != "" && sum == "":
			l.add(x["etcd_binary_from"].key.Line, Fault, "etcd_binary_from has no etcd_binary_sha256 beside it", "tell the sum: sha256sum "+from)
		case from != "" && x.text("etcd_version", "") == "":
			l.add(x["etcd_binary_from"].key.Line, Note, "etcd_binary_from without etcd_version is for hosts that have no etcd at all", "set etcd_version to have it replace another one")
		case from == "" && sum != "":
			l.add(x["etcd_binary_sha256"].key.Line, Warning, "etcd_binary_sha256 has no effect without etcd_binary_from", "name the file")
		default:
			continue
		}
		return // once is enough
	}
}

// client checks that a client certificate comes with its key.
func (l *linter) client(resolved map[string]values) {
	x := resolved[""]
	if len(l.group.Hosts) > 0 {
		x = resolved[l.group.Hosts[0].Name]
	}
	for _, pair := range [][2]string{{"etcd_client_cert", "etcd_client_key"}, {"etcd_client_key", "etcd_client_cert"}} {
		if x.text(pair[0], "") != "" && x.text(pair[1], "") == "" {
			l.add(x[pair[0]].key.Line, Fault, pair[0]+" has no "+pair[1]+" beside it", "name both")
		}
	}
}

// ports warns of a client port that PostgreSQL hosts would not learn of.
func (l *linter) ports(resolved map[string]values) {
	var seen []*yaml.Node
	for _, x := range resolved {
		port, set := x["etcd_port"]
		if !set || port.on == "all.vars" || slices.Contains(seen, port.key) {
			continue
		}
		seen = append(seen, port.key)
		all := values{}
		all.add(l.v.groups["all"].vars)
		here := x.port("etcd_port", defaultClientPort)
		if there := all.port("etcd_port", defaultClientPort); here != there {
			l.add(port.key.Line, Warning, fmt.Sprintf("etcd_port %d is set on %s only, and PostgreSQL and infra hosts would dial %d", here, port.on, there),
				"set it in all.vars")
		}
	}
}

// cluster checks the number of members.
func (l *linter) cluster() {
	line, n := l.v.groups[l.name].line, len(l.group.Hosts)
	switch {
	case n == 0:
		l.add(line, Fault, fmt.Sprintf("group %s has no hosts", l.name), "list at least one")
	case n == 1:
		l.add(line, Warning, "1 member: it must not fail, and this is no production cluster", "have three")
	case n == 2:
		l.add(line, Warning, "2 members: neither may fail, and this is no production cluster", "have three")
	case n%2 == 0:
		l.add(line, Warning, fmt.Sprintf("%d members: an even number, no more may fail than with %d", n, n-1), fmt.Sprintf("have %d or %d", n-1, n+1))
	}
	if n > 7 {
		l.add(line, Warning, fmt.Sprintf("%d members: every write waits for %d of them", n, n/2+1), "have 3, 5 or 7")
	}
	if infra, ok := l.v.groups["infra"]; ok {
		for _, e := range infra.entries {
			if isRange(e.host) {
				l.add(e.key.Line, Warning, fmt.Sprintf("host range %s is not supported, so these infra hosts are passed over", e.host), "write one line for each host")
			}
		}
	}
}
