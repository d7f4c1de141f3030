package sop

import (
	"fmt"
	"slices"

	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// What a rotation of the CA changes: in files/pki/ca, in what is trusted on hosts,
// and in the certificates of clients.

// otherCA is the CA beside the one that signs, or that is about to: the next one,
// or the one before; nil when there is none.
func (a AdminView) otherCA() []byte {
	if r := a.Rotation; r.Old == nil || r.Next != nil && !pki.HoldsCerts(a.Signer, r.Next) {
		return r.Next
	}
	return a.Rotation.Old
}

// succession is the CA that goes, and the one that comes in its place; nil where no
// other was made.
func (a AdminView) succession() (goes, comes []byte) {
	switch r := a.Rotation; {
	case r.Old != nil && r.Next != nil:
		return r.Old, r.Next
	case r.Old != nil:
		return r.Old, a.Signer
	case r.Next != nil:
		return a.Signer, r.Next
	}
	return nil, nil
}

// A CAVerb is one change in files/pki/ca.
type CAVerb string

// The changes.
const (
	MakeNext        CAVerb = "make another CA"
	TrustNext       CAVerb = "trust both CAs"
	SignWithNext    CAVerb = "sign with the other CA"
	TrustOldNoMore  CAVerb = "trust the old CA no more"
	PutOldAside     CAVerb = "put the old CA aside"
	TrustNextNoMore CAVerb = "trust the new CA no more"
	PutNextAside    CAVerb = "put the new CA aside"
)

// ChangeCA changes what is in files/pki/ca.
type ChangeCA struct {
	Do    CAVerb
	Stamp string // of what is put aside
}

func (a ChangeCA) String() string { return string(a.Do) + " in files/pki" }

// ByHand implements Act.
func (a ChangeCA) ByHand(View) []string {
	const without = "vi files/pki/ca/ca.crt   # without the certificate in files/pki/ca/%s/ca.crt"
	switch a.Do {
	case MakeNext:
		return []string{"mkdir -m 0700 files/pki/ca/next",
			"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj /CN=pigsty-ca-$(date -u +%Y%m%dT%H%M%SZ) -keyout files/pki/ca/next/ca.key -out files/pki/ca/next/ca.crt"}
	case TrustNext:
		return []string{"cat files/pki/ca/next/ca.crt >> files/pki/ca/ca.crt"}
	case SignWithNext:
		return []string{"mkdir -m 0700 files/pki/ca/old && cp -p files/pki/ca/ca.key files/pki/ca/old/ && openssl x509 -in files/pki/ca/ca.crt -out files/pki/ca/old/ca.crt",
			"cat files/pki/ca/next/ca.crt files/pki/ca/old/ca.crt > files/pki/ca/ca.crt && mv files/pki/ca/next/ca.key files/pki/ca/ca.key && rm -r files/pki/ca/next"}
	case TrustOldNoMore:
		return []string{fmt.Sprintf(without, "old")}
	case TrustNextNoMore:
		return []string{fmt.Sprintf(without, "next")}
	case PutNextAside:
		return []string{"mv files/pki/ca/next files/pki/ca/retired-" + a.Stamp}
	}
	return []string{"mv files/pki/ca/old files/pki/ca/retired-" + a.Stamp}
}

func (s *Site) changeCA(a ChangeCA) (string, error) {
	switch a.Do {
	case MakeNext:
		ca, err := pki.NewCANamed(s.Random, s.Now(), pki.CAName+"-"+Stamp(s.Now()))
		if err != nil {
			return "", err
		}
		return ca.String(), s.PKI.SaveNext(ca)
	case TrustNext:
		return "", s.PKI.TrustNext()
	case SignWithNext:
		return "", s.PKI.SignWithNext()
	case TrustOldNoMore:
		return "", s.PKI.TrustOldNoMore()
	case TrustNextNoMore:
		return "", s.PKI.TrustNextNoMore()
	case PutOldAside:
		return s.PKI.RetireOld(a.Stamp)
	case PutNextAside:
		return s.PKI.RetireNext(a.Stamp)
	}
	return "", fmt.Errorf("change of the CA %q is not one of the set", a.Do)
}

// EditTrust adds the other CA to a file of certificates on a host, or takes one
// out; every other byte of it stays.
type EditTrust struct {
	Host, Path string
	Retire     bool
}

func (a EditTrust) String() string {
	if a.Retire {
		return fmt.Sprintf("take the CA out of %s on %s", a.Path, a.Host)
	}
	return fmt.Sprintf("add the CA to %s on %s", a.Path, a.Host)
}

// ByHand implements Act.
func (a EditTrust) ByHand(v View) []string {
	if a.Retire {
		dir := "old"
		if v.Admin.Rotation.Old == nil {
			dir = "next"
		}
		return []string{onHost(a.Host, fmt.Sprintf("vi %s   # without the certificate in files/pki/ca/%s/ca.crt", a.Path, dir))}
	}
	return []string{onHost(a.Host, "tee -a "+a.Path) + " < files/pki/ca/next/ca.crt"}
}

// edited gives the file.
func (v View) edited(a EditTrust) (host.WriteFile, error) {
	f := v.hostView(a.Host).Facts.Files[a.Path]
	text, err := v.pem(pemFile{a.Host, a.Path})
	if err != nil {
		return host.WriteFile{}, err
	}
	if a.Retire {
		text, err = pki.RemoveCerts(text, v.Admin.otherCA())
	} else {
		text, err = pki.AddCerts(text, slices.Concat(v.Admin.Signer, v.Admin.otherCA()))
	}
	if err != nil {
		return host.WriteFile{}, fmt.Errorf("%s on %s: %w", a.Path, a.Host, err)
	}
	return host.WriteFile{Path: a.Path, Content: text, Owner: f.Owner, Group: f.Group, Mode: f.Mode}, nil
}

// Resign has the certificate of a client signed anew, for the key that it has.
type Resign struct{ Host, Path string }

func (a Resign) String() string { return fmt.Sprintf("sign %s on %s anew", a.Path, a.Host) }

// ByHand implements Act.
func (a Resign) ByHand(v View) []string {
	key := "KEY"
	for _, c := range v.knownClients() {
		if c.Host == a.Host && c.Cert == a.Path && c.Key != "" {
			key = c.Key
		}
	}
	return []string{
		onHost(a.Host, fmt.Sprintf("openssl x509 -x509toreq -copy_extensions copy -in %s -signkey %s > client.csr", a.Path, key)),
		"openssl x509 -req -copy_extensions copy -days 7300 -CA files/pki/ca/ca.crt -CAkey files/pki/ca/ca.key -in client.csr -out client.crt",
		onHost(a.Host, fmt.Sprintf("tee %s < client.crt", a.Path)),
	}
}

func (s *Site) resigned(a Resign, v View) (host.WriteFile, error) {
	f := v.hostView(a.Host).Facts.Files[a.Path]
	text, err := v.pem(pemFile(a))
	if err != nil {
		return host.WriteFile{}, err
	}
	ca, err := s.PKI.Load()
	if err != nil {
		return host.WriteFile{}, err
	}
	text, err = ca.Resign(s.Random, s.Now(), text)
	return host.WriteFile{Path: a.Path, Content: text, Owner: f.Owner, Group: f.Group, Mode: f.Mode}, err
}
