package sop

import (
	"fmt"
	"slices"
	"time"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// RotateAuthority lets another CA take the place of the one that a cluster has, in
// strides between which everything goes on for as long as one likes:
//
//   - trust: another CA is made, and trusted beside the present one: by every
//     member, which reads what it trusts only when it starts, and so is restarted,
//     and by every client that is known. Nothing is signed by it yet.
//   - sign: it signs from then on, and every member shows a certificate of it. A
//     client that does not trust it would be cut off by the first of them.
//   - retire: the CA before is trusted no more. A client that shows a certificate
//     of it would be cut off.
//
// So each stride is refused while a client that is known is not as far, and tells
// before its first change who is connected that is not known. How far a rotation
// has come stands in files/pki/ca and on the hosts, and nowhere else: each stride
// goes on by the same command, whoever was killed, and wherever. One that is not
// to go on is abandoned as long as nothing was signed.
type RotateAuthority struct {
	Stride Stride
	// Clients has certificates signed anew, too, that clients show and that are
	// for servers as well.
	Clients bool
	Soak    time.Duration // how long the cluster is left in peace between two members
	Stamp   string        // names what is put aside
}

// A Stride is one of those of a rotation.
type Stride string

// The strides.
const (
	Trust   Stride = "trust"
	Sign    Stride = "sign"
	Retire  Stride = "retire"
	Abandon Stride = "abandon"
)

// Strides are all of them.
func Strides() []string {
	return []string{string(Trust), string(Sign), string(Retire), string(Abandon)}
}

// String implements Procedure.
func (p RotateAuthority) String() string {
	s := "rotateCerts -ca=" + string(p.Stride)
	if p.Clients {
		s += " -clients"
	}
	return s
}

// Asks has looks read what members and clients trust and show.
func (p RotateAuthority) Asks(s *Scope) { s.Serving, s.Trust = true, true }

// Awaits is as of Restart.
func (p RotateAuthority) Awaits(v View) error { return runningAnswer(v) }

// Plan implements Procedure.
func (p RotateAuthority) Plan(v View) (Plan, error) {
	if !v.Exists() {
		return Plan{}, v.nobody("look at it with: status")
	}
	if !v.layout().TLS {
		return Plan{Warnings: []string{"this cluster has no TLS, so there is no CA"}}, nil
	}
	if err := p.fits(v.Admin); err != nil {
		return Plan{}, err
	}
	plan := map[Stride]func(View) Plan{Trust: p.trust, Sign: p.sign, Retire: p.retire, Abandon: p.retire}[p.Stride](v)
	plan.Needs = slices.Concat(caNeeds(), plan.Needs)
	plan.Reached = append(plan.Reached, everyVoterAnswers(), membersAreHosts())
	if n := v.Votes(); n.Voters < 3 && p.Stride != Sign {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("with %d voters the cluster does not write while one restarts", n.Voters))
	}
	warnings := plan.Warnings
	if plan = plan.ifOpen(v); plan.Empty() {
		plan.Warnings = append(p.next(v), warnings...)
	}
	return plan, nil
}

// fits refuses a stride that it is too early or too late for.
func (p RotateAuthority) fits(a AdminView) error {
	r := a.Rotation
	switch {
	case a.CAProblem != "", a.External:
		return nil // told by safeguards
	case a.RotationProblem != "":
		return refuse("ca-rotation", "", "put files/pki/ca/next right, or move it away: then another CA is made", "%s", a.RotationProblem)
	case p.Stride == Sign && r.Next == nil && r.Old == nil:
		return refuse("ca-rotation", "", "begin with: rotateCerts -ca=trust", "no other CA is on its way")
	case p.Stride == Retire && r.Next != nil:
		return refuse("ca-rotation", "", "go on with: rotateCerts -ca=sign; or give the new one up: rotateCerts -ca=abandon", "the CA %s does not sign yet", caName(r.Next))
	case p.Stride == Abandon && r.Old != nil:
		return refuse("ca-rotation", "", "go on with: rotateCerts -ca=sign, then -ca=retire", "the CA %s has signed already", caName(a.Signer))
	}
	return nil
}

// next says what comes after a stride that is done.
func (p RotateAuthority) next(v View) []string {
	r := v.Admin.Rotation
	switch {
	case p.Stride == Trust && r.Next != nil:
		return []string{"both CAs are trusted; once every other client has files/pki/ca/ca.crt, go on with: rotateCerts -ca=sign"}
	case r.Old != nil && p.Stride != Retire:
		return []string{fmt.Sprintf("the CA %s is still trusted; once no client shows a certificate of it, go on with: rotateCerts -ca=retire", caName(r.Old))}
	}
	return nil
}

