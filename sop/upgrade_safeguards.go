package sop

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/sop/config"
)

// What an upgrade finds out before it touches anything.

// span gives the lowest and the highest release that the members run or, where
// one does not answer, that is in place on its host.
func (v View) span() (low, high release) {
	for _, m := range v.Voters() {
		r, err := parseRelease(v.releaseOf(m))
		if err != nil {
			continue
		}
		if low == (release{}) || r.compare(low) < 0 {
			low = r
		}
		if r.compare(high) > 0 {
			high = r
		}
	}
	return low, high
}

func (v View) releaseOf(m Member) string {
	if l := v.LookOf(m.ID); l.Answers() {
		return l.Version
	}
	hv, _ := v.Host(v.HostOf(m))
	return hv.Facts.Etcd.Version
}

// path refuses a version to which no way leads from what the members run.
func (p Upgrade) path(v View) (release, error) {
	to, err := parseRelease(p.Version)
	if err != nil {
		return to, refuse("valid-version", "", "give a release of etcd, as in 3.6.16", "%v", err)
	}
	if _, ok := newest(to.line()); !ok {
		return to, refuse("known-version", "", "etcdrill knows the way from 3.5 to 3.6 to 3.7, and what stands in it; of others it knows neither", "etcd %s is of no minor version that is known", to)
	}
	for _, m := range v.LivingVoters() {
		r, err := parseRelease(v.LookOf(m.ID).Version)
		if _, known := newest(r.line()); err != nil || !known {
			return to, refuse("known-version", v.HostOf(m), "an etcd before 3.5 goes to 3.5 by hand, as etcd's upgrade guide says, and from there on with etcdrill",
				"the member runs etcd %s, which is of no minor version that is known", orNone(v.LookOf(m.ID).Version))
		}
	}
	low, high := v.span()
	if low == (release{}) {
		return to, refuse("voters-answer", "", "look at it with: status", "no voter tells its version")
	}
	if p.Down {
		switch {
		case to.compare(low) > 0:
			return to, refuse("not-newer", "", "to go up: upgrade "+p.Version, "-downgrade is there to go to an older version: the oldest member runs %s", low)
		case to.steps(high) > 1:
			first, _ := newest(release{high.major, high.minor - 1, 0}.line())
			return to, refuse("one-minor", "", "first: upgrade "+first.String()+" -downgrade", "from %s to %s are %d minor versions, and etcd goes down one at a time", high, to, to.steps(high))
		}
		return to, nil
	}
	switch {
	case to.compare(high) < 0:
		return to, refuse("not-older", "", "to go back to it: upgrade "+p.Version+" -downgrade", "%s is older than %s, which a member runs", to, high)
	case low.steps(to) > 1:
		return to, refuse("one-minor", "", "first: upgrade "+low.next().String(), "from %s to %s are %d minor versions, and etcd goes up one at a time", low, to, low.steps(to))
	}
	for _, m := range v.byHost() {
		if m.Learner || !v.Alive(m) {
			continue
		}
		r, _ := parseRelease(v.LookOf(m.ID).Version)
		if r.steps(to) == 1 && r.compare(ripe(r.line())) < 0 {
			return to, refuse("patch-level", v.HostOf(m), "first: upgrade "+r.next().String(),
				"the member runs %s; every member must run %s or newer before the first goes to %s: older ones leave members behind in their data that are learners there, or were removed (etcd issues 19557, 20793, 20967)", r, ripe(r.line()), to.line())
		}
	}
	return to, nil
}

// needs are what must hold before the first change.
func (p Upgrade) needs(v View, to release) []Safeguard {
	// Members of two minor versions are what an upgrade is about.
	all := slices.DeleteFunc(clusterNeeds(), func(s Safeguard) bool { return s.Name == oneMinor().Name })
	all = append(all, everyVoterAnswers(p.fallen(v)...), membersAreHosts(), wantedVersion(p.Version), soundRelease(to))
	for _, m := range v.rollingOrder() {
		h := v.HostOf(m)
		all = append(all, toBeHad(p.Version, h), quotaAfterRestart(h))
		if r, err := parseRelease(v.releaseOf(m)); err == nil && r.steps(to) == 1 {
			all = append(all, optionsKnown(h, to.line()), settingsKnown(h, to.line()))
		}
		all = append(all, notRefused(p.Version, h))
		if !p.Down && to.line() == "3.6" {
			all = append(all, storedMembers(m.ID))
		}
	}
	return all
}

