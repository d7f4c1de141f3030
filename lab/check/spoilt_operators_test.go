package check_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// clerk writes the journals of made-up operators, in the time of a history.
type clerk struct {
	now time.Time
	all []check.Operator
}

// act is one act of an operator: its effect, and the host.
type act struct {
	effect check.Effect
	host   string
}

// run appends an operator that makes these acts. The last is not answered where
// it is killed.
func (c *clerk) run(args []string, before, after []string, killed bool, acts ...act) *check.Operator {
	tick := func() time.Time { c.now = c.now.Add(50 * time.Microsecond); return c.now }
	o := check.Operator{Name: fmt.Sprintf("%d: %v", len(c.all)+1, args), Args: args, Began: tick(), Before: before, After: after, Killed: killed}
	for i, a := range acts {
		r := check.Record{Step: i + 1, Title: string(a.effect), Host: a.host, Effect: a.effect, Act: string(a.effect) + " on " + a.host}
		states := []check.RecordState{check.Recorded, check.Answered, check.Done}
		if killed && i == len(acts)-1 {
			states = states[:1]
		}
		for _, s := range states {
			r.At, r.State = tick(), s
			o.Records = append(o.Records, r)
		}
	}
	if killed {
		o.Status = 137
	} else {
		o.Records = append(o.Records, check.Record{At: tick(), State: check.Finished})
	}
	o.Ended = tick()
	c.all = append(c.all, o)
	return &c.all[len(c.all)-1]
}

// refuse appends an operator that refuses.
func (c *clerk) refuse(args []string, members []string) *check.Operator {
	o := c.run(args, members, members, false)
	o.Status, o.Wanted = 3, 3
	o.Records = []check.Record{{At: o.Began, State: check.Refused, Detail: "refused by safeguard etcd_safeguard"}}
	o.Audit = &check.Audit{}
	return o
}

// operated is a plain history during which m2 was added by an operator that was
// killed and called again, m9 was removed, a member was restarted, and the
// cluster was not destroyed.
func operated() (*workload.History, check.Evidence) {
	s := small
	s.step = time.Millisecond
	h, e := s.run()
	now := []string{"m0", "m1", "m2"}
	three, four := []string{"m0", "m1", "m9"}, []string{"m0", "m1", "m9", "m2"}
	c := &clerk{now: h.Base.Add(10 * time.Millisecond)}
	add, remove := []string{"addMember", "m2"}, []string{"removeMember", "m9"}
	c.run(add, three, three, true, act{check.NamesMembers, "m0"}, act{check.NamesMembers, "m1"}, act{check.Other, "m2"}, act{check.AddsLearner, "m2"}, act{check.StartsMember, "m2"})
	c.run(add, three, four, false, act{check.StartsMember, "m2"}, act{check.Promotes, "m2"}, act{check.NamesMembers, "m0"}, act{check.NamesMembers, "m1"}, act{check.Other, "m0"})
	c.run(remove, four, now, false, act{check.Other, "m0"}, act{check.RemovesMember, "m9"}, act{check.StopsMember, "m9"}, act{check.TakesData, "m9"}).
		Audit = &check.Audit{Changes: []check.FileChange{
		{Host: "m9", Path: "/data/etcd/member/snap/db", What: check.Gone},
		{Host: "m0", Path: "/etc/etcd/etcd.conf", What: check.Changed},
		{Host: "m1", Path: "/data/etcd/member/wal/1.wal", What: check.Changed},
		{Path: "inventory", What: check.Changed},
	}}
	restart := c.run([]string{"restart"}, now, now, false, act{check.StopsMember, "m1"}, act{check.StartsMember, "m1"}, act{check.StopsMember, "m0"}, act{check.StartsMember, "m0"})
	restart.Budget = &check.Budget{WriteGap: time.Second, ReadGap: time.Second, QuietFrom: h.Base, QuietTo: h.Base.Add(10 * time.Millisecond)}
	c.refuse([]string{"destroyCluster", "-safeguard=true"}, now)
	e.Operators, e.Taken = c.all, c.now
	renumber(&e)
	e.Faults = []check.Fault{{Name: "pause m1", Hosts: []string{"m1"}, Injected: h.Base, Healed: h.Base.Add(time.Millisecond), RecoverWithin: time.Second}}
	return h, e
}

