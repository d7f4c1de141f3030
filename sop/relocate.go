package sop

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// A relocation is what is left to be done until the voters are on the hosts
// where they are to be, as a View shows it. Nothing of it is remembered: a run
// that was cut off, or given other hosts, goes on from what there is.
//
// The order is newcomers first, then references, then leadership, then the old
// members. So the cluster never has less to spare than at the start, each file is
// edited once, between two sets of living voters, and the leadership moves once.
// Two kinds of member do not wait for that: one that is dead, or proved to be
// wrong, is no help to anybody, and goes first; and a learner that nobody wants
// any more stands in the way of the next.
type relocation struct {
	to    []string // hosts that are to have the voters
	come  []string // those of them that have none yet, one that is pending first
	leave []string // living voters that are to go: followers first, the leader last
	lost  []string // voters that go before anybody comes
	drop  []string // learners that nobody wants any more
	rest  []string // former members' hosts with something left on them or in the inventory
	stamp string   // names what is set aside
	// outlived are the alarms of members that are gone, or are lost: to be taken
	// back before anybody comes.
	outlived []Alarm
}

// mostVoters is how many voters there are at most, for the time of a relocation
// too: each write waits for a majority of them.
const mostVoters = 7

// relocate compares the members with the hosts where they are to be. Voters on
// the hosts in wrong are lost although they answer.
func (v View) relocate(to []string, stamp string, wrong ...string) relocation {
	r := relocation{to: to, stamp: stamp}
	for _, m := range v.rollingOrder() {
		h := v.HostOf(m)
		wanted := slices.Contains(to, h)
		switch {
		case m.Learner && !wanted:
			r.drop = append(r.drop, h)
		case m.Learner:
			r.come = append(r.come, h)
		case wanted:
		case !v.Alive(m) || slices.Contains(wrong, h):
			r.lost = append(r.lost, h)
		default:
			r.leave = append(r.leave, h)
		}
	}
	for _, h := range to {
		if _, listed := v.At(h); !listed {
			r.come = append(r.come, h)
		}
	}
	for _, h := range v.Wanted.Hosts {
		if _, listed := v.At(h.Name); !listed && !slices.Contains(to, h.Name) && v.wasOurs(h.Name) {
			r.rest = append(r.rest, h.Name)
		}
	}
	return r
}

// wasOurs reports whether a host that is no member was one, or was about to be
// one: this admin host has said so, or the host's own data does.
func (v View) wasOurs(name string) bool {
	_, removed := v.Admin.Removed[name]
	_, added := v.Admin.Added[name]
	if removed || added {
		return true
	}
	h, ok := v.Host(name)
	if !ok || !h.Reachable() {
		return false
	}
	who, err := Identify(logOf(h.Facts, v.Spec(name)))
	return err == nil && who.Cluster == v.ownID() || len(h.Facts.Dirs[v.Spec(name).DataDir].Aside) > 0
}

// about are the hosts that it is about.
func (r relocation) about() []string {
	all := slices.Concat(r.to, r.leave, r.lost, r.drop, r.rest)
	slices.Sort(all)
	return slices.Compact(all)
}

// A turn is some newcomers and the old members that go for them.
type turn struct{ come, leave []string }

// turns splits a relocation so that there are not too many voters at any time,
// and between two turns no fewer than there are to be or were.
func (r relocation) turns(voters int) []turn {
	come, leave, n := r.come, r.leave, voters-len(r.lost)
	least := max(len(r.to), min(n, mostVoters-2))
	var all []turn
	for len(come) > 0 || len(leave) > 0 {
		room := mostVoters - n
		if room < 1 && n-1 < least || len(leave) == 0 {
			room = max(room, 1) // more than is good, for a while
		}
		c := max(0, min(len(come), room))
		n += c
		l := len(leave)
		if c < len(come) { // others are to come
			l = max(0, min(l, n-least))
		}
		n -= l
		all = append(all, turn{come: come[:c], leave: leave[:l]})
		come, leave = come[c:], leave[l:]
	}
	return all
}

