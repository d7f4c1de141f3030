package pki

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
)

func start() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func newCA(t testing.TB) *CA {
	t.Helper()
	ca, err := NewCA(rand.Reader, start())
	require.NoError(t, err)
	return ca
}

func issue(t testing.TB, ca *CA, leaf Leaf) Pair {
	t.Helper()
	pair, err := ca.Issue(rand.Reader, start(), leaf)
	require.NoError(t, err)
	return pair
}

func first(t testing.TB, certPEM []byte) *x509.Certificate {
	t.Helper()
	certs, err := parseCerts(certPEM)
	require.NoError(t, err)
	return certs[0]
}

func TestNewCA(t *testing.T) {
	ca := newCA(t)
	require.Equal(t, "CN=pigsty-ca,OU=ca,O=pigsty", ca.Cert.Subject.String())
	require.True(t, ca.Cert.IsCA)
	require.Equal(t, start().Add(-time.Hour), ca.Cert.NotBefore)
	require.Equal(t, start().Add(36500*24*time.Hour), ca.Cert.NotAfter)
	require.Equal(t, x509.ECDSA, ca.Cert.PublicKeyAlgorithm)
	require.NoError(t, ca.Verifies(ca.CertPEM))

	_, err := NewCA(iotest.ErrReader(errors.New("dry")), start())
	require.ErrorContains(t, err, "dry")
}

func TestIssue(t *testing.T) {
	ca := newCA(t)
	pair := issue(t, ca, Leaf{Name: "etcd-1", Host: "10.10.10.10"})
	cert := first(t, pair.CertPEM)
	require.Equal(t, "CN=etcd-1,OU=etcd,O=pigsty", cert.Subject.String())
	require.Equal(t, "[127.0.0.1 10.10.10.10]", fmt.Sprint(cert.IPAddresses))
	require.Equal(t, []string{"localhost", "etcd-1"}, cert.DNSNames)
	require.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, cert.ExtKeyUsage)
	require.Equal(t, start().Add(7300*24*time.Hour), cert.NotAfter)
	require.False(t, cert.IsCA)

	block, _ := pem.Decode(pair.CSRPEM)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	require.NoError(t, err)
	require.NoError(t, csr.CheckSignature())
	require.Equal(t, cert.Subject.String(), csr.Subject.String())
	require.Equal(t, cert.DNSNames, csr.DNSNames)
	require.True(t, csr.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(cert.PublicKey))

	other := first(t, issue(t, ca, Leaf{Name: "etcd-1", Host: "10.10.10.10"}).CertPEM)
	require.NotEqual(t, cert.SerialNumber, other.SerialNumber)

	for host, want := range map[string]string{
		"fd00::1":        "[127.0.0.1 fd00::1] [localhost m]",
		"db.example.org": "[127.0.0.1] [localhost db.example.org m]",
		"127.0.0.1":      "[127.0.0.1] [localhost m]",
		"localhost":      "[127.0.0.1] [localhost m]",
		"m":              "[127.0.0.1] [localhost m]",
	} {
		cert := first(t, issue(t, ca, Leaf{Name: "m", Host: host}).CertPEM)
		require.Equal(t, want, fmt.Sprint(cert.IPAddresses, cert.DNSNames))
	}
}

func TestIssueNeverOutlivesTheCA(t *testing.T) {
	ca := newCA(t)
	pair := issue(t, ca, Leaf{Name: "m", Host: "10.0.0.1", Validity: 200 * 365 * 24 * time.Hour})
	require.Equal(t, ca.Cert.NotAfter, first(t, pair.CertPEM).NotAfter)
	_, err := ca.Issue(rand.Reader, ca.Cert.NotAfter, Leaf{Name: "m", Host: "10.0.0.1"})
	require.ErrorContains(t, err, "the CA has expired at 2125-")
	_, err = ca.Issue(rand.Reader, ca.Cert.NotBefore.Add(-time.Second), Leaf{Name: "m", Host: "10.0.0.1"})
	require.ErrorContains(t, err, "the clock here")
}

