package sop

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Defragment gives the space that a member's database holds and does not use
// back to its filesystem: one member at a time, followers first, the leader last
// and after it has handed over, and only where it pays.
//
// A member that is defragmented writes its database anew, and answers nobody
// until that is done. Nothing can stop it: one whose operator was killed goes on,
// and a rerun finds a member that does not answer, and waits, or refuses.
type Defragment struct {
	// Least is how much a member has to win, in bytes.
	Least int64
	Soak  time.Duration // how long the cluster is left in peace between two members
}

// LeastWin is what a member has to win unless somebody says otherwise.
const LeastWin = 100 << 20

// leastShare is the part of a database that has to be unused, unless it is full.
const leastShare = 0.45

// String implements Procedure.
func (p Defragment) String() string { return "defrag" }

// Plan implements Procedure.
func (p Defragment) Plan(v View) (Plan, error) {
	if !v.Exists() {
		return Plan{}, v.nobody("look at it with: status")
	}
	plan := Plan{Needs: []Safeguard{
		inventorySound(), notKubeadm(), mayAdminister(), quorate(), oneCluster(), sameCluster(), sameList(), nothingPending(), inventoryAgrees(),
		onlyFull(), oneMinor(), sameHash(), everyVoterAnswers(), votersKeepUp(), soundDefrag(),
	}}
	for _, m := range v.rollingOrder() {
		h := v.HostOf(m)
		plan.Warnings = append(plan.Warnings, p.wins(v, m))
		if p.pays(v.LookOf(m.ID), v) {
			plan.Needs = append(plan.Needs, roomToDefrag(h))
			plan.Stages = append(plan.Stages, Stage{"defragment " + v.MemberName(h), p.member(v, m, len(plan.Stages) > 0)})
		}
	}
	if n := len(v.Voters()); n < 2 && len(plan.Stages) > 0 {
		plan.Warnings = append(plan.Warnings, "with one voter nobody answers meanwhile")
	}
	if plan.Empty() {
		return Plan{Warnings: plan.Warnings, Reached: []Safeguard{mayAdminister(), everyVoterAnswers()}}, nil
	}
	return plan, nil
}

// Awaits is a member that an earlier run left at it: it does not answer before
// it is done.
func (p Defragment) Awaits(v View) error { return runningAnswer(v) }

// pays reports whether a member wins enough. Where the database is full every
// byte counts.
func (p Defragment) pays(l Look, v View) bool {
	unused := l.DBSize - l.DBUsed
	return l.Answers() && unused >= max(p.Least, 1) && (float64(unused) >= leastShare*float64(l.DBSize) || len(v.Alarms()) > 0)
}

// wins tells what a member would win.
func (p Defragment) wins(v View, m Member) string {
	l := v.LookOf(m.ID)
	text := fmt.Sprintf("%s: %s of %s are in use", v.HostOf(m), Bytes(l.DBUsed), Bytes(l.DBSize))
	switch {
	case !l.Answers():
		return fmt.Sprintf("%s does not answer: %s", v.HostOf(m), short(l.Problem))
	case p.pays(l, v):
		return text + fmt.Sprintf("; defragmenting wins about %s, and it answers nobody meanwhile", Bytes(l.DBSize-l.DBUsed))
	}
	return text + fmt.Sprintf("; defragmenting does not pay: it would win %s, wanted are %s and %.0f %%", Bytes(l.DBSize-l.DBUsed), Bytes(p.Least), 100*leastShare)
}

// member defragments one, once the others have had their peace since the last.
func (p Defragment) member(v View, m Member, another bool) []Step {
	h := v.HostOf(m)
	before := v.LookOf(m.ID)
	done := p.defragmented(m.ID, before)
	var steps []Step
	if another && p.Soak > 0 {
		steps = append(steps, Step{Title: "soak", Host: h, Until: done, Rest: p.Soak, Patience: Settling, Longer: p.Soak})
	}
	needs := func(more ...Safeguard) []Safeguard {
		return slices.Concat([]Safeguard{quorate(), oneCluster(), sameList(), nothingPending(), onlyFull(), everyVoterAnswers()}, more)
	}
	if len(v.Voters()) > 1 {
		steps = append(steps, Step{Title: "hand over the leadership", Host: h, Act: MoveLeader{From: h}, Until: either(done, leadsElsewhere(h)),
			Patience: Electing, Etcd: true, Needs: needs(hasHeir(h))})
	}
	return append(steps,
		Step{Title: "defragment", Host: h, Act: DefragMember{Host: h}, Until: done, Patience: Starting, Etcd: true,
			Needs: needs(canRestart(h), votersKeepUp(), notLeading(m.ID), roomToDefrag(h))},
		Step{Title: "wait until it answers", Host: h, Until: All(answers(h), hasLeader, keptUp(h)), Patience: Starting, Etcd: true},
	)
}

