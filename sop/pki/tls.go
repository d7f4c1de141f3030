package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
)

// TLSConfig gives the TLS settings of one side of an etcd connection: it shows
// the certificate and accepts only what the CA signed. A member may use it as
// client and as server, where it demands a certificate of the client, as etcd
// does with a trusted-ca-file.
func TLSConfig(caPEM, certPEM, keyPEM []byte) (*tls.Config, error) {
	authorities, err := parseCerts(caPEM)
	if err != nil {
		return nil, fmt.Errorf("TLS settings: CA: %w", err)
	}
	certs, err := parseCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("TLS settings: certificate: %w", err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("TLS settings: private key: %w", err)
	}
	if !fits(certs[0], key) {
		return nil, fmt.Errorf("TLS settings: certificate of %q: %w", certs[0].Subject.CommonName, ErrKeyMismatch)
	}
	pool := x509.NewCertPool()
	for _, c := range authorities {
		pool.AddCert(c)
	}
	shown := tls.Certificate{PrivateKey: key, Leaf: certs[0]}
	for _, c := range certs {
		shown.Certificate = append(shown.Certificate, c.Raw)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{shown},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	}, nil
}
