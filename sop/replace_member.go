package sop

import (
	"fmt"
	"slices"
)

// ReplaceMember puts a new host in the place of a member.
//
// A member that lives goes once the new one votes. One that is dead goes first,
// since nobody could be promoted before. So does one whose data is proved to be
// wrong: most of the voters came to the same hash at the compacted revision, and
// it to another. It is of no use to anybody, and what is copied must not be
// copied from it. etcd keeps an alarm by the member's ID, and keeps it when the
// member is none any more; until somebody takes CORRUPT back, it takes no write
// at all. So that is done as soon as the member is gone.
type ReplaceMember struct {
	Old, New string // inventory names
	// Stamp names what is set aside: time.Format("20060102T150405Z").
	Stamp string
}

// String implements Procedure.
func (p ReplaceMember) String() string { return "replaceMember " + p.Old + " " + p.New }

// Subjects are the hosts that may be in neither inventory nor member list.
func (p ReplaceMember) Subjects() []string {
	if p.invalid() != nil {
		return nil
	}
	return []string{p.New, p.Old}
}

// Asks for what the members' data hashes to, which the plan depends on.
func (p ReplaceMember) Asks(s *Scope) { s.Hash = s.Hash || s.AllHosts }

func (p ReplaceMember) invalid() error {
	for _, h := range []string{p.Old, p.New} {
		if err := validHost(h); err != nil {
			return err
		}
	}
	if p.Old == p.New {
		return fmt.Errorf("%s cannot be put in its own place", p.Old)
	}
	return nil
}

// Refuses an old host that nobody knows, and a new one that is a voter already,
// unless this is a rerun.
func (p ReplaceMember) Refuses(v View) error {
	if p.invalid() != nil || !v.Exists() || slices.Contains(v.Admin.Begun, p.String()) {
		return nil
	}
	m, voter := v.At(p.New)
	voter = voter && !m.Learner
	_, listed := v.At(p.Old)
	_, inFile := v.Wanted.Host(p.Old)
	switch {
	case voter && listed:
		return refuse("no-member-yet", p.New, "to take the other one out: removeMember "+p.Old, "it is a voter already, member %s", ID(m.ID))
	case !listed && !inFile && !v.wasOurs(p.Old):
		return refuse("known-host", p.Old, "look at the members with: status; to add a host: addMember "+p.New, "%s is in neither inventory nor member list", p.Old)
	}
	return nil
}

// Plan implements Procedure.
func (p ReplaceMember) Plan(v View) (Plan, error) {
	if err := p.invalid(); err != nil {
		return Plan{}, refuse("valid-host", "", "name the hosts as in the inventory", "%v", err)
	}
	if !v.Exists() {
		return Plan{}, v.nobody("look at it with: status")
	}
	to := []string{p.New}
	for _, m := range v.Voters() {
		if h := v.HostOf(m); h != p.Old && h != p.New {
			to = append(to, h)
		}
	}
	common := clusterNeeds(p.Old, p.New)
	var r relocation
	old, listed := v.At(p.Old)
	if wrong := v.provedWrong(p.Old); wrong != nil {
		r = v.relocate(to, p.Stamp, p.Old)
		common = instead(common, sameHashBut(p.Old))
	} else {
		r = v.relocate(to, p.Stamp)
		if !listed { // for a second it still answers, with what it was removed for
			common = instead(common, sameHashBut(p.Old))
		}
	}
	r.outlived = v.corruptOf(func(id uint64) bool {
		_, member := v.ByID(id)
		return !member || id == old.ID && slices.Contains(r.lost, p.Old)
	})
	if len(r.outlived) > 0 {
		common = append(instead(common, noAlarmBut(r.outlived)), agreeWithout(old.ID, r.outlived))
	}
	r.rest = slices.DeleteFunc(r.rest, func(h string) bool { return h != p.Old })
	r.drop = slices.DeleteFunc(r.drop, func(h string) bool { return h != p.Old }) // another's pends, and refuses
	var last []Safeguard
	if len(to) == 1 && len(r.leave) > 0 {
		last = append(last, clientsSeen(p.Old, to), noneLeftBehind(p.Old, to, Brief))
	}
	plan := r.plan(v, last...)
	plan.Subjects = p.Subjects()
	plan.Needs = append(r.needs(v, common), plan.Needs...)
	if wrong := v.provedWrong(p.Old); wrong != nil {
		plan.Warnings = append(plan.Warnings, wrong.Error()+": it goes first, and nothing of it is copied")
	} else if slices.Contains(r.lost, p.Old) {
		plan.Warnings = append(plan.Warnings, "the member on "+p.Old+" does not answer: it goes first, and until the new one votes less may fail")
	}
	if _, listed := v.At(p.New); listed && len(r.leave) > 0 {
		plan.GiveUp = "removeMember " + p.New
	}
	return plan.ifOpen(v), nil
}

