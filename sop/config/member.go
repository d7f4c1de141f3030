package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The two values of initial-cluster-state.
const (
	StateNew      = "new"      // the member founds a cluster together with the others in initial-cluster
	StateExisting = "existing" // the member joins one that is there
)

// A Peer is one entry of initial-cluster. A member with several peer URLs has
// several entries of the same name.
type Peer struct {
	Name string
	URL  string
}

// Member is one member's etcd.conf. A zero field stands for a key that is not
// in the file, so that etcd's own default holds.
type Member struct {
	Name    string
	DataDir string
	WALDir  string // only where the log has a disk of its own
	Token   string // initial-cluster-token
	State   string // StateNew or StateExisting
	Initial []Peer // initial-cluster, which counts only while the data directory is empty

	PeerURL   string // initial-advertise-peer-urls; several, with commas, in some hand-written files
	ClientURL string // advertise-client-urls, likewise

	// Where etcd listens, when that does not follow from the URLs above.
	// Otherwise it listens on PeerURL, and on ClientURL and the loopback
	// address; on all addresses where a URL names its host, as etcd listens on
	// addresses only.
	ListenPeer   []string
	ListenClient []string

	ElectionMs  int // election-timeout, milliseconds
	HeartbeatMs int // heartbeat-interval, milliseconds
	QuotaBytes  int64

	CompactionMode      string // auto-compaction-mode: periodic or revision
	CompactionRetention string // auto-compaction-retention: "24h" or a number of revisions

	// Files for TLS towards clients, and towards peers as well unless PeerTLS
	// says otherwise. Without CertFile there is no TLS towards clients.
	CAFile   string
	CertFile string
	KeyFile  string
	PeerTLS  *TLSFiles

	// Other holds the keys that have no field here, in the order of the file.
	Other []Setting
}

// TLSFiles are the certificates of one side of etcd where they differ from the
// other's. The zero value means no TLS.
type TLSFiles struct {
	CAFile   string
	CertFile string
	KeyFile  string
}

// A Setting is a key of etcd.conf that this package has no name for.
type Setting struct {
	Section string // "client-transport-security", "peer-transport-security" or "" for the top
	Key     string
	Value   string // as YAML
}

// The keys of etcd.conf.
const (
	keyName           = "name"
	keyDataDir        = "data-dir"
	keyWALDir         = "wal-dir"
	keyToken          = "initial-cluster-token"
	keyState          = "initial-cluster-state"
	keyInitial        = "initial-cluster"
	keyPeerURL        = "initial-advertise-peer-urls"
	keyListenPeer     = "listen-peer-urls"
	keyListenClient   = "listen-client-urls"
	keyClientURL      = "advertise-client-urls"
	keyElection       = "election-timeout"
	keyHeartbeat      = "heartbeat-interval"
	keyQuota          = "quota-backend-bytes"
	keyCompactionMode = "auto-compaction-mode"
	keyRetention      = "auto-compaction-retention"
	sectionClient     = "client-transport-security"
	sectionPeer       = "peer-transport-security"
	keyCert           = "cert-file"
	keyKey            = "key-file"
	keyCA             = "trusted-ca-file"
)

// keyOrder is the order in which Pigsty writes the keys. A missing one is
// added behind those before it.
var keyOrder = []string{
	keyName, keyDataDir, keyWALDir, keyToken, keyState, keyInitial, keyPeerURL, keyListenPeer,
	keyListenClient, keyClientURL, keyElection, keyHeartbeat, keyQuota, keyCompactionMode, keyRetention,
}

