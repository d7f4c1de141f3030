package sop

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/inventory"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// ClientTLS looks for the client certificate that members are dialled with. Whoever
// names one means it: what is named and cannot be used is an error. In this order:
//
//  1. the environment: ETCDCTL_CERT, ETCDCTL_KEY and ETCDCTL_CACERT, here as named
//  2. the inventory: etcd_client_cert, etcd_client_key and etcd_client_ca
//  3. the CA in files/pki issues one for a day, which is kept nowhere
//  4. where only the CA's certificate is there, that of a member in files/pki/etcd
//  5. with own, what this very machine has as an infra host or a member, if this
//     user can read it
//
// It also tells where the certificate is from. The error of the last resort tells
// what was tried and why each would not do.
func (s *Site) ClientTLS(g *inventory.Group, named ClientFiles, own bool) (*tls.Config, string, error) {
	if files, by := s.told(g, named); by != "" {
		if files.CA == "" {
			files.CA = s.PKI.CACertPath()
		}
		c, err := loadTLS(files)
		if err != nil {
			return nil, "", fmt.Errorf("client certificate named by %s: %w", by, err)
		}
		return c, by, nil
	}
	var tried []error
	ca, err := s.PKI.Load()
	if err == nil {
		c, err := s.issueForADay(ca, named.CA)
		return c, "issued for a day by the CA in " + string(s.PKI), err
	}
	tried = append(tried, err)
	candidates := []ClientFiles{}
	if errors.Is(err, pki.ErrHalfCA) {
		for _, name := range s.certNames() {
			candidates = append(candidates, ClientFiles{s.PKI.CACertPath(), s.PKI.CertPath(name), s.PKI.KeyPath(name)})
		}
	}
	if own {
		candidates = append(candidates,
			ClientFiles{config.InfraCAPath, config.InfraCertPath, config.InfraKeyPath},
			ClientFiles{config.CAPath, config.ServerCertPath, config.ServerKeyPath})
	}
	for _, f := range candidates {
		if named.CA != "" {
			f.CA = named.CA
		}
		c, err := loadTLS(f)
		if err == nil {
			return c, f.Cert, nil
		}
		tried = append(tried, err)
	}
	var why []string
	for _, err := range tried {
		why = append(why, err.Error())
	}
	return nil, "", fmt.Errorf("no client certificate was found: %s; name one with ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY, or in the inventory with etcd_client_cert and etcd_client_key", strings.Join(why, "; "))
}

// InventoryClient gives the files that the inventory names, as absolute paths.
func (s *Site) InventoryClient(g *inventory.Group) ClientFiles {
	at := func(p string) string {
		if p == "" || filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(filepath.Dir(s.Inventory), p)
	}
	f := ClientFiles{CA: at(g.ClientCA), Cert: at(g.ClientCert), Key: at(g.ClientKey)}
	if f.CA == "" && f.Cert != "" {
		f.CA = s.PKI.CACertPath()
	}
	return f
}

// told gives the files that we were told to show to members, and by what; empty
// where nothing names any.
func (s *Site) told(g *inventory.Group, named ClientFiles) (files ClientFiles, by string) {
	for _, from := range []struct {
		by    string
		files ClientFiles
	}{
		{"ETCDCTL_CERT and ETCDCTL_KEY", named},
		{"etcd_client_cert and etcd_client_key", s.InventoryClient(g)},
	} {
		if from.files.Cert != "" || from.files.Key != "" {
			return from.files, from.by
		}
	}
	return ClientFiles{}, ""
}

// ownFiles reads what members are dialled with, as far as it was named. What is of
// files/pki needs no look.
func (s *Site) ownFiles(g inventory.Group) OwnFiles {
	files, by := s.told(&g, s.Named)
	if by == "" {
		files = ClientFiles{CA: s.Named.CA}
	}
	o := OwnFiles{Files: files}
	var err error
	for _, f := range []struct {
		path string
		to   *[]byte
	}{{o.Files.CA, &o.CA}, {o.Files.Cert, &o.Cert}} {
		if f.path == "" {
			continue
		}
		if *f.to, err = os.ReadFile(f.path); err != nil {
			o.Problem = err.Error()
		}
	}
	return o
}

func loadTLS(f ClientFiles) (*tls.Config, error) {
	var pem [3][]byte
	for i, name := range []string{f.CA, f.Cert, f.Key} {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		pem[i] = b
	}
	c, err := pki.TLSConfig(pem[0], pem[1], pem[2])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Cert, err)
	}
	return c, nil
}

func (s *Site) issueForADay(ca *pki.CA, trustFile string) (*tls.Config, error) {
	pair, err := ca.Issue(s.Random, s.Now(), pki.Leaf{Name: "etcdrill", Host: "127.0.0.1", Validity: 24 * time.Hour})
	if err != nil {
		return nil, fmt.Errorf("issue a client certificate: %w", err)
	}
	trust := ca.CertPEM
	if trustFile != "" {
		if trust, err = os.ReadFile(trustFile); err != nil {
			return nil, fmt.Errorf("CA from ETCDCTL_CACERT: %w", err)
		}
	}
	return pki.TLSConfig(trust, pair.CertPEM, pair.KeyPEM)
}

// --- a CA that is kept elsewhere ---

// certificateGiven is the name of the safeguard for which requests are written.
const certificateGiven = "certificate-given"

// certificatesGiven: where somebody else signs, the certificates of hosts are in
// files/pki, fit their keys, and would be taken by the members.
func certificatesGiven(names ...string) Safeguard {
	return Safeguard{Name: "certificate-given", Show: "ls files/pki/etcd; openssl x509 -in files/pki/etcd/NAME.crt -noout -text",
		Holds: func(v View) error {
			if !v.Admin.External || !v.layout().TLS {
				return nil
			}
			var r Refusal
			var found []string
			for _, name := range names {
				why := issued(name)(v)
				if why == nil {
					continue
				}
				member, text := v.MemberName(name), why.Error()
				if problem := v.Admin.Unusable[member]; problem != "" {
					text = fmt.Sprintf("files/pki/etcd/%s.crt and .key: %s", member, problem)
				}
				if r.Host == "" {
					r.Host = name
				}
				found = append(found, text)
				r.missing = append(r.missing, pki.Leaf{Name: member, Host: name})
			}
			if len(found) == 0 {
				return nil
			}
			r.Found = strings.Join(found, "; ") + "; and the key of the CA is not in files/pki, so none can be issued"
			r.Needed = "files/pki/etcd/NAME.crt and NAME.key of each member, as server and client, signed by the CA in files/pki/ca/ca.crt"
			r.Hint = "have them signed; if the CA is Pigsty's own, put files/pki/ca/ca.key back"
			return &r
		}}
}

// request writes the requests for the certificates that a refusal misses, and
// tells in the refusal what to do with them. Nothing but files/pki is written.
func (s *Site) request(r *Refusal) {
	var paths []string
	for _, leaf := range r.missing {
		path, err := s.PKI.Request(s.Random, leaf)
		if err != nil {
			r.Hint += fmt.Sprintf("; no request could be written: %v", err)
			return
		}
		paths = append(paths, path)
	}
	r.Hint = fmt.Sprintf("have these requests signed by the CA, for server and client authentication, with the names that they ask for: %s. "+
		"Put each certificate to %s and run the same command again; its key is beside that place already. If the CA is Pigsty's own, put files/pki/ca/ca.key back instead",
		strings.Join(paths, ", "), s.PKI.CertPath("NAME"))
}