// renumber numbers the records anew.
func renumber(e *check.Evidence) {
	for i := range e.Operators {
		for j := range e.Operators[i].Records {
			e.Operators[i].Records[j].Seq = j + 1
		}
	}
}

// insert puts records into an operator's journal before the n-th.
func insert(o *check.Operator, n int, records ...check.Record) {
	for i := range records {
		records[i].At = o.Records[n].At
	}
	o.Records = slices.Insert(o.Records, n, records...)
}

// whole are the records of an act that was made, as step n.
func whole(n int, a act) []check.Record {
	var all []check.Record
	for _, s := range []check.RecordState{check.Recorded, check.Answered, check.Done} {
		all = append(all, check.Record{Step: n, Title: string(a.effect), Host: a.host, Effect: a.effect, Act: string(a.effect) + " on " + a.host, State: s})
	}
	return all
}

// The operators of operated, by number.
const (
	adding = iota
	addingAgain
	removing
	restarting
	refusing
)

// spoiltOperators are those made from operated.
var spoiltOperators = []spoiltRow{
	{"removed-to-two", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// The old one was removed before the new one was there, and nobody waived.
		slices.Reverse(e.Operators[:3])
		slices.Reverse(e.Operators[1:3])
		e.Operators[0].Before = []string{"m0", "m1", "m9"}
	}, map[string]string{"votes-kept": "after \"remove member on m9\" there are 2 voters with 0 dead"}},
	{"stopped-two", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// The second member was stopped before the first was back.
		o := &e.Operators[restarting]
		o.Records = slices.Delete(o.Records, 3, 6)
	}, map[string]string{"votes-kept": "2 of 3 voters are down"}},
	{"promoted-with-one-dead", func(t *testing.T, h *workload.History, e *check.Evidence) {
		e.Operators[adding].Before = []string{"m0", "m1"}
		e.Operators = e.Operators[:2]
		e.Faults = append(e.Faults, check.Fault{Name: "kill m1", Hosts: []string{"m1"}, Injected: h.Base, Kills: true})
	}, map[string]string{"votes-kept": "there are 3 voters with 1 dead"}},
	{"two-learners", func(t *testing.T, h *workload.History, e *check.Evidence) {
		o := &e.Operators[addingAgain]
		insert(o, 0, append(whole(8, act{check.AddsLearner, "m8"}), whole(9, act{check.RemovesMember, "m8"})...)...)
	}, map[string]string{"one-change-at-a-time": "while the learner on m2 was pending"}},
	{"two-operators-at-once", func(t *testing.T, h *workload.History, e *check.Evidence) {
		o, other := &e.Operators[removing], &e.Operators[addingAgain]
		for i := range o.Records {
			o.Records[i].At = other.Records[i%3+3].At
		}
		slices.SortFunc(o.Records, func(a, b check.Record) int { return a.At.Compare(b.At) })
		o.Records = append(whole(1, act{check.RemovesMember, "m9"}), whole(2, act{check.TakesData, "m9"})...)
		for i := range o.Records {
			o.Records[i].At = other.Records[3+min(i, 2)].At
		}
	}, map[string]string{"one-change-at-a-time": "changed the membership at once", "safeguards": "did nothing on that host"}},
	{"wiped-before-removed", func(t *testing.T, h *workload.History, e *check.Evidence) {
		o := &e.Operators[removing]
		insert(o, 0, whole(9, act{check.TakesData, "m9"})...)
		o.Records = slices.DeleteFunc(o.Records, func(r check.Record) bool { return r.Effect == check.TakesData && r.Step != 9 })
	}, map[string]string{"safeguards": "nothing says that it had been removed"}},
	{"wiped-another", func(t *testing.T, h *workload.History, e *check.Evidence) {
		a := e.Operators[removing].Audit
		a.Changes = append(a.Changes, check.FileChange{Host: "m0", Path: "/data/etcd/member/snap/db", What: check.Gone})
	}, map[string]string{"safeguards": "took no data of that host"}},
	{"touched-elsewhere", func(t *testing.T, h *workload.History, e *check.Evidence) {
		a := e.Operators[removing].Audit
		a.Changes = append(a.Changes, check.FileChange{Host: "m1", Path: "/etc/etcd/etcd.conf", What: check.Changed})
	}, map[string]string{"safeguards": "did nothing on that host, and /etc/etcd/etcd.conf on m1 is changed"}},
	{"refused-and-touched", func(t *testing.T, h *workload.History, e *check.Evidence) {
		a := e.Operators[refusing].Audit
		a.Changes = append(a.Changes, check.FileChange{Host: "m1", Path: "/etc/etcd/etcd.conf", What: check.New})
	}, map[string]string{"safeguards": "refused, and /etc/etcd/etcd.conf on m1 is new"}},
	{"refused-after-a-change", func(t *testing.T, h *workload.History, e *check.Evidence) {
		insert(&e.Operators[refusing], 0, whole(1, act{check.StopsMember, "m1"})...)
	}, map[string]string{"refusals-harmless": "refused with nothing changed"}},
	{"refused-without-a-reason", func(t *testing.T, h *workload.History, e *check.Evidence) {
		e.Operators[refusing].Records[0].Detail = ""
	}, map[string]string{"refusals-harmless": "refused without a reason"}},
	{"did-not-refuse", func(t *testing.T, h *workload.History, e *check.Evidence) {
		e.Operators[removing].Wanted = 3
	}, map[string]string{"refusals-harmless": "was to refuse and ended with exit status 0"}},
	{"added-twice", func(t *testing.T, h *workload.History, e *check.Evidence) {
		insert(&e.Operators[addingAgain], 0, whole(9, act{check.AddsLearner, "m2"})...)
	}, map[string]string{"resumed": "did that again"}},
	{"did-all-again", func(t *testing.T, h *workload.History, e *check.Evidence) {
		killed := &e.Operators[adding]
		insert(killed, 0, whole(8, act{check.Other, "m0"})...)
		insert(&e.Operators[addingAgain], 0, whole(9, act{check.Other, "m2"})...)
	}, map[string]string{"resumed": "did again what had been done"}},
	{"made-users-again-for-nothing", func(t *testing.T, h *workload.History, e *check.Evidence) {
		for _, host := range []string{"m0", "m1"} {
			insert(&e.Operators[adding], 0, whole(8, act{check.MakesUser, host})...)
			insert(&e.Operators[addingAgain], 0, whole(9, act{check.MakesUser, host})...) // before it has dropped anybody
		}
	}, map[string]string{"resumed": "did again what had been done"}},
	{"named-them-again-for-nothing", func(t *testing.T, h *workload.History, e *check.Evidence) {
		for _, host := range []string{"m0", "m1"} {
			insert(&e.Operators[adding], 0, whole(8, act{check.NamesMembers, host})...)
			insert(&e.Operators[addingAgain], 0, whole(9, act{check.NamesMembers, host})...) // before it has promoted anybody
		}
	}, map[string]string{"resumed": "did again what had been done"}},
	{"never-got-there", func(t *testing.T, h *workload.History, e *check.Evidence) {
		o := &e.Operators[addingAgain]
		o.Status = 1
		o.Records = o.Records[:len(o.Records)-1]
	}, map[string]string{"resumed": "exit status 1 and not at its goal"}},
	{"journal-lies", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// It says that m2 was promoted, and did not promote it.
		e.Views[0].Members[2].IsLearner = true
	}, map[string]string{"journal-truthful": "by the journals the voters are", "membership-agrees": "is a learner in the list of"}},
	{"made-before-taken-down", func(t *testing.T, h *workload.History, e *check.Evidence) {
		o := &e.Operators[restarting]
		o.Records = slices.Delete(o.Records, 9, 10)
	}, map[string]string{"journal-truthful": "was made before it was taken down"}},
	{"journal-has-a-hole", func(t *testing.T, h *workload.History, e *check.Evidence) {
		o := &e.Operators[restarting]
		o.Records = slices.Delete(o.Records, 2, 3)
	}, map[string]string{"journal-truthful": "record 3 of its journal is number 4"}},
	{"writes-kept-waiting", func(t *testing.T, h *workload.History, e *check.Evidence) {
		e.Operators[restarting].Ended = h.Base.Add(h.End())
		e.Operators[restarting].Budget.WriteGap = time.Nanosecond
		for i := range h.Ops {
			if at := h.Base.Add(h.Ops[i].Return); at.After(e.Operators[restarting].Began) && h.Ops[i].Kind == workload.Put {
				h.Ops[i].Return = h.End() // all come at once, after a long silence
			}
		}
	}, map[string]string{"available": "kept clients waiting for a write"}},
	{"reads-kept-waiting", func(t *testing.T, h *workload.History, e *check.Evidence) {
		e.Operators[restarting].Ended = h.Base.Add(h.End())
		e.Operators[restarting].Budget.ReadGap = time.Nanosecond
		for i := range h.Ops {
			if at := h.Base.Add(h.Ops[i].Return); at.After(e.Operators[restarting].Began) && h.Ops[i].Kind == workload.Get {
				h.Ops[i].Return = h.End()
			}
		}
	}, map[string]string{"available": "kept clients waiting for a linearizable read"}},
	{"never-recovered", func(t *testing.T, h *workload.History, e *check.Evidence) {
		e.Faults[0].Healed, e.Faults[0].RecoverWithin = h.Base.Add(10*time.Millisecond), time.Nanosecond
	}, map[string]string{"available": "no write was acknowledged within 1ns"}},
	{"never-healed", func(t *testing.T, h *workload.History, e *check.Evidence) {
		e.Faults[0].Healed = time.Time{}
	}, map[string]string{"available": "pause m1 was never healed"}},
}

