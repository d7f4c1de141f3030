package scenarios_test

import (
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/container"
	"github.com/etcdrill/etcdrill/lab/container/image"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// packaged is what the inventory has to say of a cluster from Debian's package,
// with TLS and places of its own.
const packaged = `all:
  children:
    etcd:
      hosts:
        10.10.10.10: { etcd_seq: 1 }
        10.10.10.11: { etcd_seq: 2 }
        10.10.10.12: { etcd_seq: 3 }
      vars:
        etcd_cluster: prod
        etcd_package: etcd-server
        etcd_version: 3.5.16
        etcd_conf: /etc/default/etcd
        etcd_data: /var/lib/etcd/default
        etcd_ca_file: /etc/ssl/etcd/ca.crt
        etcd_cert_file: /etc/ssl/etcd/server.crt
        etcd_key_file: /etc/ssl/etcd/server.key
`

// A cluster that was made by hand from Debian's own package, with its unit, its
// variables, places and names of its own, on real machines: it is looked at, it
// grows by a machine that gets etcd by apt and by one that gets it by dnf, and it
// shrinks again.
func TestPackaged(t *testing.T) {
	var machines []container.MachineSpec
	for _, h := range []string{h10, h11, h12, h13, h14} {
		machines = append(machines, container.MachineSpec{Host: h, Role: image.Packaged})
	}
	upSite(t, packaged, machines...).play(t, []part{
		{"made by hand", madeByHand},
		{"looked at", lookedAt},
		{"grown by apt", grownByApt},
		{"grown by dnf", grownByDnf},
		{"shrunk", shrunk},
	})
}

// variables is what an administrator writes into /etc/default/etcd.
func variables(name, address, initial string) string {
	return fmt.Sprintf(`## etcd(1) daemon options
ETCD_NAME="%[1]s"
ETCD_LISTEN_PEER_URLS="https://%[2]s:2380"
ETCD_LISTEN_CLIENT_URLS="https://%[2]s:2379,https://127.0.0.1:2379"
ETCD_INITIAL_ADVERTISE_PEER_URLS="https://%[2]s:2380"
ETCD_ADVERTISE_CLIENT_URLS="https://%[2]s:2379"
ETCD_INITIAL_CLUSTER="%[3]s"
ETCD_INITIAL_CLUSTER_STATE="new"
ETCD_QUOTA_BACKEND_BYTES="4294967296"

ETCD_CLIENT_CERT_AUTH="true"
ETCD_TRUSTED_CA_FILE="/etc/ssl/etcd/ca.crt"
ETCD_CERT_FILE="/etc/ssl/etcd/server.crt"
ETCD_KEY_FILE="/etc/ssl/etcd/server.key"
ETCD_PEER_CLIENT_CERT_AUTH="true"
ETCD_PEER_TRUSTED_CA_FILE="/etc/ssl/etcd/ca.crt"
ETCD_PEER_CERT_FILE="/etc/ssl/etcd/server.crt"
ETCD_PEER_KEY_FILE="/etc/ssl/etcd/server.key"
`, name, address, initial)
}

func (s *site) put(t *testing.T, was, path, owner, mode, content string) {
	t.Helper()
	s.sh(t, was, fmt.Sprintf("cat >%[1]s <<'END'\n%[4]sEND\nchown %[2]s %[1]s && chmod %[3]s %[1]s", path, owner, mode, content))
}

// handctl is etcdctl as somebody has to call it who has no environment for it.
func (s *site) handctl(t *testing.T, was, args string) string {
	t.Helper()
	const tls = "ETCDCTL_CACERT=/etc/ssl/etcd/ca.crt ETCDCTL_CERT=/etc/ssl/etcd/server.crt ETCDCTL_KEY=/etc/ssl/etcd/server.key"
	return s.sh(t, was, "env ETCDCTL_ENDPOINTS=https://"+s.host(was)+":2379 "+tls+" etcdctl "+args)
}

var handNames = map[string]string{h10: "alpha", h11: "beta", h12: "gamma"}

func (s *site) handInitial() string {
	return fmt.Sprintf("alpha=https://%s:2380,beta=https://%s:2380,gamma=https://%s:2380", s.host(h10), s.host(h11), s.host(h12))
}

func madeByHand(t *testing.T, s *site) {
	ca, err := pki.NewCA(rand.Reader, time.Now())
	require.NoError(t, err)
	require.NoError(t, pki.Dir(filepath.Join(filepath.Dir(s.lab.Info().Inventory), "files", "pki")).Save(ca))
	for h, name := range handNames {
		require.NotContains(t, s.sh(t, h, "command -v etcd || echo none"), "/", "these machines come without etcd")
		s.sh(t, h, "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install etcd-server etcd-client >/dev/null && systemctl stop etcd && rm -rf /var/lib/etcd/default && install -d -m 0755 /etc/ssl/etcd")
		p, err := ca.Issue(rand.Reader, time.Now(), pki.Leaf{Name: name, Host: s.host(h), Validity: 365 * 24 * time.Hour})
		require.NoError(t, err)
		s.put(t, h, "/etc/ssl/etcd/ca.crt", "root:root", "0644", string(ca.CertPEM))
		s.put(t, h, "/etc/ssl/etcd/server.crt", "root:root", "0644", string(p.CertPEM))
		s.put(t, h, "/etc/ssl/etcd/server.key", "etcd:etcd", "0400", string(p.KeyPEM))
		s.put(t, h, "/etc/default/etcd", "root:root", "0644", variables(name, s.host(h), s.handInitial()))
		s.sh(t, h, "systemctl start --no-block etcd")
	}
	require.Eventually(t, func() bool {
		out, err := s.machine(t, h12).Run(s.ctx, "systemctl", "is-active", "etcd")
		return err == nil && strings.TrimSpace(out) == "active"
	}, 2*time.Minute, 200*time.Millisecond)
	require.Equal(t, "OK", s.handctl(t, h10, "put /kept/0 0"))
}

func lookedAt(t *testing.T, s *site) {
	status, said := s.begin(t, "status").end(t)
	require.Zero(t, status)
	for h, name := range handNames {
		require.Contains(t, said, name)
		require.Contains(t, said, s.host(h))
	}
	require.Contains(t, said, "etcd 3.5.16, 3 of 3 voters alive, 1 more may fail")
}

// grownByApt: the package starts nothing, its unit is used, and what the
// members' variables say of quota, places and TLS holds for the newcomer.
func grownByApt(t *testing.T, s *site) {
	s.succeeds(t, "addMember", s.host(h13))
	require.Equal(t, "ii  3.5.16", s.sh(t, h13, "dpkg-query -W -f '${db:Status-Abbrev} ${Version}' etcd-server | cut -c 1-10"))
	require.Equal(t, "/usr/lib/systemd/system/etcd.service", s.sh(t, h13, "systemctl show etcd -P FragmentPath"))
	require.Equal(t, "1", s.sh(t, h13, "journalctl -u etcd -o cat --no-pager | grep -c '^Starting '"), "the package did not start it")
	require.Equal(t, "gone", s.sh(t, h13, "test -e /usr/sbin/policy-rc.d || echo gone"))
	s.likeTheOthers(t, h13, "prod-4")
	require.Contains(t, s.handctl(t, h10, "member list"), "started, prod-4, https://"+s.host(h13)+":2380, https://"+s.host(h13)+":2379, false")
	require.Equal(t, strings.NewReplacer(`"new"`, `"existing"`, s.handInitial(), s.handInitial()+",prod-4=https://"+s.host(h13)+":2380").Replace(variables("beta", s.host(h11), s.handInitial())),
		s.sh(t, h11, "cat /etc/default/etcd")+"\n", "of the others' files only members and state have changed")
}

func (s *site) likeTheOthers(t *testing.T, was, name string) {
	t.Helper()
	conf := s.sh(t, was, "cat /etc/default/etcd")
	for _, line := range []string{`ETCD_NAME="` + name + `"`, `ETCD_QUOTA_BACKEND_BYTES="4294967296"`, `ETCD_DATA_DIR="/var/lib/etcd/default"`,
		`ETCD_TRUSTED_CA_FILE="/etc/ssl/etcd/ca.crt"`, `ETCD_PEER_KEY_FILE="/etc/ssl/etcd/server.key"`, `ETCD_INITIAL_CLUSTER_STATE="existing"`} {
		require.Contains(t, conf+"\n", line+"\n")
	}
}

// grownByDnf: a machine without apt-get. The rpm brings the program and no unit,
// so the newcomer gets the members'.
func grownByDnf(t *testing.T, s *site) {
	s.sh(t, h14, "mv /usr/bin/apt-get /usr/bin/apt-get.away")
	s.succeeds(t, "addMember", s.host(h14))
	require.Equal(t, "etcd-server-3.5.16-1", s.sh(t, h14, "rpm -q --qf '%{NAME}-%{VERSION}-%{RELEASE}' etcd-server"))
	require.Equal(t, s.sh(t, h10, "cat /usr/lib/systemd/system/etcd.service"), s.sh(t, h14, "cat /etc/systemd/system/etcd.service"))
	s.likeTheOthers(t, h14, "prod-5")
	require.Contains(t, s.handctl(t, h10, "member list"), "started, prod-5, ")
}

func shrunk(t *testing.T, s *site) {
	for _, h := range []string{h10, h14} { // of those that were there, and of ours
		s.succeeds(t, "removeMember", s.host(h))
	}
	list := s.handctl(t, h11, "member list")
	require.Len(t, strings.Split(list, "\n"), 3)
	for _, name := range []string{"beta", "gamma", "prod-4"} {
		require.Contains(t, list, "started, "+name+", ")
	}
	require.Equal(t, "0", s.handctl(t, h12, "get /kept/0 --print-value-only"))
	require.Equal(t, "masked", s.sh(t, h10, "systemctl is-enabled etcd || true"))
}