// provedWrong says how a member's data is proved to be wrong: most of the voters
// came to one hash, and it, over the same span, to another. Nil is no proof.
func (v View) provedWrong(name string) error {
	type data struct {
		since, to int64
		hash      uint32
	}
	count := map[data]int{}
	for _, m := range v.Voters() {
		if l := v.LookOf(m.ID); l.Hashed && l.MemberID == m.ID {
			count[data{l.HashSince, l.Compacted, l.Hash}]++
		}
	}
	own := v.LookAt(name)
	if m, ok := v.At(name); !ok || m.Learner || !own.Hashed {
		return nil
	}
	for d, n := range count {
		if n >= Quorum(len(v.Voters())) && d.since == own.HashSince && d.to == own.Compacted && d.hash != own.Hash {
			return fmt.Errorf("the data of the member on %s is wrong: at revision %d %d of %d voters have hash %d, it has %d", name, d.to, n, len(v.Voters()), d.hash, own.Hash)
		}
	}
	return nil
}

// sameHashBut is sameHash among the members but for one, which is proved to be
// wrong.
func sameHashBut(name string) Safeguard {
	s := sameHash()
	same := s.Holds
	s.Holds = func(v View) error {
		v.Looks = slices.DeleteFunc(slices.Clone(v.Looks), func(l Look) bool { return l.Host == name })
		return same(v)
	}
	return s
}

// noAlarmBut takes it that etcd has found out about members that go, or are gone.
func noAlarmBut(known []Alarm) Safeguard {
	s := noAlarm()
	quiet := s.Holds
	s.Holds = func(v View) error {
		v.Looks = slices.Clone(v.Looks)
		for i, l := range v.Looks {
			v.Looks[i].Alarms = slices.DeleteFunc(slices.Clone(l.Alarms), func(a string) bool { return slices.Contains(known, parseAlarm(a)) })
		}
		return quiet(v)
	}
	return s
}

// corruptOf are the CORRUPT alarms of some members.
func (v View) corruptOf(which func(id uint64) bool) []Alarm {
	return slices.DeleteFunc(v.raised(), func(a Alarm) bool { return a.Kind != "CORRUPT" || a.Member == 0 || !which(a.Member) })
}

// agreeWithout: once a member is gone, what is left lets alarms about it be taken
// back. A removal with no way on would leave a cluster that takes no write.
func agreeWithout(id uint64, alarms []Alarm) Safeguard {
	return Safeguard{Name: "alarm-cause", Show: "alarm:list",
		Holds: func(v View) error {
			v.Members = slices.DeleteFunc(slices.Clone(v.Members), func(m Member) bool { return m.ID == id })
			v.Looks = slices.DeleteFunc(slices.Clone(v.Looks), func(l Look) bool { return l.MemberID == id })
			for _, a := range alarms {
				if err := v.cause(a); err != nil {
					return err
				}
			}
			return nil
		}}
}

// instead puts safeguards in the place of those of their names.
func instead(needs []Safeguard, others ...Safeguard) []Safeguard {
	needs = slices.Clone(needs)
	for i, s := range needs {
		for _, o := range others {
			if s.Name == o.Name {
				needs[i] = o
			}
		}
	}
	return needs
}
