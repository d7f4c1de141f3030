package sop

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// Who trusts whom. A member shows the certificate that is in its file, and trusts
// what was in its other one when it started.

// A party is one side of a connection.
type party struct{ trust, cert []byte }

// handshake tries a connection to a member. A party of which nothing is known is
// taken.
func (w *world) handshake(c party, p *proc) string {
	if !w.strict {
		return ""
	}
	switch shown := p.m.file(p.conf.CertFile).Content; {
	case c.trust != nil && !w.signedBy(shown, c.trust):
		return "tls: failed to verify certificate: x509: certificate signed by unknown authority"
	case c.cert != nil && !w.signedBy(c.cert, p.trust):
		return "remote error: tls: unknown certificate authority"
	}
	return ""
}

// signedBy is pki.SignedBy, which takes its time and is asked the same ever again.
func (w *world) signedBy(cert, authorities []byte) bool {
	key := [2]string{string(cert), string(authorities)}
	is, known := w.signed[key]
	if !known {
		if w.signed == nil {
			w.signed = map[[2]string]bool{}
		}
		is = pki.SignedBy(cert, authorities)
		w.signed[key] = is
	}
	return is
}

// stranger says why a member does not talk to an operator. What he comes with is
// what there was when he called for the first time.
func (op *operator) stranger(p *proc) string {
	w := op.g.w
	if !w.strict {
		return ""
	}
	if op.shows == nil {
		ca, err := op.Site.PKI.Load()
		if err != nil {
			return ""
		}
		pair, err := ca.Issue(rand.NewChaCha8([32]byte{7}), time.Now(), pki.Leaf{Name: "etcdrill", Host: "127.0.0.1"})
		if err != nil {
			return err.Error()
		}
		op.shows = &party{trust: ca.CertPEM, cert: pair.CertPEM}
	}
	return w.handshake(*op.shows, p)
}

// watchTrust takes down who is cut off just now: of those who have to get in, of
// the members from each other, of the clients that run. The lock is held.
func (w *world) watchTrust() {
	if !w.strict || len(w.cutOff) > 3 {
		return
	}
	parties := maps.Clone(w.clients)
	if parties == nil {
		parties = map[string]party{}
	}
	for name, m := range w.machines {
		if m.proc != nil && m.proc.ready {
			parties["the member on "+name] = party{trust: m.proc.trust, cert: m.file(m.proc.conf.CertFile).Content}
		}
		if v := m.vip; v != nil && v.on {
			parties["vip-manager on "+name] = v.party
		}
		if m.patroni != nil {
			parties["Patroni on "+name] = party{trust: m.file(clientCA).Content, cert: m.file(clientCert).Content}
		}
	}
	for _, who := range slices.Sorted(maps.Keys(parties)) {
		for _, name := range slices.Sorted(maps.Keys(w.machines)) {
			m := w.machines[name]
			if m.proc == nil || !m.proc.ready {
				continue
			}
			if problem := w.handshake(parties[who], m.proc); problem != "" {
				w.cutOff = append(w.cutOff, fmt.Sprintf("%s: %s does not get in on %s: %s", time.Now().Format(time.TimeOnly), who, name, problem))
			}
		}
	}
}

// What Patroni and vip-manager have.
const (
	clientCA   = "/pg/cert/ca.crt"
	clientCert = "/pg/cert/server.crt"
)

// withCerts brings up n members and clients of them, all of which have
// certificates of one CA and are strict about it.
func (g *ground) withCerts(n int) *fakePG {
	g.t.Helper()
	pg := g.withClients(n)
	g.certs()
	time.Sleep(15 * time.Second) // vip-managers were started anew
	return pg
}

// certs gives clients their certificates, and has everybody be strict.
func (g *ground) certs() {
	g.t.Helper()
	ca, err := pki.Dir(filepath.Join(g.dir, "files/pki")).Load()
	require.NoError(g.t, err)
	issue := func(name, host string) []byte {
		pair, err := ca.Issue(rand.NewChaCha8([32]byte{8}), time.Now(), pki.Leaf{Name: name, Host: host})
		require.NoError(g.t, err)
		return pair.CertPEM
	}
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	for name, m := range g.w.machines {
		if m.patroni != nil {
			m.lay(clientCA, "postgres", "postgres", 0o644, string(ca.CertPEM))
			m.lay(clientCert, "postgres", "postgres", 0o644, string(issue("pg", name)))
			m.startVIP(time.Now())
		}
		if m.files[config.PatronictlInfraPath] != nil {
			m.lay(config.InfraCAPath, "root", "root", 0o644, string(ca.CertPEM))
			m.lay(clientCA, "root", "root", 0o644, string(ca.CertPEM)) // patronictl's
			m.lay(config.InfraCertPath, "root", "root", 0o644, string(issue("infra", name)))
		}
	}
	g.w.strict = true
	g.w.clients = map[string]party{"one who was never told": {trust: ca.CertPEM, cert: issue("client", "127.0.0.1")}}
}

