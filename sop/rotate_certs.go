package sop

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// RotateCerts gives every member another certificate, by the CA that the cluster
// has and for the key that the member has.
//
// etcd reads its certificate at each handshake, so that nothing is restarted and
// no connection ends; and since the key stays, the new file takes the place of the
// old one at once, and there is no moment at which the two do not fit. One member
// at a time, and the next only once a connection of our own was shown the new one.
//
// Its goal is an event, "every member serves a certificate that was issued after
// Since".
type RotateCerts struct {
	Since time.Time
	Soak  time.Duration // how long the cluster is left in peace between two members
}

// String implements Procedure.
func (p RotateCerts) String() string { return "rotateCerts" }

// Asks has looks try which certificate each member shows.
func (p RotateCerts) Asks(s *Scope) { s.Serving = true }

// Plan implements Procedure. That a certificate is about to end is no obstacle
// here: this is the remedy.
func (p RotateCerts) Plan(v View) (Plan, error) {
	if !v.Exists() {
		return Plan{}, v.nobody("look at it with: status; where certificates have ended already, put new ones into place by hand: no restart is needed")
	}
	if !v.layout().TLS {
		return Plan{Warnings: []string{"this cluster has no TLS, so there is nothing to renew"}}, nil
	}
	plan := Plan{
		Needs: slices.Concat([]Safeguard{
			inventorySound(), notKubeadm(), mayAdminister(), quorate(), oneCluster(), sameCluster(), sameList(), nothingPending(), inventoryAgrees(),
			clocksAgree(), sameCA(), signsHere(), everyVoterAnswers(), membersAreHosts(),
		}),
		Reached:  []Safeguard{everyVoterAnswers(), membersAreHosts()},
		Warnings: p.clients(v),
	}
	for _, m := range v.rollingOrder() {
		h := v.HostOf(m)
		plan.Needs = append(plan.Needs, ownKey(h))
		fresh := All(issued(h), issuedSince(h, p.Since))
		plan.Stages = append(plan.Stages, Stage{"renew the certificate of " + v.MemberName(h), renewMember(v, m, fresh, len(plan.Stages) > 0, p.Soak)})
	}
	return plan.ifOpen(v), nil
}

// renewMember renews the certificate of one, where that which was issued last is
// not fresh.
func renewMember(v View, m Member, fresh Condition, another bool, soak time.Duration, needs ...Safeguard) []Step {
	h := v.HostOf(m)
	cert := Install{Host: h, File: ServerCert, At: v.at(ServerCert)}
	steps := []Step{{Title: "issue the certificate", Host: h, Act: RenewCert{h}, Until: fresh, Needs: append([]Safeguard{sameCA(), signsHere(), ownKey(h)}, needs...)}}
	if another && soak > 0 {
		steps = append(steps, Step{Title: "soak", Host: h, Until: All(fresh, inPlace(cert)), Rest: soak, Patience: Settling, Longer: soak})
	}
	return append(steps,
		Step{Title: "write " + string(ServerCert), Host: h, Act: cert, Until: All(fresh, inPlace(cert)),
			Needs: append([]Safeguard{quorate(), oneCluster(), sameList(), everyVoterAnswers(), ownKey(h)}, needs...)},
		Step{Title: "wait until it is served", Host: h, Until: All(fresh, serves(h), answers(h), hasLeader), Patience: Starting, Etcd: true},
	)
}

