package sop

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/inventory"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// An elsewhere is a CA whose key is not on the admin host.
type elsewhere struct {
	g    *ground
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// takeKey takes the key of the CA away from the admin host.
func (g *ground) takeKey() elsewhere {
	g.t.Helper()
	dir := pki.Dir(g.dir + "/files/pki")
	if _, err := dir.Load(); err != nil {
		ca, err := pki.NewCA(rand.Reader, time.Now())
		require.NoError(g.t, err)
		require.NoError(g.t, dir.Save(ca))
	}
	e := elsewhere{g: g}
	certPEM, err := os.ReadFile(dir.CACertPath())
	require.NoError(g.t, err)
	block, _ := pem.Decode(certPEM)
	e.cert, err = x509.ParseCertificate(block.Bytes)
	require.NoError(g.t, err)
	keyPEM, err := os.ReadFile(dir.CAKeyPath())
	require.NoError(g.t, err)
	block, _ = pem.Decode(keyPEM)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(g.t, err)
	e.key = key.(*ecdsa.PrivateKey)
	require.NoError(g.t, os.Remove(dir.CAKeyPath()))
	return e
}

// sign does what somebody else does with a request.
func (e elsewhere) sign(name string, validity time.Duration, usages ...x509.ExtKeyUsage) {
	e.g.t.Helper()
	dir := pki.Dir(e.g.dir + "/files/pki")
	text, err := os.ReadFile(dir.CSRPath(name))
	require.NoError(e.g.t, err)
	block, _ := pem.Decode(text)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	require.NoError(e.g.t, err)
	require.NoError(e.g.t, csr.CheckSignature())
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: csr.Subject, IPAddresses: csr.IPAddresses, DNSNames: csr.DNSNames,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(validity), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usages,
	}, e.cert, csr.PublicKey, e.key)
	require.NoError(e.g.t, err)
	require.NoError(e.g.t, os.WriteFile(dir.CertPath(name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
}

const year = 365 * 24 * time.Hour

func both() []x509.ExtKeyUsage {
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
}

// Where the key of the CA is not on the admin host, somebody else signs: a
// missing certificate is asked for before anything is changed, and one that was
// given is used.
func TestCertificatesFromElsewhere(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		e := g.takeKey()
		dir := pki.Dir(g.dir + "/files/pki")

		plan, v, err := g.operator().Runner.Explain(context.Background(), AddMember{Host: hosts[3]})
		require.NoError(g.t, err)
		require.Len(g.t, plan.Objections(v), 1)
		require.NotContains(g.t, plan.Text(v), "issue the certificate")
		require.NoFileExists(g.t, dir.KeyPath("etcd-4"), "a plan writes nothing")

		refused := func(found string) *Refusal {
			g.t.Helper()
			op := g.operator()
			sent := len(g.w.sent)
			_, err := op.do(AddMember{Host: hosts[3]})
			var r *Refusal
			require.ErrorAs(g.t, err, &r, op.story())
			require.Equal(g.t, "certificate-given", r.Safeguard)
			require.Equal(g.t, hosts[3], r.Host)
			require.Contains(g.t, r.Found, found)
			require.False(g.t, r.Changed)
			require.Len(g.t, g.w.sent, sent, "no host was touched")
			require.Equal(g.t, votersText(1, 2, 3), g.roles())
			return r
		}
		r := refused("no certificate was issued for etcd-4")
		require.Contains(g.t, r.Hint, dir.CSRPath("etcd-4"))
		require.Contains(g.t, r.Hint, dir.CertPath("NAME"))
		info, err := os.Stat(dir.KeyPath("etcd-4"))
		require.NoError(g.t, err)
		require.Equal(g.t, "-rw-------", info.Mode().String())
		key, err := os.ReadFile(dir.KeyPath("etcd-4"))
		require.NoError(g.t, err)

		refused("no certificate")
		again, err := os.ReadFile(dir.KeyPath("etcd-4"))
		require.NoError(g.t, err)
		require.Equal(g.t, key, again, "the request that is on its way stays good")

		// What is given has to do.
		e.sign("etcd-4", 24*time.Hour, both()...)
		refused("at least 30 are needed")
		e.sign("etcd-4", year, x509.ExtKeyUsageServerAuth)
		refused("may not be used as client")
		e.sign("etcd-4", year, both()...)
		other, err := pki.NewCA(rand.Reader, time.Now())
		require.NoError(g.t, err)
		stray, err := other.Issue(rand.Reader, time.Now(), pki.Leaf{Name: "etcd-4", Host: hosts[3]})
		require.NoError(g.t, err)
		require.NoError(g.t, os.WriteFile(dir.KeyPath("etcd-4"), stray.KeyPEM, 0o600))
		refused("private key does not match public key")
		require.NoError(g.t, os.WriteFile(dir.KeyPath("etcd-4"), key, 0o600))

		g.must(AddMember{Host: hosts[3]})
		require.Equal(g.t, votersText(1, 2, 3, 4), g.roles())
		given, err := os.ReadFile(dir.CertPath("etcd-4"))
		require.NoError(g.t, err)
		require.Equal(g.t, string(given), string(g.w.machines[hosts[3]].file(config.ServerCertPath).Content))
		require.Equal(g.t, string(key), string(g.w.machines[hosts[3]].file(config.ServerKeyPath).Content))
	})
}

