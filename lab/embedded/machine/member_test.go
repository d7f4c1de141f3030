package machine_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/sop/host"
)

const pigstyUnit = `[Unit]
Description=Etcd Service
After=network.target

[Service]
Type=notify
User=etcd
WorkingDirectory=/data/etcd
ExecStart=/usr/bin/etcd --config-file /etc/etcd/etcd.conf
Restart=on-failure
RestartSec=%s
LimitNOFILE=65536
OOMScoreAdjust=-1000
TimeoutStartSec=%s
TimeoutStopSec=60

[Install]
WantedBy=multi-user.target
`

// A place is where a machine's member listens.
type place struct {
	*machine.Machine
	name, ip     string
	client, peer int
	scheme       string
}

func (p place) clientURL() string { return fmt.Sprintf("%s://%s:%d", p.scheme, p.ip, p.client) }
func (p place) peerURL() string   { return fmt.Sprintf("%s://%s:%d", p.scheme, p.ip, p.peer) }

// places makes n machines on addresses of the loopback network.
func places(t *testing.T, n int, scheme string) []place {
	t.Helper()
	var all []place
	for i := range n {
		p := place{name: fmt.Sprintf("etcd-%d", i+1), ip: fmt.Sprintf("127.0.0.%d", 11+i), scheme: scheme}
		p.client, p.peer = freePort(t), freePort(t)
		p.Machine = newMachine(t, func(c *machine.Config) { c.Name = p.ip })
		all = append(all, p)
	}
	return all
}

// install renders what a playbook would put on the host of a member.
func (p place) install(t *testing.T, members []place, state, startTimeout string) {
	t.Helper()
	var initial []string
	for _, q := range members {
		initial = append(initial, q.name+"="+q.peerURL())
	}
	conf := fmt.Sprintf(`name: %s
data-dir: /data/etcd
initial-cluster-token: "etcd"
initial-cluster-state: "%s"
initial-cluster: "%s"
initial-advertise-peer-urls: "%s"
listen-peer-urls: "%s"
listen-client-urls: "%s,%s://127.0.0.1:%d"
advertise-client-urls: "%s"
election-timeout: 1000
heartbeat-interval: 100
quota-backend-bytes: 8589934592
auto-compaction-mode: periodic
auto-compaction-retention: "24h"
`, p.name, state, strings.Join(initial, ","), p.peerURL(), p.peerURL(), p.clientURL(), p.scheme, p.client, p.clientURL())
	if p.scheme == "https" {
		for _, side := range []string{"client", "peer"} {
			conf += side + "-transport-security:\n  cert-file: /etc/etcd/server.crt\n  key-file: /etc/etcd/server.key\n  trusted-ca-file: /etc/etcd/ca.crt\n"
		}
	}
	do(t, p.Machine,
		host.MakeDir{Path: "/etc/etcd", Owner: "etcd", Group: "etcd", Mode: 0o750},
		host.MakeDir{Path: "/data/etcd", Owner: "etcd", Group: "etcd", Mode: 0o700},
		host.WriteFile{Path: "/etc/etcd/etcd.conf", Content: []byte(conf), Owner: "etcd", Group: "etcd", Mode: 0o644},
		write("/etc/systemd/system/"+etcdUnit, fmt.Sprintf(pigstyUnit, "100ms", startTimeout)),
		systemctl(host.DaemonReload, ""))
}

func startAll(t *testing.T, all []place) {
	t.Helper()
	errs := make(chan error)
	for _, p := range all {
		go func() { errs <- p.Do(t.Context(), systemctl(host.Start, etcdUnit)) }()
	}
	var err error
	for range all {
		err = errors.Join(err, <-errs)
	}
	require.NoError(t, err)
}

