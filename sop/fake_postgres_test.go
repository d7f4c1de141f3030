package sop

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// Stand-ins for Patroni and vip-manager that behave as the real ones were
// measured to.

// A fakePG is a PostgreSQL cluster: who leads it does not depend on its hosts'
// files, since a Patroni that runs finds the members by itself.
type fakePG struct {
	name     string
	leader   string // host
	timeline int
	vip      string
	// upset is what a host's Patroni does when it reads its file.
	upset func(p *fakePG, m *machine)
}

// A fakePatroni is the daemon on one host.
type fakePatroni struct {
	pg      *fakePG
	name    string
	version string
	since   time.Time
	on      bool
	silent  bool      // its REST API does not answer
	read    string    // the file, as it was read
	hup     bool      // it has been told to read it again, and will at its next turn
	phase   time.Time // of its turns, every loopWait
	seen    time.Time // when it last asked etcd
	pending []string  // parameters that wait for a restart
}

// A fakeVIP is vip-manager on one host.
type fakeVIP struct {
	version string
	enabled bool
	on      bool
	code    int
	pid     int
	since   time.Time
	list    []string // what it read when it started
	party            // and whom it trusted, and what it showed, then
	rejects string   // with this endpoint in its list, it hears nothing
	ip      string
	dropped bool   // the address was taken down since its start
	dies    string // with this one, it ends at its start
	answers time.Time
}

const (
	loopWait  = 10 * time.Second
	vipDrop   = 20 * time.Millisecond // from its start until it takes the address down
	vipAnswer = vipDrop + 5*time.Millisecond
)

// tickClients makes up for what Patroni and vip-manager have done meanwhile.
func (m *machine) tickClients(now time.Time) {
	if p := m.patroni; p != nil && p.on {
		for turn := p.phase.Add(loopWait); !turn.After(now); turn = turn.Add(loopWait) {
			p.phase = turn
			if p.hup {
				p.hup = false
				p.read = m.text(config.PatroniPath)
				if p.pg.upset != nil {
					p.pg.upset(p.pg, m)
				}
			}
			if m.w.serves() {
				p.seen = turn
			}
		}
	}
	if v := m.vip; v != nil && v.on && !v.dropped && !now.Before(v.since.Add(vipDrop)) {
		m.addrs[v.ip], v.dropped = false, true
	}
	if v := m.vip; v != nil && v.on && !now.Before(v.since.Add(vipAnswer)) {
		// It asks once a second; a list whose members are all dead changes nothing.
		if m.w.answersOneOf(v.list) && (v.rejects == "" || !slices.Contains(v.list, v.rejects)) {
			m.addrs[m.patroni.pg.vip] = m.patroni.pg.leader == m.name
			v.answers = now
		}
	}
}

// serves reports whether a cluster has quorum.
func (w *world) serves() bool {
	for _, c := range w.clusters {
		if len(c.procs) > 0 && c.quorum() {
			return true
		}
	}
	return false
}

// answersOneOf reports whether a member lives behind one of the endpoints.
func (w *world) answersOneOf(endpoints []string) bool {
	for _, e := range endpoints {
		u, err := url.Parse(e)
		if err != nil {
			continue
		}
		if m := w.machines[u.Hostname()]; m != nil && m.on && m.proc != nil && m.proc.ready && m.proc.listens(atoi(u.Port())) {
			return true
		}
	}
	return false
}

func (m *machine) text(p string) string {
	if n := m.files[p]; n != nil {
		return string(n.content)
	}
	return ""
}

// startVIP is the start of vip-manager: it ends on a file that it cannot read,
// and takes the address down until etcd has answered.
func (m *machine) startVIP(now time.Time) {
	v := m.vip
	c, err := config.ParseVIPManager([]byte(m.text(config.VIPManagerPath)))
	m.w.pids++
	v.pid, v.since, v.on, v.code = 5000+m.w.pids, now, err == nil, 0
	if err == nil && v.dies != "" && slices.Contains(c.Endpoints, v.dies) {
		err, v.on = errors.New("panic"), false
	}
	if err != nil {
		v.pid, v.code = 0, 1
		return
	}
	v.list, v.ip, v.dropped = c.Endpoints, c.IP, false
	v.party = party{trust: m.file(c.CA).Content, cert: m.file(c.Cert).Content}
}

