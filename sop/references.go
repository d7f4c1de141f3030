package sop

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// References are the files that name the members: etcd.conf, etcdctl's
// environment, and those of other clients. Only the endpoints in them are
// edited; a file that would not change is left alone, and then nothing is
// reloaded or restarted either.
//
// Which PostgreSQL belongs to which etcd is in no inventory. A client's file is
// ours if the endpoints that it holds now meet this cluster's members; any other
// is left alone.

// A change is what the references are to say: the voters, dead ones too, which
// may come back; without some, with others that are voters by then. A learner is
// never among them.
type change struct {
	without []string // hosts whose members are left out
	with    []string // hosts whose members are voters by then
	parting []string // of the hosts that go, those where etcdctl is told of the others
	vips    bool     // restart vip-manager wherever it runs with another list
}

// A reference is what brings one kind of file up to date on some hosts, and lets
// who reads it know.
type reference struct {
	kind     File
	hosts    []string
	steps    []Step
	warnings []string
}

// A refreshment is all of that: the parts in order, and what must hold before
// the first of them.
type refreshment struct {
	parts []reference
	needs []Safeguard
}

func (r *refreshment) add(kind File, hosts []string, steps ...Step) {
	r.parts = append(r.parts, reference{kind: kind, hosts: hosts, steps: steps})
}

func (r *refreshment) warn(kind File, host string, texts ...string) {
	r.parts = append(r.parts, reference{kind: kind, hosts: []string{host}, warnings: texts})
}

func (r *refreshment) join(o refreshment) {
	r.parts, r.needs = append(r.parts, o.parts...), append(r.needs, o.needs...)
}

func (r refreshment) warnings() []string {
	var all []string
	for _, p := range r.parts {
		all = append(all, p.warnings...)
	}
	return all
}

func (r refreshment) steps() []Step {
	var all []Step
	for _, p := range r.parts {
		all = append(all, p.steps...)
	}
	return all
}

// only leaves out what concerns neither one of the hosts nor one of the kinds
// that are named.
func (r refreshment) only(names []string) refreshment {
	named := func(p reference) bool {
		return slices.Contains(names, string(p.kind)) || slices.ContainsFunc(p.hosts, func(h string) bool { return slices.Contains(names, h) })
	}
	r.parts = slices.DeleteFunc(slices.Clone(r.parts), func(p reference) bool { return !named(p) })
	return r
}

// refreshmentOf gives everything that a change of the members asks for.
func (v View) refreshmentOf(c change) refreshment {
	var r refreshment
	for _, name := range v.envHosts(c.with...) {
		goes := slices.Contains(c.without, name)
		if goes && !slices.Contains(c.parting, name) {
			continue
		}
		for _, f := range []File{Conf, EnvFile} {
			if f == Conf && goes || f == Conf && !slices.Contains(c.with, name) && !v.isMemberHost(name) {
				continue
			}
			a := Refresh{Host: name, File: f, Without: c.without, With: c.with, At: v.at(f)}
			r.add(f, []string{name}, Step{Title: "refresh " + string(f), Host: name, Act: a, Until: owed(v, name, isFresh(a)), Abreast: true, Together: true})
		}
	}
	r.join(v.patronictlRefreshment(c))
	r.join(v.patroniRefreshment(c))
	r.join(v.vipRefreshment(c))
	r.join(v.targetRefreshment(c))
	return r
}

// references are the steps of a change.
func references(v View, without []string, with ...string) []Step {
	return v.refreshmentOf(change{without: without, with: with}).steps()
}

// owed holds for a host that could not be reached when the plan was made: its
// references are a debt that status shows, and that a rerun pays.
func owed(v View, name string, c Condition) Condition {
	if h, ok := v.Host(name); ok && !h.Reachable() {
		return func(View) error { return nil }
	}
	return c
}

func (v View) isMemberHost(name string) bool {
	_, ok := v.At(name)
	return ok
}

// envHosts are the hosts that have etcdctl's environment: members, infra hosts
// and the admin host.
func (v View) envHosts(also ...string) []string {
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, m := range v.Members {
		add(v.HostOf(m))
	}
	for _, name := range also {
		add(name)
	}
	slices.Sort(names)
	for _, name := range v.infraHosts() {
		add(name)
	}
	return names
}

