package pki

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// subjectAltNames gives what a member's certificate is valid for.
func subjectAltNames(leaf Leaf) ([]net.IP, []string, error) {
	if err := checkHost(leaf.Host); err != nil {
		return nil, nil, err
	}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	ips := []net.IP{loopback.AsSlice()}
	names := []string{"localhost"}
	if ip, err := netip.ParseAddr(leaf.Host); err == nil {
		if ip.Unmap() != loopback {
			ips = append(ips, ip.Unmap().AsSlice())
		}
	} else if !slices.Contains(names, leaf.Host) {
		names = append(names, leaf.Host)
	}
	if !slices.Contains(names, leaf.Name) {
		names = append(names, leaf.Name)
	}
	return ips, names, nil
}

// parseCerts reads all certificates of a PEM text; there is at least one.
func parseCerts(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("not a readable certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("there is no certificate in it (-----BEGIN CERTIFICATE-----)")
	}
	return certs, nil
}

// parseKey reads a private key: RSA, ECDSA or Ed25519, in PKCS 8, PKCS 1 or
// SEC 1 form. Its errors say nothing of the content.
func parseKey(text []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("there is no private key in it (-----BEGIN PRIVATE KEY-----)")
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, errors.New("the key is encrypted and no passphrase is ever asked for; decrypt it for the time of this run: openssl pkey -in KEY -out PLAIN")
		}
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			continue // such as EC PARAMETERS
		}
		if err != nil {
			return nil, errors.New("the key is damaged or of a kind that is not known: openssl pkey -noout -check -in KEY says more")
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, errors.New("the key cannot sign: RSA, ECDSA or Ed25519 is expected")
		}
		return signer, nil
	}
}

// encodeKey writes a private key in PKCS 8 form.
func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// fits reports whether key is the certificate's.
func fits(cert *x509.Certificate, key crypto.Signer) bool {
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Public())
}

// Fingerprint gives the SHA-256 fingerprint of the first certificate as
// openssl x509 -noout -fingerprint -sha256 prints it: "AB:CD:...".
func Fingerprint(certPEM []byte) (string, error) {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return "", fmt.Errorf("take fingerprint: %w", err)
	}
	return fingerprint(certs[0]), nil
}

func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}

// shareHost reports whether two certificates of one name are for one host:
// they have an address or a name in common besides those that all have.
func shareHost(oldIPs []net.IP, oldNames []string, newIPs []net.IP, newNames []string, name string) bool {
	for _, ip := range oldIPs {
		if !ip.IsLoopback() && slices.ContainsFunc(newIPs, ip.Equal) {
			return true
		}
	}
	for _, n := range oldNames {
		if n != "localhost" && n != name && slices.Contains(newNames, n) {
			return true
		}
	}
	// Both for the loopback address or for the bare name alone.
	return ownHosts(oldIPs, oldNames, name) == 0 && ownHosts(newIPs, newNames, name) == 0
}

func ownHosts(ips []net.IP, names []string, name string) int {
	n := 0
	for _, ip := range ips {
		if !ip.IsLoopback() {
			n++
		}
	}
	for _, s := range names {
		if s != "localhost" && s != name {
			n++
		}
	}
	return n
}

// Named gives the common name of the first certificate, and the beginning of its
// fingerprint, which is what tells two of one name apart.
func Named(certPEM []byte) (name, print string) {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return "", ""
	}
	const enough = len("AB:CD:EF:01")
	return certs[0].Subject.CommonName, fingerprint(certs[0])[:enough]
}

// First gives the first certificate alone; nil where there is none.
func First(certsPEM []byte) []byte {
	certs, err := parseCerts(certsPEM)
	if err != nil {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certs[0].Raw})
}

// Serves reports whether a certificate may be shown by servers as well as by
// clients.
func Serves(certPEM []byte) bool {
	certs, err := parseCerts(certPEM)
	return err == nil && (len(certs[0].ExtKeyUsage) == 0 && len(certs[0].UnknownExtKeyUsage) == 0 ||
		slices.ContainsFunc(certs[0].ExtKeyUsage, func(u x509.ExtKeyUsage) bool {
			return u == x509.ExtKeyUsageServerAuth || u == x509.ExtKeyUsageAny
		}))
}