// clientUnit gives Patroni's or vip-manager's unit.
func (m *machine) clientUnit(name string) host.Unit {
	u := host.Unit{Load: "not-found", Active: "inactive", Sub: "dead"}
	switch {
	case name == config.PatroniUnit && m.patroni != nil:
		u.Load, u.Enabled = "loaded", "enabled"
		if m.patroni.on {
			u.Active, u.Sub, u.PID, u.Since = "active", "running", 4000, m.patroni.since.Add(m.skew)
		}
	case name == config.VIPManagerUnit && m.vip != nil:
		u.Load, u.Enabled = "loaded", "disabled"
		if m.vip.enabled {
			u.Enabled = "enabled"
		}
		switch {
		case m.vip.on:
			u.Active, u.Sub, u.PID, u.Since = "active", "running", m.vip.pid, m.vip.since.Add(m.skew)
		case m.vip.code != 0:
			u.Active, u.Sub, u.Exit = "failed", "failed", m.vip.code
		}
	}
	return u
}

// clientSystemctl does what systemctl does for them.
func (m *machine) clientSystemctl(a host.Systemctl) error {
	switch {
	case a.Unit == config.PatroniUnit && m.patroni != nil && a.Verb == host.Reload:
		if !m.patroni.on {
			return errors.New("patroni.service is not active, cannot reload.")
		}
		m.patroni.hup = true
		return nil
	case a.Unit == config.VIPManagerUnit && m.vip != nil && a.Verb == host.Restart:
		m.startVIP(time.Now()) // SIGTERM leaves the address up; the start takes it down
		return nil
	}
	return fmt.Errorf("Failed to %s %s: Unit %s not found.", a.Verb, a.Unit, a.Unit)
}

// get answers for Patroni's REST API.
func (m *machine) get(address string) host.Reply {
	u, err := url.Parse(address)
	if err != nil || m.patroni == nil || !m.patroni.on || m.patroni.silent || u.Scheme != "http" || u.Port() != "8008" || u.Hostname() != m.name {
		return host.Reply{Problem: "connect: connection refused"}
	}
	p := m.patroni
	role := func(h string) string {
		if p.pg.leader == h {
			return "primary"
		}
		return "replica"
	}
	var page any
	switch u.Path {
	case "/patroni":
		page = map[string]any{
			"state": "running", "role": role(m.name), "timeline": p.pg.timeline, "dcs_last_seen": p.seen.Add(m.skew).Unix(), "server_version": 170005,
			"patroni": map[string]any{"version": p.version, "scope": p.pg.name, "name": p.name},
		}
		if len(p.pending) > 0 {
			reasons := map[string]any{}
			for _, name := range p.pending {
				reasons[name] = map[string]string{"old_value": "1", "new_value": "2"}
			}
			page.(map[string]any)["pending_restart"], page.(map[string]any)["pending_restart_reason"] = true, reasons
		}
		if p.pg.leader == "" {
			page.(map[string]any)["cluster_unlocked"] = true
		}
	case "/cluster":
		var members []any
		for _, h := range slices.Sorted(maps.Keys(m.w.machines)) {
			if o := m.w.machines[h].patroni; o != nil && o.pg == p.pg {
				r := role(h)
				if r == "primary" {
					r = "leader"
				}
				members = append(members, map[string]any{"name": o.name, "role": r, "state": "running", "host": h, "port": 5432, "timeline": p.pg.timeline})
			}
		}
		page = map[string]any{"members": members, "scope": p.pg.name}
	default:
		return host.Reply{Status: 404}
	}
	body, err := json.Marshal(page)
	if err != nil {
		return host.Reply{Problem: err.Error()}
	}
	return host.Reply{Status: 200, Body: body}
}

// shake tries a handshake: a client's files are good unless it is said that they
// are not.
func (m *machine) shake(s host.Handshake) string {
	if problem := m.distrust[s.Address]; problem != "" {
		return problem
	}
	name, port, _ := net.SplitHostPort(s.Address)
	if o := m.w.machines[name]; o == nil || !o.on || o.proc == nil || !o.proc.ready || !o.proc.listens(atoi(port)) {
		return "dial tcp " + s.Address + ": connect: connection refused"
	}
	return m.w.handshake(party{trust: m.file(s.CA).Content, cert: m.file(s.Cert).Content}, m.w.machines[name].proc)
}