// Render gives the file in the form Pigsty writes: its keys in its order, with
// its quoting, initial-cluster sorted by URL. Check says whether etcd would
// take it.
func (m Member) Render() []byte {
	var b strings.Builder
	b.WriteString(`# One member of an etcd cluster. Written by etcdrill, in Pigsty's form.
# https://etcd.io/docs/latest/op-guide/configuration/
#
# The keys that begin with "initial-" are read once, while the data directory is
# empty. Afterwards the cluster knows its members better than this file.
`)
	entry := func(comment, key, value string) {
		if value == "" {
			return
		}
		b.WriteByte('\n')
		if comment != "" {
			fmt.Fprintf(&b, "# %s\n", comment)
		}
		fmt.Fprintf(&b, "%s: %s\n", key, value)
	}
	text := func(key, value string) {
		if value != "" {
			entry("", key, strconv.Quote(value))
		}
	}
	bare := func(comment, key, value string) {
		if value != "" {
			entry(comment, key, quoted(value, 0, false))
		}
	}
	number := func(comment, key string, value int64) {
		if value != 0 {
			entry(comment, key, strconv.FormatInt(value, 10))
		}
	}
	bare("", keyName, m.Name)
	bare("", keyDataDir, m.DataDir)
	bare("the write-ahead log, on a disk of its own", keyWALDir, m.WALDir)
	text(keyToken, m.Token)
	text(keyState, m.State)
	text(keyInitial, formatInitial(m.Initial))
	text(keyPeerURL, m.PeerURL)
	text(keyListenPeer, strings.Join(orElse(m.ListenPeer, derivedListenPeer(m.PeerURL)), ","))
	text(keyListenClient, strings.Join(orElse(m.ListenClient, derivedListenClient(m.ClientURL)), ","))
	text(keyClientURL, m.ClientURL)
	number("", keyElection, int64(m.ElectionMs))
	number("", keyHeartbeat, int64(m.HeartbeatMs))
	number("the database may grow to "+formatBytes(m.QuotaBytes)+", then writes are refused (NOSPACE)", keyQuota, m.QuotaBytes)
	bare("drop old revisions regularly, or the database only ever grows", keyCompactionMode, m.CompactionMode)
	text(keyRetention, m.CompactionRetention)
	m.renderTLS(&b, sectionClient, "certificates towards clients", TLSFiles{m.CAFile, m.CertFile, m.KeyFile})
	peer := TLSFiles{m.CAFile, m.CertFile, m.KeyFile}
	if m.PeerTLS != nil {
		peer = *m.PeerTLS
	}
	m.renderTLS(&b, sectionPeer, "certificates between members", peer)
	for _, s := range m.Other {
		if s.Section == "" {
			fmt.Fprintf(&b, "\n%s", s.lines(""))
		}
	}
	return []byte(b.String())
}