func TestCreateWithCertificatesFromElsewhere(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		e := g.takeKey()
		_, err := g.operator().do(g.create())
		var r *Refusal
		require.ErrorAs(g.t, err, &r)
		require.Equal(g.t, "certificate-given", r.Safeguard)
		require.Empty(g.t, g.w.sent)
		for _, name := range []string{"etcd-1", "etcd-2", "etcd-3"} {
			require.Contains(g.t, r.Found, name)
			require.Contains(g.t, r.Hint, name+".csr")
			e.sign(name, year, both()...)
		}
		g.must(g.create())
		require.Equal(g.t, votersText(1, 2, 3), g.roles())
		require.NoFileExists(g.t, g.dir+"/files/pki/ca/ca.key")
	})
}

// A certificate without its key, as a run leaves that was cut off between the
// two, is issued anew.
func TestKeyOfAnotherCertificate(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		dir := pki.Dir(g.dir + "/files/pki")
		ca, err := dir.Load()
		require.NoError(g.t, err)
		for range 2 {
			p, err := ca.Issue(rand.Reader, time.Now(), pki.Leaf{Name: "etcd-4", Host: hosts[3]})
			require.NoError(g.t, err)
			if _, err := os.Stat(dir.CertPath("etcd-4")); err != nil {
				require.NoError(g.t, dir.SavePair("etcd-4", p))
			} else {
				require.NoError(g.t, os.WriteFile(dir.KeyPath("etcd-4"), p.KeyPEM, 0o600))
			}
		}
		g.write(inventoryText(4, "", ""))
		g.must(AddMember{Host: hosts[3]})
		p, err := dir.LoadPair("etcd-4")
		require.NoError(g.t, err)
		require.NoError(g.t, p.Matches())
	})
}

func TestClientCertificateOrder(t *testing.T) {
	dir := t.TempDir()
	s := &Site{Inventory: filepath.Join(dir, "pigsty.yml"), PKI: pki.Dir(filepath.Join(dir, "files/pki")), Now: time.Now, Random: rand.Reader}
	group := &inventory.Group{}
	_, _, err := s.ClientTLS(group, ClientFiles{}, false)
	require.ErrorContains(t, err, "no client certificate was found")
	require.ErrorContains(t, err, "etcd_client_cert")

	ca, err := pki.NewCA(rand.Reader, time.Now())
	require.NoError(t, err)
	require.NoError(t, s.PKI.Save(ca))
	subject := func(named ClientFiles) (string, string) {
		t.Helper()
		c, from, err := s.ClientTLS(group, named, false)
		require.NoError(t, err)
		return c.Certificates[0].Leaf.Subject.CommonName, from
	}
	name, from := subject(ClientFiles{})
	require.Equal(t, "etcdrill", name)
	require.Contains(t, from, "issued for a day")
	entries, err := os.ReadDir(filepath.Join(dir, "files/pki"))
	require.NoError(t, err)
	require.Len(t, entries, 1, "it is kept nowhere")

	for _, n := range []string{"etcd-1", "ops", "env"} {
		p, err := ca.Issue(rand.Reader, time.Now(), pki.Leaf{Name: n, Host: "10.10.10.11"})
		require.NoError(t, err)
		require.NoError(t, s.PKI.SavePair(n, p))
	}
	// A CA kept elsewhere: a member's own certificate does.
	keep, err := os.ReadFile(s.PKI.CAKeyPath())
	require.NoError(t, err)
	require.NoError(t, os.Remove(s.PKI.CAKeyPath()))
	require.NoError(t, os.WriteFile(s.PKI.KeyPath("env"), []byte("damaged"), 0o600))
	require.NoError(t, os.Rename(s.PKI.CertPath("ops"), filepath.Join(dir, "ops.crt")))
	name, from = subject(ClientFiles{})
	require.Equal(t, "etcd-1", name)
	require.Equal(t, s.PKI.CertPath("etcd-1"), from)
	require.NoError(t, os.WriteFile(s.PKI.CAKeyPath(), keep, 0o600))

	// Whoever names one means it.
	group.ClientCert, group.ClientKey = "ops.crt", "files/pki/etcd/ops.key"
	name, from = subject(ClientFiles{})
	require.Equal(t, "ops", name)
	require.Equal(t, "etcd_client_cert and etcd_client_key", from)
	name, _ = subject(ClientFiles{Cert: s.PKI.CertPath("etcd-1"), Key: s.PKI.KeyPath("etcd-1")})
	require.Equal(t, "etcd-1", name)
	_, _, err = s.ClientTLS(group, ClientFiles{Cert: s.PKI.CertPath("env"), Key: s.PKI.KeyPath("env")}, true)
	require.ErrorContains(t, err, "client certificate named by ETCDCTL_CERT and ETCDCTL_KEY")
	require.False(t, strings.Contains(err.Error(), "damaged"), "nothing of a key is told")
	group.ClientKey = "none.key"
	_, _, err = s.ClientTLS(group, ClientFiles{}, true)
	require.ErrorContains(t, err, "none.key")
}