// lookAtClients answers what is asked about clients.
func (m *machine) lookAtClients(q host.Question, f *host.Facts) {
	for _, u := range q.HTTP {
		if f.HTTP == nil {
			f.HTTP = map[string]host.Reply{}
		}
		f.HTTP[u] = m.get(u)
	}
	if q.Addrs {
		f.Addrs = nil
		if !isName(m.name) {
			f.Addrs = []string{m.name}
		}
		for a, on := range m.addrs {
			if on && a != "" {
				f.Addrs = append(f.Addrs, a)
			}
		}
		slices.Sort(f.Addrs)
	}
	for _, p := range q.Programs {
		if version, ok := m.programs[p]; ok {
			if f.Programs == nil {
				f.Programs = map[string]host.Binary{}
			}
			f.Programs[p] = host.Binary{Path: p, Version: version}
		}
	}
	for _, g := range q.Globs {
		for p := range m.files {
			if ok, _ := path.Match(g, p); ok {
				if f.Globs == nil {
					f.Globs = map[string][]string{}
				}
				f.Globs[g] = append(f.Globs[g], p)
			}
		}
		slices.Sort(f.Globs[g])
	}
	for _, s := range q.TLS {
		f.Handshakes = append(f.Handshakes, m.shake(s))
	}
}

// dumpClients tells what they run with.
func (m *machine) dumpClients() string {
	var b strings.Builder
	if p := m.patroni; p != nil {
		fmt.Fprintf(&b, "  patroni of %s: on %v, hup %v, leads %v, timeline %d, read %s\n", p.pg.name, p.on, p.hup, p.pg.leader == m.name, p.pg.timeline, hostsLine(p.read))
	}
	if v := m.vip; v != nil {
		fmt.Fprintf(&b, "  vip-manager: on %v, list %v, bears %v\n", v.on, v.list, m.addrs[m.patroni.pg.vip])
	}
	return b.String()
}

func hostsLine(text string) string {
	hosts, err := config.PatroniEndpoints([]byte(text))
	return fmt.Sprint(hosts, err)
}

// cloneClients copies them into another world.
func (m *machine) cloneClients(to *machine, pgs map[*fakePG]*fakePG) {
	to.addrs, to.programs, to.distrust = maps.Clone(m.addrs), maps.Clone(m.programs), maps.Clone(m.distrust)
	if m.patroni != nil {
		p := *m.patroni
		if pgs[p.pg] == nil {
			pg := *p.pg
			pgs[p.pg] = &pg
		}
		p.pg = pgs[p.pg]
		to.patroni = &p
	}
	if m.vip != nil {
		v := *m.vip
		to.vip = &v
	}
}

// postgres makes a PostgreSQL cluster on these hosts, the first of which leads,
// whose files name the members as they are now.
func (g *ground) postgres(name, vip string, on ...string) *fakePG {
	g.t.Helper()
	c := g.etcd()
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	var bare, urls []string
	for _, e := range c.members {
		if !e.learner {
			urls = append(urls, e.clientURL)
			bare = append(bare, strings.TrimPrefix(e.clientURL, "https://"))
		}
	}
	slices.Sort(urls)
	slices.Sort(bare)
	pg := &fakePG{name: name, leader: on[0], timeline: 1, vip: vip}
	now := time.Now()
	for i, h := range on {
		m := g.w.machine(h)
		m.users["postgres"] = true
		instance := fmt.Sprintf("%s-%d", name, i+1)
		m.lay(config.PatroniPath, "postgres", "postgres", 0o640, patroniText(name, instance, h, bare))
		m.patroni = &fakePatroni{pg: pg, name: instance, version: "4.0.7", on: true, since: now, phase: now.Add(-time.Duration(i+1) * time.Second), seen: now, read: m.text(config.PatroniPath)}
		m.lay(config.VIPManagerPath, "root", "postgres", 0o600, vipText(name, instance, vip, urls))
		m.programs[config.VIPManagerBin] = "3.0.0"
		m.vip = &fakeVIP{version: "3.0.0", enabled: true}
		m.startVIP(now)
	}
	return pg
}

func (m *machine) lay(p, owner, group string, mode fs.FileMode, text string) {
	if m.files[path.Dir(p)] == nil {
		m.mkdir(path.Dir(p), "root", "root", 0o755)
	}
	m.files[p] = &node{content: []byte(text), owner: owner, group: group, mode: mode}
}