func TestIssueRefuses(t *testing.T) {
	ca := newCA(t)
	for _, leaf := range []Leaf{
		{Name: "", Host: "10.0.0.1"}, {Name: "../x", Host: "10.0.0.1"}, {Name: "a/b", Host: "10.0.0.1"}, {Name: "a b", Host: "10.0.0.1"}, {Name: ".", Host: "10.0.0.1"},
		{Name: "a", Host: ""}, {Name: "a", Host: "10.0.0.256"}, {Name: "a", Host: "fe80::1%eth0"}, {Name: "a", Host: "0.0.0.0"}, {Name: "a", Host: "[::1]"},
		{Name: "a", Host: "*.example.org"}, {Name: "a", Host: "10.0.0.1:2380"}, {Name: "a", Host: "10.0.0.1", Validity: -1},
	} {
		_, err := ca.Issue(rand.Reader, start(), leaf)
		require.Error(t, err, "%+v", leaf)
	}
}

// OpenSSL is the judge that an administrator would ask.
func TestOpenSSLAgrees(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed; try: apt-get install openssl")
	}
	d := Dir(t.TempDir())
	ca, err := NewCA(rand.Reader, time.Now())
	require.NoError(t, err)
	require.NoError(t, d.Save(ca))
	pair, err := ca.Issue(rand.Reader, time.Now(), Leaf{Name: "etcd-1", Host: "10.10.10.10"})
	require.NoError(t, err)
	require.NoError(t, d.SavePair("etcd-1", pair))
	run := func(args ...string) string {
		out, err := exec.Command("openssl", args...).CombinedOutput()
		require.NoError(t, err, "openssl %v: %s", args, out)
		return string(out)
	}
	for _, purpose := range []string{"sslserver", "sslclient"} {
		run("verify", "-x509_strict", "-CAfile", d.CACertPath(), "-purpose", purpose, "-verify_ip", "10.10.10.10", d.CertPath("etcd-1"))
	}
	run("pkey", "-noout", "-check", "-in", d.KeyPath("etcd-1"))
	run("req", "-noout", "-verify", "-in", d.CSRPath("etcd-1"))
	fp, err := Fingerprint(pair.CertPEM)
	require.NoError(t, err)
	require.Contains(t, run("x509", "-noout", "-fingerprint", "-sha256", "-in", d.CertPath("etcd-1")), fp)
	require.Contains(t, run("x509", "-noout", "-ext", "subjectAltName", "-in", d.CertPath("etcd-1")), "IP Address:127.0.0.1, IP Address:10.10.10.10")

	// And the other way: a CA as openssl makes it, in the forms its key has
	// had over the years.
	for _, kind := range [][]string{
		{"genrsa", "-out"}, {"genrsa", "-traditional", "-out"}, {"ecparam", "-genkey", "-name", "prime256v1", "-out"}, {"genpkey", "-algorithm", "ed25519", "-out"},
	} {
		d := Dir(t.TempDir())
		require.NoError(t, os.MkdirAll(filepath.Dir(d.CAKeyPath()), 0o700))
		run(append(kind, d.CAKeyPath())...)
		run("req", "-x509", "-new", "-key", d.CAKeyPath(), "-days", "3650", "-subj", "/O=pigsty/OU=ca/CN=pigsty-ca", "-out", d.CACertPath(),
			"-addext", "basicConstraints=critical,CA:TRUE,pathlen:1", "-addext", "keyUsage=keyCertSign,cRLSign,digitalSignature")
		ca, err := d.Load()
		require.NoError(t, err, "%v", kind)
		pair, err := ca.Issue(rand.Reader, time.Now(), Leaf{Name: "etcd-1", Host: "10.10.10.10"})
		require.NoError(t, err, "%v", kind)
		require.NoError(t, CheckLeaf(pair, ca.CertPEM, "10.10.10.10", time.Now(), 24*time.Hour))
		require.NoError(t, ca.Verifies(pair.CertPEM))
	}
	encrypted := filepath.Join(t.TempDir(), "ca.key")
	for _, args := range [][]string{
		{"genrsa", "-aes256", "-passout", "pass:hush", "-out", encrypted},
		{"genrsa", "-traditional", "-aes256", "-passout", "pass:hush", "-out", encrypted},
	} {
		run(args...)
		content, err := os.ReadFile(encrypted)
		require.NoError(t, err)
		_, err = readCA(ca.CertPEM, content)
		require.ErrorContains(t, err, "ca.key: the key is encrypted")
	}
}

