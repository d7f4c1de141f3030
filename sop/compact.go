package sop

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Compact discards what the key space was before a revision. It makes room
// inside the database, which Defragment then gives back to the filesystem.
//
// A watch that is behind the revision is ended, and a client that comes back with
// an older one has to read anew: who that may be is told before.
type Compact struct {
	Revision int64 // the oldest that is left
	Keep     int64 // how many were to be kept when Revision was made of it; 0 when it was given
}

// String implements Procedure.
func (p Compact) String() string {
	if p.Keep > 0 {
		return fmt.Sprintf("compact keeping %d revisions", p.Keep)
	}
	return fmt.Sprintf("compact to revision %d", p.Revision)
}

// Lossy has the first look ask who depends on the cluster.
func (p Compact) Lossy() {}

// Asks has looks ask how far the key space is compacted.
func (p Compact) Asks(s *Scope) { s.Compacted = true }

// Plan implements Procedure.
func (p Compact) Plan(v View) (Plan, error) {
	if !v.Exists() {
		return Plan{}, v.nobody("look at it with: status")
	}
	plan := Plan{Needs: []Safeguard{
		inventorySound(), notKubeadm(), mayAdminister(), quorate(), oneCluster(), sameCluster(), sameList(), onlyFull(), p.exists(), sameHash(), votersKeepUp(),
	}}
	if p.Revision < 1 {
		plan.Warnings = []string{fmt.Sprintf("the key space is at revision %d: there is nothing older than what is to be kept", v.Revision())}
		return plan, nil
	}
	plan.Warnings = p.watches(v)
	plan.Stages = []Stage{{"compact", p.steps()}}
	return plan.ifOpen(v), nil
}

// steps compacts twice, the second time by one revision. A member counts what a
// compaction freed only when it writes the next time; under NOSPACE nothing is
// written but what the second compaction does, and until then nobody could tell
// whether to defragment pays.
func (p Compact) steps() []Step {
	needs := []Safeguard{quorate(), oneCluster(), onlyFull(), p.exists()}
	var steps []Step
	if first := p.Revision - 1; first > 0 {
		steps = append(steps, Step{Title: "compact", Act: CompactTo{Revision: first, Keep: p.Keep}, Until: compactedTo(first), Patience: Starting, Etcd: true, Needs: needs})
	}
	return append(steps, Step{Title: "compact by one more, so that what is free is counted", Act: CompactTo(p),
		Until: compactedTo(p.Revision), Patience: Starting, Etcd: true, Needs: needs})
}

// watches tells who may depend on what is to go.
func (p Compact) watches(v View) []string {
	var all []string
	for _, m := range v.LivingVoters() {
		if w := v.LookOf(m.ID).Watches; w != nil && w.Open > 0 {
			all = append(all, fmt.Sprintf("%s has %d open watches, %d of them behind; one that is behind revision %d is ended", v.HostOf(m), w.Open, w.Behind, p.Revision))
		}
	}
	slices.Sort(all)
	if p.Revision == v.Revision() {
		all = append(all, "nothing older than now is kept: a client that watches from the revision that it has just read may have to read anew")
	}
	return all
}

// exists: the revision is one that the key space has come to.
func (p Compact) exists() Safeguard {
	return Safeguard{Name: "past-revision", Show: "etcdctl endpoint status --cluster -w json",
		Holds: func(v View) error {
			if now := v.Revision(); p.Revision > now {
				return &Refusal{Found: fmt.Sprintf("revision %d is yet to come, the key space is at %d", p.Revision, now), Needed: "a revision that there is",
					Hint: "give an older one, or -keep=N"}
			}
			return nil
		}}
}

// Revision is the newest that a living voter has come to.
func (v View) Revision() int64 {
	var newest int64
	for _, m := range v.LivingVoters() {
		newest = max(newest, v.LookOf(m.ID).Revision)
	}
	return newest
}

// compactedTo holds when every living voter has compacted that far.
func compactedTo(revision int64) Condition {
	return func(v View) error {
		for _, m := range v.LivingVoters() {
			if l := v.LookOf(m.ID); l.Compacted < revision {
				return fmt.Errorf("the key space on %s is not compacted to revision %d yet", v.HostOf(m), revision)
			}
		}
		return nil
	}
}

// CompactTo discards what the key space was before a revision.
type CompactTo struct {
	Revision int64
	Keep     int64 // that it was made of; the revision then moves from look to look
}

func (a CompactTo) String() string {
	if a.Keep > 0 {
		return fmt.Sprintf("compact to where %d revisions are kept", a.Keep)
	}
	return fmt.Sprintf("compact to revision %d", a.Revision)
}

// ByHand implements Act.
func (a CompactTo) ByHand(v View) []string {
	return []string{fmt.Sprintf("ETCDCTL_ENDPOINTS=%s etcdctl --command-timeout=30m compaction --physical %d", strings.Join(v.Endpoints(), ","), a.Revision)}
}

func (s *Site) compact(ctx context.Context, a CompactTo, v View) (string, error) {
	c, err := s.voterFor(ctx, v, 0)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("revision %d", a.Revision), c.Compact(ctx, a.Revision)
}