// defragmented holds when a member is smaller by half of what it was to win, or
// would win too little now. Both are asked of the member itself: an answer to the
// call may be lost, and it goes on without us.
func (p Defragment) defragmented(id uint64, before Look) Condition {
	return func(v View) error {
		l := v.LookOf(id)
		switch m, _ := v.ByID(id); {
		case !l.Answers():
			return fmt.Errorf("the member on %s does not answer: %s", v.HostOf(m), short(l.Problem))
		case p.pays(l, v) && l.DBSize > before.DBSize-(before.DBSize-before.DBUsed)/2:
			return fmt.Errorf("the database of %s has %s, %s of them in use", v.HostOf(m), Bytes(l.DBSize), Bytes(l.DBUsed))
		}
		return nil
	}
}

// onlyFull: no alarm but that of a full database, for which this is the remedy.
func onlyFull() Safeguard {
	s := noAlarm()
	s.Holds = func(v View) error {
		for _, a := range v.Alarms() {
			if !strings.Contains(a, "NOSPACE") {
				return &Refusal{Found: "alarm raised: " + a, Needed: "no alarm but NOSPACE", Hint: "find the member that differs first: alarm:list"}
			}
		}
		return nil
	}
	return s
}

// soundDefrag: no member runs a version that loses count when it ends in the
// middle of a defragmentation.
func soundDefrag() Safeguard {
	return Safeguard{Name: "defrag-version", Show: "etcdctl endpoint status --cluster -w table",
		Risk: "a member that ends meanwhile applies entries twice, and its revisions differ from the others' from then on",
		Holds: func(v View) error {
			for _, l := range v.Looks {
				var patch int
				if n, _ := fmt.Sscanf(l.Version, "3.5.%d", &patch); n == 1 && patch < 6 {
					return &Refusal{Host: l.Host, Found: "it runs etcd " + l.Version, Needed: "etcd 3.5.6 or newer (etcd#14685)", Hint: "upgrade first"}
				}
			}
			return nil
		}}
}

// roomToDefrag: the database can be written anew beside itself.
func roomToDefrag(name string) Safeguard {
	return Safeguard{Name: "disk", Show: "df -h DATA",
		Risk: "the filesystem runs full while the database is written anew, and etcd ends when it cannot write its log",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return &Refusal{Host: name, Found: fmt.Sprintf("how much space is left there cannot be seen: %v", err), Needed: "room for the database a second time"}
			}
			m, _ := v.At(name)
			l, path := v.LookOf(m.ID), v.Spec(name).DataDir
			d := facts.Dirs[path]
			if d.FreeBytes == 0 && lacksRights(d.Problem) {
				return &Hidden{Host: name, Path: path}
			}
			if need := l.DBUsed + l.DBUsed/10; d.FreeBytes < need {
				return &Refusal{Host: name, Found: fmt.Sprintf("%s are free for %s, and %s of the database are in use", Bytes(d.FreeBytes), path, Bytes(l.DBUsed)),
					Needed: Bytes(need) + ": what is in use, and a tenth", Hint: "make room there first"}
			}
			return nil
		}}
}

// DefragMember has the member on a host write its database anew.
type DefragMember struct{ Host string }

func (a DefragMember) String() string { return "defragment the member on " + a.Host }

// ByHand implements Act.
func (a DefragMember) ByHand(v View) []string {
	return []string{fmt.Sprintf("ETCDCTL_ENDPOINTS=%s etcdctl --command-timeout=30m defrag", v.ClientURL(a.Host))}
}

func (s *Site) defragment(ctx context.Context, a DefragMember, v View) (string, error) {
	m, ok := v.At(a.Host)
	if !ok {
		return "", fmt.Errorf("%s is not on the member list", v.PeerURL(a.Host))
	}
	c, err := s.conn(ctx, v.LookOf(m.ID).Endpoint)
	if err != nil {
		return "", err
	}
	return "", c.Defragment(ctx)
}

// ParseBytes reads a size: 4096, 64MiB, 1GiB.
func ParseBytes(text string) (int64, error) {
	digits, unit := text, int64(1)
	for i, suffix := range []string{"KiB", "MiB", "GiB"} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			digits, unit = rest, int64(1)<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, errors.New("give a size, such as 4096, 64MiB or 1GiB")
	}
	return n * unit, nil
}
