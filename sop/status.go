package sop

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Report is what a View comes to, for people and for programs. It is made
// from a View alone, takes nothing and writes nothing.
type Report struct {
	Inventory string         `json:"inventory"`
	Group     string         `json:"group"`
	ClusterID string         `json:"cluster_id,omitempty"`
	Versions  []string       `json:"versions,omitempty"`
	Voters    int            `json:"voters"`
	Alive     int            `json:"alive"`
	Spare     int            `json:"spare"` // how many more may fail; negative when quorum is lost
	Quorum    bool           `json:"quorum"`
	Leader    string         `json:"leader,omitempty"` // its host
	Members   []MemberStatus `json:"members"`
	Alarms    []string       `json:"alarms,omitempty"`
	Snapshot  *Saved         `json:"snapshot,omitempty"`
	// Findings are what is not as it should be: drift between inventory,
	// cluster and files, debts, alarms, lag, clocks.
	Findings []string `json:"findings,omitempty"`
	// Unknown is what could not be seen for lack of rights.
	Unknown []string `json:"unknown,omitempty"`
}

// A MemberStatus is one line of a Report.
type MemberStatus struct {
	Host    string `json:"host"`
	ID      string `json:"id,omitempty"`
	Name    string `json:"name,omitempty"`
	Role    string `json:"role"` // leader, follower, learner, unstarted, dead, no member
	Version string `json:"version,omitempty"`
	Lag     uint64 `json:"lag"`
	DBSize  int64  `json:"db_size"`
	Unit    string `json:"unit,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// ReportOf sums a View up.
func ReportOf(v View) Report {
	n := v.Votes()
	s := Report{
		Inventory: v.Inventory.Path, Group: v.Wanted.Name, Voters: n.Voters, Alive: n.Alive(), Spare: n.Spare(),
		Quorum: n.HasQuorum() && v.Linear, Versions: v.Versions(), Alarms: v.Alarms(), Snapshot: v.Admin.Snapshot,
	}
	if id := v.ClusterID(); id != 0 {
		s.ClusterID = ID(id)
	}
	leader, _ := v.Leader()
	if leader.ID != 0 {
		s.Leader = v.HostOf(leader)
	}
	head := v.LookOf(leader.ID).Index
	for _, m := range v.Members {
		s.Members = append(s.Members, v.memberStatus(m, leader.ID, head))
	}
	for _, h := range v.Wanted.Hosts {
		if _, ok := v.At(h.Name); !ok {
			ms := MemberStatus{Host: h.Name, Role: "no member", Unit: v.unitState(h.Name)}
			if l := v.LookAt(h.Name); !l.Answers() {
				ms.Problem = short(l.Problem)
			}
			s.Members = append(s.Members, ms)
		}
	}
	slices.SortStableFunc(s.Members, func(a, b MemberStatus) int { return compareHosts(a.Host, b.Host) })
	s.Findings, s.Unknown = v.findings(), v.unknown()
	return s
}

func (v View) memberStatus(m Member, leader, head uint64) MemberStatus {
	l := v.LookOf(m.ID)
	ms := MemberStatus{Host: v.HostOf(m), ID: ID(m.ID), Name: m.Name, Role: "follower", Version: l.Version, DBSize: l.DBSize, Unit: v.unitState(v.HostOf(m))}
	if head > l.Applied {
		ms.Lag = head - l.Applied
	}
	switch {
	case !m.Started():
		ms.Role, ms.Lag = "unstarted", 0
	case !l.Answers():
		ms.Role, ms.Problem, ms.Lag = "dead", short(l.Problem), 0
	case m.Learner:
		ms.Role = "learner"
	case m.ID == leader:
		ms.Role = "leader"
	}
	return ms
}

func (v View) unitState(name string) string {
	h, ok := v.Host(name)
	switch {
	case !ok:
		return ""
	case !h.Reachable():
		return "unreachable"
	}
	u := h.Facts.Units[v.unit()]
	state := u.Active
	if u.Load == "masked" {
		state = "masked"
	} else if u.Enabled != "" {
		state += ", " + u.Enabled
	}
	return state
}

// Versions are those that the members run, sorted, without duplicates.
func (v View) Versions() []string {
	var all []string
	for _, l := range v.Looks {
		if l.Answers() && l.Version != "" {
			all = append(all, l.Version)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// findings are all safeguards of a living cluster asked as questions, the
// drift of files, and what is owed.
func (v View) findings() []string {
	var all []string
	all = append(all, v.Inventory.Faults...)
	if !v.Exists() {
		for _, h := range v.Hosts {
			if !h.Reachable() {
				all = append(all, h.Name+" cannot be reached: "+h.Problem)
			}
		}
		return append(all, "no member of a cluster answers")
	}
	refs := v.refreshmentOf(change{})
	for _, s := range slices.Concat(clusterNeeds(), []Safeguard{everyVoterAnswers()}, membersReachable(v), refs.needs) {
		if s.Name == "inventory-sound" {
			continue
		}
		if err := s.Holds(v); err != nil && !isHidden(err) {
			text := err.Error()
			if r, ok := err.(*Refusal); ok { //nolint:errorlint // Holds gives it bare
				text = r.Found
			}
			all = append(all, s.Name+": "+text)
		}
	}
	for _, step := range refs.steps() {
		if h, ok := v.Host(step.Host); !ok || !h.Reachable() || step.Act == nil {
			continue // a wait is for what is done before it
		}
		if err := step.Until(v); err != nil && !isHidden(err) {
			all = append(all, "drift: "+err.Error())
		}
	}
	all = append(all, v.vipFindings()...)
	all = append(all, v.Admin.rotationFindings()...)
	for _, d := range v.Admin.Debts {
		all = append(all, "debt: the references on "+d+" were passed over")
	}
	if n := len(v.Voters()); n > 0 && n < 3 {
		all = append(all, fmt.Sprintf("production means three voters or more, there are %d", n))
	} else if n%2 == 0 {
		all = append(all, fmt.Sprintf("%d voters bear no more failures than %d", n, n-1))
	}
	return slices.Concat(all, v.slowDisks(), v.asides())
}

// slowSync is what etcd's own guide wants the log's syncs to stay below, in 99
// of 100 (op-guide/hardware, "disks").
const slowSync = 10 * time.Millisecond

// slowDisks tells of voters whose log waits for their disks.
func (v View) slowDisks() []string {
	var all []string
	for _, m := range v.LivingVoters() {
		if l := v.LookOf(m.ID); l.Fsync > slowSync {
			all = append(all, fmt.Sprintf("slow disk on %s: one sync of the log in a hundred takes more than %v; etcd wants less than %v", v.HostOf(m), l.Fsync, slowSync))
		}
	}
	return all
}

// asides tells of data that was set aside: it takes space until it is deleted.
func (v View) asides() []string {
	var all []string
	for _, h := range v.Hosts {
		for _, d := range dataDirs(v.Spec(h.Name)) {
			for _, a := range h.Facts.Dirs[d].Aside {
				all = append(all, fmt.Sprintf("set aside on %s: %s, %s, %v old", h.Name, a.Path, Bytes(a.Bytes), v.Taken.Sub(a.Since).Round(time.Minute)))
			}
		}
	}
	return all
}

// Text is the status as people read it.
func (s Report) Text() string {
	var b strings.Builder
	id := s.ClusterID
	if id == "" {
		id = "none"
	}
	fmt.Fprintf(&b, "cluster %s (group %s of %s)\n", id, s.Group, s.Inventory)
	quorum := "quorum"
	if !s.Quorum {
		quorum = "NO QUORUM"
	}
	fmt.Fprintf(&b, "%s: %d of %d voters alive, %d more may fail, leader %s, etcd %s\n", quorum, s.Alive, s.Voters, max(s.Spare, 0), orNone(s.Leader), orNone(strings.Join(s.Versions, ", ")))
	if len(s.Members) > 0 {
		fmt.Fprintf(&b, "\n%-15s %-16s %-10s %-9s %-8s %6s %10s  %s\n", "HOST", "ID", "NAME", "ROLE", "VERSION", "LAG", "DB", "UNIT")
	}
	for _, m := range s.Members {
		fmt.Fprintf(&b, "%-15s %-16s %-10s %-9s %-8s %6d %10s  %s\n", m.Host, orDash(m.ID), orDash(m.Name), m.Role, orDash(m.Version), m.Lag, Bytes(m.DBSize), orDash(m.Unit))
		if m.Problem != "" {
			fmt.Fprintf(&b, "%-15s %s\n", "", m.Problem)
		}
	}
	if s.Snapshot != nil {
		fmt.Fprintf(&b, "\nsnapshot: %s, revision %d, taken %s\n", s.Snapshot.Path, s.Snapshot.Revision, s.Snapshot.Taken.Format(time.RFC3339))
	}
	if len(s.Findings)+len(s.Unknown) > 0 {
		b.WriteString("\n")
		for _, f := range s.Findings {
			fmt.Fprintf(&b, "! %s\n", f)
		}
	}
	for _, u := range s.Unknown {
		fmt.Fprintf(&b, "? %s\n", u)
	}
	return b.String()
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