// toBeHad: a host has the version, or there is something to bring it from.
func toBeHad(version, name string) Safeguard {
	return Safeguard{Name: "to-be-had", Show: "etcd --version; apt-cache madison etcd",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			if installedIs(name, version)(v) == nil || besideIs(name, version)(v) == nil {
				return nil
			}
			g, b := v.Wanted, v.Admin.Binary
			const ways = "name a binary of it in etcd_binary_from and etcd_binary_sha256, or a package in etcd_package; or put one on the hosts as "
			hint := ways + besidePath(v.layout().Binary, version)
			switch {
			case b != nil && b.Problem != "":
				return &Refusal{Host: name, Found: "etcd_binary_from: " + b.Problem, Needed: "etcd " + version, Hint: hint}
			case b != nil && b.SHA256 != g.BinarySHA256:
				return &Refusal{Host: name, Found: fmt.Sprintf("the sha256 of %s is %s, etcd_binary_sha256 is %s", b.Path, b.SHA256, orNone(g.BinarySHA256)),
					Needed: "the binary that was meant", Hint: "find out which of the two is right before any host runs it"}
			case b != nil && b.Version != "" && b.Version != version:
				return &Refusal{Host: name, Found: fmt.Sprintf("it has no etcd %s, and %s is etcd %s", version, b.Path, b.Version), Needed: "etcd " + version, Hint: hint}
			case b != nil:
				return nil
			case !offered(version, facts.Offers):
				offers := "none at all"
				if len(facts.Offers) > 0 {
					offers = strings.Join(facts.Offers, ", ")
				}
				return &Refusal{Host: name, Found: fmt.Sprintf("it has no etcd %s, and of package %s it could install %s", version, g.Package, offers), Needed: "etcd " + version, Hint: hint}
			}
			return nil
		}}
}

// offered reports whether one of a package's versions is of a release: the
// packager's own number follows, and an epoch may stand before it.
func offered(version string, offers []string) bool {
	return slices.ContainsFunc(offers, func(o string) bool {
		if _, after, ok := strings.Cut(o, ":"); ok {
			o = after
		}
		rest, ok := strings.CutPrefix(strings.TrimPrefix(o, "v"), version)
		return ok && (rest == "" || !strings.ContainsAny(rest[:1], "0123456789"))
	})
}

// wantedVersion: the inventory asks for no other version.
func wantedVersion(version string) Safeguard {
	return Safeguard{Name: "wanted-version", Show: "grep etcd_version INVENTORY",
		Risk: "a host that is added later gets another version than the members run",
		Holds: func(v View) error {
			if w := v.Wanted.Version; w != "" && w != version {
				return &Refusal{Found: fmt.Sprintf("the inventory asks for etcd_version %s", w), Needed: "etcd_version " + version + ", or none",
					Hint: fmt.Sprintf("set etcd_version: %s in %s", version, v.Inventory.Path)}
			}
			return nil
		}}
}

// soundRelease: the version has no fault that this cluster would suffer from.
func soundRelease(to release) Safeguard {
	return Safeguard{Name: "sound-release", Show: "etcdctl auth status",
		Risk: "clients that log in as another user than root are refused the member list",
		Holds: func(v View) error {
			if !listsForRoot(to) {
				return nil
			}
			auth := v.Admin.User != ""
			for _, l := range v.Looks {
				auth = auth || l.Denied != "" || l.Stored != nil && l.Stored.Auth
			}
			if !auth {
				return nil
			}
			better, _ := newest(to.line())
			return &Refusal{Found: fmt.Sprintf("authentication is on, and etcd %s tells the member list to its root user alone (etcd#21516)", to),
				Needed: "a release without that fault", Hint: "upgrade " + better.String()}
		}}
}

// quotaAfterRestart: the quota that the next process would have is not below
// what the database has. A file may have been changed since the last start.
func quotaAfterRestart(name string) Safeguard {
	return Safeguard{Name: "quota-after-restart", Show: "grep quota /etc/etcd/etcd.conf; etcdctl endpoint status --cluster -w table",
		Holds: func(v View) error {
			quota, size := v.quotaOf(name), v.LookAt(name).DBSize
			if quota > 0 && size > quota {
				return &Refusal{Host: name, Found: fmt.Sprintf("its configuration gives it a quota of %s, and its database has %s", Bytes(quota), Bytes(size)), Needed: "a quota above the size of the database",
					Hint: "raise the quota in " + v.layout().Conf + ", or compact and defragment first: after its next start it would raise NOSPACE for the whole cluster"}
			}
			return v.hiddenOn(name, v.layout().Conf)
		}}
}

// optionsKnown: the unit gives etcd no option that the new one does not know:
// it would end at once.
func optionsKnown(name, line string) Safeguard {
	return Safeguard{Name: "options-known", Show: "systemctl cat etcd",
		Holds: func(v View) error {
			hv, ok := v.Host(name)
			u, is := unitOf(v.layout(), hv)
			if !ok || !hv.Reachable() || !is {
				return nil // the new etcd itself is asked later
			}
			var options []string
			for _, arg := range u.Args {
				option, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
				if strings.HasPrefix(arg, "-") {
					options = append(options, option)
				}
			}
			return unknownTo(name, line, "the unit has options", options, "etcd would not start with them: change the unit")
		}}
}

