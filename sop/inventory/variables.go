package inventory

import (
	"fmt"
	"strings"
)

// A Variable is one key of the inventory that is known.
type Variable struct {
	Name    string
	Default string // as one would write it; "" where there is none
	Level   string // where it is set: "host", "group", "all", or "any" of them
	Meaning string

	check check // what a value must be
}

// check says what a value must be.
type check int

const (
	anyValue check = iota // no business of ours
	aBool
	anotherBool // read by Pigsty alone
	aSeq
	aPort
	aMillis
	aSize
	aPath
	aName     // part of member names and of file names
	aVersion  // 3.6.4
	aValidity // 7300d
	aState    // new or existing
	aSecret   // text that is never shown
	aText
	anyFile // an absolute path
	anAddress
	anAccess // ssh or local
	aMethod  // sudo
	aSum     // a sha256 in hex
	aUnit    // of systemd
	aForm    // yaml or env
	aScheme  // https or http
)

// Defaults of the values that a Group holds.
const (
	defaultCluster    = "etcd"
	defaultClientPort = 2379
	defaultPeerPort   = 2380
	defaultDataDir    = "/data/etcd"
	defaultElection   = 1000
	defaultHeartbeat  = 100
	defaultQuota      = 8589934592
	defaultValidity   = "7300d"
)

