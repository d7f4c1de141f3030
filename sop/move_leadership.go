package sop

import (
	"fmt"
	"slices"
	"strings"
)

// MoveLeadership hands the leadership over: to the voter on a host, or from one
// to whoever is closest behind it.
//
// Where To is empty its goal is an event, "the leader is not on From any more";
// From is the host that led when it was asked for, so that a run that was cut off
// after the change does not make another.
type MoveLeadership struct {
	From string // host that led when it was asked for; not asked when To is given
	To   string // host whose voter is to lead; empty for any other than From's
}

// String implements Procedure.
func (p MoveLeadership) String() string {
	if p.To != "" {
		return "moveLeader to " + p.To
	}
	return "moveLeader from " + p.From
}

// Plan implements Procedure. It leaves out what the cluster can do without: a
// leader on a host that ails is moved away while another member is down.
func (p MoveLeadership) Plan(v View) (Plan, error) {
	if !v.Exists() {
		return Plan{}, v.nobody("look at it with: status")
	}
	if len(v.Voters()) < 2 {
		return Plan{}, refuse("heir", "", "add a member first: addMember HOST", "there is one voter, which leads")
	}
	from, until := p.From, leadsElsewhere(p.From)
	if p.To != "" {
		if err := p.voter(v); err != nil {
			return Plan{}, err
		}
		until = leadsOn(p.To)
		leader, _ := v.Leader()
		from = v.HostOf(leader)
	}
	return Plan{
		Needs: []Safeguard{inventorySound(), notKubeadm(), mayAdminister(), quorate(), oneCluster(), sameCluster(), sameList(), votersKeepUp()},
		Stages: []Stage{{"hand over the leadership", []Step{
			{Title: "hand over the leadership", Act: MoveLeader{From: from, To: p.to()}, Until: until, Patience: Electing, Etcd: true,
				Needs: []Safeguard{quorate(), oneCluster(), sameList(), p.heir(from)}},
		}}},
	}.ifOpen(v), nil
}

// voter refuses a host that has no vote, and so can never lead.
func (p MoveLeadership) voter(v View) error {
	const hint = "look at the members with: status"
	if err := validHost(p.To); err != nil {
		return refuse("valid-host", p.To, "name the host as in the inventory", "%v", err)
	}
	m, ok := v.At(p.To)
	if !ok {
		return refuse("known-host", p.To, hint, "no member is on %s", p.To)
	}
	if m.Learner {
		return refuse("heir", p.To, "promote it first: addMember "+p.To, "member %s is a learner, which never leads", ID(m.ID))
	}
	return nil
}

func (p MoveLeadership) heir(from string) Safeguard {
	s := hasHeir(from)
	if p.To == "" {
		return s
	}
	s.Holds = func(v View) error {
		m, _ := v.At(p.To)
		if !v.Alive(m) {
			return &Refusal{certain: true, Host: p.To, Found: fmt.Sprintf("voter %s does not answer: %s", ID(m.ID), short(v.LookOf(m.ID).Problem)),
				Needed: "a living voter", Hint: "bring it back, or name another"}
		}
		return closeBehind(v, m)
	}
	return s
}

// to is where the leadership is to go, if that was said.
func (p MoveLeadership) to() []string {
	if p.To == "" {
		return nil
	}
	return []string{p.To}
}

// leadsOn holds when every living voter names one on these hosts as the leader.
func leadsOn(names ...string) Condition {
	return func(v View) error {
		if err := v.agreed(); err != nil {
			return err
		}
		if leader, _ := v.Leader(); !slices.Contains(names, v.HostOf(leader)) {
			return fmt.Errorf("the leader is on %s, not on %s", v.HostOf(leader), strings.Join(names, " or "))
		}
		return nil
	}
}

// closeBehind holds for a voter that can take the leadership over at once.
func closeBehind(v View, m Member) error {
	var head uint64
	for _, o := range v.LivingVoters() {
		head = max(head, v.LookOf(o.ID).Index)
	}
	if l := v.LookOf(m.ID); head > l.Applied && head-l.Applied > MaxLag {
		return fmt.Errorf("the voter on %s is %d entries behind, at most %d are allowed", v.HostOf(m), head-l.Applied, MaxLag)
	}
	return nil
}
