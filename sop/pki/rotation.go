package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A CA takes the place of another in two strides, between which both are trusted.
// What is under way stands in the directory of the CA:
//
//	ca/next/ca.key, ca.crt      the CA that is to sign, until it does
//	ca/old/ca.key, ca.crt       the one that has signed before, while it is trusted
//	ca/retired-STAMP/...        the same, once it is trusted no more
//	ca/ca.crt                   all that are trusted, the one that signs first
//
// Each change is whole or not at all, and each can be made again.

// ErrNoRotation says that no other CA was made.
var ErrNoRotation = errors.New("no other CA is on its way")

// A Rotation is how far a CA has come in taking the place of another.
type Rotation struct {
	Next []byte // certificate of the CA that is to sign; nil when there is none
	Old  []byte // that of the one before; nil when there is none
}

func (d Dir) nextDir() string { return filepath.Join(filepath.Dir(d.CAKeyPath()), "next") }
func (d Dir) oldDir() string  { return filepath.Join(filepath.Dir(d.CAKeyPath()), "old") }

// Rotation reads it. A CA that is not whole, or no CA, is an error; the one that
// is to sign may have been put there by somebody else.
func (d Dir) Rotation() (r Rotation, err error) {
	for _, at := range []struct {
		dir string
		to  *[]byte
	}{{d.nextDir(), &r.Next}, {d.oldDir(), &r.Old}} {
		if _, err := os.Lstat(at.dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		ca, err := loadIn(at.dir)
		if err != nil {
			return Rotation{}, fmt.Errorf("read the CA in %s: %w", at.dir, err)
		}
		*at.to = ca.SigningPEM()
	}
	return r, nil
}

// LoadNext and LoadOld read those CAs whole; ErrNoRotation where one is not there.
func (d Dir) LoadNext() (*CA, error) { return loadIn(d.nextDir()) }

// LoadOld is LoadNext for the CA that has signed before.
func (d Dir) LoadOld() (*CA, error) { return loadIn(d.oldDir()) }

func loadIn(dir string) (*CA, error) {
	keyPEM, noKey, err := readFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, err
	}
	certPEM, noCert, err := readFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	if noKey || noCert {
		return nil, fmt.Errorf("%w: there is no CA in %s", ErrNoRotation, dir)
	}
	return readCA(certPEM, keyPEM)
}

// NewCANamed is NewCA with a common name of its own. Two CAs of one name are told
// apart by their keys alone, which not every program does.
func NewCANamed(random io.Reader, now time.Time, name string) (*CA, error) {
	return makeCA(random, now, name)
}

// SaveNext puts the CA that is to sign beside the one that signs, whole or not at
// all; where there is one already it gives ErrExists.
func (d Dir) SaveNext(ca *CA) error {
	if err := d.saveBeside(d.nextDir(), ca.keyPEM, ca.CertPEM); err != nil {
		return fmt.Errorf("save the CA that is to sign: %w", err)
	}
	return nil
}