// rotationFindings tell of a rotation that is under way.
func (a AdminView) rotationFindings() []string {
	switch goes, comes := a.succession(); {
	case a.RotationProblem != "":
		return []string{"CA: " + a.RotationProblem}
	case goes == nil:
		return nil
	case a.Rotation.Next != nil:
		return []string{fmt.Sprintf("CA: %s is on its way: go on with rotateCerts -ca=trust and -ca=sign, or give it up with -ca=abandon", caName(comes))}
	default:
		return []string{fmt.Sprintf("CA: %s signs, and %s is still trusted: end it with rotateCerts -ca=sign and -ca=retire", caName(comes), caName(goes))}
	}
}

// caNeeds are the safeguards of every stride. That certificates, or the CA, are
// about to end is no obstacle here: this is the remedy.
func caNeeds() []Safeguard {
	return []Safeguard{
		inventorySound(), notKubeadm(), mayAdminister(), quorate(), oneCluster(), sameCluster(), sameList(), nothingPending(), inventoryAgrees(),
		noAlarm(), quotaHeadroom(), oneMinor(), sameHash(), votersKeepUp(), clocksAgree(), certificatesFor(24 * time.Hour), sameCA(), rotatesHere(),
		everyVoterAnswers(), membersAreHosts(),
	}
}

// --- trust ---

func (p RotateAuthority) trust(v View) Plan {
	plan := Plan{Stages: []Stage{
		{"make another CA", []Step{
			{Title: "make the CA", Act: ChangeCA{Do: MakeNext}, Until: hasOther, Needs: []Safeguard{sameCA(), rotatesHere()}},
			{Title: "trust it here", Act: ChangeCA{Do: TrustNext}, Until: trustedHere},
		}},
	}, Warnings: v.strangers()}
	if v.Admin.Rotation.Old == nil { // else it is too late for that
		plan.GiveUp = RotateAuthority{Stride: Abandon}.String()
	}
	var write []Step
	for _, m := range v.byHost() {
		write = append(write, editTrust(pemFile{v.HostOf(m), v.layout().CA}, false))
		plan.Needs = append(plan.Needs, holdsCA(pemFile{v.HostOf(m), v.layout().CA}))
	}
	plan.Stages = append(plan.Stages, Stage{"write it beside the other on members", write})
	plan.Stages = append(plan.Stages, p.restarts(v)...)
	var clients []Step
	for _, f := range v.trustFiles() {
		clients = append(clients, editTrust(f, false))
		plan.Needs = append(plan.Needs, holdsCA(f))
	}
	clients = append(clients, p.vipRestarts(v)...)
	if len(clients) > 0 {
		plan.Stages = append(plan.Stages, Stage{"have clients trust it", clients})
	}
	plan.Needs = append(plan.Needs, clientsReachable(v)...)
	return plan
}

// hasOther holds when another CA was made.
func hasOther(v View) error {
	if v.Admin.otherCA() == nil {
		return fmt.Errorf("no other CA was made yet")
	}
	return nil
}

// trustedHere holds when files/pki/ca/ca.crt has both.
func trustedHere(v View) error {
	other := v.Admin.otherCA()
	if other == nil || !pki.HoldsCerts(v.Admin.CACert, other) {
		return fmt.Errorf("files/pki/ca/ca.crt does not have the other CA")
	}
	return nil
}

// editTrust adds the other CA to a file, or takes away the one that is not to be
// trusted.
func editTrust(f pemFile, retire bool) Step {
	if retire {
		return Step{Title: "trust it no more in " + f.Path, Host: f.Host, Act: EditTrust{Host: f.Host, Path: f.Path, Retire: true}, Until: trustsNone(f)}
	}
	return Step{Title: "trust it in " + f.Path, Host: f.Host, Act: EditTrust{Host: f.Host, Path: f.Path}, Until: trustsAll(f)}
}

// restarts has every member read what it trusts, where it has not.
func (p RotateAuthority) restarts(v View) []Stage {
	var stages []Stage
	for _, m := range v.rollingOrder() {
		h := v.HostOf(m)
		written := p.written(pemFile{h, v.layout().CA})
		stages = append(stages, Stage{"restart " + v.MemberName(h), restartUntil(v, h, All(written, readsTrust(h)), p.Soak)})
	}
	return stages
}

