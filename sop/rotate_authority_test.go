package sop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// All the way, with nobody cut off: members, clients that are known, and one that
// nobody knows and that is told between the strides.
func TestRotateCA(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		pg := g.withCerts(3)
		keys := pki.Dir(filepath.Join(g.dir, "files/pki"))
		was, err := keys.Load()
		require.NoError(g.t, err)
		bearers := g.bearers()

		g.trusting()
		now, err := keys.Load()
		require.NoError(g.t, err)
		require.True(g.t, now.Cert.Equal(was.Cert), "nothing is signed by the other one yet")
		require.Contains(g.t, strings.Join(g.look().findings(), "\n"), "is on its way: go on with")
		g.nothingToDo(RotateAuthority{Stride: Trust})

		g.signing()
		now, err = keys.Load()
		require.NoError(g.t, err)
		require.False(g.t, now.Cert.Equal(was.Cert))
		require.Contains(g.t, now.Cert.Subject.CommonName, pki.CAName+"-")
		for _, h := range hosts[:3] {
			require.True(g.t, pki.SignedBy(g.certOn(h), now.SigningPEM()))
		}
		require.Contains(g.t, strings.Join(g.look().findings(), "\n"), "is still trusted: end it with")
		g.nothingToDo(RotateAuthority{Stride: Sign, Clients: true})
		g.nothingToDo(RotateAuthority{Stride: Trust})

		g.stride(Retire)
		g.allGotIn()
		now, err = keys.Load()
		require.NoError(g.t, err)
		require.Equal(g.t, string(now.SigningPEM()), string(now.CertPEM))
		for _, h := range hosts[:3] {
			require.Equal(g.t, string(now.CertPEM), g.content(h, config.CAPath))
		}
		require.Equal(g.t, string(now.CertPEM), g.content(pgHosts[0], clientCA))
		require.Equal(g.t, string(now.CertPEM), g.content(infraHost, config.InfraCAPath))
		require.Equal(g.t, bearers, g.bearers())
		require.Equal(g.t, 1, pg.timeline)
		require.NotContains(g.t, strings.Join(g.look().findings(), "\n"), "CA: ")
		g.nothingToDo(RotateAuthority{Stride: Retire})
		kept, err := filepath.Glob(filepath.Join(g.dir, "files/pki/ca/retired-*/ca.key"))
		require.NoError(g.t, err)
		require.Len(g.t, kept, 1)

		// What is of the old CA gets in nowhere, and everything else goes on.
		require.NotEmpty(g.t, g.w.handshake(party{trust: now.CertPEM, cert: g.oldCert(was)}, g.w.machines[hosts[0]].proc))
		g.must(AddMember{Host: hosts[3]})
		g.must(Restart{Since: time.Now()})
		g.allGotIn()
	})
}

// Between strides members come and go as ever.
func TestRotateCAWithChanges(t *testing.T) {
	for _, s := range []Stride{Trust, Sign} {
		t.Run(string(s), func(t *testing.T) {
			bubble(t, 3, func(g *ground) {
				g.withCerts(3)
				g.trusting()
				if s == Sign {
					g.signing()
				}
				g.must(AddMember{Host: hosts[3]})
				g.must(RemoveMember{Host: hosts[1], Stamp: stampNow()})
				g.must(RotateCerts{Since: time.Now()})
				g.must(Restart{Since: time.Now()})
				if s == Trust {
					g.signing()
				}
				g.stride(Retire)
				g.allGotIn()
			})
		})
	}
}

// A CA of one's own is put beside the one that signs, and taken from there.
func TestRotateCAToAGivenOne(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withCerts(3)
		keys := pki.Dir(filepath.Join(g.dir, "files/pki"))
		next := newCA(g, "our-own-ca")
		require.NoError(g.t, keys.SaveNext(next))
		g.trusting()
		g.signing()
		now, err := keys.Load()
		require.NoError(g.t, err)
		require.Equal(g.t, "our-own-ca", now.Cert.Subject.CommonName)
	})
}

// One that is not to go on is given up, and leaves no trace in what is trusted.
func TestAbandonCA(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withCerts(3)
		was := g.content(hosts[0], config.CAPath)
		g.killAt(RotateAuthority{Stride: Trust}, "restart etcd")
		g.stride(Abandon)
		g.allGotIn()
		require.Equal(g.t, was, g.content(hosts[0], config.CAPath))
		g.nothingToDo(RotateAuthority{Stride: Abandon})
		g.trusting()
		g.signing()
		g.refusal(g.operator(), RotateAuthority{Stride: Abandon}, "ca-rotation")
	})
}

