package sop

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// vip-manager reads its list of endpoints when it starts and never finds others.
// At its start it takes the address down until etcd has answered: for some
// milliseconds where one of the list lives, for good where none does, and one
// that cannot read its file ends and leaves the address up without an owner. So
// it is not restarted while the list that it runs with still holds two living
// voters, and when it is, everything that it needs is tried from its own host
// before; who bears the address comes last; and where the address does not come
// back, the old list does.

// PutBack gives a vip-manager file the list of endpoints that it had before the
// last edit.
type PutBack struct{ Host string }

func (a PutBack) String() string {
	return "put the old endpoints back into " + config.VIPManagerPath + " on " + a.Host
}

// ByHand implements Act.
func (a PutBack) ByHand(View) []string {
	return []string{onHost(a.Host, "vi "+config.VIPManagerPath+"   # only if the VIP does not come up: dcs-endpoints as before")}
}

// putBack gives the file.
func putBack(a PutBack, v View) (host.WriteFile, error) {
	edits := v.Admin.Clients.VIP[a.Host]
	if len(edits) == 0 {
		return host.WriteFile{}, fmt.Errorf("no edit of %s on %s is known", config.VIPManagerPath, a.Host)
	}
	f := v.hostView(a.Host).Facts.Files[config.VIPManagerPath]
	content, err := config.EditVIPManager(f.Content, edits[len(edits)-1].Before)
	return host.WriteFile{Path: config.VIPManagerPath, Content: content, Owner: f.Owner, Group: f.Group, Mode: f.Mode, Secret: true}, err
}

const (
	// vipSettles is how long a vip-manager must have run before the address is
	// believed to be where it is because of it: the one that ran before leaves it.
	vipSettles = 4 * time.Second
	// vipPatience is how long it is given to bring the address up.
	vipPatience = 12 * time.Second
)

// vipManagers are where the program may be: the second is Debian's package of
// version 2 and newer.
func vipManagers() []string { return []string{config.VIPManagerBin, config.VIPManagerBin + "2"} }

// vipOf gives what the vip-manager file of a host says, also where vip-manager
// itself would not take it.
func (v View) vipOf(name string) (ip string, endpoints []string) {
	facts, err := v.facts(name)
	if err != nil {
		return "", nil
	}
	content := facts.Files[config.VIPManagerPath].Content
	endpoints, _ = config.VIPManagerEndpoints(content)
	m, err := config.ParseVIPManager(content)
	if err != nil {
		return "", endpoints
	}
	return m.IP, endpoints
}

// vipRuns gives the list that the vip-manager on a host runs with, as far as it
// is known: where two lists are possible, what they have in common. Nothing
// tells it but our own edits; a process that started before the first of them is
// believed to have read what that found, and one without any, the file as it is.
func (v View) vipRuns(name string) []string {
	facts, err := v.facts(name)
	if err != nil {
		return nil
	}
	u := facts.Units[config.VIPManagerUnit]
	edits := v.Admin.Clients.VIP[name]
	k := slices.IndexFunc(edits, func(e VIPEdit) bool { return e.PID != 0 && e.PID == u.PID && e.BootID == facts.BootID })
	_, now := v.vipOf(name)
	switch {
	case len(edits) == 0:
		return now
	case k == 0:
		return edits[0].Before
	case k > 0: // it started between the edit before and this one
		return common(edits[k-1].After, edits[k].Before)
	}
	return common(edits[len(edits)-1].After, now)
}

// common are the endpoints that are in both lists.
func common(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(e string) bool { return !config.MeetsCluster([]string{e}, b) })
}

// vipEnough holds when the running list of a host will do: it holds two living
// voters, or as many as there are to be, and where that is asked for, it is the
// file's. A vip-manager that does not run is not started.
func vipEnough(a Refresh, asked bool) Condition {
	return func(v View) error {
		if !v.unitRuns(a.Host, config.VIPManagerUnit) {
			return nil
		}
		runs, want := v.vipRuns(a.Host), a.endpoints(v)
		if n, least := v.livingIn(runs, a.Without), min(2, len(want)); n < least {
			return fmt.Errorf("vip-manager on %s runs with %s, %d of which live", a.Host, orNone(strings.Join(runs, ", ")), n)
		}
		if asked && !config.SameEndpoints(runs, want) {
			return fmt.Errorf("vip-manager on %s runs with %s", a.Host, orNone(strings.Join(runs, ", ")))
		}
		return nil
	}
}

// vipOrder has the hosts of a PostgreSQL cluster with the one that bears the
// address last.
func (v View) vipOrder(p postgresView) []string {
	order := slices.Clone(p.hosts)
	bears := func(h string) bool {
		ip, _ := v.vipOf(h)
		return v.hasAddr(h, ip)
	}
	slices.SortStableFunc(order, func(a, b string) int {
		switch {
		case bears(a) == bears(b):
			return 0
		case bears(a):
			return 1
		}
		return -1
	})
	return order
}

