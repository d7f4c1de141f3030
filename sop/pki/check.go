package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// What can be wrong with a member's certificate. The words are those of etcd's
// log where it has any.
var (
	// ErrUnknownAuthority: another CA signed it. Members would refuse it, and
	// it them.
	ErrUnknownAuthority = errors.New("certificate signed by unknown authority")
	// ErrNotValidFor: it lacks an address at which the member is dialled.
	ErrNotValidFor = errors.New("certificate is valid for other hosts")
	// ErrExpired: it is outside its time, or will be too soon.
	ErrExpired = errors.New("certificate has expired or is not yet valid, or will not be long enough")
	// ErrKeyMismatch: the private key is another one's.
	ErrKeyMismatch = errors.New("private key does not match public key")
	// ErrUsage: it may not be used as server or not as client.
	ErrUsage = errors.New("certificate specifies an incompatible key usage")
)

// A finding is one fault: a sentinel for the caller, words for a person.
type finding struct {
	kind error
	text string
}

func (f finding) Error() string { return f.text }
func (f finding) Unwrap() error { return f.kind }

// CheckLeaf says everything that is wrong with a member's certificate: its key
// is another's, caPEM did not sign it, it is not valid for host and for
// 127.0.0.1, it expires in less than minLeft, it may not be used as server and
// as client. The key is not looked at where pair has none, as when the
// certificate was read off a connection. errors.Is tells the faults apart.
func CheckLeaf(pair Pair, caPEM []byte, host string, now time.Time, minLeft time.Duration) error {
	certs, err := parseCerts(pair.CertPEM)
	if err != nil {
		return fmt.Errorf("check certificate: %w", err)
	}
	authorities, err := parseCerts(caPEM)
	if err != nil {
		return fmt.Errorf("check certificate: CA: %w", err)
	}
	leaf := certs[0]
	var faults []error
	fault := func(kind error, format string, args ...any) {
		faults = append(faults, finding{kind, fmt.Sprintf(format, args...)})
	}
	if pair.KeyPEM != nil {
		switch key, err := parseKey(pair.KeyPEM); {
		case err != nil:
			fault(ErrKeyMismatch, "%v", err)
		case !fits(leaf, key):
			fault(ErrKeyMismatch, "private key does not match public key of the certificate")
		}
	}
	root := checkTrust(leaf, certs[1:], authorities, fault)
	for _, at := range []string{host, "127.0.0.1"} {
		if err := leaf.VerifyHostname(at); err != nil {
			fault(ErrNotValidFor, "%s", strings.TrimPrefix(err.Error(), "x509: "))
		}
	}
	checkTime("certificate", leaf, now, minLeft, fault)
	if root != nil {
		checkTime("the CA's certificate", root, now, minLeft, fault)
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("certificate of %q: %w", leaf.Subject.CommonName, joined(faults))
}

// Matches reports whether the key of a pair is its certificate's. The answer no
// is ErrKeyMismatch.
func (p Pair) Matches() error {
	certs, err := parseCerts(p.CertPEM)
	if err != nil {
		return err
	}
	key, err := parseKey(p.KeyPEM)
	if err != nil {
		return err
	}
	if !fits(certs[0], key) {
		return ErrKeyMismatch
	}
	return nil
}

// checkTrust looks at signatures and usages and leaves time aside. It gives the
// CA that vouches for the certificate, nil when none does.
func checkTrust(leaf *x509.Certificate, between, authorities []*x509.Certificate, fault func(error, string, ...any)) (root *x509.Certificate) {
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	latest := leaf.NotBefore
	for _, c := range authorities {
		roots.AddCert(c)
		if c.NotBefore.After(latest) && c.NotBefore.Before(leaf.NotAfter) {
			latest = c.NotBefore
		}
	}
	for _, c := range between {
		intermediates.AddCert(c)
	}
	for _, usage := range []struct {
		name string
		ext  x509.ExtKeyUsage
	}{{"server", x509.ExtKeyUsageServerAuth}, {"client", x509.ExtKeyUsageClientAuth}} {
		chains, err := leaf.Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: intermediates, CurrentTime: latest, KeyUsages: []x509.ExtKeyUsage{usage.ext},
		})
		var invalid x509.CertificateInvalidError
		var unknown x509.UnknownAuthorityError
		switch {
		case err == nil:
			root = chains[0][len(chains[0])-1]
		case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
			fault(ErrUsage, "certificate specifies an incompatible key usage: it may not be used as %s, and a member is both server and client", usage.name)
		case !errors.As(err, &unknown):
			fault(ErrUnknownAuthority, "%s", strings.TrimPrefix(err.Error(), "x509: "))
			return nil
		default:
			fault(ErrUnknownAuthority, "certificate signed by unknown authority: %q signed it, the CA here is %q %s",
				leaf.Issuer.CommonName, authorities[0].Subject.CommonName, fingerprint(authorities[0]))
			return nil
		}
	}
	return root
}

func checkTime(what string, leaf *x509.Certificate, now time.Time, minLeft time.Duration, fault func(error, string, ...any)) {
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch left := leaf.NotAfter.Sub(now); {
	case now.Before(leaf.NotBefore):
		fault(ErrExpired, "%s is not yet valid: it begins at %s, now is %s; look at the clocks", what, stamp(leaf.NotBefore), stamp(now))
	case left <= 0:
		fault(ErrExpired, "%s has expired at %s", what, stamp(leaf.NotAfter))
	case left < minLeft:
		fault(ErrExpired, "%s expires at %s, in %d days; at least %d are needed", what, stamp(leaf.NotAfter), left/(24*time.Hour), minLeft/(24*time.Hour))
	}
}

// joined is errors.Join in one line.
func joined(faults []error) error {
	if len(faults) == 1 {
		return faults[0]
	}
	format := strings.TrimSuffix(strings.Repeat("%w; ", len(faults)), "; ")
	args := make([]any, len(faults))
	for i, f := range faults {
		args[i] = f
	}
	return fmt.Errorf(format, args...)
}

// Verifies reports whether this CA signed a certificate, such as one that a
// living member serves. Time and names are left aside: the question is whether
// this is the members' CA at all. The answer no is ErrUnknownAuthority.
func (ca *CA) Verifies(certPEM []byte) error {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return fmt.Errorf("verify certificate: %w", err)
	}
	leaf := certs[0]
	// A chain that was served along may lead to the CA in several steps.
	chain := certs[1:]
	for at := leaf; ; {
		if at.Equal(ca.Cert) || at.CheckSignatureFrom(ca.Cert) == nil {
			return nil
		}
		if len(chain) == 0 || at.CheckSignatureFrom(chain[0]) != nil {
			return fmt.Errorf("certificate of %q: %w", leaf.Subject.CommonName, finding{ErrUnknownAuthority, fmt.Sprintf(
				"certificate signed by unknown authority: %q signed it, and the key of the CA here, %q %s, did not; the two may bear the same name. Find the files/pki that the cluster was made with",
				leaf.Issuer.CommonName, ca.Cert.Subject.CommonName, fingerprint(ca.Cert))})
		}
		at, chain = chain[0], chain[1:]
	}
}

// NotAfter is when a certificate ends; zero where it is none.
func NotAfter(certPEM []byte) time.Time {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return time.Time{}
	}
	return certs[0].NotAfter
}

// IssuedTo reports whether a certificate names a host.
func IssuedTo(certPEM []byte, host string) bool {
	certs, err := parseCerts(certPEM)
	return err == nil && certs[0].VerifyHostname(host) == nil
}
