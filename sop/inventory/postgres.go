package inventory

import (
	"net/netip"
	"path"
	"slices"
	"strings"
)

// A Postgres is one host of a PostgreSQL cluster: a client of etcd, of some
// etcd. Which one it belongs to is not in the inventory; the endpoints that its
// files hold say so.
type Postgres struct {
	Host    string // inventory name
	Cluster string // pg_cluster, else the group's name
	Role    string // pg_role as written: what was wanted when it was made, not what is so
	Port    int    // of Patroni's REST API
	TLS     bool   // that API speaks TLS
	VIP     string // address without its mask; "" unless pg_vip_enabled
}

// Defaults of Pigsty's.
const (
	defaultPatroniPort = 8008
	defaultTargets     = "/etc/prometheus/targets"
	infraTargets       = "/infra/targets" // from Pigsty 4 on, no variable
)

// postgres lists the hosts of PostgreSQL clusters, in the order of the file:
// those with a pg_seq or pg_role of their own, and those of a group with a
// pg_cluster of its own. That a host is in group infra or has a member as well
// makes no difference.
func (v *Inventory) postgres() []Postgres {
	var all []Postgres
	for _, e := range v.entries {
		known := slices.ContainsFunc(all, func(p Postgres) bool { return p.Host == e.host })
		if known || isRange(e.host) || !v.isPostgres(e) {
			continue
		}
		x := v.hostVars(e.host)
		p := Postgres{
			Host:    e.host,
			Cluster: x.text("pg_cluster", e.group),
			Role:    x.text("pg_role", ""),
			Port:    x.port("patroni_port", defaultPatroniPort),
			TLS:     x.boolean("patroni_ssl_enabled", false, false),
		}
		if x.boolean("pg_vip_enabled", false, false) {
			p.VIP, _, _ = strings.Cut(x.text("pg_vip_address", ""), "/")
			if _, err := netip.ParseAddr(p.VIP); err != nil {
				p.VIP = ""
			}
		}
		all = append(all, p)
	}
	return all
}

func (v *Inventory) isPostgres(e entry) bool {
	says := func(vars []variable, names ...string) bool {
		return slices.ContainsFunc(vars, func(x variable) bool { return slices.Contains(names, x.name) })
	}
	if says(e.vars, "pg_seq", "pg_role") {
		return true
	}
	for _, name := range v.above(e.group) {
		if name != "all" && says(v.groups[name].vars, "pg_cluster") {
			return true
		}
	}
	return false
}

// targetDirs are where the monitoring of infra hosts may look for etcd targets.
func targetDirs(own values) []string {
	dir := own.text("prometheus_sd_dir", defaultTargets)
	if !path.IsAbs(dir) {
		dir = defaultTargets
	}
	return slices.Compact([]string{path.Join(dir, "etcd"), path.Join(infraTargets, "etcd")})
}

// PostgresOn gives the entry of a host of a PostgreSQL cluster.
func (g *Group) PostgresOn(host string) (Postgres, bool) {
	for _, p := range g.Postgres {
		if sameHost(p.Host, host) {
			return p, true
		}
	}
	return Postgres{}, false
}

// Clients names the hosts that are no hosts of the group and have files that
// may name its members: infra hosts, the admin host, PostgreSQL's.
func (g *Group) Clients() []string {
	var names []string
	add := func(name string) {
		if _, member := g.Host(name); name != "" && !member && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, h := range g.InfraHosts {
		add(h)
	}
	add(g.AdminHost)
	for _, p := range g.Postgres {
		add(p.Host)
	}
	return names
}