// vipRefreshment is about vip-manager's files, cluster by cluster.
func (v View) vipRefreshment(c change) (r refreshment) {
	for _, cluster := range v.postgresClusters() {
		p := v.postgres(cluster)
		for _, h := range v.vipOrder(p) {
			a := Refresh{Host: h, File: VIPConf, Without: c.without, With: c.with}
			if !r.take(v, a) {
				continue
			}
			r.add(VIPConf, []string{h}, refreshStep(a))
			if !v.unitRuns(h, config.VIPManagerUnit) && !v.vipSuspect(h, cluster) {
				continue
			}
			if err := vipEnough(a, c.vips)(v); err == nil && !v.vipSuspect(h, cluster) || v.hiddenOn(h, a.path()) != nil {
				continue
			}
			r.needs = append(r.needs, vipVersion(h, cluster), postgresSound(p))
			r.add(VIPConf, []string{h}, vipRestart(a, p, c.vips)...)
			if ip, _ := v.vipOf(h); v.hasAddr(h, ip) {
				r.warn(VIPConf, h, fmt.Sprintf("vip-manager on %s is restarted: the VIP %s is gone until etcd has answered it", h, ip))
			}
		}
	}
	return r
}

// vipSuspect: an edit of ours and a start of vip-manager are not long ago, and
// the address is not where it belongs. A run that was cut off there goes on.
func (v View) vipSuspect(name, cluster string) bool {
	if len(v.Admin.Clients.VIP[name]) == 0 || vipSound(name, cluster)(v) == nil {
		return false
	}
	facts, err := v.facts(name)
	if err != nil {
		return false
	}
	u := facts.Units[config.VIPManagerUnit]
	return u.Active == "failed" || u.Sub == "auto-restart" || !u.Since.IsZero() && facts.Clock.Sub(u.Since) < lately
}

// vipRestart restarts vip-manager, and takes the edit back where the address
// does not come up.
func vipRestart(a Refresh, p postgresView, asked bool) []Step {
	h := a.Host
	sound, restart := vipSound(h, p.name), On{h, host.Systemctl{Verb: host.Restart, Unit: config.VIPManagerUnit}}
	return []Step{
		{Title: "restart vip-manager", Host: h, Also: p.hosts, Act: restart, Until: All(isFresh(a), vipEnough(a, asked)), Shake: true,
			Needs: []Safeguard{vipVersion(h, p.name), vipReadable(h), livingEndpoints(a), clientReaches(a, true), postgresSound(p)}},
		{Title: "wait for the VIP", Host: h, Also: p.hosts, Until: either(vipHopeless(h), sound), Patience: Settling},
		{Title: "put the old list back if the VIP stays away", Host: h, Also: p.hosts, Act: PutBack{h}, Until: either(sound, vipPutBack(h))},
		{Title: "restart vip-manager with the old list then", Host: h, Also: p.hosts, Act: restart, Until: either(sound, vipRunsOld(h))},
		{Title: "see that the VIP is up with the new list", Host: h, Also: p.hosts, Until: All(vipKept(a), sound)},
	}
}

// vipSound holds when vip-manager on a host runs, for long enough for it to be
// its doing, and the address is where it belongs.
func vipSound(name, cluster string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		u := facts.Units[config.VIPManagerUnit]
		if u.Active != "active" || u.PID == 0 {
			return fmt.Errorf("vip-manager on %s is %s (%s)%s", name, orNone(u.Active), orNone(u.Sub), exitOf(u))
		}
		if up := facts.Clock.Sub(u.Since); up < vipSettles {
			return fmt.Errorf("vip-manager on %s has run for %v of %v", name, up.Round(time.Second), vipSettles)
		}
		ip, _ := v.vipOf(name)
		return v.vipPlace(name, cluster, ip)
	}
}

// vipPlace says what is wrong with an address as far as one host has to do with
// it: on the one that leads it has to be, and there alone, if vip-manager runs
// there for it; on any other it must not be. What is wrong between other hosts
// does not count, since it may be that one's turn which mends it.
func (v View) vipPlace(name, cluster, ip string) error {
	if ip == "" || isLoopback(ip) {
		return nil
	}
	p := v.postgres(cluster)
	var bear []string
	for _, h := range p.hosts {
		if v.hasAddr(h, ip) {
			bear = append(bear, h)
		}
	}
	slices.Sort(bear)
	expected := ""
	if its, _ := v.vipOf(p.leader); p.leader != "" && its == ip && v.unitRuns(p.leader, config.VIPManagerUnit) {
		expected = p.leader
	}
	here := slices.Contains(bear, name)
	switch {
	case len(bear) > 1 && (here || expected == name):
		return fmt.Errorf("the VIP %s of %s is on %s", ip, cluster, strings.Join(bear, " and "))
	case expected == name && !here:
		return fmt.Errorf("the VIP %s is not on %s, which leads %s", ip, expected, cluster)
	case expected != "" && expected != name && here:
		return fmt.Errorf("the VIP %s is on %s, and %s leads %s", ip, name, expected, cluster)
	}
	return nil
}

