package sop

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/sop/pki"
)

// rotatesHere: the CA is in files/pki with its key.
func rotatesHere() Safeguard {
	s := signsHere()
	return Safeguard{Name: "ca-key", Show: s.Show, Holds: func(v View) error {
		if !v.Admin.External {
			return nil
		}
		return &Refusal{Found: "the key of the CA is not in files/pki: somebody else signs", Needed: "the CA's key",
			Hint: "by hand, in the same strides: the new CA's certificate behind the old one's in files/pki/ca/ca.crt, in every member's ca.crt and at every client, then: restart; certificates by the new CA into files/pki/etcd and onto the hosts; the old CA's certificate out of all of them, then: restart"}
	}}
}

// holdsCA: a file of what is trusted can be read, and has the CA that signs now,
// so that it is what it is taken for.
func holdsCA(f pemFile) Safeguard {
	return Safeguard{Name: "trust-file", Show: "openssl crl2pkcs7 -nocrl -certfile FILE | openssl pkcs7 -print_certs -noout",
		Holds: func(v View) error {
			if h, ok := v.Host(f.Host); !ok || !h.Reachable() {
				return nil // another safeguard's
			}
			text, err := v.pem(f)
			switch {
			case isHidden(err):
				return err
			case err != nil:
				return &Refusal{Host: f.Host, Found: err.Error(), Needed: "a file of the CAs that are trusted", Hint: "put files/pki/ca/ca.crt there"}
			case v.Admin.Signer != nil && !pki.HoldsCerts(text, v.Admin.Signer):
				return &Refusal{Host: f.Host, Found: fmt.Sprintf("%s does not have the CA that signs, %s", f.Path, caName(v.Admin.Signer)), Needed: "a client that trusts the members",
					Hint: "is it another cluster's? Else put files/pki/ca/ca.crt there"}
			}
			return nil
		}}
}

// membersTrust: every member has read both CAs.
func membersTrust() Safeguard {
	return Safeguard{Name: "members-trust", Show: "grep -c BEGIN /etc/etcd/ca.crt; systemctl show -p ActiveEnterTimestamp etcd",
		Holds: func(v View) error {
			for _, m := range v.Members {
				h := v.HostOf(m)
				err := All(trustsAll(pemFile{h, v.layout().CA}), readsTrust(h))(v)
				switch {
				case isHidden(err):
					return err
				case err != nil:
					return &Refusal{Host: h, Found: err.Error(), Needed: "every member trusts both CAs", Hint: "first: rotateCerts -ca=trust"}
				}
			}
			return nil
		}}
}

// membersRenewed: no member shows a certificate of the old CA, or would.
func membersRenewed() Safeguard {
	return Safeguard{Name: "members-renewed", Passing: Looking, Show: "openssl x509 -in /etc/etcd/server.crt -noout -issuer",
		Holds: func(v View) error {
			for _, m := range v.Members {
				h := v.HostOf(m)
				lacks := func(found string) error {
					return &Refusal{certain: true, Host: h, Found: found, Needed: "certificates of the new CA on every member", Hint: "first: rotateCerts -ca=sign"}
				}
				text, err := v.pem(pemFile{h, v.layout().Cert})
				shown, _ := pki.Fingerprint(text)
				switch l := v.LookOf(m.ID); {
				case isHidden(err):
					return err
				case err != nil:
					return lacks(err.Error())
				case !pki.SignedBy(text, v.Admin.Signer):
					return lacks(fmt.Sprintf("%s there is not by the CA %s", v.layout().Cert, caName(v.Admin.Signer)))
				case l.Answers() && l.Served == "": // it restarts just now, or is slow to tell
					return fmt.Errorf("which certificate %s shows is not known", h)
				case l.Answers() && l.Served != shown:
					return lacks("the member shows another certificate than the one that is there")
				case signedAnew(h)(v) != nil:
					return lacks(fmt.Sprintf("the certificate in files/pki/etcd of %s is not by the CA %s", v.MemberName(h), caName(v.Admin.Signer)))
				}
			}
			return nil
		}}
}

// clientsReachable: the hosts of clients can be looked at, each waived by itself.
func clientsReachable(v View) []Safeguard {
	var all []Safeguard
	for _, name := range v.referenceHosts() {
		if v.isMemberHost(name) {
			continue
		}
		all = append(all, Safeguard{Name: "clients-reachable", Show: "ssh HOST true",
			Risk: "clients on that host that trust the old CA alone, or show a certificate of it, are cut off",
			Holds: func(v View) error {
				if h, ok := v.Host(name); !ok || !h.Reachable() {
					return &Refusal{Host: name, Found: name + " cannot be reached: " + h.Problem, Needed: "a look at every host with clients", Hint: "bring it back, or waive it: -waive=clients-reachable:" + name}
				}
				return nil
			}})
	}
	return all
}

// clientsTrust: the clients that are known trust both CAs, and have read that.
func clientsTrust(v View) []Safeguard {
	var all []Safeguard
	for _, c := range v.knownClients() {
		if c.CA == "" {
			continue
		}
		all = append(all, Safeguard{Name: "clients-trust", Show: "openssl crl2pkcs7 -nocrl -certfile FILE | openssl pkcs7 -print_certs -noout",
			Risk: "that client is cut off by the first member that shows a certificate of the new CA",
			Holds: func(v View) error {
				err := All(trustsAll(pemFile{c.Host, c.CA}), c.hasRead(c.CA))(v)
				if err == nil || isHidden(err) {
					return err
				}
				return &Refusal{Host: c.Host, Found: err.Error() + ", which " + c.From + " names", Needed: "clients that trust both CAs", Hint: "first: rotateCerts -ca=trust"}
			}})
	}
	return all
}