// clients names the certificates that are somebody else's to renew.
func (p RotateCerts) clients(v View) []string {
	const not = "is not renewed by this: whoever issued it does"
	var all []string
	name := func(host, cert string) {
		if cert != "" && cert != v.layout().Cert {
			all = append(all, fmt.Sprintf("%s on %s %s", cert, host, not))
		}
	}
	for _, r := range []struct {
		f    File
		cert func([]byte) string
	}{
		{PatroniConf, func(b []byte) string { c, _ := config.ParsePatroni(b); return c.Cert }},
		{VIPConf, func(b []byte) string { c, _ := config.ParseVIPManager(b); return c.Cert }},
	} {
		for _, pg := range v.Wanted.Postgres {
			a := Refresh{Host: pg.Host, File: r.f}
			if s, _ := v.standingOf(a); s == editable {
				name(pg.Host, r.cert(v.hostView(pg.Host).Facts.Files[a.path()].Content))
			}
		}
	}
	for _, h := range v.infraHosts() {
		if _, member := v.At(h); member {
			continue
		}
		if f := v.hostView(h).Facts.Files[config.EnvPath]; f.Exists {
			name(h, config.InfraCertPath)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// issuedSince holds when the certificate of a host was issued after a moment.
func issuedSince(name string, since time.Time) Condition {
	return func(v View) error {
		at, ok := v.Admin.IssuedAt[v.MemberName(name)]
		if !ok || at.Before(since.Truncate(time.Second)) {
			return fmt.Errorf("the certificate of %s is from before %s", name, since.Format(time.TimeOnly))
		}
		return nil
	}
}

// serves holds when the member on a host shows the certificate that was issued
// for it last.
func serves(name string) Condition {
	return func(v View) error {
		want, err := pki.Fingerprint(v.Admin.Issued[v.MemberName(name)])
		if err != nil {
			return fmt.Errorf("certificate of %s: %w", name, err)
		}
		m, _ := v.At(name)
		switch l := v.LookOf(m.ID); {
		case l.Served == "":
			return fmt.Errorf("which certificate %s shows is not known", name)
		case l.Served != want:
			return fmt.Errorf("%s still shows another certificate", name)
		}
		return nil
	}
}

// ownKey: the key on a host is the one that its certificate is issued for.
func ownKey(name string) Safeguard {
	return Safeguard{Name: "own-key", Show: "sha256sum /etc/etcd/server.key",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			path := v.at(ServerKey)
			if path == "" {
				path = ServerKey.Path()
			}
			if err := hiddenIn(name, facts, path); err != nil {
				return err
			}
			member := v.MemberName(name)
			if want := v.Admin.KeySums[member]; want == "" || facts.Sums[path] != want {
				return &Refusal{Host: name, Found: fmt.Sprintf("%s there is not the key in files/pki of %s%s", path, member, because(v.Admin.Unusable[member])),
					Needed: "the key that the member runs with", Hint: "copy files/pki from the admin host that created the cluster"}
			}
			return nil
		}}
}

// signsHere: the CA's key is here, so that certificates can be signed.
func signsHere() Safeguard {
	return Safeguard{Name: "ca-key", Show: "ls files/pki/ca/ca.key",
		Holds: func(v View) error {
			if v.Admin.External {
				return &Refusal{Found: "the key of the CA is not in files/pki: somebody else signs", Needed: "the CA's key",
					Hint: "have new certificates signed for the requests in files/pki/csr, and write each to its host: etcd reads it at the next handshake"}
			}
			return nil
		}}
}

// RenewCert issues another certificate for the member on a host, for its key.
type RenewCert struct{ Host string }

func (a RenewCert) String() string { return "issue another certificate for " + a.Host }

// ByHand implements Act.
func (a RenewCert) ByHand(v View) []string {
	n := v.MemberName(a.Host)
	return []string{fmt.Sprintf("openssl x509 -req -copy_extensions copy -CA files/pki/ca/ca.crt -CAkey files/pki/ca/ca.key -in files/pki/csr/%s.csr -out files/pki/etcd/%s.crt", n, n)}
}

func (s *Site) renewCert(a RenewCert, v View) (string, error) {
	ca, err := s.PKI.Load()
	if err != nil {
		return "", err
	}
	name := v.MemberName(a.Host)
	old, err := s.PKI.LoadPair(name)
	if err != nil {
		return "", err
	}
	p, err := ca.Renew(s.Random, s.Now(), pki.Leaf{Name: name, Host: a.Host, Validity: v.Wanted.CertValidity}, old.KeyPEM)
	if err != nil {
		return "", err
	}
	if err := s.PKI.SavePair(name, p); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, until %s", name, pki.NotAfter(p.CertPEM).Format(time.DateOnly)), s.datedNow(name)
}

// datedNow gives the file of a certificate the time that this run goes by.
func (s *Site) datedNow(name string) error {
	now := s.Now()
	if err := os.Chtimes(s.PKI.CertPath(name), now, now); err != nil {
		return fmt.Errorf("date the certificate of %s: %w", name, err)
	}
	return nil
}
