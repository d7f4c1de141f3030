//lint:file-ignore ST1005 Patroni is a name, and is written like one

package sop

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/inventory"
	"github.com/etcdrill/etcdrill/sop/patroni"
)

// Patroni finds the members by itself once it runs, and no reload makes it take
// other hosts: etcd3.hosts counts at its next start, and when all members that
// it knew are gone. So a wrong file shows months later. It is reloaded
// nevertheless, replicas first and the primary last, and looked at after each
// turn: what it cannot read, or what else was in the file, shows now, with
// somebody watching.

// TellPatroni lets Patroni on a host read its file again: SIGHUP, by way of the
// unit's own reload.
type TellPatroni struct{ Host string }

func (a TellPatroni) String() string { return "reload Patroni on " + a.Host }

// ByHand implements Act.
func (a TellPatroni) ByHand(View) []string {
	return []string{onHost(a.Host, "systemctl reload "+config.PatroniUnit)}
}

// harmlessTwice reports whether an act may be done again when nobody knows
// whether it was done: nothing would ever tell, or it is looked at again first and
// a second time does no harm.
func harmlessTwice(a Act) bool {
	switch a.(type) {
	case TellPatroni, DefragMember, CompactTo, ClearAlarm:
		return true
	}
	return false
}

// heardWithin is how recently Patroni must have heard from etcd; its loop_wait
// is 10 s, its ttl 30 s, unless changed.
const heardWithin = 60 * time.Second

// lately is how long ago something may have been done to a client that a rerun
// still looks at what came of it.
const lately = 5 * time.Minute

