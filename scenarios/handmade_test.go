package scenarios_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// debianUnit is the unit of Debian's etcd-server, but for its comments.
const debianUnit = `[Unit]
Description=etcd - highly-available key value store
After=network.target
Wants=network-online.target

[Service]
Environment=DAEMON_ARGS=
Environment=ETCD_NAME=%H
Environment=ETCD_DATA_DIR=/var/lib/etcd/default
EnvironmentFile=-/etc/default/%p
Type=notify
User=etcd
ExecStart=/usr/bin/etcd $DAEMON_ARGS
Restart=on-abnormal
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
`

// handmade is what its inventory has to say of such a cluster.
const handmade = `all:
  children:
    etcd:
      hosts:
        10.10.10.10: { etcd_seq: 1 }
        10.10.10.11: { etcd_seq: 2 }
        10.10.10.12: { etcd_seq: 3 }
      vars:
        etcd_cluster: prod
        etcd_conf: /etc/default/etcd
        etcd_data: /var/lib/etcd/default
        etcd_scheme: http
`

// environment is a file of variables as an administrator writes it.
func environment(name, address, initial string) string {
	return fmt.Sprintf(`## etcd(1) daemon options, for %[1]s
ETCD_NAME="%[1]s"
# ETCD_DATA_DIR="/var/lib/etcd/default"
ETCD_LISTEN_PEER_URLS="http://%[2]s:2380"
ETCD_LISTEN_CLIENT_URLS="http://%[2]s:2379,http://127.0.0.1:2379"
ETCD_INITIAL_ADVERTISE_PEER_URLS="http://%[2]s:2380"
ETCD_ADVERTISE_CLIENT_URLS="http://%[2]s:2379"
ETCD_INITIAL_CLUSTER="%[3]s"
ETCD_INITIAL_CLUSTER_STATE="new"
ETCD_QUOTA_BACKEND_BYTES=4294967296
`, name, address, initial)
}

// plainly dials members without TLS.
func plainly(rig *scenarios.Rig) with {
	dial := rig.Lab.DialContext(embedded.Admin)
	return func(o *scenarios.Operator) {
		o.Site.Dial = func(_ context.Context, endpoint string) (sop.Etcd, error) {
			return sop.DialMember(clientv3.Config{DialTimeout: 2 * time.Second}, endpoint, dial)
		}
	}
}