// plan gives the steps. What holds back the last old member is in last.
func (r relocation) plan(v View, last ...Safeguard) Plan {
	var plan Plan
	stage := func(title, h string, steps ...Step) {
		if len(steps) > 0 {
			if h != "" {
				title += ": " + h
			}
			plan.Stages = append(plan.Stages, Stage{title, steps})
		}
	}
	refresh := func(title, h string, c change) {
		refs := v.refreshmentOf(c)
		plan.Needs, plan.Warnings = append(plan.Needs, refs.needs...), append(plan.Warnings, refs.warnings()...)
		stage(title, h, refs.steps()...)
	}
	saved := false
	save := func(made Condition) []Step { // once, before the first change of members
		if saved {
			return nil
		}
		saved = true
		return []Step{snapshotBefore(made, v, r.lost...)}
	}
	out := func(h string) {
		if hv, _ := v.Host(h); hv.Reachable() {
			stage("stop it and set its data aside", h, retire(v, h, r.stamp)...)
		} else {
			plan.Warnings = append(plan.Warnings, fmt.Sprintf("%s cannot be reached: its etcd is not stopped and its data stays; purgeHost %s when it is back", h, h))
		}
		if _, in := v.Wanted.Host(h); in {
			stage("take it out of the inventory", h, strike(h))
		}
	}
	quiet := func(of Member) { // at once: under CORRUPT nothing is written
		for _, a := range r.outlived {
			if a.Member == of.ID {
				stage("take back the alarm", "member "+ID(a.Member), disarm(v, a))
			}
		}
	}
	for _, a := range r.outlived {
		if _, listed := v.ByID(a.Member); !listed {
			quiet(Member{ID: a.Member})
		}
	}
	for _, h := range r.rest {
		if v.leftovers(h) {
			stage("stop it and set its data aside", h, retire(v, h, r.stamp)...)
		}
		stage("take it out of the inventory", h, strike(h))
	}
	for _, h := range r.drop {
		m, _ := v.At(h)
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("the learner on %s is given up: it is not among the hosts that are wanted", h))
		stage("give up the learner", h, giveUp(v, m))
		out(h)
	}
	for _, h := range r.come {
		stage("install etcd", h, installEtcd(v, h)...)
	}
	for _, h := range r.lost {
		m, _ := v.At(h)
		steps := expel(v, m, r.to)
		for i := range steps {
			steps[i].Needs = instead(steps[i].Needs, noAlarmBut(r.outlived))
		}
		if v.Alive(m) { // proved to be wrong
			refresh("take it out of the references", h, change{without: slices.Concat(r.lost, r.drop)})
		}
		stage("remove the member", h, slices.Concat(save(isGone(m.ID)), steps)...)
		quiet(m)
		out(h)
	}
	gone, here := slices.Concat(r.lost, r.drop), []string(nil)
	for _, t := range r.turns(len(v.Voters())) {
		for _, h := range t.come {
			stage("announce as learner", h, append(save(isListed(h)), announce(h))...)
			stage("write it into the inventory", h, enlist(h))
			stage("start as existing", h, startJoining(v, h)...)
			stage("promote to voter", h, promote(v, h)...)
		}
		here = append(here, t.come...)
		gone = append(gone, t.leave...)
		refresh("switch the references", "", change{without: slices.Clone(gone), with: slices.Clone(here), parting: t.leave})
		leader, led := v.Leader()
		if from := v.HostOf(leader); led && slices.Contains(t.leave, from) {
			stage("hand over the leadership", "", Step{Title: "hand over the leadership", Act: MoveLeader{From: from, To: r.to}, Until: leadsOn(r.to...),
				Patience: Electing, Etcd: true, Needs: changeNeeds("", hasHeir(from, r.to...))})
		}
		for _, h := range t.leave {
			m, _ := v.At(h)
			needs := []Safeguard{keepsAsMuch(m.ID)}
			if h == r.leave[len(r.leave)-1] {
				needs = append(needs, last...)
			}
			stage("remove the member", h, slices.Concat(save(isGone(m.ID)), expel(v, m, r.to, needs...))...)
			out(h)
		}
	}
	if len(r.come) == 0 && len(r.leave) == 0 {
		refresh("refresh the references", "", change{without: slices.Concat(r.lost, r.drop)})
	}
	for _, h := range r.to { // what a run that was cut off has left to do
		if slices.Contains(r.come, h) {
			continue
		}
		if hv, ok := v.Host(h); ok && hv.Reachable() {
			stage("finish", h, append(joined(v, h), enlist(h))...)
		}
	}
	plan.Expected = r.expected(v)
	return plan
}