// settingsKnown: the configuration has no setting that the new etcd does not
// know. It would be passed over without a word.
func settingsKnown(name, line string) Safeguard {
	return Safeguard{Name: "settings-known", Show: "cat /etc/etcd/etcd.conf",
		Risk: "what these settings do is lost, and etcd says nothing",
		Holds: func(v View) error {
			l := v.layout()
			if err := v.hiddenOn(name, l.Conf); err != nil {
				return err
			}
			hv, _ := v.Host(name)
			f := hv.Facts.Files[l.Conf]
			if !f.Exists || f.Problem != "" {
				return nil
			}
			settings, err := config.Settings(l.Form, f.Content)
			if err != nil {
				return &Refusal{Host: name, Found: err.Error(), Needed: "a configuration that can be read"}
			}
			return unknownTo(name, line, l.Conf+" has settings", settings, "take them out, or put in what takes their place, and restart: the etcd that runs now knows that too")
		}}
}

// unknownTo refuses for settings that a minor version knows no more.
func unknownTo(name, line, what string, settings []string, hint string) error {
	known := config.Gone(line)
	var found []string
	for _, s := range slices.Sorted(maps.Keys(known)) {
		if !slices.Contains(settings, s) {
			continue
		}
		if known[s] != "" {
			s += " (now " + known[s] + ")"
		}
		found = append(found, s)
	}
	if len(found) == 0 {
		return nil
	}
	return &Refusal{Host: name, Found: fmt.Sprintf("%s that etcd %s does not know: %s", what, line, strings.Join(found, ", ")), Needed: "only what it knows", Hint: hint}
}

// accepts: the new etcd was started with the host's own configuration, and took
// it as far as its data directory, which there was none.
func accepts(version, name string) Safeguard {
	return Safeguard{Name: "takes-configuration", Show: "etcd-" + version + " --config-file=/etc/etcd/etcd.conf, with data-dir: " + config.Nowhere,
		Holds: func(v View) error {
			facts, err := v.facts(name)
			switch {
			case err != nil:
				return err
			case len(facts.Trials) == 0:
				return &Refusal{Host: name, Found: fmt.Sprintf("etcd %s was not tried with the configuration there", version), Needed: "a trial before the old etcd is stopped",
					Hint: "look whether " + v.layout().Conf + " can be read"}
			}
			return refusedBy(name, version, facts.Trials[0].Status, facts.Trials[0].Said)
		}}
}

// notRefused is accepts where the new etcd is on a host already; else it is
// asked later.
func notRefused(version, name string) Safeguard {
	s := accepts(version, name)
	tried := s.Holds
	s.Holds = func(v View) error {
		if hv, ok := v.Host(name); !ok || len(hv.Facts.Trials) == 0 {
			return nil
		}
		return tried(v)
	}
	return s
}

func refusedBy(name, version string, status int, said string) error {
	if strings.Contains(said, config.Nowhere) && strings.Contains(said, "data directory") {
		return nil
	}
	if line := lastLine(said); line != "" {
		said = line
	}
	return &Refusal{Host: name, Found: fmt.Sprintf("etcd %s does not take its configuration: exit status %d, %q", version, status, said), Needed: "a configuration that the new etcd takes",
		Hint: "correct it and run the same command again; the old etcd still runs"}
}

// lastLine is the last line of what a program said that is not blank.
func lastLine(said string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// storedMembers: what a member of 3.5 has in its backend is the list that it
// tells. From 3.6 on it goes by the backend.
func storedMembers(id uint64) Safeguard {
	return Safeguard{Name: "stored-members", Show: "etcdctl snapshot save FILE; bbolt get FILE members ID",
		Holds: func(v View) error {
			m, _ := v.ByID(id)
			l, h := v.LookOf(id), v.HostOf(m)
			if !l.Answers() || minor(l.Version) != "3.5" {
				return nil
			}
			const hint = "restart: a member writes its own entry into all backends when it starts, and mends its own, once all of them run 3.5.32 or newer; an upgrade to that mends only what is told after it"
			switch {
			case l.Stored == nil:
				return &Refusal{Host: h, Found: "the member list in its backend was not read", Needed: "a look at it"}
			case l.Stored.Problem != "":
				return &Refusal{Host: h, Found: "the member list in its backend cannot be read: " + l.Stored.Problem, Needed: "a look at it"}
			}
			if err := l.Stored.differs(v.Members); err != nil {
				return &Refusal{Host: h, Found: err.Error(), Needed: "the same members in its backend as on its list", Hint: hint}
			}
			return nil
		}}
}
