package sop

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// DisarmAlarm takes back the alarms whose cause is gone, and no other: one whose
// cause is still there is raised again by the next write, or hides that a member
// has other data than the rest.
type DisarmAlarm struct{}

// String implements Procedure.
func (p DisarmAlarm) String() string { return "alarm:disarm" }

// Asks has looks ask for the members' hashes: that they agree is what one kind
// of alarm is about.
func (p DisarmAlarm) Asks(s *Scope) { s.Hash = true }

// Plan implements Procedure.
func (p DisarmAlarm) Plan(v View) (Plan, error) {
	if !v.Exists() {
		return Plan{}, v.nobody("look at it with: status")
	}
	plan := Plan{
		Needs: []Safeguard{inventorySound(), notKubeadm(), mayAdminister(), quorate(), oneCluster(), sameCluster(), sameList(), everyVoterAnswers(), causeGone()},
		// A member that does not answer may know of an alarm that nobody else does.
		Reached: []Safeguard{mayAdminister(), quorate()},
	}
	var steps []Step
	for _, a := range v.raised() {
		steps = append(steps, disarm(v, a))
	}
	if len(steps) > 0 {
		plan.Stages = []Stage{{"disarm", steps}}
	}
	return plan.ifOpen(v), nil
}

// disarm takes one alarm back.
func disarm(v View, a Alarm) Step {
	return Step{Title: "disarm " + a.Kind, Host: v.hostOfID(a.Member), Act: ClearAlarm{a}, Until: isDisarmed(a), Patience: Electing, Etcd: true, Hash: true,
		Needs: []Safeguard{quorate(), oneCluster(), everyVoterAnswers(), causeGone()}}
}

// An Alarm is one that a member has raised.
type Alarm struct {
	Member uint64 // zero where nobody can say which
	Kind   string // NOSPACE or CORRUPT
}