// clientsRenewed: the clients that are known show no certificate of the old CA.
// One whose file is without that CA by now was seen to before, and reads it next.
func clientsRenewed(v View) []Safeguard {
	var all []Safeguard
	for _, c := range v.knownClients() {
		if c.Cert == "" {
			continue
		}
		all = append(all, Safeguard{Name: "clients-renewed", Show: "openssl x509 -in FILE -noout -issuer",
			Risk: "that client is cut off once the members trust the old CA no more",
			Holds: func(v View) error {
				read := c.hasRead(c.CA, c.Cert)
				if c.CA != "" {
					read = either(trustsNone(pemFile{c.Host, c.CA}), read)
				}
				err := All(notOfOld(pemFile{c.Host, c.Cert}), read)(v)
				if err == nil || isHidden(err) {
					return err
				}
				return &Refusal{Host: c.Host, Found: err.Error() + ", which " + c.From + " names", Needed: "no certificate of the old CA at a client",
					Hint: "issue it anew by the CA in files/pki/ca, or: rotateCerts -ca=sign -clients"}
			}})
	}
	return all
}

// noStrangers: nobody is connected of whom it is not known what he trusts and
// shows.
func noStrangers() Safeguard {
	return Safeguard{Name: "unknown-clients", Show: "ss -tn state established sport = :2379",
		Risk: "those that trust the old CA alone, or show a certificate of it, are cut off",
		Holds: func(v View) error {
			if all := v.connectedStrangers(); len(all) > 0 {
				return &Refusal{Found: strings.Join(all, "; ") + ", and no client is known there", Needed: "a look at the clients there",
					Hint: "see that they have files/pki/ca/ca.crt, and certificates of its first CA before the old one is retired; then waive it: -waive=unknown-clients"}
			}
			return nil
		}}
}

// strangers tells of them before anything depends on it.
func (v View) strangers() []string {
	var all []string
	for _, s := range v.connectedStrangers() {
		all = append(all, s+": whoever is a client there needs files/pki/ca/ca.crt before: rotateCerts -ca=sign")
	}
	return all
}

// connectedStrangers are the addresses that are connected to members and on which
// no client is known.
func (v View) connectedStrangers() []string {
	clients := v.knownClients()
	known := func(address string) bool {
		return slices.ContainsFunc(v.Hosts, func(h HostView) bool {
			named := v.isMemberHost(h.Name) || slices.ContainsFunc(clients, func(c clientTLS) bool { return c.Host == h.Name })
			return named && (h.Name == address || slices.Contains(h.Facts.Addrs, address))
		})
	}
	at := map[string][]string{}
	for _, m := range v.byHost() {
		h := v.HostOf(m)
		facts, err := v.facts(h)
		if err != nil {
			continue
		}
		for from := range v.callers(facts, h, v.Spec(h).ClientPort) {
			if !known(from) {
				at[from] = append(at[from], h)
			}
		}
	}
	var all []string
	for from, to := range at {
		all = append(all, fmt.Sprintf("%s is connected to %s", from, strings.Join(to, ", ")))
	}
	slices.Sort(all)
	return all
}

// An OwnFiles is what this admin host shows to members where it is told to by
// environment or inventory.
type OwnFiles struct {
	Files    ClientFiles
	CA, Cert []byte
	Problem  string
}

// ownFiles: what we ourselves trust and show will do, where it is not of files/pki.
func ownFiles(do func(a AdminView) string) Safeguard {
	return Safeguard{Name: "own-files", Show: "env | grep ETCDCTL_",
		Holds: func(v View) error {
			switch o := v.Admin.Own; {
			case o.Problem != "":
				return &Refusal{Found: o.Problem, Needed: "a client certificate for the members"}
			default:
				if found := do(v.Admin); found != "" {
					return &Refusal{Found: found, Needed: "an operator who is not cut off by himself",
						Hint: "bring the file up to date, or name none: files/pki issues one"}
				}
			}
			return nil
		}}
}

func trustsBoth(a AdminView) string {
	if a.Own.CA == nil {
		return ""
	}
	for _, ca := range [][]byte{a.Signer, a.otherCA()} {
		if ca != nil && !pki.HoldsCerts(a.Own.CA, ca) {
			return fmt.Sprintf("%s, by which members are trusted from here, does not have the CA %s", a.Own.Files.CA, caName(ca))
		}
	}
	return ""
}

func showsNew(a AdminView) string {
	switch {
	case a.Own.CA != nil && !pki.HoldsCerts(a.Own.CA, a.Signer):
		return fmt.Sprintf("%s, by which members are trusted from here, does not have the CA %s", a.Own.Files.CA, caName(a.Signer))
	case a.Own.Cert != nil && a.signedByOld(a.Own.Cert):
		return fmt.Sprintf("%s, which is shown to members from here, is by the CA %s", a.Own.Files.Cert, caName(a.Rotation.Old))
	}
	return ""
}
