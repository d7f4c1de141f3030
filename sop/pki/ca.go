package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"regexp"
	"slices"
	"time"
)

// CAName is the common name of the CA that Pigsty makes.
const CAName = "pigsty-ca"

// Lifetimes, as in Pigsty: cert_validity and that of its CA.
const (
	DefaultValidity = 7300 * 24 * time.Hour
	CAValidity      = 36500 * 24 * time.Hour
)

// backdate is how far before its making a certificate begins to be valid, for
// hosts whose clocks are behind.
const backdate = time.Hour

// CA can sign certificates.
type CA struct {
	Cert    *x509.Certificate
	CertPEM []byte // as it stands in ca.crt, for the hosts
	key     crypto.Signer
	keyPEM  []byte
}

// String names the CA and not its key.
func (ca CA) String() string {
	return fmt.Sprintf("CA %s %s", ca.Cert.Subject.CommonName, fingerprint(ca.Cert))
}

// GoString is String, so that no way of printing shows the key.
func (ca CA) GoString() string { return ca.String() }

// Format is String for every verb.
func (ca CA) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, ca.String()) }

// Leaf says for whom a certificate is.
type Leaf struct {
	Name     string        // member name: the common name, a DNS name, and the name of the files
	Host     string        // address, or DNS name, at which the member is dialled
	Validity time.Duration // DefaultValidity when zero; never beyond the CA's own
}

// Pair is a certificate and its private key, in PEM.
type Pair struct {
	CertPEM []byte
	KeyPEM  []byte `json:"-"` // secret
	CSRPEM  []byte // the request; nil when it is not there
}

// String tells the certificate's fingerprint and nothing of the key.
func (p Pair) String() string {
	fp, err := Fingerprint(p.CertPEM)
	if err != nil {
		return "no certificate"
	}
	return "certificate " + fp
}

// GoString is String, so that no way of printing shows the key.
func (p Pair) GoString() string { return p.String() }

// Format is String for every verb.
func (p Pair) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.String()) }

// NewCA makes a CA: pigsty-ca, ECDSA P-256, 100 years. It is for a cluster
// that does not exist yet, on hosts with no etcd.
//
// random gives the serial number; Go takes keys from the system's own source
// of randomness whatever it is given.
func NewCA(random io.Reader, now time.Time) (*CA, error) { return makeCA(random, now, CAName) }

func makeCA(random io.Reader, now time.Time, name string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return nil, fmt.Errorf("make the CA's key: %w", err)
	}
	serial, err := newSerial(random)
	if err != nil {
		return nil, fmt.Errorf("make the CA: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name, Organization: []string{"pigsty"}, OrganizationalUnit: []string{"ca"}},
		NotBefore:             now.Add(-backdate).UTC(),
		NotAfter:              now.Add(CAValidity).UTC(),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1,
	}
	der, err := x509.CreateCertificate(random, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the CA's certificate: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("write the CA's key: %w", err)
	}
	return readCA(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM)
}

// readCA puts a CA together and looks whether its halves fit.
func readCA(certPEM, keyPEM []byte) (*CA, error) {
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("ca.key: %w", err)
	}
	certs, err := parseCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("ca.crt: %w", err)
	}
	i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return fits(c, key) })
	if i < 0 {
		return nil, errors.New("ca.key is not the key of ca.crt; one of them was exchanged, put back the one that belongs to the certificates of the members")
	}
	if !certs[i].IsCA || certs[i].KeyUsage != 0 && certs[i].KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fmt.Errorf("ca.crt: %q is no CA: it may not sign certificates", certs[i].Subject.CommonName)
	}
	return &CA{Cert: certs[i], CertPEM: bytes.Clone(certPEM), key: key, keyPEM: bytes.Clone(keyPEM)}, nil
}

var safeName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

// checkName refuses what cannot be a DNS name and the name of a file at once.
func checkName(name string) error {
	if !safeName.MatchString(name) || len(name) > 200 {
		return fmt.Errorf("member name %q cannot stand in a certificate: letters, digits, dots, dashes and underscores are expected", name)
	}
	return nil
}