// needs are the safeguards before the first change.
func (r relocation) needs(v View, common []Safeguard) []Safeguard {
	needs := append(common, inventoryWritable(), everyVoterAnswers(r.lost...))
	for _, h := range r.come {
		needs = append(needs, newcomerNeeds(v, h)...)
	}
	if len(r.lost) == 0 {
		for _, h := range r.come {
			needs = append(needs, canPromote(h))
		}
	}
	for _, h := range r.lost {
		m, _ := v.At(h)
		needs = append(needs, canRemove(m.ID))
	}
	needs = append(needs, r.enough())
	return append(needs, membersReachable(v, slices.Concat(r.come, r.lost)...)...)
}

// enough: the new set bears a failure, or as many as there are to spare now.
func (r relocation) enough() Safeguard {
	return Safeguard{Name: "spare", Show: "etcdctl endpoint status --cluster",
		Risk: "nothing may fail afterwards: one more dead member stops all writes",
		Holds: func(v View) error {
			if after := (Votes{Voters: len(r.to)}); after.Spare() < 1 && after.Spare() < v.Votes().Spare() {
				return &Refusal{Found: fmt.Sprintf("of %d voters none may fail", len(r.to)), Needed: "one voter to spare afterwards", Hint: "name one host more, or waive it"}
			}
			return nil
		}}
}

// keepsAsMuch: after the removal something may still fail, or as much as before.
func keepsAsMuch(id uint64) Safeguard {
	s := keepsSpare(id)
	lowers := s.Holds
	s.Holds = func(v View) error {
		n := v.Votes()
		if (Votes{Voters: n.Voters - 1, Dead: n.Dead}).Spare() >= n.Spare() {
			return nil
		}
		return lowers(v)
	}
	return s
}

// back is the command that takes a relocation back, as long as nobody is gone
// who would be missed; empty when it only goes forward.
func (r relocation) back(v View) string {
	var old []string
	for _, m := range v.Voters() {
		h := v.HostOf(m)
		if _, came := v.Admin.Added[h]; !came || !slices.Contains(r.to, h) {
			old = append(old, h)
		}
	}
	old = slices.DeleteFunc(old, func(h string) bool { return slices.Contains(r.lost, h) })
	if len(r.leave) == 0 || len(old) < len(r.to) || len(old)%2 == 0 {
		return ""
	}
	slices.Sort(old)
	return "migrate " + strings.Join(old, ",")
}

const (
	// copyRate is what a newcomer is expected to receive the database with, in
	// bytes a second: half of what a link of 1 Gbit/s carries.
	copyRate = 60 << 20
	// perNewcomer and perRemoval are what steps take besides, over SSH.
	perNewcomer = 8 * time.Second
	perRemoval  = 6 * time.Second
)