// infraHosts are those with monitoring and administration on them.
func (v View) infraHosts() []string {
	names := slices.Clone(v.Wanted.InfraHosts)
	if a := v.Wanted.AdminHost; a != "" && !slices.Contains(names, a) {
		names = append(names, a)
	}
	return names
}

// referenceHosts are all hosts with files that may name the members.
func (v View) referenceHosts() []string {
	names := v.envHosts()
	for _, p := range v.Wanted.Postgres {
		if !slices.Contains(names, p.Host) {
			names = append(names, p.Host)
		}
	}
	return names
}

// referenceKinds are the kinds of files that -only takes.
func referenceKinds() []string {
	var names []string
	for _, f := range []File{Conf, EnvFile, PatroniConf, VIPConf, PatronictlConf, Targets} {
		names = append(names, string(f))
	}
	return names
}

// isClients reports whether a file is a client's own, with its secrets in it.
func (f File) isClients() bool { return f == PatroniConf || f == VIPConf || f == PatronictlConf }

// endpointsIn reads the endpoints that a client's file holds.
func endpointsIn(f File, content []byte) ([]string, error) {
	switch f {
	case PatroniConf, PatronictlConf:
		return config.PatroniEndpoints(content)
	case VIPConf:
		return config.VIPManagerEndpoints(content)
	}
	env, err := config.ParseClientEnv(content)
	return env.Endpoints, err
}

// meets reports whether a file on a host names any member of this cluster. One
// that does not belongs to another cluster's clients and is left alone. On a
// host that still is in debt the members that were removed from here count too:
// they may be all that it knows.
func (v View) meets(name string, f File, content []byte) bool {
	if f == Conf {
		return true
	}
	endpoints, err := endpointsIn(f, content)
	return err == nil && config.MeetsCluster(endpoints, v.knownURLs(name))
}

func (v View) knownURLs(name string) []string {
	var urls []string
	for _, m := range v.Members {
		urls = append(urls, m.ClientURLs...)
	}
	for _, h := range v.Wanted.Hosts {
		urls = append(urls, v.Wanted.ClientURL(h))
	}
	if slices.Contains(v.Admin.Debts, name) {
		for removed := range v.Admin.Removed {
			urls = append(urls, v.ClientURL(removed))
		}
	}
	return urls
}

// standing says how a client's file stands to this cluster.
type standing int

const (
	absent   standing = iota // there is none, or the host was not looked at
	foreign                  // it names another etcd, or none
	editable                 // it is ours
	stubborn                 // it is ours, or may be, and cannot be edited
)

// standingOf tells it, with the reason where there is one.
func (v View) standingOf(a Refresh) (standing, error) {
	facts, err := v.facts(a.Host)
	if err != nil {
		return absent, nil //nolint:nilerr // that it cannot be reached is another safeguard's
	}
	if why := hiddenIn(a.Host, facts, a.path()); why != nil {
		return stubborn, why
	}
	f := facts.Files[a.path()]
	switch {
	case !f.Exists:
		return absent, nil
	case f.Problem != "":
		return stubborn, fmt.Errorf("%s cannot be read: %s", a.path(), f.Problem)
	}
	endpoints, err := endpointsIn(a.File, f.Content)
	switch {
	case errors.Is(err, config.ErrNoEndpoints):
		return foreign, fmt.Errorf("%s: %w", a.path(), err)
	case err != nil:
		return stubborn, fmt.Errorf("%s: %w", a.path(), err)
	case !config.MeetsCluster(endpoints, v.knownURLs(a.Host)):
		return foreign, fmt.Errorf("%s names %s and no member of this cluster", a.path(), strings.Join(endpoints, ", "))
	}
	if _, err := v.refresh(f.Content, a); err != nil {
		return stubborn, fmt.Errorf("%s: %w", a.path(), err)
	}
	return editable, nil
}