// A member that dies once a change is on its way is nobody's doing: it was looked
// at right before.
func TestDeathOnTheWay(t *testing.T) {
	h, e := operated()
	e.History = h
	e.Operators[adding].Before = []string{"m0", "m1"}
	e.Operators = e.Operators[:2]
	o := &e.Operators[addingAgain]
	i := slices.IndexFunc(o.Records, func(r check.Record) bool { return r.Effect == check.Promotes && r.State == check.Recorded })
	e.Faults = append(e.Faults, check.Fault{Name: "kill m1", Hosts: []string{"m1"}, Injected: o.Records[i].At.Add(time.Microsecond), Kills: true})
	require.NoError(t, check.VotesKept().Check(t.Context(), e))
	e.Faults[len(e.Faults)-1].Injected = o.Records[i].At.Add(-time.Microsecond)
	require.ErrorIs(t, check.VotesKept().Check(t.Context(), e), check.ErrViolation)
}

// A cluster of one that moves to another host has two voters meanwhile and is as
// it was; whoever leaves one of two alone has to have it waived.
func TestMovesFromOneToOne(t *testing.T) {
	h, e := operated()
	c := &clerk{now: h.Base}
	c.run([]string{"migrate", "m1"}, []string{"m0"}, []string{"m1"}, false,
		act{check.AddsLearner, "m1"}, act{check.Promotes, "m1"}, act{check.RemovesMember, "m0"})
	e.History, e.Faults, e.Operators = h, nil, c.all
	require.NoError(t, check.VotesKept().Check(t.Context(), e))

	c = &clerk{now: h.Base}
	c.run([]string{"removeMember", "m0"}, []string{"m0", "m1"}, []string{"m1"}, false, act{check.RemovesMember, "m0"})
	e.Operators = c.all
	require.ErrorIs(t, check.VotesKept().Check(t.Context(), e), check.ErrViolation)
}