func (d Dir) saveBeside(dir string, keyPEM, certPEM []byte) error {
	made, err := os.MkdirTemp(filepath.Dir(dir), ".ca-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(made)
	if err := writeNew(filepath.Join(made, "ca.key"), keyPEM, 0o600); err != nil {
		return err
	}
	if err := writeNew(filepath.Join(made, "ca.crt"), certPEM, 0o644); err != nil {
		return err
	}
	if err := syncDir(made); err != nil {
		return err
	}
	if err := os.Rename(made, dir); err != nil {
		if _, there := os.Lstat(dir); there == nil {
			return fmt.Errorf("%w: %s", ErrExists, dir)
		}
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// TrustNext puts the certificate of the CA that is to sign into ca.crt, behind
// those that are there.
func (d Dir) TrustNext() error {
	r, err := d.Rotation()
	if err != nil {
		return err
	}
	if r.Next == nil {
		return ErrNoRotation
	}
	return d.rewrite(func(now []byte) ([]byte, error) { return AddCerts(now, r.Next) })
}

// rewrite gives ca.crt another content.
func (d Dir) rewrite(edit func(now []byte) ([]byte, error)) error {
	now, err := os.ReadFile(d.CACertPath())
	if err != nil {
		return err
	}
	after, err := edit(now)
	if err != nil {
		return fmt.Errorf("%s: %w", d.CACertPath(), err)
	}
	if bytes.Equal(now, after) {
		return nil
	}
	if err := replaceFile(d.CACertPath(), after, 0o644); err != nil {
		return err
	}
	return syncDir(filepath.Dir(d.CACertPath()))
}

// SignWithNext has the CA that was to sign do so, and keeps the one before as the
// old one. Cut off in the middle, the CA that signs is one of the two, and ca.crt
// has both.
func (d Dir) SignWithNext() error {
	if err := d.signWithNext(); err != nil {
		return fmt.Errorf("sign with the other CA: %w", err)
	}
	return nil
}

func (d Dir) signWithNext() error {
	next, err := d.LoadNext()
	if err != nil {
		return err
	}
	now, err := d.Load()
	if err != nil {
		return err
	}
	if !now.Cert.Equal(next.Cert) {
		if err := d.saveBeside(d.oldDir(), now.keyPEM, now.SigningPEM()); err != nil && !errors.Is(err, ErrExists) {
			return err
		}
	}
	// What other programs take from ca.crt is its first certificate.
	if err := d.rewrite(func(now []byte) ([]byte, error) {
		others, err := RemoveCerts(now, next.CertPEM)
		if err != nil {
			return nil, err
		}
		return AddCerts(next.CertPEM, others)
	}); err != nil {
		return err
	}
	if err := replaceFile(d.CAKeyPath(), next.keyPEM, 0o600); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(d.CAKeyPath())); err != nil {
		return err
	}
	return d.drop(d.nextDir())
}

// drop removes a directory, whole as others see it.
func (d Dir) drop(dir string) error {
	gone := filepath.Join(filepath.Dir(dir), ".gone-"+filepath.Base(dir))
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	if err := os.Rename(dir, gone); err != nil {
		return err
	}
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// TrustOldNoMore takes the certificate of the CA that has signed before out of
// ca.crt. Others that are trusted there stay.
func (d Dir) TrustOldNoMore() error {
	return d.trustNoMore(func(r Rotation) []byte { return r.Old })
}

// TrustNextNoMore is TrustOldNoMore for the CA that was to sign and is not to any
// more.
func (d Dir) TrustNextNoMore() error {
	return d.trustNoMore(func(r Rotation) []byte { return r.Next })
}

func (d Dir) trustNoMore(which func(Rotation) []byte) error {
	r, err := d.Rotation()
	if err != nil {
		return err
	}
	unwanted := which(r)
	if unwanted == nil {
		return ErrNoRotation
	}
	return d.rewrite(func(now []byte) ([]byte, error) { return RemoveCerts(now, unwanted) })
}

// RetireOld puts the CA that has signed before aside, with its key, and gives the
// directory.
func (d Dir) RetireOld(stamp string) (string, error) { return putAside(d.oldDir(), stamp) }

// RetireNext is RetireOld for the CA that was to sign.
func (d Dir) RetireNext(stamp string) (string, error) { return putAside(d.nextDir(), stamp) }

func putAside(dir, stamp string) (string, error) {
	to := filepath.Join(filepath.Dir(dir), "retired-"+stamp)
	err := os.Rename(dir, to)
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrNoRotation
	}
	if err != nil {
		return "", fmt.Errorf("put a CA aside: %w", err)
	}
	return to, syncDir(filepath.Dir(to))
}

// --- files of several certificates ---

// HoldsCerts reports whether a file of certificates has all those of another.
func HoldsCerts(text, certs []byte) bool {
	have, err := parseCerts(text)
	if err != nil {
		return false
	}
	want, err := parseCerts(certs)
	return err == nil && !slices.ContainsFunc(want, func(c *x509.Certificate) bool { return !holds(have, c) })
}

// HoldsNone reports whether it has none of them.
func HoldsNone(text, certs []byte) bool {
	have, err := parseCerts(text)
	if err != nil {
		return false
	}
	unwanted, err := parseCerts(certs)
	return err == nil && !slices.ContainsFunc(unwanted, func(c *x509.Certificate) bool { return holds(have, c) })
}

func holds(all []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(all, c.Equal)
}

// AddCerts gives a file of certificates with those of another behind its own, as
// far as it does not have them. Every byte that is there stays.
func AddCerts(text, certs []byte) ([]byte, error) {
	have, err := parseCerts(text)
	if err != nil {
		return nil, err
	}
	more, err := parseCerts(certs)
	if err != nil {
		return nil, err
	}
	out := bytes.Clone(text)
	for _, c := range more {
		if holds(have, c) {
			continue
		}
		if len(out) > 0 && out[len(out)-1] != '\n' {
			out = append(out, '\n')
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		have = append(have, c)
	}
	return out, nil
}

// RemoveCerts gives a file of certificates without those of another. Every other
// byte stays. One that would be left without any is an error: nobody would be
// trusted any more.
func RemoveCerts(text, certs []byte) ([]byte, error) {
	unwanted, err := parseCerts(certs)
	if err != nil {
		return nil, err
	}
	var out []byte
	left := 0
	for rest := text; len(rest) > 0; {
		block, after := pem.Decode(rest)
		if block == nil {
			out = append(out, rest...)
			break
		}
		part := rest[:len(rest)-len(after)]
		rest = after
		if block.Type == "CERTIFICATE" {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("not a readable certificate: %w", err)
			}
			if holds(unwanted, c) {
				out = append(out, part[:bytes.LastIndex(part, []byte("-----BEGIN CERTIFICATE-----"))]...)
				continue
			}
			left++
		}
		out = append(out, part...)
	}
	if left == 0 {
		return nil, errors.New("no other certificate would be left in it")
	}
	return out, nil
}

// SignedBy reports whether one of some CAs signed a certificate, directly or
// through those that stand behind it. Time and names are left aside.
func SignedBy(certPEM, authorities []byte) bool {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return false
	}
	cas, err := parseCerts(authorities)
	if err != nil {
		return false
	}
	for i, at := range certs {
		if i > 0 && certs[i-1].CheckSignatureFrom(at) != nil {
			return false
		}
		if slices.ContainsFunc(cas, func(ca *x509.Certificate) bool { return at.CheckSignatureFrom(ca) == nil }) {
			return true
		}
	}
	return false
}

// Resign signs the certificate of somebody else anew: for the same key, which
// stays where it is, and with the same name, addresses and uses. It is as valid as
// the one before was made for, from now on, but not beyond the CA itself.
func (ca *CA) Resign(random io.Reader, now time.Time, certPEM []byte) ([]byte, error) {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate anew: %w", err)
	}
	was := certs[0]
	if was.IsCA {
		return nil, fmt.Errorf("sign a certificate anew: %q is a CA", was.Subject.CommonName)
	}
	serial, err := newSerial(random)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate anew: %w", err)
	}
	end := now.Add(was.NotAfter.Sub(was.NotBefore))
	if end.After(ca.Cert.NotAfter) {
		end = ca.Cert.NotAfter
	}
	begin := now.Add(-backdate)
	if begin.Before(ca.Cert.NotBefore) {
		begin = ca.Cert.NotBefore
	}
	der, err := x509.CreateCertificate(random, &x509.Certificate{
		SerialNumber: serial, RawSubject: was.RawSubject,
		DNSNames: was.DNSNames, IPAddresses: was.IPAddresses, EmailAddresses: was.EmailAddresses, URIs: was.URIs,
		NotBefore: begin.UTC(), NotAfter: end.UTC(),
		KeyUsage: was.KeyUsage, ExtKeyUsage: was.ExtKeyUsage, UnknownExtKeyUsage: was.UnknownExtKeyUsage,
		BasicConstraintsValid: was.BasicConstraintsValid,
	}, ca.Cert, was.PublicKey, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %q anew: %w", was.Subject.CommonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// SigningPEM is the certificate of the CA alone, without others that ca.crt has.
func (ca *CA) SigningPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw})
}