func patroniText(scope, name, address string, hosts []string) string {
	return fmt.Sprintf(`# written by others
scope: %s
namespace: /pg/
name: %s
restapi:
  listen: 0.0.0.0:8008
  connect_address: %s:8008
  authentication: { username: 'postgres', password: 'Patroni.API' }
etcd3:
  hosts: '%s' # sorted
  protocol: https
  cacert: /pg/cert/ca.crt
  cert: /pg/cert/server.crt
  key: /pg/cert/server.key
  password: 'hush'
postgresql:
  connect_address: %s:5432
`, scope, name, address, strings.Join(hosts, ","), address)
}

func vipText(scope, name, vip string, urls []string) string {
	return fmt.Sprintf(`interval: 1000
trigger-key: "/pg/%s/leader"
trigger-value: "%s"
ip: %s
netmask: 24
interface: eth1
dcs-type: etcd
dcs-endpoints:
  - %s
etcd-ca-file: "/pg/cert/ca.crt"
etcd-cert-file: "/pg/cert/server.crt"
etcd-key-file: "/pg/cert/server.key"
etcd-password: "hush"
`, scope, name, vip, strings.Join(urls, "\n  - "))
}

// withPostgres is an inventory of the first n hosts, with PostgreSQL's.
func withPostgres(n int, infra []string, clusters map[string][]string) string {
	var b strings.Builder
	b.WriteString(inventoryText(n, "", ""))
	if len(infra) > 0 {
		fmt.Fprintf(&b, "    infra: { hosts: { %s: { infra_seq: 1 } } }\n", strings.Join(infra, ": {}, "))
	}
	for _, name := range slices.Sorted(maps.Keys(clusters)) {
		fmt.Fprintf(&b, "    %s:\n      hosts:\n", name)
		for i, h := range clusters[name] {
			role := "replica"
			if i == 0 {
				role = "primary"
			}
			fmt.Fprintf(&b, "        %s: { pg_seq: %d, pg_role: %s }\n", h, i+1, role)
		}
		fmt.Fprintf(&b, "      vars: { pg_cluster: %s }\n", name)
	}
	return b.String()
}

// infra lays on a host what an infra host of this cluster has.
func (g *ground) infra(name string) {
	g.t.Helper()
	c := g.etcd()
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	m := g.w.machine(name)
	m.users["victoria"] = true
	var bare, urls []string
	for _, e := range c.members {
		urls, bare = append(urls, e.clientURL), append(bare, strings.TrimPrefix(e.clientURL, "https://"))
		text := fmt.Sprintf("# %s @ %s\n- labels: { ip: %s , ins: %s , cls: etcd }\n  targets: [ %s:2379 ]\n", e.name, hostPart(e.peerURL), hostPart(e.peerURL), e.name, hostPart(e.peerURL))
		m.lay("/infra/targets/etcd/"+e.name+".yml", "victoria", "infra", 0o640, text)
	}
	slices.Sort(urls)
	slices.Sort(bare)
	env := config.ClientEnv{Endpoints: urls, CAFile: config.InfraCAPath, CertFile: config.InfraCertPath, KeyFile: config.InfraKeyPath}
	m.lay(config.EnvPath, "root", "root", 0o644, string(env.Render()))
	m.lay(config.PatronictlInfraPath, "root", "admin", 0o640, strings.ReplaceAll(patroniText("", "", name, bare), "/pg/cert/server", "/etc/pki/infra"))
}

// client changes what is on a PostgreSQL host.
func (g *ground) client(d *datadriven.TestData) string {
	g.t.Helper()
	var name string
	d.ScanArgs(g.t.(*testing.T), "host", &name)
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	m := g.w.machines[name]
	edit := func(p string, edit func([]byte, []string) ([]byte, error), list []string) {
		after, err := edit(m.files[p].content, list)
		require.NoError(g.t, err)
		n := *m.files[p]
		n.content = after
		m.files[p] = &n
	}
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "patroni":
			edit(config.PatroniPath, config.EditPatroni, a.Vals)
		case "vip":
			edit(config.VIPManagerPath, config.EditVIPManager, a.Vals)
		case "runs":
			m.vip.list = a.Vals
		case "version":
			m.programs[config.VIPManagerBin] = a.Vals[0]
		case "off":
			m.vip.on, m.vip.pid = false, 0
		case "leads":
			m.patroni.pg.leader = name
		case "scope":
			n := *m.files[config.PatroniPath]
			n.content = []byte(strings.Replace(string(n.content), "scope: pg-test", "scope: "+a.Vals[0], 1))
			m.files[config.PatroniPath] = &n
		}
	}
	return ""
}