func connect(t *testing.T, with *tls.Config, all ...place) *clientv3.Client {
	t.Helper()
	var urls []string
	for _, p := range all {
		urls = append(urls, p.clientURL())
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: urls, TLS: with, DialTimeout: patience, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func put(t *testing.T, c *clientv3.Client, key, value string) {
	t.Helper()
	require.EventuallyWithT(t, func(ct *assertT) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := c.Put(ctx, key, value)
		require.NoError(ct, err)
	}, patience, 10*time.Millisecond)
}

func TestCluster(t *testing.T) {
	all := places(t, 3, "http")
	for _, p := range all {
		p.install(t, all, "new", "60")
	}

	// One alone has no quorum, so its start blocks: states as of systemd.
	require.NoError(t, all[0].Do(t.Context(), host.Systemctl{Verb: host.Start, Unit: etcdUnit, NoBlock: true}))
	require.Equal(t, "activating/start", state(t, all[0].Machine, etcdUnit))
	startAll(t, all)
	c := connect(t, nil, all...)
	put(t, c, "k", "v")
	for _, p := range all {
		facts := look(t, p.Machine, host.Question{Units: []string{etcdUnit}, Dirs: []string{"/data/etcd"}, Ports: []int{p.client, p.peer},
			Dial: []string{fmt.Sprintf("%s:%d", p.ip, p.peer)}})
		require.Equal(t, "active", facts.Units[etcdUnit].Active)
		require.Equal(t, map[int]string{p.client: "etcd", p.peer: "etcd"}, facts.Ports)
		require.Equal(t, map[string]string{fmt.Sprintf("%s:%d", p.ip, p.peer): ""}, facts.Dials)
		require.True(t, facts.Dirs["/data/etcd"].WAL)
		require.Len(t, facts.Dirs["/data/etcd"].WALHead, 512)
		require.Equal(t, "etcd", dir(t, p.Machine, "/data/etcd/member").Owner, "what the member makes is its user's")
	}
	members, err := c.MemberList(t.Context())
	require.NoError(t, err)
	require.Len(t, members.Members, 3)

	t.Run("idle members write nothing", func(t *testing.T) {
		for _, p := range all {
			print := func() map[string]string {
				prints, err := machine.Fingerprint(p.Root())
				require.NoError(t, err)
				return prints
			}
			// The last writes are committed a moment later, and a new cluster
			// agrees on its version.
			before := print()
			require.EventuallyWithT(t, func(ct *assertT) {
				now := print()
				diff := machine.DiffFingerprints(before, now)
				before = now
				require.Empty(ct, diff)
			}, patience, time.Second)
			require.Empty(t, machine.DiffFingerprints(before, print()))
			require.Contains(t, before, "/data/etcd/member/snap/db")
		}
	})
	t.Run("kill -9 is mended by Restart=on-failure", func(t *testing.T) {
		p := all[1]
		pid := p.PID(etcdUnit)
		require.NoError(t, p.Signal(etcdUnit, syscall.SIGKILL))
		require.EventuallyWithT(t, func(ct *assertT) {
			u := look(t, p.Machine, host.Question{Units: []string{etcdUnit}}).Units[etcdUnit]
			require.Equal(ct, "active", u.Active)
			require.NotEqual(ct, pid, u.PID)
		}, patience, 10*time.Millisecond)
	})
	t.Run("stop is clean and start joins again", func(t *testing.T) {
		p := all[2]
		do(t, p.Machine, systemctl(host.Stop, etcdUnit))
		u := look(t, p.Machine, host.Question{Units: []string{etcdUnit}, Ports: []int{p.client}})
		require.Equal(t, "inactive/dead", u.Units[etcdUnit].Active+"/"+u.Units[etcdUnit].Sub)
		require.Equal(t, int(syscall.SIGTERM), u.Units[etcdUnit].Exit, "as of a real etcd")
		require.Empty(t, u.Ports)
		do(t, p.Machine, systemctl(host.Start, etcdUnit))
	})
	t.Run("power", func(t *testing.T) {
		p := all[0]
		do(t, p.Machine, systemctl(host.Enable, etcdUnit))
		p.PowerOff()
		put(t, connect(t, nil, all[1], all[2]), "k", "without")
		require.NoError(t, p.PowerOn(t.Context()))
		await(t, p.Machine, etcdUnit, "active/running")
	})
	t.Run("a removed member ends with 0 and stays down", func(t *testing.T) {
		p := all[2]
		for _, m := range members.Members {
			if m.Name != p.name {
				continue
			}
			require.EventuallyWithT(t, func(ct *assertT) { // refused while a member is fresh
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				_, err := connectOnce(ctx, all[1], m.ID)
				require.NoError(ct, err)
			}, patience, 200*time.Millisecond)
		}
		await(t, p.Machine, etcdUnit, "inactive/dead")
		u := look(t, p.Machine, host.Question{Units: []string{etcdUnit}}).Units[etcdUnit]
		require.Zero(t, u.Exit)
		require.Zero(t, u.PID)
	})
}

func connectOnce(ctx context.Context, p place, id uint64) (*clientv3.MemberRemoveResponse, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{p.clientURL()}, Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	return c.MemberRemove(ctx, id)
}

func TestStartWithoutQuorumTimesOut(t *testing.T) {
	all := places(t, 3, "http")
	all[0].install(t, all, "new", "1")
	require.ErrorContains(t, all[0].Do(t.Context(), systemctl(host.Start, etcdUnit)), "a timeout was exceeded")
	u := look(t, all[0].Machine, host.Question{Units: []string{etcdUnit}}).Units[etcdUnit]
	require.True(t, u.Runs(), "and is tried again")
	do(t, all[0].Machine, systemctl(host.Stop, etcdUnit))
}

func TestStartThatEtcdRefuses(t *testing.T) {
	all := places(t, 1, "http")
	p := all[0]
	p.install(t, nil, "new", "60") // itself is not in its initial cluster
	require.ErrorContains(t, p.Do(t.Context(), systemctl(host.Start, etcdUnit)), "exited with error code")
	require.Equal(t, 1, look(t, p.Machine, host.Question{Units: []string{etcdUnit}}).Units[etcdUnit].Exit)
	do(t, p.Machine, systemctl(host.Stop, etcdUnit))
	require.Contains(t, journal(t, p.Machine, etcdUnit), "couldn't find local name")

	do(t, p.Machine, host.RemoveFile{Path: "/etc/etcd/etcd.conf"})
	require.Error(t, p.Do(t.Context(), systemctl(host.Restart, etcdUnit)))
	do(t, p.Machine, systemctl(host.Stop, etcdUnit))
	require.Contains(t, journal(t, p.Machine, etcdUnit), "open /etc/etcd/etcd.conf: no such file or directory")

	release, err := p.Occupy(p.client, "nginx")
	require.NoError(t, err)
	defer release()
	p.install(t, all, "new", "60")
	require.Error(t, p.Do(t.Context(), systemctl(host.Restart, etcdUnit)))
	do(t, p.Machine, systemctl(host.Stop, etcdUnit))
	require.Contains(t, journal(t, p.Machine, etcdUnit), "address already in use")
}

func TestClusterWithCertificates(t *testing.T) {
	all := places(t, 3, "https")
	ca := newAuthority(t)
	for i, p := range all {
		p.install(t, all, "new", "60")
		cert, key := ca.issue(t, int64(i+2), p.name, p.ip)
		do(t, p.Machine,
			host.WriteFile{Path: "/etc/etcd/ca.crt", Content: ca.pem, Owner: "etcd", Group: "etcd", Mode: 0o644},
			host.WriteFile{Path: "/etc/etcd/server.crt", Content: cert, Owner: "etcd", Group: "etcd", Mode: 0o644},
			host.WriteFile{Path: "/etc/etcd/server.key", Content: key, Owner: "etcd", Group: "etcd", Mode: 0o600, Secret: true})
	}
	startAll(t, all)
	cert, key := ca.issue(t, 9, "operator", "127.0.0.1")
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(ca.pem))
	put(t, connect(t, &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}, all...), "k", "v")

	conn, err := tls.Dial("tcp", fmt.Sprintf("%s:%d", all[0].ip, all[0].client), &tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS12})
	if err == nil {
		_ = conn.Close()
	}
	require.Error(t, err, "a client without a certificate is sent away")
}