// raised are the alarms that any member tells of.
func (v View) raised() []Alarm {
	var all []Alarm
	for _, text := range v.Alarms() {
		if a := parseAlarm(text); !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// parseAlarm reads an alarm as Status gives it. How many blanks there are differs
// from version to version, and a member leaves out what is zero.
func parseAlarm(text string) (a Alarm) {
	for _, word := range strings.Fields(text) {
		if id, ok := strings.CutPrefix(word, "memberID:"); ok {
			_, _ = fmt.Sscan(id, &a.Member) // etcd's own number
		}
		if kind, ok := strings.CutPrefix(word, "alarm:"); ok {
			a.Kind = kind
		}
	}
	return a
}

func (v View) hostOfID(id uint64) string {
	m, _ := v.ByID(id)
	return v.HostOf(m)
}

func isDisarmed(a Alarm) Condition {
	return func(v View) error {
		if slices.Contains(v.raised(), a) {
			return fmt.Errorf("alarm %s of member %s is raised", a.Kind, ID(a.Member))
		}
		return nil
	}
}

// causeGone: what the alarms were raised for is over.
func causeGone() Safeguard {
	return Safeguard{Name: "alarm-cause", Show: "alarm:list",
		Holds: func(v View) error {
			for _, a := range v.raised() {
				if err := v.cause(a); err != nil {
					return err
				}
			}
			return nil
		}}
}

// cause says why an alarm is raised; nil when there is no reason any more.
func (v View) cause(a Alarm) error {
	switch a.Kind {
	case "NOSPACE":
		return v.full()
	case "CORRUPT":
		return v.differing(a)
	}
	return &Refusal{Found: fmt.Sprintf("nobody knows what alarm %q is for", a.Kind), Needed: "an alarm that is known", Hint: "look at the release notes of etcd"}
}

// roomy is the part of its quota that a database may have when NOSPACE is taken
// back: etcd counts what it holds, not what of it is in use.
const roomy = 0.9

// full says which database has no room below its quota. Any of them would raise
// the alarm again.
func (v View) full() error {
	for _, m := range v.byHost() {
		l, h := v.LookOf(m.ID), v.HostOf(m)
		if !l.Answers() {
			continue // that is another safeguard's
		}
		quota := v.quotaOfMember(l)
		switch {
		case quota == 0:
			return &Refusal{Host: h, Found: fmt.Sprintf("its quota is not known, its database has %s", Bytes(l.DBSize)), Needed: "a quota that can be read", Hint: "let " + h + " be looked at"}
		case float64(l.DBSize) <= roomy*float64(quota):
			continue
		case float64(l.DBUsed) <= roomy*float64(quota):
			return &Refusal{Host: h, Found: fmt.Sprintf("its database has %s of %s, %s of them in use", Bytes(l.DBSize), Bytes(quota), Bytes(l.DBUsed)),
				Needed: fmt.Sprintf("at most %.0f %%", 100*roomy), Hint: "defrag -least=0 gives back what is not in use; compact makes more of it"}
		}
		return &Refusal{Host: h, Found: fmt.Sprintf("%s of the %s of its quota are in use", Bytes(l.DBUsed), Bytes(quota)),
			Needed: fmt.Sprintf("at most %.0f %%", 100*roomy), Hint: "compact -keep=N, then defrag -least=0; if that is not enough delete keys, or raise quota-backend-bytes on every member and restart"}
	}
	return nil
}

// quotaOfMember is what a member says, else what its file says; zero when
// neither does.
func (v View) quotaOfMember(l Look) int64 {
	if l.Quota > 0 {
		return l.Quota
	}
	return v.quotaOf(l.Host)
}

// differing says why CORRUPT has to stay: it is taken back only where the member
// that it is about is none any more, and all that are left are proved to have the
// same data.
func (v View) differing(a Alarm) error {
	const which = "the member that is wrong has to go first; its hash at the last compacted revision is not that of the others: etcdctl endpoint hashkv --cluster --rev=COMPACTED"
	if a.Member == 0 {
		return &Refusal{Found: "members' data differ, and no majority says whose is right", Needed: "proof which member is wrong", Hint: which}
	}
	if m, ok := v.ByID(a.Member); ok {
		h := v.HostOf(m)
		return &Refusal{Host: h, Found: fmt.Sprintf("member %s has other data than the rest, and is still a member", ID(a.Member)), Needed: "a member made anew from the others' data",
			Hint: fmt.Sprintf("%s. If it is this one: replaceMember %s NEW", which, h)}
	}
	members := v // one that was removed answers for a second more
	members.Looks = slices.DeleteFunc(slices.Clone(v.Looks), func(l Look) bool {
		_, member := v.ByID(l.MemberID)
		return !member
	})
	if err := sameHash().Holds(members); err != nil {
		return err
	}
	var first *Look
	for _, m := range v.Voters() {
		l := v.LookOf(m.ID)
		if !l.Hashed || first != nil && (l.Compacted != first.Compacted || l.HashSince != first.HashSince) {
			return &Refusal{Host: v.HostOf(m), Found: "whether it has the same data as the others is not known", Needed: "one hash on all voters, at the same compacted revision",
				Hint: "etcd compacts nothing under this alarm. Members that were restarted hash the same span: restart those that were not, one by one, and look again; etcdctl endpoint hashkv --cluster"}
		}
		first = &l
	}
	return nil
}

// ClearAlarm takes one alarm back.
type ClearAlarm struct{ Alarm Alarm }

func (a ClearAlarm) String() string {
	return fmt.Sprintf("disarm %s of member %s", a.Alarm.Kind, ID(a.Alarm.Member))
}

// ByHand implements Act.
func (a ClearAlarm) ByHand(View) []string {
	return []string{"etcdctl alarm disarm   # all alarms at once, there is no other way by hand"}
}

func (s *Site) clearAlarm(ctx context.Context, a ClearAlarm, v View) (string, error) {
	c, err := s.voterFor(ctx, v, 0)
	if err != nil {
		return "", err
	}
	return "", c.Disarm(ctx, a.Alarm.Member, a.Alarm.Kind)
}

// An AlarmReport tells the alarms, whether their cause is gone, and what the
// databases have, for people and for programs.
type AlarmReport struct {
	Alarms    []AlarmStatus `json:"alarms"`
	Databases []Database    `json:"databases"`
}

// An AlarmStatus is one alarm of a report.
type AlarmStatus struct {
	Kind   string `json:"kind"`
	Member string `json:"member"`
	Host   string `json:"host,omitempty"`
	// Cause is why it has to stay, and Remedy what to do; empty when it can be
	// disarmed.
	Cause  string `json:"cause,omitempty"`
	On     string `json:"on,omitempty"` // host of the cause
	Remedy string `json:"remedy,omitempty"`
}

// A Database is what a member holds.
type Database struct {
	Host    string `json:"host"`
	Size    int64  `json:"size"`
	Used    int64  `json:"used"`
	Quota   int64  `json:"quota,omitempty"` // zero when it is not known
	Problem string `json:"problem,omitempty"`
}

// AlarmsOf sums the alarms of a View up.
func AlarmsOf(v View) AlarmReport {
	r := AlarmReport{Alarms: []AlarmStatus{}}
	for _, a := range v.raised() {
		s := AlarmStatus{Kind: a.Kind, Member: ID(a.Member), Host: v.hostOfID(a.Member)}
		if why, ok := v.cause(a).(*Refusal); ok { //nolint:errorlint // cause gives it bare
			s.Cause, s.On, s.Remedy = why.Found, why.Host, why.Hint
		}
		r.Alarms = append(r.Alarms, s)
	}
	for _, m := range v.Members {
		l := v.LookOf(m.ID)
		d := Database{Host: v.HostOf(m), Size: l.DBSize, Used: l.DBUsed, Quota: v.quotaOfMember(l)}
		if !l.Answers() {
			d = Database{Host: v.HostOf(m), Problem: short(l.Problem)}
		}
		r.Databases = append(r.Databases, d)
	}
	slices.SortFunc(r.Databases, func(a, b Database) int { return compareHosts(a.Host, b.Host) })
	return r
}

// Text is the report as people read it.
func (r AlarmReport) Text() string {
	var b strings.Builder
	if len(r.Alarms) == 0 {
		b.WriteString("no alarm is raised\n")
	}
	for _, a := range r.Alarms {
		fmt.Fprintf(&b, "! %s, member %s %s\n", a.Kind, a.Member, a.Host)
		if a.Cause == "" {
			b.WriteString("  its cause is gone: alarm:disarm takes it back\n")
			continue
		}
		b.WriteString(wrap("  cause:   ", "           ", strings.TrimSpace(a.On+" "+a.Cause)))
		b.WriteString(wrap("  instead: ", "           ", a.Remedy))
	}
	fmt.Fprintf(&b, "\n%-15s %10s %10s %10s\n", "HOST", "DB", "IN USE", "QUOTA")
	for _, d := range r.Databases {
		quota := Bytes(d.Quota)
		if d.Quota == 0 {
			quota = "?"
		}
		if d.Problem != "" {
			fmt.Fprintf(&b, "%-15s %s\n", d.Host, d.Problem)
			continue
		}
		fmt.Fprintf(&b, "%-15s %10s %10s %10s\n", d.Host, Bytes(d.Size), Bytes(d.Used), quota)
	}
	return b.String()
}