// take looks at a client's file: it reports whether it is to be refreshed, and
// notes what has to hold and what is to be said. One that could not be seen for
// lack of rights is taken for ours until a run knows better.
func (r *refreshment) take(v View, a Refresh) bool {
	switch s, why := v.standingOf(a); s {
	case foreign:
		r.warn(a.File, a.Host, fmt.Sprintf("%s on %s is left alone: %v", a.File, a.Host, why))
	case stubborn:
		r.needs = append(r.needs, referenceEditable(a))
		return isHidden(why)
	case editable:
		r.needs = append(r.needs, clientReaches(a, false))
		return true
	}
	return false
}

// refreshStep edits a client's file. Members that its host cannot talk to, with
// the certificate that the client has, are not put into it.
func refreshStep(a Refresh) Step {
	return Step{Title: "refresh " + string(a.File), Host: a.Host, Act: a, Until: isFresh(a), Shake: true,
		Needs: []Safeguard{livingEndpoints(a), clientReaches(a, false)}}
}

// patronictlRefreshment is about patronictl's own file on infra hosts, which
// nothing has read but the command that is typed next.
func (v View) patronictlRefreshment(c change) (r refreshment) {
	for _, name := range v.infraHosts() {
		for _, path := range []string{config.PatronictlPath, config.PatronictlInfraPath} {
			a := Refresh{Host: name, File: PatronictlConf, Without: c.without, With: c.with, At: path}
			if r.take(v, a) {
				r.add(PatronictlConf, []string{name}, refreshStep(a))
			}
		}
	}
	return r
}

// --- safeguards ---

// membersReachable: the hosts whose files name the members can be looked at,
// since those have to be refreshed. There is one for each host, so that each is
// waived by itself.
func membersReachable(v View, except ...string) []Safeguard {
	return hostsReachable(slices.DeleteFunc(v.referenceHosts(), func(h string) bool { return slices.Contains(except, h) }))
}

func hostsReachable(names []string) []Safeguard {
	var all []Safeguard
	for _, name := range names {
		all = append(all, Safeguard{Name: "references-reachable", Show: "ssh HOST true",
			Risk: "files on that host keep naming the old members; it is remembered as a debt",
			Holds: func(v View) error {
				h, ok := v.Host(name)
				if ok && h.Reachable() {
					return nil
				}
				return &Refusal{Host: name, Found: name + " cannot be reached: " + h.Problem, Needed: "every host whose files name the members",
					Hint: "bring it back, or waive it: -waive=references-reachable:" + name}
			}})
	}
	return all
}

// referenceEditable: a client's file can be read, and its endpoints be edited
// without a person.
func referenceEditable(a Refresh) Safeguard {
	return Safeguard{Name: "references-editable", Show: "less " + a.path(),
		Risk: "that file keeps naming the old members until a person edits it; it is remembered as a debt",
		Holds: func(v View) error {
			s, why := v.standingOf(a)
			switch {
			case s != stubborn:
				return nil
			case isHidden(why):
				return why
			}
			return &Refusal{Host: a.Host, Found: why.Error(), Needed: "a list of endpoints that can be edited in place",
				Hint: fmt.Sprintf("edit it by hand, or waive it: -waive=references-editable:%s", a.Host)}
		}}
}

// livingEndpoints: what a file is to name holds two living voters, or all that
// there are where there is only one.
func livingEndpoints(a Refresh) Safeguard {
	return Safeguard{Name: "living-endpoints", Show: "etcdctl endpoint status --cluster", Passing: Electing,
		Holds: func(v View) error {
			want := a.endpoints(v)
			if n, least := v.livingIn(want, a.Without), min(2, len(want)); n < least || least == 0 {
				return &Refusal{Host: a.Host, Found: fmt.Sprintf("of %s %d answer", strings.Join(want, ", "), n), Needed: fmt.Sprintf("%d living voters in every list", max(least, 1)),
					Hint: "bring members back first: a client that is given dead ones alone is cut off"}
			}
			return nil
		}}
}

// livingIn counts the living voters that a list names, those on the hosts in
// without left out.
func (v View) livingIn(endpoints, without []string) (n int) {
	for _, m := range v.LivingVoters() {
		if !slices.Contains(without, v.HostOf(m)) && config.MeetsCluster(endpoints, m.ClientURLs) {
			n++
		}
	}
	return n
}