// A real etcd is no part of the sources: go test ./lab/embedded/machine -args -etcd=FILE
var realEtcd = flag.String("etcd", "", "statically linked etcd to test with, absolute path")

func TestRealBinary(t *testing.T) {
	if *realEtcd == "" {
		t.Skip("no -etcd given")
	}
	all := places(t, 1, "http")
	p := all[0]
	real := newMachine(t, func(c *machine.Config) {
		c.Name, c.Version, c.Versions = p.ip, "other", map[string]string{"other": *realEtcd}
	})
	p.Machine = real
	p.install(t, []place{p}, "new", "60")
	b := look(t, real, host.Question{Etcd: "/usr/bin/etcd"}).Etcd
	require.NotEmpty(t, b.Version, b.Problem)
	startAll(t, []place{p})
	put(t, connect(t, nil, p), "k", "v")
	require.Equal(t, map[int]string{p.client: "etcd"}, look(t, real, host.Question{Ports: []int{p.client}}).Ports)
	do(t, real, systemctl(host.Stop, etcdUnit))
	require.Equal(t, "inactive/dead", state(t, real, etcdUnit))
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test-ca"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a authority) issue(t *testing.T, serial int64, name, ip string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost", name}, IPAddresses: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(ip)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	require.NoError(t, err)
	raw, err := x509.MarshalECPrivateKey(private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
}

// replaceListen makes a configuration listen on 127.0.0.1 once only.
func replaceListen(conf string) string {
	return strings.Replace(conf, "http://127.0.0.1:2379,http://127.0.0.1:2379", "http://127.0.0.1:2379", 1)
}