func TestReadCARefuses(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	leaf := issue(t, ca, Leaf{Name: "m", Host: "10.0.0.1"})
	damaged := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("hush hush")})
	for why, c := range map[string]struct{ cert, key []byte }{
		"ca.key is not the key of ca.crt":                {ca.CertPEM, other.keyPEM},
		`ca.crt: "m" is no CA`:                           {leaf.CertPEM, leaf.KeyPEM},
		"ca.crt: there is no certificate in it":          {nil, ca.keyPEM},
		"ca.crt: not a readable certificate":             {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), ca.keyPEM},
		"ca.key: there is no private key in it":          {ca.CertPEM, ca.CertPEM},
		"ca.key: the key is damaged or of a kind that i": {ca.CertPEM, damaged},
	} {
		_, err := readCA(c.cert, c.key)
		require.ErrorContains(t, err, why)
		require.NotContains(t, err.Error(), "hush")
	}
}

func TestKeyForms(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	got, err := parseKey(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	require.NoError(t, err)
	require.True(t, key.Equal(got))
	for _, k := range []crypto.Signer{key, ed} {
		text, err := encodeKey(k)
		require.NoError(t, err)
		got, err := parseKey(append([]byte("some words\n"), text...))
		require.NoError(t, err)
		require.Equal(t, k.Public(), got.Public())
	}
}

func TestNothingPrintsAKey(t *testing.T) {
	ca := newCA(t)
	pair := issue(t, ca, Leaf{Name: "m", Host: "10.0.0.1"})
	var out bytes.Buffer
	for _, v := range []any{ca, *ca, pair, &pair, []Pair{pair}, struct{ P Pair }{pair}} {
		fmt.Fprintf(&out, "%v %+v %#v %s %q %x %d\n", v, v, v, v, v, v, v)
		fmt.Fprintln(&out, fmt.Errorf("x: %v", v))
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		text, err := json.Marshal(v)
		require.NoError(t, err)
		out.Write(text)
	}
	for _, key := range [][]byte{ca.keyPEM, pair.KeyPEM} {
		block, _ := pem.Decode(key)
		for _, form := range []string{
			"PRIVATE", string(bytes.Split(key, []byte("\n"))[1]), string(block.Bytes), fmt.Sprintf("%x", block.Bytes), strings.Trim(fmt.Sprint(block.Bytes), "[]"), strings.Trim(fmt.Sprint(key), "[]"), fmt.Sprintf("%x", key),
		} {
			require.NotContains(t, out.String(), form)
		}
		b64, _ := json.Marshal(key)
		require.NotContains(t, out.String(), strings.Trim(string(b64), `"`))
	}
}

func TestFingerprintRefuses(t *testing.T) {
	_, err := Fingerprint([]byte("x"))
	require.ErrorContains(t, err, "there is no certificate in it")
}

func TestShareHost(t *testing.T) {
	ip := net.ParseIP
	loop := ip("127.0.0.1")
	for _, c := range []struct {
		oldIPs   []net.IP
		oldNames []string
		newIPs   []net.IP
		newNames []string
		same     bool
	}{
		{[]net.IP{loop, ip("10.0.0.1")}, nil, []net.IP{ip("10.0.0.1")}, nil, true},
		{[]net.IP{loop, ip("10.0.0.1")}, nil, []net.IP{loop, ip("10.0.0.2")}, nil, false},
		{[]net.IP{loop}, []string{"localhost", "m"}, []net.IP{loop, ip("10.0.0.2")}, []string{"localhost", "m"}, false},
		{[]net.IP{loop}, []string{"localhost", "m"}, []net.IP{loop}, []string{"localhost", "m"}, true},
		{[]net.IP{loop}, []string{"db.example.org", "m"}, nil, []string{"db.example.org"}, true},
	} {
		require.Equal(t, c.same, shareHost(c.oldIPs, c.oldNames, c.newIPs, c.newNames, "m"), "%+v", c)
	}
}