// expected tells how long it may take, from the size of the data.
func (r relocation) expected(v View) string {
	var size int64
	for _, l := range v.Looks {
		size = max(size, l.DBSize)
	}
	copying := time.Duration(float64(size) / copyRate * float64(time.Second))
	gone := len(r.leave) + len(r.lost) + len(r.drop)
	each := max(copying, HealthInterval+settledMargin) + perNewcomer
	total := copying + time.Duration(len(r.come))*each + time.Duration(gone)*perRemoval
	return fmt.Sprintf("about %v: a snapshot of %s at %s a second, %s at %v, %s at %v",
		total.Round(time.Second), Bytes(size), Bytes(copyRate), counted(len(r.come), "newcomer"), each.Round(time.Second), counted(gone, "removal"), perRemoval)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// --- who would be left behind ---

const (
	// callerLooks is how many looks tell who is a client, callerSpan how long they take
	// at least: who lost its member and tries one dead endpoint after the other is not
	// connected all the time.
	callerLooks = 3
	callerSpan  = time.Second
)

// lastCalls leaves out what is older than need be.
func lastCalls(all []Calls) []Calls {
	for spanned(all[1:]) {
		all = all[1:]
	}
	return all
}

// spanned reports whether looks are enough to tell who is a client.
func spanned(all []Calls) bool {
	return len(all) >= callerLooks && all[len(all)-1].At.Sub(all[0].At) >= callerSpan
}

// clientsSeen: it was looked at for long enough who is connected to the last old
// member.
func clientsSeen(last string, to []string) Safeguard {
	return Safeguard{Name: "clients-seen", Show: "ss -tn state established sport = :2379", Passing: Settling, Also: append([]string{last}, to...),
		Holds: func(v View) error {
			if _, err := v.facts(last); err != nil || spanned(v.Callers[last]) {
				return nil // it is gone already, and whoever depended on it with it
			}
			return &Refusal{Host: last, Found: fmt.Sprintf("who is connected to it was looked at %d of %d times", min(len(v.Callers[last]), callerLooks-1), callerLooks),
				Needed: fmt.Sprintf("looks for %v", callerSpan)}
		}}
}

// noneLeftBehind: nobody is connected to the last old member who is not to the
// new ones as well. Who was started with old endpoints alone, and never asks for
// others, would have none left.
//
// A client is told by its address: one that has more connections to the old
// member than to any of the new ones is counted as left behind. Patroni finds the
// members by itself, and vip-manager is restarted where its list is spent, so
// PostgreSQL hosts whose files are refreshed are passed over.
func noneLeftBehind(last string, to []string, patience Patience) Safeguard {
	return Safeguard{Name: "stale-clients", Show: "ss -tn state established sport = :2379", Passing: patience, Also: append([]string{last}, to...),
		Risk: "these clients have no living endpoint any more until they are restarted with the new ones",
		Holds: func(v View) error {
			if _, err := v.facts(last); err != nil {
				return nil // it is gone already, and whoever depended on it with it
			}
			var found []string
			for from, n := range mostCalls(v.Callers[last]) {
				if v.lookedAfter(from) {
					continue
				}
				most := 0
				for _, h := range to {
					most = max(most, mostCalls(v.Callers[h])[from])
				}
				if n > most {
					found = append(found, fmt.Sprintf("%s (%s)", from, counted(n-most, "connection")))
				}
			}
			if len(found) == 0 {
				return nil
			}
			slices.Sort(found)
			return &Refusal{Host: last, Found: fmt.Sprintf("clients that are connected to it and not to the new members: %s", strings.Join(found, ", ")), Needed: "clients that know the new members",
				Hint: "restart them with the new endpoints, or leave them behind: -stale=ignore"}
		}}
}

// mostCalls are the most connections that each address had in any of some looks.
func mostCalls(all []Calls) map[string]int {
	most := map[string]int{}
	for _, c := range all {
		for from, n := range c.From {
			most[from] = max(most[from], n)
		}
	}
	return most
}

// callers counts who is connected to the clients' port of a member, by address:
// not the member itself, and not us.
func (v View) callers(f host.Facts, name string, port int) map[string]int {
	count := map[string]int{}
	for _, c := range f.Callers[port] {
		from := hostPart(c)
		if from == name || from == v.Spec(name).Addr || isLoopback(from) || slices.Contains(f.Addrs, from) || slices.Contains(v.Admin.Connections, c) {
			continue
		}
		count[from]++
	}
	return count
}

// lookedAfter reports whether an address is a PostgreSQL host's whose clients of
// this cluster are refreshed by us.
func (v View) lookedAfter(address string) bool {
	for _, p := range v.Wanted.Postgres {
		facts, err := v.facts(p.Host)
		if err != nil || p.Host != address && !slices.Contains(facts.Addrs, address) {
			continue
		}
		f := facts.Files[PatroniConf.Path()]
		return f.Exists && v.meets(p.Host, PatroniConf, f.Content) && v.unitRuns(p.Host, config.PatroniUnit)
	}
	return false
}

// targets says what is wrong with a list of hosts that are to have the voters.
func targets(hosts []string) error {
	var seen []string
	if len(hosts) == 1 && hosts[0] == "" {
		hosts = nil
	}
	for _, h := range hosts {
		switch err := validHost(h); {
		case h == "":
			return errors.New("an empty name is among the hosts")
		case err != nil:
			return err
		case slices.Contains(seen, h):
			return fmt.Errorf("%s is named twice", h)
		}
		seen = append(seen, h)
	}
	if len(seen) == 0 {
		return errors.New("no host is named")
	}
	return nil
}
