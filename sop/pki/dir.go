package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Dir is the directory of the CA and the certificates, files/pki beside the
// inventory.
type Dir string

var (
	// ErrNoCA says that there is no CA in the directory at all.
	ErrNoCA = errors.New("no CA")
	// ErrHalfCA says that of the CA only the key or only the certificate is
	// there.
	ErrHalfCA = errors.New("half a CA")
	// ErrExists says that a CA is there and was not written over.
	ErrExists = errors.New("a CA is there already")
	// ErrTaken says that a certificate of this name is there, for another host.
	ErrTaken = errors.New("name taken by another host")
)

// CAKeyPath is the CA's private key.
func (d Dir) CAKeyPath() string { return filepath.Join(string(d), "ca", "ca.key") }

// CACertPath is the CA's certificate.
func (d Dir) CACertPath() string { return filepath.Join(string(d), "ca", "ca.crt") }

// KeyPath is a member's private key.
func (d Dir) KeyPath(name string) string { return filepath.Join(string(d), "etcd", name+".key") }

// CertPath is a member's certificate.
func (d Dir) CertPath(name string) string { return filepath.Join(string(d), "etcd", name+".crt") }

// CSRPath is the request for a member's certificate.
func (d Dir) CSRPath(name string) string { return filepath.Join(string(d), "csr", name+".csr") }

// Load reads the CA. Without any it gives ErrNoCA, with one file of the two
// ErrHalfCA; neither is a reason to make another where a cluster runs.
func (d Dir) Load() (*CA, error) {
	keyPEM, noKey, err := readFile(d.CAKeyPath())
	if err != nil {
		return nil, fmt.Errorf("read the CA's key: %w", err)
	}
	certPEM, noCert, err := readFile(d.CACertPath())
	if err != nil {
		return nil, fmt.Errorf("read the CA's certificate: %w", err)
	}
	switch {
	case noKey && noCert:
		return nil, fmt.Errorf("%w in %s: for a cluster that runs, put its files/pki beside the inventory; for a new one createCluster makes it", ErrNoCA, filepath.Dir(d.CAKeyPath()))
	case noKey:
		return nil, fmt.Errorf("%w: %s is there and %s is not: without the key nothing can be signed; put it back from where the cluster was made (where no member has ever started, remove the file instead)", ErrHalfCA, d.CACertPath(), d.CAKeyPath())
	case noCert:
		return nil, fmt.Errorf("%w: %s is there and %s is not: put it back, on a member it is /etc/etcd/ca.crt (where no member has ever started, remove the key instead)", ErrHalfCA, d.CAKeyPath(), d.CACertPath())
	}
	ca, err := readCA(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read the CA in %s: %w", filepath.Dir(d.CAKeyPath()), err)
	}
	return ca, nil
}

// LoadCert reads the CA's certificate where its key is not: that of a CA which
// is kept elsewhere. Without it the error is ErrNoCA.
func (d Dir) LoadCert() ([]byte, error) {
	certPEM, missing, err := readFile(d.CACertPath())
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the CA's certificate: %w", err)
	case missing:
		return nil, fmt.Errorf("%w: %s is not there", ErrNoCA, d.CACertPath())
	}
	certs, err := parseCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("read the CA's certificate: %s: %w", d.CACertPath(), err)
	}
	if !certs[0].IsCA {
		return nil, fmt.Errorf("read the CA's certificate: %s: %q is no CA", d.CACertPath(), certs[0].Subject.CommonName)
	}
	return certPEM, nil
}

// Request writes the request for a member's certificate, to be signed by a CA
// that is kept elsewhere, and gives its path. The key is made for it, mode 0600,
// unless there is one: a request that is on its way stays good.
func (d Dir) Request(random io.Reader, leaf Leaf) (string, error) {
	path, err := d.request(random, leaf)
	if err != nil {
		return "", fmt.Errorf("request a certificate for %s: %w", leaf.Name, err)
	}
	return path, nil
}

func (d Dir) request(random io.Reader, leaf Leaf) (string, error) {
	if err := checkName(leaf.Name); err != nil {
		return "", err
	}
	ips, names, err := subjectAltNames(leaf)
	if err != nil {
		return "", err
	}
	for _, dir := range []string{"etcd", "csr"} {
		if err := os.MkdirAll(filepath.Join(string(d), dir), 0o755); err != nil {
			return "", err
		}
	}
	keyPEM, missing, err := readFile(d.KeyPath(leaf.Name))
	if err != nil {
		return "", err
	}
	var key crypto.Signer
	if missing {
		fresh, err := ecdsa.GenerateKey(elliptic.P256(), random)
		if err != nil {
			return "", err
		}
		if keyPEM, err = encodeKey(fresh); err != nil {
			return "", err
		}
		if err := writeNew(d.KeyPath(leaf.Name), keyPEM, 0o600); err != nil {
			return "", err
		}
		key = fresh
	} else if key, err = parseKey(keyPEM); err != nil {
		return "", fmt.Errorf("%s: %w", d.KeyPath(leaf.Name), err)
	}
	der, err := x509.CreateCertificateRequest(random, &x509.CertificateRequest{Subject: subjectOf(leaf), IPAddresses: ips, DNSNames: names}, key)
	if err != nil {
		return "", err
	}
	if err := replaceFile(d.CSRPath(leaf.Name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), 0o644); err != nil {
		return "", err
	}
	return d.CSRPath(leaf.Name), syncDir(filepath.Dir(d.KeyPath(leaf.Name)))
}

// readFile reads a file; missing is true, and err nil, when it is not there.
func readFile(path string) (content []byte, missing bool, err error) {
	content, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, false, fmt.Errorf("%w; run as the user who owns it", err)
	}
	return content, false, err
}