// written holds when a file of what is trusted is as the stride wants it.
func (p RotateAuthority) written(f pemFile) Condition {
	if p.Stride == Retire || p.Stride == Abandon {
		return trustsNone(f)
	}
	return trustsAll(f)
}

// vipRestarts has vip-managers read their files again, replicas first, who bears
// the address last. Those whose certificates are signed anew read those.
func (p RotateAuthority) vipRestarts(v View, signed ...pemFile) []Step {
	clients := v.knownClients()
	var steps []Step
	for _, cluster := range v.postgresClusters() {
		pg := v.postgres(cluster)
		for _, h := range v.vipOrder(pg) {
			a := Refresh{Host: h, File: VIPConf}
			i := slices.IndexFunc(clients, func(c clientTLS) bool { return c.Host == h && c.Kind == VIPConf })
			if i < 0 || !v.unitRuns(h, config.VIPManagerUnit) {
				continue
			}
			c := clients[i]
			read := c.hasRead(c.CA, c.Cert)
			switch {
			case p.Stride != Sign && c.CA != "":
				read = All(p.written(pemFile{h, c.CA}), read)
			case p.Stride == Sign && slices.Contains(signed, pemFile{h, c.Cert}):
				read = All(otherSigns, notOfOld(pemFile{h, c.Cert}), read)
			}
			steps = append(steps,
				Step{Title: "restart vip-manager", Host: h, Also: pg.hosts, Act: On{h, host.Systemctl{Verb: host.Restart, Unit: config.VIPManagerUnit}}, Until: read, Shake: true,
					Needs: []Safeguard{vipVersion(h, cluster), vipReadable(h), clientReaches(a, true), postgresSound(pg)}},
				Step{Title: "wait for the VIP", Host: h, Also: pg.hosts, Until: All(read, either(ranLong(h, config.VIPManagerUnit), vipSound(h, cluster))), Patience: Settling, Longer: vipPatience},
			)
		}
	}
	return steps
}

// ranLong holds when a unit was not started lately: what it does now is no doing
// of ours.
func ranLong(name, unit string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if u := facts.Units[unit]; u.Runs() && facts.Clock.Sub(u.Since) < lately {
			return fmt.Errorf("%s on %s was started at %s", unit, name, u.Since.Format(time.TimeOnly))
		}
		return nil
	}
}

// --- sign ---

func (p RotateAuthority) sign(v View) Plan {
	plan := Plan{Needs: []Safeguard{membersTrust(), ownFiles(trustsBoth)}}
	plan.Needs = append(plan.Needs, clientsReachable(v)...)
	plan.Needs = append(plan.Needs, clientsTrust(v)...)
	plan.Needs = append(plan.Needs, noStrangers())
	plan.Stages = []Stage{{"sign with the other CA", []Step{
		{Title: "let the other CA sign", Act: ChangeCA{Do: SignWithNext}, Until: otherSigns, Needs: []Safeguard{membersTrust(), sameCA(), rotatesHere()}},
	}}}
	for i, m := range v.rollingOrder() {
		h := v.HostOf(m)
		plan.Needs = append(plan.Needs, ownKey(h))
		fresh := All(otherSigns, issued(h), signedAnew(h))
		steps := renewMember(v, m, fresh, i > 0, p.Soak, membersTrust())
		if i == 0 {
			steps = append(steps, p.tries(v)...)
		}
		plan.Stages = append(plan.Stages, Stage{"renew the certificate of " + v.MemberName(h), steps})
	}
	var clients []Step
	var signed []pemFile
	for _, f := range v.certFiles() {
		text, err := v.pem(f)
		switch {
		case err != nil || !v.Admin.signedByOld(text):
			continue
		case pki.Serves(text) && !p.Clients:
			plan.Warnings = append(plan.Warnings, fmt.Sprintf("%s on %s is for servers too, PostgreSQL say, whose own clients would have to trust the new CA: it is left alone. Issue it anew, or let it be signed anew: rotateCerts -ca=sign -clients", f.Path, f.Host))
			continue
		case pki.Serves(text):
			plan.Warnings = append(plan.Warnings, fmt.Sprintf("%s on %s is for servers too: whoever shows it there shows one of the new CA from when it reads it next", f.Path, f.Host))
		}
		signed = append(signed, f)
		clients = append(clients, Step{Title: "sign anew " + f.Path, Host: f.Host, Act: Resign(f), Until: All(otherSigns, notOfOld(f)),
			Needs: []Safeguard{membersTrust(), rotatesHere()}})
	}
	clients = append(clients, p.vipRestarts(v, signed...)...)
	if len(clients) > 0 {
		plan.Stages = append(plan.Stages, Stage{"renew the certificates of clients", clients})
	}
	return plan
}