func (m Member) renderTLS(b *strings.Builder, section, comment string, f TLSFiles) {
	var lines []string
	line := func(key, value string) {
		if value != "" {
			lines = append(lines, fmt.Sprintf("  %-10s %s\n", key+":", strconv.Quote(value)))
		}
	}
	line(keyCert, f.CertFile)
	line(keyKey, f.KeyFile)
	line(keyCA, f.CAFile)
	for _, s := range m.Other {
		if s.Section == section {
			lines = append(lines, s.lines("  "))
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(b, "\n%s: # %s\n%s", section, comment, strings.Join(lines, ""))
	}
}

// lines writes a setting, every line with the given indent.
func (s Setting) lines(indent string) string {
	value := strings.TrimRight(s.Value, "\n")
	key := quoted(s.Key, 0, false)
	if !strings.Contains(value, "\n") {
		return indent + key + ": " + value + "\n"
	}
	var b strings.Builder
	b.WriteString(indent + key + ":")
	lines := strings.Split(value, "\n")
	if strings.HasPrefix(value, "|") || strings.HasPrefix(value, ">") {
		b.WriteString(" " + lines[0])
		lines = lines[1:]
	}
	for _, line := range lines {
		b.WriteByte('\n')
		if line != "" {
			b.WriteString(indent + "  " + line)
		}
	}
	b.WriteByte('\n')
	return b.String()
}

// formatInitial writes initial-cluster, sorted by URL.
func formatInitial(peers []Peer) string {
	sorted := slices.Clone(peers)
	slices.SortStableFunc(sorted, func(a, b Peer) int { return cmp.Or(cmp.Compare(a.URL, b.URL), cmp.Compare(a.Name, b.Name)) })
	entries := make([]string, len(sorted))
	for i, p := range sorted {
		entries[i] = p.Name + "=" + p.URL
	}
	return strings.Join(entries, ",")
}

// parseInitial reads initial-cluster.
func parseInitial(s string) ([]Peer, error) {
	var peers []Peer
	for _, item := range splitList(s) {
		name, u, ok := strings.Cut(item, "=")
		if !ok {
			return nil, fmt.Errorf("%s: %q is not NAME=URL", keyInitial, item)
		}
		peers = append(peers, Peer{Name: strings.TrimSpace(name), URL: strings.TrimSpace(u)})
	}
	return peers, nil
}

// samePeers compares two values of initial-cluster, in which order means
// nothing.
func samePeers(a, b []Peer) bool { return formatInitial(a) == formatInitial(b) }

func orElse(given, derived []string) []string {
	if len(given) > 0 {
		return given
	}
	return derived
}

func derivedListenPeer(advertised string) []string {
	var listen []string
	for _, u := range splitList(advertised) {
		listen = appendNew(listen, bindable(u))
	}
	return listen
}

// derivedListenClient adds the loopback address, so that etcdctl on the host
// itself always finds its member.
func derivedListenClient(advertised string) []string {
	var listen []string
	for _, u := range splitList(advertised) {
		listen = appendNew(listen, bindable(u))
	}
	for _, u := range slices.Clone(listen) {
		parsed, err := url.Parse(u)
		if err != nil || parsed.Port() == "" {
			continue
		}
		if ip, err := netip.ParseAddr(parsed.Hostname()); err == nil && ip.IsUnspecified() && ip.Is4() {
			continue // 0.0.0.0 has the loopback address in it
		}
		listen = appendNew(listen, parsed.Scheme+"://"+net.JoinHostPort("127.0.0.1", parsed.Port()))
	}
	return listen
}

func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// bindable gives the URL to listen on for an advertised one.
func bindable(advertised string) string {
	u, err := url.Parse(advertised)
	if err != nil || u.Port() == "" {
		return advertised
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil || u.Hostname() == "localhost" {
		return advertised
	}
	return u.Scheme + "://" + net.JoinHostPort("0.0.0.0", u.Port())
}

// formatBytes gives a size in the largest binary unit that divides it.
func formatBytes(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n != 0 && n%1024 == 0 && i < len(units)-1 {
		n /= 1024
		i++
	}
	return fmt.Sprintf("%d %s", n, units[i])
}

// envStyle matches a line of the configuration that some Linux packages keep
// under the name etcd.conf.
var envStyle = regexp.MustCompile(`(?m)^\s*(export\s+)?ETCD_[A-Z_]+=`)

// ParseMember reads an etcd.conf: Pigsty's of any version, one written by
// hand, or Render's. Keys that Member has no field for are kept in Other.
func ParseMember(content []byte) (Member, error) {
	m, err := parseMember(content)
	if err != nil {
		return Member{}, fmt.Errorf("read etcd.conf: %w", err)
	}
	return m, nil
}

func parseMember(content []byte) (Member, error) {
	d, err := parseDocument(content)
	if err != nil {
		if envStyle.Match(content) {
			return Member{}, errors.New("it sets environment variables (ETCD_NAME=... and so on) and is no YAML file for etcd --config-file")
		}
		return Member{}, err
	}
	r := reader{d: d}
	m := Member{
		Name:                r.text(keyName),
		DataDir:             r.text(keyDataDir),
		WALDir:              r.text(keyWALDir),
		Token:               r.text(keyToken),
		State:               r.text(keyState),
		PeerURL:             r.text(keyPeerURL),
		ClientURL:           r.text(keyClientURL),
		ElectionMs:          int(r.number(keyElection)),
		HeartbeatMs:         int(r.number(keyHeartbeat)),
		QuotaBytes:          r.number(keyQuota),
		CompactionMode:      r.text(keyCompactionMode),
		CompactionRetention: r.text(keyRetention),
		CAFile:              r.text(sectionClient, keyCA),
		CertFile:            r.text(sectionClient, keyCert),
		KeyFile:             r.text(sectionClient, keyKey),
	}
	initial := r.text(keyInitial)
	listenPeer, listenClient := splitList(r.text(keyListenPeer)), splitList(r.text(keyListenClient))
	peer := TLSFiles{r.text(sectionPeer, keyCA), r.text(sectionPeer, keyCert), r.text(sectionPeer, keyKey)}
	if r.err != nil {
		return Member{}, r.err
	}
	if m.Initial, err = parseInitial(initial); err != nil {
		return Member{}, err
	}
	if !slices.Equal(listenPeer, derivedListenPeer(m.PeerURL)) {
		m.ListenPeer = listenPeer
	}
	if !slices.Equal(listenClient, derivedListenClient(m.ClientURL)) {
		m.ListenClient = listenClient
	}
	if peer != (TLSFiles{m.CAFile, m.CertFile, m.KeyFile}) {
		m.PeerTLS = &peer
	}
	if m.Other, err = d.others(); err != nil {
		return Member{}, err
	}
	return m, nil
}

// A reader reads values until the first that cannot be read.
type reader struct {
	d   *document
	err error
}

func (r *reader) text(path ...string) string {
	s, err := r.d.text(path...)
	r.err = cmp.Or(r.err, err)
	return s
}

func (r *reader) number(path ...string) int64 {
	n, err := r.d.number(path...)
	if err == nil && (n < 0 || n > 1<<62 || int64(int(n)) != n) {
		err = fmt.Errorf("%s: %d is out of range", strings.Join(path, "."), n)
	}
	r.err = cmp.Or(r.err, err)
	return n
}

// others collects the keys that Member has no field for.
func (d *document) others() ([]Setting, error) {
	var others []Setting
	collect := func(section string, m *yaml.Node, known ...string) error {
		for k := 0; k+1 < len(m.Content); k += 2 {
			key, value := m.Content[k], m.Content[k+1]
			if slices.Contains(known, key.Value) {
				continue
			}
			// Anchors are resolved, since the value is to stand alone.
			var v any
			if err := value.Decode(&v); err != nil {
				return fmt.Errorf("line %d: %s: %w", key.Line, key.Value, err)
			}
			text, err := yaml.Marshal(v)
			if err != nil {
				return fmt.Errorf("line %d: %s: %w", key.Line, key.Value, err)
			}
			others = append(others, Setting{Section: section, Key: key.Value, Value: strings.TrimRight(string(text), "\n")})
		}
		return nil
	}
	if err := collect("", d.root, append(slices.Clone(keyOrder), sectionClient, sectionPeer)...); err != nil {
		return nil, err
	}
	for _, section := range []string{sectionClient, sectionPeer} {
		p, found := d.find(section)
		if !found || isNull(p.value) {
			continue
		}
		v := resolved(p.value)
		if v == nil || v.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("line %d: %s is no mapping", p.key.Line, section)
		}
		if err := collect(section, v, keyCert, keyKey, keyCA); err != nil {
			return nil, err
		}
	}
	return others, nil
}

// check refuses what initial-cluster cannot hold.
func (p Peer) check() error {
	if !memberName.MatchString(p.Name) {
		return fmt.Errorf("%s: the member at %s has no name, or one that cannot be written there: %q", keyInitial, p.URL, p.Name)
	}
	if err := checkURL(p.URL); err != nil {
		return fmt.Errorf("%s: %w", keyInitial, err)
	}
	return nil
}

var memberName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Check says, all at once, what etcd would refuse in a file to be written.
func (m Member) Check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !memberName.MatchString(m.Name) {
		fault("name %q: letters, digits, dots, dashes and underscores are expected", m.Name)
	}
	if !strings.HasPrefix(m.DataDir, "/") {
		fault("%s %q: an absolute path is expected", keyDataDir, m.DataDir)
	}
	if m.WALDir != "" && !strings.HasPrefix(m.WALDir, "/") {
		fault("%s %q: an absolute path is expected", keyWALDir, m.WALDir)
	}
	if m.State != StateNew && m.State != StateExisting {
		fault("%s %q: %s or %s is expected", keyState, m.State, StateNew, StateExisting)
	}
	if m.Token == "" {
		fault("%s is empty", keyToken)
	}
	urls := func(key, list string) {
		if list == "" {
			fault("%s is empty", key)
		}
		for _, u := range splitList(list) {
			if err := checkURL(u); err != nil {
				fault("%s: %w", key, err)
			}
		}
	}
	urls(keyPeerURL, m.PeerURL)
	urls(keyClientURL, m.ClientURL)
	self := false
	for _, p := range m.Initial {
		if err := p.check(); err != nil {
			faults = append(faults, err)
		}
		self = self || p.Name == m.Name && slices.Contains(splitList(m.PeerURL), p.URL)
	}
	if !self {
		fault("%s does not hold %s=%s, the member itself", keyInitial, m.Name, m.PeerURL)
	}
	if m.ElectionMs != 0 && m.HeartbeatMs != 0 && m.ElectionMs < 5*m.HeartbeatMs {
		fault("%s %d: at least five times the %s of %d is needed", keyElection, m.ElectionMs, keyHeartbeat, m.HeartbeatMs)
	}
	return errors.Join(faults...)
}
