package sop

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// Whom a client trusts, and what it shows, stands in files that its own file
// names. Who reads them when differs. Patroni and etcdctl do so at each
// connection; etcd reads its certificate at each handshake and the CAs that it
// trusts when it starts; vip-manager reads all of them when it starts.

// A clientTLS is what a client that is known connects to etcd with.
type clientTLS struct {
	Host string
	From string // the file that says so
	Kind File

	CA, Cert, Key string // paths; empty where it does not say
}

// unit is who reads the files when it starts and not again; empty for those who
// read them at each connection.
func (c clientTLS) unit() string {
	if c.Kind == VIPConf {
		return config.VIPManagerUnit
	}
	return ""
}

// clientTLSIn reads it from a client's file.
func clientTLSIn(name string, kind File, from string, content []byte) (clientTLS, bool) {
	c := clientTLS{Host: name, From: from, Kind: kind}
	if kind == EnvFile {
		env, err := config.ParseClientEnv(content)
		if err != nil {
			return c, false
		}
		c.CA, c.Cert, c.Key = env.CAFile, env.CertFile, env.KeyFile
	} else {
		s := handshake(kind, content, "https://any")
		c.CA, c.Cert, c.Key = s.CA, s.Cert, s.Key
	}
	return c, c.CA != "" || c.Cert != ""
}

// clientPaths are the files that tell it, by what they are.
func clientPaths() []Refresh {
	return []Refresh{
		{File: PatroniConf}, {File: VIPConf}, {File: PatronictlConf}, {File: PatronictlConf, At: config.PatronictlInfraPath}, {File: EnvFile},
	}
}

// knownClients are those of this cluster whose files can be read: on PostgreSQL,
// infra and admin hosts. On a member's host etcdctl goes by the member's own
// files, which are not listed.
func (v View) knownClients() []clientTLS {
	var all []clientTLS
	for _, name := range v.referenceHosts() {
		facts, err := v.facts(name)
		if err != nil {
			continue // told by a safeguard
		}
		for _, a := range clientPaths() {
			f := facts.Files[a.path()]
			if !f.Exists || f.Problem != "" || !v.meets(name, a.File, f.Content) {
				continue
			}
			c, ok := clientTLSIn(name, a.File, a.path(), f.Content)
			if !ok {
				continue
			}
			if v.isMemberHost(name) {
				if c.CA == v.layout().CA {
					c.CA = ""
				}
				if c.Cert == v.layout().Cert {
					c.Cert = ""
				}
			}
			for _, p := range []*string{&c.CA, &c.Cert} {
				if f, asked := facts.Files[*p]; asked && !f.Exists {
					*p = "" // it gets in nowhere as it is
				}
			}
			all = append(all, c)
		}
	}
	return all
}

// askTrust asks for the files that a host's clients connect with, as far as is
// known from the look before who is there.
func askTrust(q *host.Question, name string, known HostView) {
	for _, a := range clientPaths() {
		f := known.Facts.Files[a.path()]
		if !f.Exists || f.Problem != "" {
			continue
		}
		c, _ := clientTLSIn(name, a.File, a.path(), f.Content)
		for _, p := range []string{c.CA, c.Cert} {
			if p != "" && !slices.Contains(q.Files, p) {
				q.Files = append(q.Files, p)
			}
		}
	}
}

// A pemFile is a file of certificates on a host.
type pemFile struct{ Host, Path string }

// trustFiles are the files by which clients that are known trust members, each
// once.
func (v View) trustFiles() []pemFile {
	return filesOf(v.knownClients(), func(c clientTLS) string { return c.CA })
}

// certFiles are the certificates that they show.
func (v View) certFiles() []pemFile {
	return filesOf(v.knownClients(), func(c clientTLS) string { return c.Cert })
}

func filesOf(clients []clientTLS, path func(clientTLS) string) []pemFile {
	var all []pemFile
	for _, c := range clients {
		if f := (pemFile{c.Host, path(c)}); f.Path != "" && !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	return all
}

// pem gives what is in a file of certificates on a host, or why it is not known.
func (v View) pem(f pemFile) ([]byte, error) {
	facts, err := v.facts(f.Host)
	if err != nil {
		return nil, err
	}
	if err := hiddenIn(f.Host, facts, f.Path); err != nil {
		return nil, err
	}
	switch got := facts.Files[f.Path]; {
	case !got.Exists:
		return nil, fmt.Errorf("%s is not on %s", f.Path, f.Host)
	case got.Problem != "":
		return nil, fmt.Errorf("%s on %s cannot be read: %s", f.Path, f.Host, got.Problem)
	case pki.NotAfter(got.Content).IsZero():
		return nil, fmt.Errorf("%s on %s holds no readable certificate", f.Path, f.Host)
	default:
		return got.Content, nil
	}
}

// trustsAll holds when a file has the CA that signs and the one that does not,
// or not any more.
func trustsAll(f pemFile) Condition {
	return func(v View) error {
		if v.Admin.otherCA() == nil {
			return fmt.Errorf("no other CA was made yet")
		}
		text, err := v.pem(f)
		if err != nil {
			return err
		}
		for _, ca := range [][]byte{v.Admin.Signer, v.Admin.otherCA()} {
			if !pki.HoldsCerts(text, ca) {
				return fmt.Errorf("%s on %s does not have the CA %s", f.Path, f.Host, caName(ca))
			}
		}
		return nil
	}
}

// trustsNone holds when a file does not have the CA that does not sign, or when
// there is none any more.
func trustsNone(f pemFile) Condition {
	return func(v View) error {
		ca := v.Admin.otherCA()
		if ca == nil {
			return nil
		}
		text, err := v.pem(f)
		if err != nil {
			return err
		}
		if !pki.HoldsNone(text, ca) {
			return fmt.Errorf("%s on %s still has the CA %s", f.Path, f.Host, caName(ca))
		}
		return nil
	}
}

// startedSince holds when a unit on a host runs since after files of it were put
// in place, or does not run: it has read them, or will.
func startedSince(name, unit string, paths ...string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		u := facts.Units[unit]
		if !u.Runs() {
			return nil
		}
		for _, p := range paths {
			if f := facts.Files[p]; p != "" && f.Exists && !u.Since.After(f.Changed) {
				return fmt.Errorf("%s on %s runs since before %s was changed, and reads it when it starts", strings.TrimSuffix(unit, ".service"), name, p)
			}
		}
		return nil
	}
}

// readsTrust holds when the member on a host has read the CAs that are in its
// file.
func readsTrust(name string) Condition {
	return func(v View) error { return startedSince(name, v.unit(), v.layout().CA)(v) }
}

// hasRead holds when a client has read what is in files of its.
func (c clientTLS) hasRead(paths ...string) Condition {
	if c.unit() == "" {
		return func(View) error { return nil }
	}
	return startedSince(c.Host, c.unit(), paths...)
}

func caName(certPEM []byte) string {
	name, print := pki.Named(certPEM)
	return fmt.Sprintf("%s (%s)", name, print)
}