func TestRotateCARefusals(t *testing.T) {
	trusted := func(g *ground) { g.withCerts(3); g.trusting() }
	signed := func(g *ground) { trusted(g); g.signing() }
	plain := func(g *ground) { g.withCerts(3) }
	write := func(name, path, text string) func(g *ground) {
		return func(g *ground) {
			n := *g.w.machines[name].files[path]
			n.content, n.since = []byte(text), time.Now()
			g.w.machines[name].files[path] = &n
		}
	}
	for _, c := range []struct {
		name, safeguard string
		stride          Stride
		prepare, spoil  func(g *ground)
	}{
		{"sign before trust", "ca-rotation", Sign, plain, nil},
		{"retire before sign", "ca-rotation", Retire, trusted, nil},
		{"abandon after sign", "ca-rotation", Abandon, signed, nil},
		{"a next CA without its key", "ca-rotation", Trust, plain, func(g *ground) {
			require.NoError(g.t, pki.Dir(filepath.Join(g.dir, "files/pki")).SaveNext(newCA(g, "half")))
			require.NoError(g.t, os.Remove(filepath.Join(g.dir, "files/pki/ca/next/ca.key")))
		}},
		{"somebody else signs", "ca-key", Trust, plain, func(g *ground) { require.NoError(g.t, os.Remove(filepath.Join(g.dir, "files/pki/ca/ca.key"))) }},
		{"a voter is dead", "voters-answer", Trust, plain, func(g *ground) { g.w.machines[hosts[2]].kill(); time.Sleep(6 * time.Second) }},
		{"a client's host is away", "clients-reachable", Trust, plain, func(g *ground) { g.w.machines[pgHosts[1]].reach = false }},
		{"a client's CA is not to be read", "trust-file", Trust, plain, write(pgHosts[1], clientCA, "none")},
		{"a client has another CA", "trust-file", Trust, plain, func(g *ground) { write(pgHosts[1], clientCA, string(newCA(g, "other").CertPEM))(g) }},
		{"a member's CA was put back", "members-trust", Sign, trusted, func(g *ground) {
			old, err := os.ReadFile(filepath.Join(g.dir, "files/pki/ca/ca.crt"))
			require.NoError(g.t, err)
			write(hosts[1], config.CAPath, string(pki.First(old)))(g)
		}},
		{"a member was not restarted since", "members-trust", Sign, trusted, func(g *ground) { write(hosts[1], config.CAPath, g.content(hosts[1], config.CAPath))(g) }},
		{"a client's CA was put back", "clients-trust", Sign, trusted, func(g *ground) {
			write(infraHost, config.InfraCAPath, string(pki.First([]byte(g.content(infraHost, config.InfraCAPath)))))(g)
		}},
		{"vip-manager was not restarted since", "clients-trust", Sign, trusted, func(g *ground) { write(pgHosts[1], clientCA, g.content(pgHosts[1], clientCA))(g) }},
		{"a client's host is away before sign", "clients-reachable", Sign, trusted, func(g *ground) { g.w.machines[pgHosts[1]].reach = false }},
		{"somebody is connected", "unknown-clients", Sign, trusted, func(g *ground) { g.w.machines[hosts[1]].callers = []string{"10.10.10.99:4711"} }},
		{"a member has an old certificate", "members-renewed", Retire, signed, func(g *ground) { write(hosts[1], config.ServerCertPath, string(g.oldCert(nil)))(g) }},
		{"a member shows another than it has", "members-renewed", Retire, signed, func(g *ground) { g.etcd().stuck = map[uint64][]byte{g.idOn(hosts[1]): g.certOn(hosts[0])} }},
		{"a client has an old certificate", "clients-renewed", Retire, signed, func(g *ground) { write(infraHost, config.InfraCertPath, string(g.oldCert(nil)))(g) }},
		{"vip-manager has not read the new one", "clients-renewed", Retire, signed, func(g *ground) { write(pgHosts[1], clientCert, g.content(pgHosts[1], clientCert))(g) }},
		{"somebody is connected still", "unknown-clients", Retire, signed, func(g *ground) { g.w.machines[hosts[1]].callers = []string{"10.10.10.99:4711"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, 3, func(g *ground) {
				c.prepare(g)
				if c.spoil != nil {
					c.spoil(g)
				}
				time.Sleep(time.Second)
				g.refusal(g.operator(), RotateAuthority{Stride: c.stride, Stamp: stampNow()}, c.safeguard)
			})
		})
	}
}

// Files that an operator is told to come with have to be as far as everybody's.
func TestRotateCAWithOwnFiles(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withCerts(3)
		was, err := pki.Dir(filepath.Join(g.dir, "files/pki")).Load()
		require.NoError(g.t, err)
		own := ClientFiles{CA: filepath.Join(g.dir, "own-ca.crt"), Cert: filepath.Join(g.dir, "own.crt")}
		require.NoError(g.t, os.WriteFile(own.CA, was.CertPEM, 0o600))
		require.NoError(g.t, os.WriteFile(own.Cert, g.oldCert(was), 0o600))
		as := func() *operator {
			op := g.operator()
			op.Site.Named = own
			return op
		}
		g.trusting()
		g.refusal(as(), RotateAuthority{Stride: Sign}, "own-files")
		g.signing()
		bundle, err := os.ReadFile(filepath.Join(g.dir, "files/pki/ca/ca.crt"))
		require.NoError(g.t, err)
		require.NoError(g.t, os.WriteFile(own.CA, bundle, 0o600))
		g.refusal(as(), RotateAuthority{Stride: Retire}, "own-files")
	})
}

// A certificate that is for servers too is signed anew only when that is asked for.
func TestRotateCALeavesServersAlone(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withCerts(3)
		g.trusting()
		was := g.content(pgHosts[0], clientCert)
		op := g.operator()
		res, err := op.do(RotateAuthority{Stride: Sign})
		require.NoError(g.t, err, op.story())
		require.Contains(g.t, res.Plan.Warnings[0], "is left alone")
		require.Equal(g.t, was, g.content(pgHosts[0], clientCert))
		g.refusal(g.operator(), RotateAuthority{Stride: Retire}, "clients-renewed")
		g.must(RotateAuthority{Stride: Sign, Clients: true})
		require.NotEqual(g.t, was, g.content(pgHosts[0], clientCert))
		g.allGotIn()
	})
}