// A cluster that was set up by hand, with Debian's unit, variables, places and
// names of its own, and without TLS, is looked at, grown and shrunk.
func TestHandmadeCluster(t *testing.T) {
	t.Parallel()
	rig := build(t, handmade, h13)
	names := map[string]string{h10: "alpha", h11: "beta", h12: "gamma"}
	initial := "alpha=http://10.10.10.10:2380,beta=http://10.10.10.11:2380,gamma=http://10.10.10.12:2380"
	put := func(name, path, content string) host.Act {
		return host.WriteFile{Path: path, Content: []byte(content), Owner: "root", Group: "root", Mode: 0o644}
	}
	for h, name := range names {
		act(t, rig, h, put(h, "/usr/lib/systemd/system/etcd.service", debianUnit), put(h, "/etc/default/etcd", environment(name, h, initial)),
			host.MakeDir{Path: "/var/lib/etcd/default", Owner: "etcd", Group: "etcd", Mode: 0o700},
			host.Systemctl{Verb: host.Enable, Unit: "etcd.service"}, host.Systemctl{Verb: host.Start, Unit: "etcd.service", NoBlock: true})
	}
	look := func() sop.View {
		t.Helper()
		o := rig.Operator("look")
		defer o.Site.Close()
		plainly(rig)(o)
		v, err := o.Site.Observe(t.Context(), sop.Scope{AllHosts: true})
		require.NoError(t, err)
		return v
	}
	awaitThree(t, look)

	report := sop.ReportOf(look())
	require.Len(t, report.Members, 3)
	for _, m := range report.Members {
		require.Equal(t, names[m.Host], m.Name)
		require.Equal(t, "active, enabled", m.Unit)
	}
	for _, f := range report.Findings { // they still say that they found a cluster
		require.Contains(t, f, "drift: /etc/default/etcd on ")
	}

	res, err := run(t, rig, sop.AddMember{Host: h13}, plainly(rig))
	require.NoError(t, err)
	require.Len(t, res.View.Voters(), 4)
	m, ok := res.View.At(h13)
	require.True(t, ok)
	require.Equal(t, "prod-4", m.Name)
	files := func(h string, paths ...string) map[string]host.File {
		t.Helper()
		f, err := rig.Lab.Host(h).Look(t.Context(), host.Question{Files: paths})
		require.NoError(t, err)
		return f.Files
	}
	at := files(h13, "/etc/default/etcd", "/etc/systemd/system/etcd.service", "/etc/etcd/etcd.conf", "/etc/profile.d/etcdctl.sh")
	require.Equal(t, debianUnit, string(at["/etc/systemd/system/etcd.service"].Content), "a host without the package gets the members' unit")
	require.False(t, at["/etc/etcd/etcd.conf"].Exists)
	env := string(at["/etc/default/etcd"].Content)
	for _, line := range []string{
		`ETCD_NAME="prod-4"`, `ETCD_INITIAL_CLUSTER_STATE="existing"`, `ETCD_QUOTA_BACKEND_BYTES="4294967296"`, `ETCD_DATA_DIR="/var/lib/etcd/default"`,
		`ETCD_INITIAL_CLUSTER="` + initial + `,prod-4=http://10.10.10.13:2380"`,
	} {
		require.Contains(t, env, line+"\n")
	}
	require.NotContains(t, env, "CERT")
	require.Contains(t, string(at["/etc/profile.d/etcdctl.sh"].Content), `ETCDCTL_ENDPOINTS="http://10.10.10.10:2379,`)
	require.NotContains(t, string(at["/etc/profile.d/etcdctl.sh"].Content), "CACERT")
	// Of the others' files only the members and the state have changed.
	want := strings.Replace(environment("beta", h11, initial+",prod-4=http://10.10.10.13:2380"), `STATE="new"`, `STATE="existing"`, 1)
	require.Equal(t, want, string(files(h11, "/etc/default/etcd")["/etc/default/etcd"].Content))
	require.Empty(t, sop.ReportOf(look()).Findings[1:], "but for the even number of voters")

	// One that Debian's package set up, and the one that we did.
	for _, name := range []string{h10, h13} {
		res, err := run(t, rig, remove(name), plainly(rig))
		require.NoError(t, err)
		require.NotContains(t, voters(res.View), name)
		u := unitOf(t, rig, name)
		require.Equal(t, "masked", u.Load)
		require.False(t, u.Runs())
		require.True(t, files(name, "/etc/default/etcd")["/etc/default/etcd"].Exists)
		if name == h13 {
			require.Equal(t, debianUnit, string(files(name, "/etc/systemd/system/etcd.service.etcdrill-removed")["/etc/systemd/system/etcd.service.etcdrill-removed"].Content))
		}
		f, err := rig.Lab.Host(name).Look(t.Context(), host.Question{Dirs: []string{"/var/lib/etcd/default"}})
		require.NoError(t, err)
		require.Len(t, f.Dirs["/var/lib/etcd/default"].Aside, 1)
		if name == h10 {
			_, err = run(t, rig, sop.AddMember{Host: h10}, plainly(rig))
			require.NoError(t, err, "it comes back under the package's unit")
			require.Contains(t, unitOf(t, rig, h10).Path, "/lib/systemd/system/etcd.service")
		}
	}
	require.Equal(t, []string{h10, h11, h12}, voters(look()))
	for _, f := range sop.ReportOf(look()).Findings {
		require.Contains(t, f, "set aside on ")
	}
}

