package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const day = 24 * time.Hour

func TestCheckLeaf(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	good := issue(t, ca, Leaf{Name: "etcd-1", Host: "10.10.10.10", Validity: 100 * day})
	strange := issue(t, other, Leaf{Name: "etcd-1", Host: "10.10.10.10"})
	named := issue(t, ca, Leaf{Name: "etcd-1", Host: "db.example.org"})
	for _, c := range []struct {
		name string
		pair Pair
		host string
		now  time.Time
		left time.Duration
		kind error
		text string
	}{
		{name: "good", pair: good},
		{name: "read off a connection", pair: Pair{CertPEM: good.CertPEM}},
		{name: "by name", pair: named, host: "db.example.org"},
		{name: "just long enough", pair: good, left: 100 * day},
		{name: "another CA", pair: strange, kind: ErrUnknownAuthority, text: `certificate of "etcd-1": certificate signed by unknown authority: "pigsty-ca" signed it, the CA here is "pigsty-ca" `},
		{name: "another host", pair: good, host: "10.10.10.11", kind: ErrNotValidFor, text: "certificate is valid for 127.0.0.1, 10.10.10.10, not 10.10.10.11"},
		{name: "another name", pair: good, host: "db.example.org", kind: ErrNotValidFor, text: "certificate is valid for localhost, etcd-1, not db.example.org"},
		{name: "expired", pair: good, now: start().Add(101 * day), kind: ErrExpired, text: "certificate has expired at 2026-04-12T03:04:05Z"},
		{name: "soon", pair: good, now: start().Add(90 * day), left: 30 * day, kind: ErrExpired, text: "expires at 2026-04-12T03:04:05Z, in 10 days; at least 30 are needed"},
		{name: "too early", pair: good, now: start().Add(-2 * time.Hour), kind: ErrExpired, text: "not yet valid: it begins at 2026-01-02T02:04:05Z, now is 2026-01-02T01:04:05Z; look at the clocks"},
		{name: "another key", pair: Pair{CertPEM: good.CertPEM, KeyPEM: strange.KeyPEM}, kind: ErrKeyMismatch, text: "private key does not match public key"},
		{name: "no key", pair: Pair{CertPEM: good.CertPEM, KeyPEM: []byte("x")}, kind: ErrKeyMismatch, text: "there is no private key in it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.host == "" {
				c.host = "10.10.10.10"
			}
			if c.now.IsZero() {
				c.now = start()
			}
			err := CheckLeaf(c.pair, ca.CertPEM, c.host, c.now, c.left)
			if c.kind == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, c.kind)
			require.ErrorContains(t, err, c.text)
			for _, kind := range []error{ErrUnknownAuthority, ErrNotValidFor, ErrExpired, ErrKeyMismatch, ErrUsage} {
				if kind != c.kind {
					require.NotErrorIs(t, err, kind)
				}
			}
		})
	}
	all := CheckLeaf(Pair{CertPEM: strange.CertPEM, KeyPEM: good.KeyPEM}, ca.CertPEM, "10.10.10.11", start().Add(90*365*day), 0)
	for _, kind := range []error{ErrUnknownAuthority, ErrNotValidFor, ErrExpired, ErrKeyMismatch} {
		require.ErrorIs(t, all, kind, "all at once")
	}
	require.NotContains(t, all.Error(), "\n")
	require.ErrorContains(t, CheckLeaf(Pair{}, ca.CertPEM, "h", start(), 0), "there is no certificate in it")
	require.ErrorContains(t, CheckLeaf(good, nil, "h", start(), 0), "CA: there is no certificate in it")
}

// sign makes a certificate that Issue would not.
func sign(t *testing.T, ca *CA, template x509.Certificate) (Pair, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template.SerialNumber = big.NewInt(7)
	template.NotBefore, template.NotAfter = start(), start().Add(1000*day)
	template.Subject = pkix.Name{CommonName: "odd"}
	der, err := x509.CreateCertificate(rand.Reader, &template, ca.Cert, key.Public(), ca.key)
	require.NoError(t, err)
	keyPEM, err := encodeKey(key)
	require.NoError(t, err)
	return Pair{CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), KeyPEM: keyPEM}, key
}

func TestCheckLeafUsage(t *testing.T) {
	ca := newCA(t)
	hosts := x509.Certificate{IPAddresses: first(t, issue(t, ca, Leaf{Name: "m", Host: "10.0.0.1"}).CertPEM).IPAddresses}
	plain, _ := sign(t, ca, hosts)
	require.NoError(t, CheckLeaf(plain, ca.CertPEM, "10.0.0.1", start(), 0), "without any usage named all are allowed, as in Pigsty's own")

	for usage, text := range map[x509.ExtKeyUsage]string{x509.ExtKeyUsageServerAuth: "not be used as client", x509.ExtKeyUsageClientAuth: "not be used as server"} {
		hosts.ExtKeyUsage = []x509.ExtKeyUsage{usage}
		pair, _ := sign(t, ca, hosts)
		err := CheckLeaf(pair, ca.CertPEM, "10.0.0.1", start(), 0)
		require.ErrorIs(t, err, ErrUsage)
		require.ErrorContains(t, err, "certificate specifies an incompatible key usage: it may "+text)
	}

	none, _ := sign(t, ca, x509.Certificate{})
	err := CheckLeaf(none, ca.CertPEM, "10.0.0.1", start(), 0)
	require.ErrorIs(t, err, ErrNotValidFor)
	require.ErrorContains(t, err, "doesn't contain any IP SANs")
}

func TestCheckLeafLooksAtTheCAsTime(t *testing.T) {
	root := newCA(t)
	between, key := sign(t, root, x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	keyPEM, err := encodeKey(key)
	require.NoError(t, err)
	ca, err := readCA(between.CertPEM, keyPEM)
	require.NoError(t, err)
	pair := issue(t, ca, Leaf{Name: "m", Host: "10.0.0.1"})

	err = CheckLeaf(pair, ca.CertPEM, "10.0.0.1", start().Add(990*day), 30*day)
	require.ErrorIs(t, err, ErrExpired)
	require.ErrorContains(t, err, "the CA's certificate expires at")

	// The same as an intermediate, served along with the leaf.
	chain := append(append([]byte{}, pair.CertPEM...), between.CertPEM...)
	require.NoError(t, CheckLeaf(Pair{CertPEM: chain}, root.CertPEM, "10.0.0.1", start(), 0))
	require.NoError(t, root.Verifies(chain))
	require.ErrorIs(t, root.Verifies(pair.CertPEM), ErrUnknownAuthority, "the step between is missing")
}

func TestVerifies(t *testing.T) {
	ca, second := newCA(t), newCA(t)
	pair := issue(t, ca, Leaf{Name: "etcd-1", Host: "10.10.10.10", Validity: time.Nanosecond})
	require.NoError(t, ca.Verifies(pair.CertPEM), "time is left aside")
	err := second.Verifies(pair.CertPEM)
	require.ErrorIs(t, err, ErrUnknownAuthority)
	require.ErrorContains(t, err, "certificate signed by unknown authority")
	require.ErrorContains(t, second.Verifies(nil), "there is no certificate in it")
}