// restURL is a page of Patroni's REST API, on the host's own address.
func restURL(p inventory.Postgres, page string) string {
	scheme := "http"
	if p.TLS {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(p.Host, strconv.Itoa(p.Port)) + "/" + page
}

// patroniOn gives what Patroni on a host says of itself.
func (v View) patroniOn(name string) (patroni.Member, error) {
	facts, err := v.facts(name)
	if err != nil {
		return patroni.Member{}, err
	}
	p, ok := v.Wanted.PostgresOn(name)
	if !ok {
		return patroni.Member{}, fmt.Errorf("%s is no PostgreSQL host of the inventory", name)
	}
	r, asked := facts.HTTP[restURL(p, "patroni")]
	switch {
	case !asked:
		return patroni.Member{}, fmt.Errorf("on %s Patroni was not asked", name)
	case r.Status == 0:
		return patroni.Member{}, fmt.Errorf("on %s Patroni does not answer: %s", name, short(r.Problem))
	}
	m, err := patroni.ParseMember(r.Body)
	if err != nil {
		return patroni.Member{}, fmt.Errorf("on %s Patroni: status %d: %w", name, r.Status, err)
	}
	return m, nil
}

// A postgresView is how a PostgreSQL cluster is, by its Patronis' own word.
type postgresView struct {
	name     string
	hosts    []string // all, replicas first, who leads last
	leader   string   // host; "" when none is known, or several take themselves for it
	timeline int      // the leader's; 0 when unknown
	says     map[string]patroni.Member
	silent   map[string]error // why a host said nothing
	problem  string           // what is wrong with the cluster as a whole
}

// postgres looks at one PostgreSQL cluster.
func (v View) postgres(cluster string) postgresView {
	p := postgresView{name: cluster, says: map[string]patroni.Member{}, silent: map[string]error{}}
	var leaders, wanted []string
	for _, h := range v.Wanted.Postgres {
		if h.Cluster != cluster {
			continue
		}
		p.hosts = append(p.hosts, h.Host)
		if h.Role == "primary" {
			wanted = append(wanted, h.Host)
		}
		m, err := v.patroniOn(h.Host)
		if err != nil {
			p.silent[h.Host] = err
			continue
		}
		p.says[h.Host] = m
		if m.Leads() && m.Runs() {
			leaders = append(leaders, h.Host)
		}
	}
	switch len(leaders) {
	case 1:
		p.leader = leaders[0]
	case 0:
		p.leader = v.listedLeader(p)
		if p.leader == "" && len(p.says) > 0 {
			p.problem = "nobody leads " + cluster
		}
	default:
		p.problem = fmt.Sprintf("%s take themselves for the leader of %s", strings.Join(leaders, " and "), cluster)
	}
	p.timeline = p.says[p.leader].Timeline
	for _, h := range p.hosts {
		if m, ok := p.says[h]; ok && p.problem == "" && (m.Failsafe || m.Unlocked) {
			p.problem = fmt.Sprintf("Patroni on %s does not see the leader key of %s in etcd", h, cluster)
		}
	}
	last := func(h string) bool { return h == p.leader || p.leader == "" && slices.Contains(wanted, h) }
	slices.SortStableFunc(p.hosts, func(a, b string) int {
		switch {
		case last(a) == last(b):
			return 0
		case last(a):
			return 1
		}
		return -1
	})
	return p
}

// listedLeader is the host that leads by what the others have read in etcd: its
// own Patroni may be silent.
func (v View) listedLeader(p postgresView) string {
	for _, h := range p.hosts {
		facts, err := v.facts(h)
		pg, ok := v.Wanted.PostgresOn(h)
		if err != nil || !ok {
			continue
		}
		c, err := patroni.ParseCluster(facts.HTTP[restURL(pg, "cluster")].Body)
		if err != nil || c.Leader == "" {
			continue
		}
		for _, l := range c.Members {
			if l.Name != c.Leader {
				continue
			}
			for _, other := range p.hosts {
				if m, ok := p.says[other]; l.Host == other || ok && m.Name == l.Name {
					return other
				}
			}
		}
	}
	return ""
}

// postgresClusters names the inventory's PostgreSQL clusters.
func (v View) postgresClusters() []string {
	var names []string
	for _, p := range v.Wanted.Postgres {
		if !slices.Contains(names, p.Cluster) {
			names = append(names, p.Cluster)
		}
	}
	slices.Sort(names)
	return names
}

// patroniRefreshment is about Patroni's files, cluster by cluster.
func (v View) patroniRefreshment(c change) (r refreshment) {
	for _, cluster := range v.postgresClusters() {
		p := v.postgres(cluster)
		var told []string
		seen := 0
		for _, h := range p.hosts {
			a := Refresh{Host: h, File: PatroniConf, Without: c.without, With: c.with}
			if !r.take(v, a) {
				continue
			}
			if h == p.leader && len(told) > 0 { // the replicas' turn is over
				r.add(PatroniConf, told, goesOnStep(p, told))
				seen = len(told)
			}
			r.add(PatroniConf, []string{h}, refreshStep(a))
			was, stale := v.Admin.Clients.Patroni[h], isFresh(a)(v) != nil
			switch {
			case !v.unitRuns(h, config.PatroniUnit):
				continue // it reads its file when it starts
			case stale || was.Owed:
				r.add(PatroniConf, []string{h}, Step{Title: "reload Patroni", Host: h, Also: p.hosts, Act: TellPatroni{h}, Until: wasTold(h, a),
					Needs: []Safeguard{postgresSound(p)}})
				r.needs = append(r.needs, postgresSound(p))
				r.warn(PatroniConf, h, v.pending(h)...)
			case was.Told.IsZero() || v.Taken.Sub(was.Told) > lately:
				continue
			}
			told = append(told, h)
		}
		if len(told) > seen {
			r.add(PatroniConf, told, goesOnStep(p, told))
		}
	}
	return r
}

func (v View) unitRuns(name, unit string) bool {
	facts, err := v.facts(name)
	return err == nil && facts.Units[unit].Runs()
}

// wasTold holds when Patroni was told of its file as it is, or has no process
// to be told.
func wasTold(name string, a Refresh) Condition {
	return func(v View) error {
		if err := isFresh(a)(v); err != nil {
			return err
		}
		if v.Admin.Clients.Patroni[name].Owed && v.unitRuns(name, config.PatroniUnit) {
			return fmt.Errorf("on %s Patroni has not been told of its file", name)
		}
		return nil
	}
}

// goesOnStep waits until PostgreSQL goes on as before: Patroni reads its file at
// the beginning of its next turn, up to loop_wait later, and then asks etcd.
func goesOnStep(p postgresView, told []string) Step {
	return Step{Title: "see that " + p.name + " goes on", Host: told[len(told)-1], Also: p.hosts, Until: goesOn(p, slices.Clone(told)), Patience: Settling, Longer: heardWithin / 2}
}

// goesOn holds when every Patroni that answered before still does, with the same
// leader on the same timeline, and has heard from etcd since it was told.
func goesOn(was postgresView, told []string) Condition {
	return func(v View) error {
		is := v.postgres(was.name)
		if was.leader != "" && is.leader != was.leader {
			return fmt.Errorf("%s led %s, now it is %s", was.leader, was.name, orNone(is.leader))
		}
		for _, h := range was.hosts {
			if _, ok := was.says[h]; !ok {
				continue // it said nothing before, so that nothing can be compared
			}
			if err := is.silent[h]; err != nil {
				return err
			}
			m, hv := is.says[h], v.hostView(h)
			clock := hv.Facts.Clock
			switch {
			case !m.Runs() && was.says[h].Runs():
				return fmt.Errorf("PostgreSQL on %s is %s", h, m.State)
			case m.Unlocked && !was.says[h].Unlocked, m.Failsafe && !was.says[h].Failsafe:
				return fmt.Errorf("on %s Patroni does not see the leader key of %s in etcd any more", h, was.name)
			case was.timeline != 0 && m.Timeline != 0 && m.Timeline != was.timeline:
				return fmt.Errorf("PostgreSQL on %s is on timeline %d, %s was on %d", h, m.Timeline, was.name, was.timeline)
			case !m.Fresh(clock, heardWithin):
				return fmt.Errorf("on %s Patroni heard from etcd %v ago", h, clock.Sub(m.LastSeen).Round(time.Second))
			case !slices.Contains(told, h):
				continue
			}
			at := v.Admin.Clients.Patroni[h]
			if at.Owed || at.Told.IsZero() {
				return fmt.Errorf("on %s Patroni has not been told of its file", h)
			}
			// It tells whole seconds, by its host's clock.
			since := at.Told.Add(hv.Skew).Truncate(time.Second).Add(time.Second)
			if !m.LastSeen.IsZero() && m.LastSeen.Before(since) {
				return fmt.Errorf("on %s Patroni has not asked etcd since it was told of its file", h)
			}
		}
		return nil
	}
}

func (v View) hostView(name string) HostView {
	h, _ := v.Host(name)
	return h
}

// postgresSound: somebody leads the PostgreSQL cluster and sees etcd, so that it
// can be told afterwards whether a reload or a restart did harm.
func postgresSound(p postgresView) Safeguard {
	return Safeguard{Name: "postgres-sound", Show: "patronictl list", Passing: Settling, Also: p.hosts,
		Risk: "nobody can tell whether the change did PostgreSQL harm",
		Holds: func(v View) error {
			now := v.postgres(p.name)
			if now.problem == "" {
				return nil
			}
			return &Refusal{Host: p.hosts[len(p.hosts)-1], Found: now.problem, Needed: "a leader whose key is in etcd", Hint: "mend the PostgreSQL cluster first"}
		}}
}

// pending tells what a reload would activate besides our edit, as far as that
// can be known: not at all, or not needed, when the file is what it was when we
// last let Patroni read it.
func (v View) pending(name string) []string {
	h := v.hostView(name)
	content := h.Facts.Files[config.PatroniPath].Content
	sum := sha256.Sum256(content)
	was := v.Admin.Clients.Patroni[name]
	if was.Owed || was.Sum == hex.EncodeToString(sum[:]) {
		return nil
	}
	var seen []string
	m, err := v.patroniOn(name)
	f, ferr := config.ParsePatroni(content)
	if err == nil && ferr == nil {
		pg, _ := v.Wanted.PostgresOn(name)
		c, _ := patroni.ParseCluster(h.Facts.HTTP[restURL(pg, "cluster")].Body)
		differs := func(what, file, runs string) {
			if file != "" && runs != "" && file != runs {
				seen = append(seen, fmt.Sprintf("%s is %s there and %s in what runs", what, file, runs))
			}
		}
		differs("scope", f.Scope, m.Scope)
		differs("name", f.Name, m.Name)
		for _, l := range c.Members {
			if l.Name == m.Name && l.Name != "" {
				host, _, _ := net.SplitHostPort(f.PostgresConnect)
				differs("postgresql.connect_address", host, l.Host)
			}
		}
		if len(m.Pending) > 0 {
			seen = append(seen, "PostgreSQL waits for a restart for "+strings.Join(m.Pending, ", "))
		}
	}
	text := fmt.Sprintf("the reload of Patroni on %s activates whatever else was changed in %s since Patroni last read it; Patroni tells nobody what it has read", name, config.PatroniPath)
	if len(seen) > 0 {
		text += ". What shows: " + strings.Join(seen, "; ")
	}
	return []string{text}
}