// What is one member's own in a unit cannot be given to another host.
func TestHandmadeUnitThatIsOneMembers(t *testing.T) {
	t.Parallel()
	rig := build(t, strings.NewReplacer("        10.10.10.11: { etcd_seq: 2 }\n", "", "        10.10.10.12: { etcd_seq: 3 }\n", "").Replace(handmade), h13)
	unit := strings.Replace(debianUnit, "$DAEMON_ARGS\n", "--name alpha --initial-cluster alpha=http://10.10.10.10:2380\n", 1)
	act(t, rig, h10, host.WriteFile{Path: "/etc/systemd/system/etcd.service", Content: []byte(unit), Owner: "root", Group: "root", Mode: 0o644},
		host.WriteFile{Path: "/etc/default/etcd", Content: []byte(environment("alpha", h10, "alpha=http://10.10.10.10:2380")), Owner: "root", Group: "root", Mode: 0o644},
		host.MakeDir{Path: "/var/lib/etcd/default", Owner: "etcd", Group: "etcd", Mode: 0o700},
		host.Systemctl{Verb: host.Start, Unit: "etcd.service"})
	_, err := run(t, rig, sop.AddMember{Host: h13}, plainly(rig))
	var r *sop.Refusal
	require.ErrorAs(t, err, &r)
	require.Equal(t, "plain-unit", r.Safeguard)
	require.Contains(t, r.Found, "its command line has --name")
	require.False(t, r.Changed)
}

// handmadeYAML is what an inventory says of a cluster with a unit, a file and
// places that are nobody's but its administrator's, and with TLS.
const handmadeYAML = `all:
  children:
    etcd:
      hosts:
        10.10.10.10: { etcd_seq: 1 }
        10.10.10.11: { etcd_seq: 2 }
        10.10.10.12: { etcd_seq: 3 }
      vars:
        etcd_cluster: prod
        etcd_systemd_unit: etcd-prod.service
        etcd_conf: /etc/etcd-prod.yml
        etcd_data: /srv/etcd
        etcd_ca_file: /etc/ssl/etcd/ca.crt
        etcd_cert_file: /etc/ssl/etcd/server.crt
        etcd_key_file: /etc/ssl/etcd/server.key
`

const handmadeUnit = `[Service]
Type=notify
User=etcd
ExecStart=/usr/bin/etcd --config-file /etc/etcd-prod.yml
Restart=on-failure

[Install]
WantedBy=multi-user.target
`

func handmadeConf(name, address, initial string) string {
	return fmt.Sprintf(`# of %[1]s, by hand
name: %[1]s
data-dir: /srv/etcd
quota-backend-bytes: 4294967296
listen-peer-urls: https://%[2]s:2380
listen-client-urls: https://%[2]s:2379,https://127.0.0.1:2379
initial-advertise-peer-urls: https://%[2]s:2380
advertise-client-urls: https://%[2]s:2379
initial-cluster: %[3]s
initial-cluster-state: new
client-transport-security:
  client-cert-auth: true
  trusted-ca-file: /etc/ssl/etcd/ca.crt
  cert-file: /etc/ssl/etcd/server.crt
  key-file: /etc/ssl/etcd/server.key
peer-transport-security:
  client-cert-auth: true
  trusted-ca-file: /etc/ssl/etcd/ca.crt
  cert-file: /etc/ssl/etcd/server.crt
  key-file: /etc/ssl/etcd/server.key
`, name, address, initial)
}