// isLoopback: Pigsty until 3.7 wrote 127.0.0.1 where there is no VIP.
func isLoopback(ip string) bool { return strings.HasPrefix(ip, "127.") || ip == "::1" }

func (v View) hasAddr(name, ip string) bool {
	facts, err := v.facts(name)
	return err == nil && ip != "" && slices.Contains(facts.Addrs, ip)
}

// vipHopeless holds when vip-manager has ended, or has had its time.
func vipHopeless(name string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		u := facts.Units[config.VIPManagerUnit]
		if u.PID == 0 || u.Active != "active" {
			return nil
		}
		if up := facts.Clock.Sub(u.Since); up < vipPatience {
			return fmt.Errorf("vip-manager on %s has run for %v of %v", name, up.Round(time.Second), vipPatience)
		}
		return nil
	}
}

// vipPutBack holds when the file has the list from before the last edit again.
func vipPutBack(name string) Condition {
	return func(v View) error {
		edits := v.Admin.Clients.VIP[name]
		_, now := v.vipOf(name)
		if n := len(edits); n == 0 || !edits[n-1].Back || !config.SameEndpoints(now, edits[n-1].After) {
			return fmt.Errorf("%s on %s has the new list", config.VIPManagerPath, name)
		}
		return nil
	}
}

// vipRunsOld holds when a process runs that has read what was put back.
func vipRunsOld(name string) Condition {
	return func(v View) error {
		if err := vipPutBack(name)(v); err != nil {
			return err
		}
		_, now := v.vipOf(name)
		if !v.unitRuns(name, config.VIPManagerUnit) || !config.SameEndpoints(v.vipRuns(name), now) {
			return fmt.Errorf("vip-manager on %s does not run with the old list", name)
		}
		return nil
	}
}

// vipKept holds when the edit was not taken back.
func vipKept(a Refresh) Condition {
	return func(v View) error {
		if vipPutBack(a.Host)(v) == nil {
			return fmt.Errorf("vip-manager on %s was given its old list again: with the new one the VIP did not come up where it belongs", a.Host)
		}
		return isFresh(a)(v)
	}
}

// vipVersion: vip-manager is one that speaks to etcd as it is.
func vipVersion(name, cluster string) Safeguard {
	return Safeguard{Name: "vip-manager-version", Show: "vip-manager --version",
		Risk: "version 1 speaks only etcd's old v2 API: it never sees a leader, and the VIP does not come back",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			version, where := "", ""
			for _, path := range vipManagers() {
				if b, ok := facts.Programs[path]; ok && version == "" {
					version, where = b.Version, path
				}
			}
			major, _, _ := strings.Cut(version, ".")
			ip, _ := v.vipOf(name)
			switch {
			case major == "0" || major == "1":
				return &Refusal{Host: name, Found: fmt.Sprintf("%s is vip-manager %s, which speaks only etcd's v2 API: it never sees the leader key of Patroni's etcd3", where, version),
					Needed: "vip-manager 2 or newer", Hint: "install a newer one, or disable the unit: it cannot have worked"}
			case version == "" && (v.hasAddr(name, ip) && v.vipPlace(name, cluster, ip) == nil):
				return nil // it does not say, but it works
			case version == "":
				return &Refusal{Host: name, Found: "nobody can tell the version of vip-manager there", Needed: "vip-manager 2 or newer", Hint: "look yourself, and waive it: -waive=vip-manager-version:" + name}
			}
			return nil
		}}
}

// vipReadable: vip-manager would take the file as it is now.
func vipReadable(name string) Safeguard {
	return Safeguard{Name: "vip-manager-file", Show: "less " + config.VIPManagerPath,
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			if _, err := config.ParseVIPManager(facts.Files[config.VIPManagerPath].Content); err != nil {
				return &Refusal{Host: name, Found: err.Error(), Needed: "a file that vip-manager starts with", Hint: "correct it: vip-manager would end, and leave the VIP up without an owner"}
			}
			return nil
		}}
}

// vipFindings tells of addresses that are not where they belong, and of files
// that have another than the inventory.
func (v View) vipFindings() (all []string) {
	for _, cluster := range v.postgresClusters() {
		seen := map[string]bool{}
		for _, pg := range v.Wanted.Postgres {
			ip, endpoints := v.vipOf(pg.Host)
			if pg.Cluster != cluster || ip == "" || !config.MeetsCluster(endpoints, v.knownURLs(pg.Host)) {
				continue
			}
			if err := v.vipPlace(pg.Host, cluster, ip); err != nil && !seen[err.Error()] {
				all = append(all, "vip: "+err.Error())
				seen[err.Error()] = true
			}
			if differs(pg, ip) {
				all = append(all, fmt.Sprintf("vip: %s on %s has %s, the inventory has %s", config.VIPManagerPath, pg.Host, ip, pg.VIP))
			}
		}
	}
	return all
}

func differs(pg inventory.Postgres, ip string) bool { return pg.VIP != "" && pg.VIP != ip }