// Variables is every key that is known, in the order of the reference.
var Variables = []Variable{
	{"etcd_seq", "", "host", "number of the member, a whole number from 0, unique and never used again; required", aSeq},
	{"etcd_cluster", "etcd", "group", "name of the cluster; members are called `<etcd_cluster>-<etcd_seq>`", aName},
	{"etcd_clean", "true", "group", "an existing cluster may be cleared by `createCluster` and `destroyCluster`", aBool},
	{"etcd_safeguard", "false", "group", "an existing cluster is protected, whatever `etcd_clean` says", aBool},
	{"etcd_data", "/data/etcd", "group", "data directory; absolute and at least two levels deep", aPath},
	{"etcd_wal_dir", "", "group", "directory of the write-ahead log where it is not in the data directory; etcdrill's own key", aPath},
	{"etcd_port", "2379", "all", "client port; PostgreSQL hosts read it too, so it belongs in `all.vars`", aPort},
	{"etcd_peer_port", "2380", "group", "peer port", aPort},
	{"etcd_election_timeout", "1000", "group", "election timeout in ms, at least 5 heartbeats", aMillis},
	{"etcd_heartbeat_interval", "100", "group", "heartbeat interval in ms", aMillis},
	{"etcd_quota_backend_bytes", "8589934592", "group", "backend quota in bytes; etcdrill's own key", aSize},
	{"etcd_version", "", "group", "etcd version that is wanted, as in 3.6.4; etcdrill's own key", aVersion},
	{"etcd_root_password", "", "all", "password of etcd's user root where auth is on (Pigsty 4 and newer)", aSecret},
	{"etcd_package", "etcd", "group", "package that brings etcd to a host that has none, or not `etcd_version`; etcdrill's own key", aText},
	{"etcd_package_version", "", "group", "version of that package as apt or dnf spells it, with * for the rest; else `etcd_version` and what follows it; etcdrill's own key", aText},
	{"etcd_binary", "/usr/bin/etcd", "group", "path of the etcd binary on the hosts; etcdrill's own key", anyFile},
	{"etcd_binary_from", "", "group", "etcd binary on the admin host, as seen from the inventory, that is put there instead of a package; etcdrill's own key", aText},
	{"etcd_binary_sha256", "", "group", "sha256 of that binary; required with it; etcdrill's own key", aSum},
	{"etcd_client_cert", "", "group", "client certificate for this admin host, as seen from the inventory, where the CA's key is not in `files/pki`; etcdrill's own key", aText},
	{"etcd_client_key", "", "group", "its key; etcdrill's own key", aText},
	{"etcd_client_ca", "", "group", "certificate of the CA that the members are checked by; else `files/pki/ca/ca.crt`; etcdrill's own key", aText},
	{"etcd_systemd_unit", "etcd.service", "group", "systemd unit that runs etcd; etcdrill's own key", aUnit},
	{"etcd_conf", "/etc/etcd/etcd.conf", "group", "configuration of a member, where another one set the cluster up; etcdrill's own key", anyFile},
	{"etcd_conf_form", "", "group", "`yaml`, or `env` for variables that the unit reads; else by the place: `env` in `/etc/default` and `/etc/sysconfig`; etcdrill's own key", aForm},
	{"etcd_scheme", "https", "group", "`https`, or `http` for a cluster without TLS; etcdrill's own key", aScheme},
	{"etcd_ca_file", "/etc/etcd/ca.crt", "group", "certificate of the CA on the hosts; etcdrill's own key", anyFile},
	{"etcd_cert_file", "/etc/etcd/server.crt", "group", "certificate of a member, for clients and peers; etcdrill's own key", anyFile},
	{"etcd_key_file", "/etc/etcd/server.key", "group", "its key; etcdrill's own key", anyFile},
	{"etcd_user", "etcd", "group", "who runs etcd; etcdrill's own key", aName},
	{"etcd_init", "new", "group", "Pigsty's initial-cluster-state, new or existing; etcdrill decides by what it finds", aState},
	{"etcd_learner", "false", "group", "Pigsty: join as learner; etcdrill always does", anotherBool},
	{"etcd_exists", "false", "group", "Pigsty's own note that etcd was found; etcdrill looks for itself", anotherBool},
	{"etcd_rm_data", "true", "group", "Pigsty: delete the data on removal; etcdrill sets data aside", anotherBool},
	{"etcd_rm_pkg", "false", "group", "Pigsty: uninstall the package on removal; etcdrill leaves it", anotherBool},
	{"cert_validity", "7300d", "all", "validity of new certificates, in w, d, h, m, s", aValidity},
	{"admin_ip", "", "all", "address of the admin host, which gets a client environment too", anAddress},
	{"pg_cluster", "", "group", "Pigsty: name of a PostgreSQL cluster; its hosts are clients of an etcd", anyValue},
	{"pg_seq", "", "host", "Pigsty: number of a PostgreSQL instance; it says that the host has one", anyValue},
	{"pg_role", "", "host", "Pigsty: wanted role of a PostgreSQL instance; who leads now is Patroni's to say", anyValue},
	{"patroni_port", "8008", "any", "Pigsty: port of Patroni's REST API", anyValue},
	{"patroni_ssl_enabled", "false", "any", "Pigsty: that API speaks TLS", anotherBool},
	{"pg_vip_enabled", "false", "any", "Pigsty: the PostgreSQL cluster has a virtual IP", anotherBool},
	{"pg_vip_address", "", "any", "Pigsty: that address, with its mask; vip-manager's own file decides, a difference is told by `status`", anyValue},
	{"pg_etcd_password", "", "any", "Pigsty 4: password of a PostgreSQL cluster's etcd user; not read", aSecret},
	{"node_data", "/data", "any", "Pigsty: main data directory of a host; not read", anyValue},
	{"prometheus_enabled", "true", "any", "Pigsty until 3.7: Prometheus is in use; not read", anyValue},
	{"prometheus_sd_dir", "/etc/prometheus/targets", "any", "Pigsty until 3.7: directory of monitoring targets on infra hosts", anyValue},
	{"node_admin_enabled", "true", "any", "Pigsty: there is an admin user; not read", anyValue},
	{"node_admin_username", "dba", "any", "Pigsty: name of the admin user; not read", anyValue},
	{"ansible_host", "", "host", "address to reach the host at over SSH; never part of a URL of etcd", aText},
	{"ansible_port", "", "any", "SSH port", aPort},
	{"ansible_user", "", "any", "SSH user", aText},
	{"ansible_ssh_private_key_file", "", "any", "SSH key", aText},
	{"ansible_ssh_common_args", "", "any", "more options of ssh; `ansible_ssh_args` and `ansible_ssh_extra_args` too. Host keys stay strict", aText},
	{"ansible_connection", "ssh", "any", "ssh, or local for the machine that one is on", anAccess},
	{"ansible_become", "true", "any", "use sudo; the playbooks that this follows do", aBool},
	{"ansible_become_user", "root", "any", "user that sudo turns to", aText},
	{"ansible_become_method", "sudo", "any", "only sudo is supported", aMethod},
}

// Reference is the table of Variables in Markdown.
func Reference() string {
	var b strings.Builder
	b.WriteString("| variable | default | set on | meaning |\n|---|---|---|---|\n")
	for _, v := range Variables {
		def := ""
		if v.Default != "" {
			def = "`" + v.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", v.Name, def, v.Level, v.Meaning)
	}
	return b.String()
}

// known finds a variable by name.
func known(name string) (Variable, bool) {
	for _, v := range Variables {
		if v.Name == name {
			return v, true
		}
	}
	return Variable{}, false
}

// nearest is the known name that takes the fewest edits to reach, and how many.
func nearest(name string) (string, int) {
	best, edits := "", len(name)+1
	for _, v := range Variables {
		if d := distance(name, v.Name); d < edits {
			best, edits = v.Name, d
		}
	}
	return best, edits
}

// distance counts insertions, deletions, replacements and swaps of neighbours.
func distance(a, b string) int {
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