// clientReaches: the living voters take the certificate that a client has, from
// its own host. Strictly, one that could not be tried does not do.
func clientReaches(a Refresh, strict bool) Safeguard {
	return Safeguard{Name: "client-reaches", Show: "openssl s_client -connect HOST:2379 -CAfile CA -cert CERT -key KEY",
		Risk: "the client may be cut off from etcd when it starts the next time",
		Holds: func(v View) error {
			h, ok := v.Host(a.Host)
			f := h.Facts.Files[a.path()]
			if !ok || !f.Exists {
				return nil
			}
			want := a.endpoints(v)
			for _, m := range v.LivingVoters() {
				for _, u := range m.ClientURLs {
					if slices.Contains(a.Without, v.HostOf(m)) || !config.MeetsCluster(want, []string{u}) {
						continue
					}
					problem, tried := h.tried(handshake(a.File, f.Content, u))
					switch {
					case tried && problem != "":
						return &Refusal{Host: a.Host, Found: fmt.Sprintf("with the certificate in %s it cannot talk to %s: %s", a.path(), u, problem), Needed: "a client that every member takes",
							Hint: "look at the firewall, and at the certificate's CA"}
					case !tried && strict:
						return &Refusal{Host: a.Host, Found: fmt.Sprintf("whether it can talk to %s with the certificate in %s could not be tried", u, a.path()), Needed: "a client that every member takes"}
					}
				}
			}
			return nil
		}}
}

// tried tells how a connection went, a plain one where there is no TLS.
func (h HostView) tried(s host.Handshake) (problem string, tried bool) {
	if s.CA == "" {
		problem, tried = h.Facts.Dials[s.Address]
		return problem, tried
	}
	problem, tried = h.Shakes[s]
	return problem, tried
}

// handshake is the connection that a client would make to a member, by its file.
// Without a CA it is plain.
func handshake(f File, content []byte, url string) host.Handshake {
	s := host.Handshake{Address: dialable(url)}
	if strings.HasPrefix(url, "http://") {
		return s
	}
	switch f {
	case PatroniConf, PatronictlConf:
		if p, err := config.ParsePatroni(content); err == nil && !p.Plain {
			s.CA, s.Cert, s.Key = p.CA, p.Cert, p.Key
		}
	case VIPConf:
		if m, err := config.ParseVIPManager(content); err == nil {
			s.CA, s.Cert, s.Key = m.CA, m.Cert, m.Key
		}
	}
	return s
}

// --- what is asked of hosts ---

// looksAt reports whether a look is about a host.
func (s Scope) looksAt(name string, client bool) bool {
	return s.AllHosts && (!client || !s.NoClients) || s.Host == name || slices.Contains(s.Also, name)
}

// onlyClient reports whether a host has nothing to do with etcd but to be its
// client: no member is on it, none is wanted, none is coming.
func onlyClient(v View, name string, scope Scope, last View) bool {
	if _, wanted := v.Wanted.Host(name); wanted || slices.Contains(scope.Subjects, name) {
		return false
	}
	if slices.ContainsFunc(last.Members, func(m Member) bool { return last.HostOf(m) == name }) {
		return false
	}
	return slices.Contains(v.Wanted.Clients(), name)
}

