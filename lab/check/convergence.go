package check

import (
	"cmp"
	"context"
	"errors"
	"slices"
)

// HashesAgree checks that all members have the same key space, by the hash
// of it at one compacted revision.
func HashesAgree() Checker {
	return Checker{Name: "hashes-agree", Check: func(_ context.Context, e Evidence) error {
		if err := e.answered(); err != nil {
			return err
		}
		first := e.Views[0]
		var unlike, unsure []error
		for _, v := range e.Views {
			switch {
			case v.HashErr != "":
				unsure = append(unsure, undecided("member at %s: %s", v.Endpoint, v.HashErr))
			case v.HashRevision == 0:
				unsure = append(unsure, undecided("member at %s was not asked for its hash", v.Endpoint))
			case v.HashRevision != first.HashRevision || v.CompactRevision != first.CompactRevision:
				unsure = append(unsure, undecided("hashes cover revisions %d to %d at %s and %d to %d at %s",
					first.CompactRevision, first.HashRevision, first.Endpoint, v.CompactRevision, v.HashRevision, v.Endpoint))
			case v.Hash != first.Hash:
				unlike = append(unlike, violation("at revision %d the hash is %08x at %s and %08x at %s",
					v.HashRevision, first.Hash, first.Endpoint, v.Hash, v.Endpoint))
			}
		}
		if unlike != nil {
			return errors.Join(unlike...)
		}
		return errors.Join(unsure...)
	}}
}

// MembershipAgrees checks that all members name the same members, with the
// intended peer URLs, all started, none of them a learner, in one cluster, and
// that each of them takes itself for a voter.
func MembershipAgrees() Checker {
	return Checker{Name: "membership-agrees", Check: func(_ context.Context, e Evidence) error {
		// What is plainly wrong is told even where a member is silent.
		var wrong []error
		bad := func(format string, a ...any) { wrong = append(wrong, violation(format, a...)) }
		var heard []View
		for _, v := range e.Views {
			if v.Err == "" {
				heard = append(heard, v)
			}
		}
		for _, v := range heard {
			first := heard[0]
			if v.ClusterID != first.ClusterID {
				bad("cluster ID is %x at %s and %x at %s", first.ClusterID, first.Endpoint, v.ClusterID, v.Endpoint)
			}
			if v.IsLearner {
				bad("member %x at %s takes itself for a learner", v.MemberID, v.Endpoint)
				continue // a learner answers no linearizable member list
			}
			self := false
			for _, m := range v.Members {
				self = self || m.ID == v.MemberID
				if m.IsLearner {
					bad("member %s is a learner in the list of %s", m, v.Endpoint)
				}
				if m.Name == "" {
					bad("member %s has not started, says %s", m, v.Endpoint)
				}
			}
			if !self {
				bad("member %x at %s is not in its own list", v.MemberID, v.Endpoint)
			}
			if !slices.EqualFunc(sorted(first.Members), sorted(v.Members), equal) && !first.IsLearner {
				bad("members are %v at %s and %v at %s", sorted(first.Members), first.Endpoint, sorted(v.Members), v.Endpoint)
			}
			if have, want := peerURLs(v.Members), slices.Sorted(slices.Values(e.Intended)); len(want) > 0 && !slices.Equal(have, want) {
				bad("peer URLs are %v at %s, %v were intended", have, v.Endpoint, want)
			}
		}
		if wrong != nil {
			return errors.Join(wrong...)
		}
		if err := e.answered(); err != nil {
			return err
		}
		if len(e.Intended) == 0 {
			return undecided("nobody said which members were intended")
		}
		for _, m := range e.Views[0].Members {
			if !slices.ContainsFunc(e.Views, func(v View) bool { return v.MemberID == m.ID }) {
				return undecided("member %s was not asked", m)
			}
		}
		return nil
	}}
}

func sorted(members []Member) []Member {
	return slices.SortedFunc(slices.Values(members), func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
}

func equal(a, b Member) bool {
	return a.ID == b.ID && a.Name == b.Name && a.IsLearner == b.IsLearner &&
		slices.Equal(slices.Sorted(slices.Values(a.PeerURLs)), slices.Sorted(slices.Values(b.PeerURLs))) &&
		slices.Equal(slices.Sorted(slices.Values(a.ClientURLs)), slices.Sorted(slices.Values(b.ClientURLs)))
}

func peerURLs(members []Member) []string {
	var all []string
	for _, m := range members {
		all = append(all, m.PeerURLs...)
	}
	slices.Sort(all)
	return all
}