// tries has the clients that are known try the first member that shows a
// certificate of the new CA, each from its own host with its own files.
func (p RotateAuthority) tries(v View) []Step {
	var steps []Step
	for _, c := range v.knownClients() {
		if c.Kind != PatroniConf && c.Kind != VIPConf {
			continue
		}
		reaches := clientReaches(Refresh{Host: c.Host, File: c.Kind, At: c.From}, false)
		steps = append(steps, Step{Title: "try it with " + string(c.Kind), Host: c.Host, Until: All(otherSigns, reaches.Holds), Shake: true})
	}
	return steps
}

// otherSigns holds when the CA that was made is the one that signs.
func otherSigns(v View) error {
	if r := v.Admin.Rotation; r.Next != nil || r.Old == nil {
		return fmt.Errorf("the other CA does not sign yet")
	}
	return nil
}

// signedAnew holds when the certificate that was issued for a host is of the CA
// that signs now.
func signedAnew(name string) Condition {
	return func(v View) error {
		if !pki.SignedBy(v.Admin.Issued[v.MemberName(name)], v.Admin.Signer) {
			return fmt.Errorf("the certificate of %s is not by the CA %s", name, caName(v.Admin.Signer))
		}
		return nil
	}
}

// notOfOld holds when a client's certificate is not of the CA that signs no more.
func notOfOld(f pemFile) Condition {
	return func(v View) error {
		text, err := v.pem(f)
		if err != nil {
			return err
		}
		if goes, _ := v.Admin.succession(); v.Admin.signedByOld(text) {
			return fmt.Errorf("%s on %s is by the CA %s", f.Path, f.Host, caName(goes))
		}
		return nil
	}
}

// signedByOld reports whether a certificate is of the CA that goes. What the one
// that comes signed too, as one that was renewed with its key would have, is not.
func (a AdminView) signedByOld(certPEM []byte) bool {
	goes, comes := a.succession()
	return goes != nil && pki.SignedBy(certPEM, goes) && !pki.SignedBy(certPEM, comes)
}

// --- retire, abandon ---

// Of the two CAs the one that does not sign is to be trusted no more: before
// anything was signed by the next one that is this, and the old one afterwards.

func (p RotateAuthority) retire(v View) Plan {
	if v.Admin.otherCA() == nil {
		return Plan{}
	}
	here, aside := TrustOldNoMore, PutOldAside
	plan := Plan{}
	if p.Stride == Abandon {
		here, aside = TrustNextNoMore, PutNextAside
	} else {
		plan.Needs = []Safeguard{membersRenewed(), ownFiles(showsNew)}
		plan.Needs = append(plan.Needs, clientsReachable(v)...)
		plan.Needs = append(plan.Needs, clientsRenewed(v)...)
		plan.Needs = append(plan.Needs, noStrangers())
	}
	var steps []Step
	for _, f := range v.trustFiles() {
		steps = append(steps, editTrust(f, true))
		plan.Needs = append(plan.Needs, holdsCA(f))
	}
	steps = append(steps, p.vipRestarts(v)...)
	if len(steps) > 0 {
		plan.Stages = append(plan.Stages, Stage{"have clients trust it no more", steps})
	}
	steps = nil
	for _, m := range v.byHost() {
		s := editTrust(pemFile{v.HostOf(m), v.layout().CA}, true)
		if p.Stride == Retire {
			s.Needs = []Safeguard{membersRenewed()}
		}
		steps = append(steps, s)
	}
	plan.Stages = append(plan.Stages, Stage{"take it from members", steps})
	plan.Stages = append(plan.Stages, p.restarts(v)...)
	plan.Stages = append(plan.Stages, Stage{"put the CA aside", []Step{
		{Title: "trust it no more here", Act: ChangeCA{Do: here}, Until: func(v View) error {
			if ca := v.Admin.otherCA(); ca != nil && !pki.HoldsNone(v.Admin.CACert, ca) {
				return fmt.Errorf("files/pki/ca/ca.crt still has the CA %s", caName(ca))
			}
			return nil
		}},
		{Title: "put it aside", Act: ChangeCA{Do: aside, Stamp: p.Stamp}, Until: func(v View) error {
			if ca := v.Admin.otherCA(); ca != nil {
				return fmt.Errorf("the CA %s is still there", caName(ca))
			}
			return nil
		}},
	}})
	return plan
}