// Save puts a new CA in place, whole or not at all, and never over another:
// with any file of a CA there it gives ErrExists.
func (d Dir) Save(ca *CA) error {
	if err := d.save(ca); err != nil {
		return fmt.Errorf("save the CA: %w", err)
	}
	return nil
}

func (d Dir) save(ca *CA) error {
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return err
	}
	home := filepath.Dir(d.CAKeyPath())
	for _, path := range []string{d.CAKeyPath(), d.CACertPath()} {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%w: %s", ErrExists, path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// Both files are made in a directory of their own, which then takes the
	// place of ca: a directory can be renamed to another only if that is empty,
	// so of two that try one wins, and a kill leaves no half.
	made, err := os.MkdirTemp(string(d), ".ca-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(made)
	if err := writeNew(filepath.Join(made, "ca.key"), ca.keyPEM, 0o600); err != nil {
		return err
	}
	if err := writeNew(filepath.Join(made, "ca.crt"), ca.CertPEM, 0o644); err != nil {
		return err
	}
	if err := syncDir(made); err != nil {
		return err
	}
	err = os.Rename(made, home)
	if err == nil {
		return syncDir(string(d))
	}
	entries, readErr := os.ReadDir(home)
	if readErr != nil {
		return err
	}
	if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "ca.key" || e.Name() == "ca.crt" }) {
		return fmt.Errorf("%w: %s", ErrExists, home)
	}
	// Something else is kept in ca, or it is a link. A kill between the files
	// leaves half a CA, which Load names.
	if err := os.Chmod(home, 0o700); err != nil {
		return err
	}
	if err := writeNew(d.CACertPath(), ca.CertPEM, 0o644); err != nil {
		return err
	}
	if err := writeNew(d.CAKeyPath(), ca.keyPEM, 0o600); err != nil {
		return err
	}
	return syncDir(home)
}

// writeNew writes a file that must not be there.
func writeNew(path string, content []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s", ErrExists, path)
	}
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	if err := f.Chmod(mode); err != nil { // whatever the umask
		return err
	}
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

// replaceFile puts a file in place whole, over one that may be there.
func replaceFile(path string, content []byte, mode fs.FileMode) (err error) {
	// A link is followed, or the rename would replace it.
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// SavePair puts a member's key, certificate and request in place, over older
// ones of the same member. Files are kept by member name: where another host's
// certificate has it, SavePair gives ErrTaken and writes nothing.
func (d Dir) SavePair(name string, pair Pair) error {
	if err := d.savePair(name, pair); err != nil {
		return fmt.Errorf("save certificate of %s: %w", name, err)
	}
	return nil
}

func (d Dir) savePair(name string, pair Pair) error {
	if err := checkName(name); err != nil {
		return err
	}
	certs, err := parseCerts(pair.CertPEM)
	if err != nil {
		return err
	}
	key, err := parseKey(pair.KeyPEM)
	if err != nil {
		return err
	}
	if !fits(certs[0], key) {
		return ErrKeyMismatch
	}
	if old, missing, err := readFile(d.CertPath(name)); err != nil {
		return err
	} else if !missing {
		if was, err := parseCerts(old); err == nil && !shareHost(was[0].IPAddresses, was[0].DNSNames, certs[0].IPAddresses, certs[0].DNSNames, name) {
			return fmt.Errorf("%w: %s is for %v %v; an etcd_seq must not be used again: give the new member another, or move the old files away",
				ErrTaken, d.CertPath(name), was[0].IPAddresses, was[0].DNSNames)
		}
	}
	for _, dir := range []string{"etcd", "csr"} {
		if err := os.MkdirAll(filepath.Join(string(d), dir), 0o755); err != nil {
			return err
		}
	}
	if len(pair.CSRPEM) > 0 {
		if err := replaceFile(d.CSRPath(name), pair.CSRPEM, 0o644); err != nil {
			return err
		}
	}
	// Cut off between the two, CheckLeaf finds a key that does not match, and
	// a new pair is issued.
	if err := replaceFile(d.KeyPath(name), pair.KeyPEM, 0o600); err != nil {
		return err
	}
	if err := replaceFile(d.CertPath(name), pair.CertPEM, 0o644); err != nil {
		return err
	}
	return syncDir(filepath.Dir(d.CertPath(name)))
}

// LoadPair reads a member's certificate and key. With the certificate or the
// key missing the error is fs.ErrNotExist; the request may be missing.
func (d Dir) LoadPair(name string) (Pair, error) {
	if err := checkName(name); err != nil {
		return Pair{}, fmt.Errorf("read certificate: %w", err)
	}
	var p Pair
	var err error
	if p.CertPEM, err = os.ReadFile(d.CertPath(name)); err != nil {
		return Pair{}, fmt.Errorf("read certificate of %s: %w", name, err)
	}
	if p.KeyPEM, err = os.ReadFile(d.KeyPath(name)); err != nil {
		return Pair{}, fmt.Errorf("read key of %s: %w", name, err)
	}
	if p.CSRPEM, _, err = readFile(d.CSRPath(name)); err != nil {
		return Pair{}, fmt.Errorf("read request of %s: %w", name, err)
	}
	return p, nil
}

// RemovePair removes the files of a member that is gone for good. Files that
// are not there are no error.
func (d Dir) RemovePair(name string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("remove certificate: %w", err)
	}
	for _, path := range []string{d.KeyPath(name), d.CertPath(name), d.CSRPath(name)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove certificate of %s: %w", name, err)
		}
	}
	return nil
}