// Issue makes a key and signs a certificate for a member: as server and as
// client, valid for 127.0.0.1, localhost, its host and its name.
func (ca *CA) Issue(random io.Reader, now time.Time, leaf Leaf) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return Pair{}, fmt.Errorf("issue certificate of %s: make key: %w", leaf.Name, err)
	}
	pair, err := ca.issue(random, now, leaf, key)
	if err != nil {
		return Pair{}, fmt.Errorf("issue certificate of %s: %w", leaf.Name, err)
	}
	return pair, nil
}

// Renew signs another certificate for a member, for the key that it has. The
// file of the certificate can then take the place of the one before at once, and
// key and certificate fit at every moment.
func (ca *CA) Renew(random io.Reader, now time.Time, leaf Leaf, keyPEM []byte) (Pair, error) {
	key, err := parseKey(keyPEM)
	if err != nil {
		return Pair{}, fmt.Errorf("renew certificate of %s: %w", leaf.Name, err)
	}
	pair, err := ca.issue(random, now, leaf, key)
	if err != nil {
		return Pair{}, fmt.Errorf("renew certificate of %s: %w", leaf.Name, err)
	}
	pair.KeyPEM = bytes.Clone(keyPEM) // byte by byte as it is on the host
	return pair, nil
}

func (ca *CA) issue(random io.Reader, now time.Time, leaf Leaf, key crypto.Signer) (Pair, error) {
	if err := checkName(leaf.Name); err != nil {
		return Pair{}, err
	}
	if leaf.Validity < 0 {
		return Pair{}, fmt.Errorf("validity of %s is below zero", leaf.Validity)
	}
	if !now.Before(ca.Cert.NotAfter) {
		return Pair{}, fmt.Errorf("the CA has expired at %s: it can sign nothing any more", ca.Cert.NotAfter.UTC().Format(time.RFC3339))
	}
	if now.Before(ca.Cert.NotBefore) {
		return Pair{}, fmt.Errorf("the CA is valid only from %s on: the clock here, %s, is wrong", ca.Cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	ips, names, err := subjectAltNames(leaf)
	if err != nil {
		return Pair{}, err
	}
	validity := leaf.Validity
	if validity == 0 {
		validity = DefaultValidity
	}
	notBefore, notAfter := now.Add(-backdate), now.Add(validity)
	if notBefore.Before(ca.Cert.NotBefore) {
		notBefore = ca.Cert.NotBefore
	}
	if notAfter.After(ca.Cert.NotAfter) {
		notAfter = ca.Cert.NotAfter
	}
	serial, err := newSerial(random)
	if err != nil {
		return Pair{}, err
	}
	subject := subjectOf(leaf)
	csr, err := x509.CreateCertificateRequest(random, &x509.CertificateRequest{Subject: subject, IPAddresses: ips, DNSNames: names}, key)
	if err != nil {
		return Pair{}, fmt.Errorf("make request: %w", err)
	}
	der, err := x509.CreateCertificate(random, &x509.Certificate{
		SerialNumber:          serial,
		Subject:               subject,
		IPAddresses:           ips,
		DNSNames:              names,
		NotBefore:             notBefore.UTC(),
		NotAfter:              notAfter.UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}, ca.Cert, key.Public(), ca.key)
	if err != nil {
		return Pair{}, fmt.Errorf("sign: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("write key: %w", err)
	}
	return Pair{
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:  keyPEM,
		CSRPEM:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}),
	}, nil
}

func subjectOf(leaf Leaf) pkix.Name {
	return pkix.Name{CommonName: leaf.Name, Organization: []string{"pigsty"}, OrganizationalUnit: []string{"etcd"}}
}

// newSerial gives a positive number of 127 random bits.
func newSerial(random io.Reader) (*big.Int, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return nil, fmt.Errorf("read randomness for a serial number: %w", err)
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}

var dnsName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)

// isAddress matches what was meant as an address: all digits and dots.
var isAddress = regexp.MustCompile(`^[0-9.]+$`)

// checkHost refuses what is neither an address nor a DNS name.
func checkHost(host string) error {
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" || ip.IsUnspecified() {
			return fmt.Errorf("host %q: a certificate cannot be for such an address", host)
		}
		return nil
	}
	if !dnsName.MatchString(host) || isAddress.MatchString(host) || len(host) > 253 {
		return fmt.Errorf("host %q is neither an address nor a DNS name", host)
	}
	return nil
}