// The same with a file in YAML and TLS.
func TestHandmadeYAMLWithTLS(t *testing.T) {
	t.Parallel()
	rig := build(t, handmadeYAML, h13)
	keys := rig.Operator("keys").Site.PKI
	ca, err := pki.NewCA(rand.Reader, time.Now())
	require.NoError(t, err)
	require.NoError(t, keys.Save(ca))
	names := map[string]string{h10: "alpha", h11: "beta", h12: "gamma"}
	initial := "alpha=https://10.10.10.10:2380,beta=https://10.10.10.11:2380,gamma=https://10.10.10.12:2380"
	for h, name := range names {
		p, err := ca.Issue(rand.Reader, time.Now(), pki.Leaf{Name: name, Host: h, Validity: 365 * 24 * time.Hour})
		require.NoError(t, err)
		put := func(path string, content []byte, mode fs.FileMode) host.Act {
			return host.WriteFile{Path: path, Content: content, Owner: "etcd", Group: "etcd", Mode: mode}
		}
		act(t, rig, h, host.MakeDir{Path: "/etc/ssl/etcd", Owner: "root", Group: "root", Mode: 0o755}, host.MakeDir{Path: "/srv/etcd", Owner: "etcd", Group: "etcd", Mode: 0o700},
			put("/etc/ssl/etcd/ca.crt", ca.CertPEM, 0o644), put("/etc/ssl/etcd/server.crt", p.CertPEM, 0o644), put("/etc/ssl/etcd/server.key", p.KeyPEM, 0o600),
			put("/etc/etcd-prod.yml", []byte(handmadeConf(name, h, initial)), 0o640), put("/etc/systemd/system/etcd-prod.service", []byte(handmadeUnit), 0o644),
			host.Systemctl{Verb: host.DaemonReload}, host.Systemctl{Verb: host.Enable, Unit: "etcd-prod.service"}, host.Systemctl{Verb: host.Start, Unit: "etcd-prod.service", NoBlock: true})
	}
	look := func() sop.View {
		t.Helper()
		o := rig.Operator("look")
		defer o.Site.Close()
		v, err := o.Site.Observe(t.Context(), sop.Scope{AllHosts: true})
		require.NoError(t, err)
		return v
	}
	awaitThree(t, look)
	for _, m := range sop.ReportOf(look()).Members {
		require.Equal(t, names[m.Host], m.Name)
		require.Equal(t, "active, enabled", m.Unit)
	}

	_, err = run(t, rig, sop.AddMember{Host: h13})
	require.NoError(t, err)
	files := func(h string, paths ...string) map[string]host.File {
		t.Helper()
		f, err := rig.Lab.Host(h).Look(t.Context(), host.Question{Files: paths})
		require.NoError(t, err)
		return f.Files
	}
	at := files(h13, "/etc/etcd-prod.yml", "/etc/systemd/system/etcd-prod.service", "/etc/ssl/etcd/ca.crt", "/etc/etcd/etcd.conf", "/etc/etcd/ca.crt")
	conf, err := config.ParseConf(config.YAML, at["/etc/etcd-prod.yml"].Content)
	require.NoError(t, err)
	require.Equal(t, "prod-4", conf.Name)
	require.Equal(t, "existing", conf.State)
	require.EqualValues(t, 4<<30, conf.QuotaBytes)
	require.Equal(t, "/srv/etcd", conf.DataDir)
	require.Equal(t, []string{"/etc/ssl/etcd/ca.crt", "/etc/ssl/etcd/server.crt", "/etc/ssl/etcd/server.key"}, []string{conf.CAFile, conf.CertFile, conf.KeyFile})
	require.Contains(t, string(at["/etc/systemd/system/etcd-prod.service"].Content), "--config-file /etc/etcd-prod.yml")
	require.Equal(t, ca.CertPEM, at["/etc/ssl/etcd/ca.crt"].Content)
	require.False(t, at["/etc/etcd/etcd.conf"].Exists)
	require.False(t, at["/etc/etcd/ca.crt"].Exists)
	now := string(files(h11, "/etc/etcd-prod.yml")["/etc/etcd-prod.yml"].Content)
	was, err := config.ParseConf(config.YAML, []byte(now))
	require.NoError(t, err)
	require.Len(t, was.Initial, 4)
	for line := range strings.Lines(handmadeConf("beta", h11, initial)) {
		if !strings.HasPrefix(line, "initial-cluster") {
			require.Contains(t, now, line, "only the members and the state are edited")
		}
	}

	_, err = run(t, rig, remove(h10))
	require.NoError(t, err)
	require.Equal(t, []string{h11, h12, h13}, voters(look()))
	f, err := rig.Lab.Host(h10).Look(t.Context(), host.Question{Units: []string{"etcd-prod.service"}, Dirs: []string{"/srv/etcd"}})
	require.NoError(t, err)
	require.Equal(t, "masked", f.Units["etcd-prod.service"].Load)
	require.Len(t, f.Dirs["/srv/etcd"].Aside, 1)
}

// awaitThree waits until three voters live and one of them leads.
func awaitThree(t *testing.T, look func() sop.View) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		v := look()
		assert.Len(c, v.LivingVoters(), 3)
		_, led := v.Leader()
		assert.True(c, led)
	}, 2*time.Minute, 200*time.Millisecond)
}