// stride goes one stride of a rotation.
func (g *ground) stride(s Stride) {
	g.t.Helper()
	g.must(RotateAuthority{Stride: s, Clients: s == Sign, Stamp: stampNow()})
	time.Sleep(15 * time.Second)
}

// trusting goes the first stride. Who was never told has to get in all along it,
// and is told then.
func (g *ground) trusting() {
	g.t.Helper()
	g.stride(Trust)
	g.allGotIn()
	g.told()
}

// told has the client that nobody knows take the CAs that are trusted here.
func (g *ground) told() {
	g.t.Helper()
	bundle, err := os.ReadFile(filepath.Join(g.dir, "files/pki/ca/ca.crt"))
	require.NoError(g.t, err)
	for _, p := range g.w.clients {
		g.w.clients = map[string]party{"one who was told": {trust: bundle, cert: p.cert}}
	}
}

// signing goes the second. The client has a certificate of the new CA then.
func (g *ground) signing() {
	g.t.Helper()
	g.stride(Sign)
	g.allGotIn()
	ca, err := pki.Dir(filepath.Join(g.dir, "files/pki")).Load()
	require.NoError(g.t, err)
	for _, p := range g.w.clients {
		cert, err := ca.Resign(rand.NewChaCha8([32]byte{6}), time.Now(), p.cert)
		require.NoError(g.t, err)
		g.w.clients = map[string]party{"one who has the new": {trust: p.trust, cert: cert}}
	}
}

func (g *ground) allGotIn() {
	g.t.Helper()
	require.Empty(g.t, g.w.cutOff)
}

// dumpCAs tells what is in files/pki/ca, and how many CAs are trusted where.
func (g *ground) dumpCAs() string {
	var b strings.Builder
	count := func(text []byte) int { return strings.Count(string(text), "BEGIN CERTIFICATE") }
	paths, _ := filepath.Glob(filepath.Join(g.dir, "files/pki/ca/*"))
	for _, p := range paths {
		fmt.Fprintf(&b, "CA: %s\n", filepath.Base(p))
	}
	bundle, _ := os.ReadFile(filepath.Join(g.dir, "files/pki/ca/ca.crt"))
	fmt.Fprintf(&b, "trusted here: %d\n", count(bundle))
	for _, name := range slices.Sorted(maps.Keys(g.w.machines)) {
		m := g.w.machines[name]
		for _, p := range []string{config.CAPath, clientCA, config.InfraCAPath} {
			if f := m.file(p); f.Exists {
				fmt.Fprintf(&b, "trusted by %s on %s: %d\n", p, name, count(f.Content))
			}
		}
		if m.proc != nil {
			fmt.Fprintf(&b, "trusted by the member on %s: %d\n", name, count(m.proc.trust))
		}
		if m.vip != nil {
			fmt.Fprintf(&b, "trusted by vip-manager on %s: %d\n", name, count(m.vip.trust))
		}
		for _, p := range []string{config.ServerCertPath, clientCert, config.InfraCertPath} {
			if f := m.file(p); f.Exists && g.w.strict {
				fmt.Fprintf(&b, "signed by the first of them: %s on %s: %v\n", p, name, pki.SignedBy(f.Content, pki.First(bundle)))
			}
		}
	}
	return b.String()
}

// newCA makes one.
func newCA(g *ground, name string) *pki.CA {
	g.t.Helper()
	ca, err := pki.NewCANamed(rand.NewChaCha8([32]byte{5}), time.Now(), name)
	require.NoError(g.t, err)
	return ca
}

// oldCert is a certificate of a CA; of nil, of the one that has signed before.
func (g *ground) oldCert(ca *pki.CA) []byte {
	g.t.Helper()
	if ca == nil {
		var err error
		ca, err = pki.Dir(filepath.Join(g.dir, "files/pki")).LoadOld()
		require.NoError(g.t, err)
	}
	pair, err := ca.Issue(rand.NewChaCha8([32]byte{4}), time.Now(), pki.Leaf{Name: "etcd-2", Host: hosts[1]})
	require.NoError(g.t, err)
	return pair.CertPEM
}
