package postgres

import (
	"bytes"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"text/template"

	"github.com/etcdrill/etcdrill/sop/pki"
)

// Where Pigsty's units look for their files. Patroni's is a link.
const (
	PatroniPath    = "/etc/patroni/patroni.yml"
	VIPManagerPath = "/etc/default/vip-manager.yml"
)

const (
	home    = "/data/postgres" // /pg is a link to it
	dataDir = "/pg/data"
	certDir = "/pg/cert"
)

// A file is a regular file, a link where link is set, a directory where it has
// no content.
type file struct {
	path, owner, group string
	mode               int64
	content            []byte
	link               string
}

// secrets are a cluster's passwords.
type secrets struct{ replication, superuser, rewind string }

// files are all that a machine gets for its instance.
func (c *Cluster) files(i instance, cert pki.Pair, s secrets) ([]file, error) {
	values, err := c.values(i, s)
	if err != nil {
		return nil, err
	}
	patroni, err := render("patroni.yml", patroniYAML, values)
	if err != nil {
		return nil, err
	}
	vip, err := render("vip-manager.yml", vipManagerYAML, values)
	if err != nil {
		return nil, err
	}
	const own = "postgres"
	dir := func(path string, mode int64) file { return file{path: path, owner: own, group: own, mode: mode} }
	link := func(path, to string) file { return file{path: path, owner: own, group: own, mode: 0o777, link: to} }
	all := []file{
		dir(home, 0o700), link("/pg", home),
		dir("/pg/bin", 0o700), dir("/pg/conf", 0o700), dir("/pg/log", 0o750), dir("/pg/log/patroni", 0o750), dir("/pg/tmp", 0o700),
		dir(dataDir, 0o700), dir(certDir, 0o700),
		{path: certDir + "/ca.crt", owner: own, group: own, mode: 0o644, content: c.spec.CA.CertPEM},
		{path: certDir + "/server.crt", owner: own, group: own, mode: 0o644, content: cert.CertPEM},
		{path: certDir + "/server.key", owner: own, group: own, mode: 0o600, content: cert.KeyPEM},
		{path: VIPManagerPath, owner: "root", group: own, mode: 0o600, content: vip},
		{path: "/etc/systemd/system/patroni.service", owner: "root", group: "root", mode: 0o644, content: []byte(patroniUnit)},
		{path: "/etc/systemd/system/vip-manager.service", owner: "root", group: "root", mode: 0o644, content: []byte(vipManagerUnit)},
	}
	conf := "/pg/conf/" + i.Name + ".yml"
	chain := []string{PatroniPath, conf}
	if c.spec.Generation == 3 {
		chain = []string{PatroniPath, "/pg/bin/patroni.yml", conf, "/pg/conf/oltp.yml"}
	}
	for n, at := range chain[:len(chain)-1] {
		all = append(all, link(at, chain[n+1]))
	}
	return append(all, file{path: chain[len(chain)-1], owner: own, group: own, mode: 0o640, content: patroni}), nil
}

// values are what the templates take.
type values struct {
	Cluster, Instance, Address, Network string
	VIP, Interface                      string
	Mask                                int
	Hosts                               string   // "ip:2379,ip:2379"
	Endpoints                           []string // "https://ip:2379"
	DataDir, CertDir, User              string
	Port, PatroniPort                   int
	Replication, Superuser, Rewind      string
}

func (c *Cluster) values(i instance, s secrets) (values, error) {
	v := values{
		Cluster: c.spec.Cluster, Instance: i.Name, Address: i.Machine.Host(),
		VIP: c.spec.VIP.Addr().String(), Mask: c.spec.VIP.Bits(), Interface: c.spec.Interface,
		Network:   netip.PrefixFrom(c.spec.VIP.Addr(), c.spec.VIP.Bits()).Masked().String(),
		Endpoints: slices.Sorted(slices.Values(c.spec.Endpoints)),
		DataDir:   dataDir, CertDir: certDir, User: loadUser, Port: Port, PatroniPort: PatroniPort,
		Replication: s.replication, Superuser: s.superuser, Rewind: s.rewind,
	}
	var hosts []string
	for _, e := range v.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return v, fmt.Errorf("endpoint %q is not https://host:port", e)
		}
		hosts = append(hosts, u.Host)
	}
	v.Hosts = strings.Join(hosts, ",")
	return v, nil
}