// askClients adds what is to be found out about a host's clients of etcd. It
// gives the handshakes that are asked for, and whether programs are.
func askClients(q *host.Question, v View, spec inventory.Host, scope Scope, known HostView, last View) (shakes []host.Handshake, programs bool) {
	full := scope.AllHosts || known.Facts.Clock.IsZero()
	_, wanted := v.Wanted.Host(spec.Name)
	infra := slices.Contains(v.infraHosts(), spec.Name)
	if infra || wanted || slices.Contains(scope.Subjects, spec.Name) {
		if full || scope.Ports {
			q.Programs = append(q.Programs, config.EtcdctlPath)
		}
		if wanted && (full || scope.Ports) {
			q.Programs = append(q.Programs, v.utility())
		}
	}
	clients := map[File][]string{}
	if infra {
		if !slices.Contains(q.Files, config.EnvPath) {
			q.Files, q.Dirs = append(q.Files, config.EnvPath), append(q.Dirs, config.ConfDir)
		}
		clients[PatronictlConf] = []string{config.PatronictlPath, config.PatronictlInfraPath}
		q.Files = append(q.Files, clients[PatronictlConf]...)
		askTargets(q, v, scope, known, last)
	}
	if p, ok := v.Wanted.PostgresOn(spec.Name); ok {
		clients[PatroniConf], clients[VIPConf] = []string{config.PatroniPath}, []string{config.VIPManagerPath}
		q.Units = append(q.Units, config.PatroniUnit, config.VIPManagerUnit)
		q.Files = append(q.Files, config.PatroniPath, config.VIPManagerPath)
		q.HTTP = append(q.HTTP, restURL(p, "patroni"), restURL(p, "cluster"))
		q.Addrs = true
		if full || scope.Ports { // all of them, or those that were not asked for would be forgotten
			q.Programs = append(q.Programs, vipManagers()...)
		}
	}
	if scope.Reach || scope.Shake && scope.Host == spec.Name {
		for _, f := range []File{PatronictlConf, PatroniConf, VIPConf} {
			for _, path := range clients[f] {
				content := known.Facts.Files[path]
				if !content.Exists || !v.meets(spec.Name, f, content.Content) && !last.meets(spec.Name, f, content.Content) {
					continue
				}
				for _, u := range memberURLs(v, scope, last) {
					s := handshake(f, content.Content, u)
					switch {
					case s.CA == "" && !slices.Contains(q.Dial, s.Address):
						q.Dial = append(q.Dial, s.Address)
					case s.CA != "" && !slices.Contains(shakes, s):
						shakes = append(shakes, s)
					}
				}
			}
		}
		q.TLS = shakes
	}
	return shakes, len(q.Programs) > 0
}

// memberURLs are those that a client may be given.
func memberURLs(v View, scope Scope, last View) []string {
	var urls []string
	for _, m := range last.Members {
		urls = append(urls, m.ClientURLs...)
	}
	for _, h := range scope.Subjects {
		urls = append(urls, v.ClientURL(h))
	}
	slices.Sort(urls)
	return slices.Compact(urls)
}

// shaken adds the answers to handshakes to those that are known.
func shaken(known map[host.Handshake]string, asked []host.Handshake, answers []string) map[host.Handshake]string {
	if len(answers) != len(asked) || len(asked) == 0 {
		return known
	}
	all := map[host.Handshake]string{}
	for s, problem := range known {
		all[s] = problem
	}
	for i, s := range asked {
		all[s] = answers[i]
	}
	return all
}

// --- what is owed ---

// settleDebts remembers the hosts whose references could not be refreshed, and
// forgets those that are up to date again.
func (s *Site) settleDebts(v View) error {
	owed := v.Admin.Debts
	r := v.refreshmentOf(change{})
	for _, name := range v.referenceHosts() {
		h, ok := v.Host(name)
		switch {
		case !ok || !h.Reachable() || v.stubbornOn(name):
			owed = append(owed, name)
		case !slices.ContainsFunc(r.steps(), func(s Step) bool { return s.Host == name && s.Until(v) != nil }):
			owed = slices.DeleteFunc(slices.Clone(owed), func(o string) bool { return o == name })
		}
	}
	slices.Sort(owed)
	if owed = slices.Compact(owed); slices.Equal(owed, v.Admin.Debts) {
		return nil
	}
	if len(owed) == 0 {
		return os.Remove(s.debtsPath())
	}
	if err := os.WriteFile(s.debtsPath(), []byte(strings.Join(owed, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("remember what is owed: %w", err)
	}
	return nil
}

// stubbornOn reports whether a host has a client's file that only a person can
// edit, and that does not name the members as it should.
func (v View) stubbornOn(name string) bool {
	for _, f := range []File{PatroniConf, VIPConf, PatronictlConf} {
		paths := []string{f.Path()}
		if f == PatronictlConf {
			paths = []string{config.PatronictlPath, config.PatronictlInfraPath}
		}
		for _, path := range paths {
			if s, _ := v.standingOf(Refresh{Host: name, File: f, At: path}); s == stubborn {
				return true
			}
		}
	}
	return false
}

// olderThan36: an etcdctl that needs ETCDCTL_API=3, which newer ones warn about
// at every call. One that is not there needs nothing.
func olderThan36(version string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); n != 2 {
		return false
	}
	return major < 3 || major == 3 && minor < 6
}