func render(name, text string, v values) ([]byte, error) {
	t, err := template.New(path.Base(name)).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// patroniYAML has the sections and the order of Pigsty's template for OLTP, and
// its timing; memory is a lab's. The machine's own name is a setting that a
// client can ask for: through the VIP it could not tell otherwise whom it
// reached.
const patroniYAML = `#==============================================================#
# patroni: {{.Instance}}
#==============================================================#
scope: {{.Cluster}}             # the cluster
namespace: /pg                  # where its keys are in etcd
name: {{.Instance}}             # this instance

log:
  level: INFO
  dir: /pg/log/patroni
  file_size: 10000000

restapi:
  listen: 0.0.0.0:{{.PatroniPort}}
  connect_address: {{.Address}}:{{.PatroniPort}}

etcd3:
  hosts: '{{.Hosts}}'
  protocol: https
  cacert: {{.CertDir}}/ca.crt
  cert: {{.CertDir}}/server.crt
  key: {{.CertDir}}/server.key

bootstrap:
  dcs:
    loop_wait: 10               # between two looks at etcd, in seconds
    ttl: 30                     # of the leader key
    retry_timeout: 10           # for etcd and PostgreSQL
    primary_start_timeout: 10
    maximum_lag_on_failover: 1048576
    failsafe_mode: true
    postgresql:
      use_slots: true
      use_pg_rewind: true
      remove_data_directory_on_rewind_failure: true
      parameters:
        max_connections: 100
        shared_buffers: 32MB
        wal_level: logical
        wal_log_hints: 'on'
        hot_standby: 'on'
        max_wal_senders: 10
        max_replication_slots: 10
        wal_keep_size: 256MB
        wal_retrieve_retry_interval: 500ms # a lab's: a replica is there before its slot
  initdb:
    - data-checksums
    - encoding: UTF-8
    - locale: C

postgresql:
  listen: 0.0.0.0:{{.Port}}
  connect_address: {{.Address}}:{{.Port}}
  data_dir: {{.DataDir}}
  bin_dir: /usr/lib/postgresql/17/bin
  pgpass: /pg/.pgpass
  basebackup:
    - checkpoint: fast
  use_unix_socket: true
  use_unix_socket_repl: true
  parameters:
    unix_socket_directories: /var/run/postgresql
    etcdrill.machine: {{.Instance}}
  authentication:
    superuser: { username: postgres, password: '{{.Superuser}}' }
    replication: { username: replicator, password: '{{.Replication}}' }
    rewind: { username: dbuser_rewind, password: '{{.Rewind}}' }
  pg_hba:
    - local   all          postgres                      ident
    - local   replication  postgres                      ident
    - local   replication  replicator                    scram-sha-256
    - local   all          all                           scram-sha-256
    - host    replication  replicator     {{.Network}}   scram-sha-256
    - host    all          dbuser_rewind  {{.Network}}   scram-sha-256
    - host    all          postgres       {{.Network}}   scram-sha-256
    - host    all          {{.User}}      {{.Network}}   scram-sha-256

tags:
  nofailover: false
  clonefrom: true
  noloadbalance: false
  nosync: false
`

// vipManagerYAML has the keys of Pigsty's template, the old name of
// manager-type among them.
const vipManagerYAML = `# how often to look at the leader, in milliseconds
interval: 1000

# the leader key of the cluster, and the value at which the address comes here
trigger-key: "/pg/{{.Cluster}}/leader"
trigger-value: "{{.Instance}}"

ip: {{.VIP}}                    # the virtual address
netmask: {{.Mask}}
interface: {{.Interface}}

hosting-type: basic
dcs-type: etcd
dcs-endpoints:
{{- range .Endpoints}}
  - {{.}}
{{- end}}

etcd-ca-file: {{.CertDir}}/ca.crt
etcd-cert-file: {{.CertDir}}/server.crt
etcd-key-file: {{.CertDir}}/server.key

retry-num: 2
retry-after: 250
verbose: false
`

const patroniUnit = `[Unit]
Description=Runners to orchestrate a high-availability PostgreSQL
After=network.target

[Service]
Type=simple
User=postgres
Group=postgres
ExecStart=/usr/bin/patroni ` + PatroniPath + `
ExecReload=/bin/kill -s HUP $MAINPID
KillMode=process
TimeoutSec=30
Restart=no

[Install]
WantedBy=multi-user.target
`

const vipManagerUnit = `[Unit]
Description=Manages the virtual IP of a PostgreSQL cluster
After=network-online.target
Before=patroni.service

[Service]
Type=simple
ExecStart=/usr/bin/vip-manager --config=` + VIPManagerPath + `
Restart=on-failure

[Install]
WantedBy=multi-user.target
`
