package check

import (
	"context"
	"slices"
	"strings"
)

// An Audit is what differs between two looks at the files of all hosts.
type Audit struct {
	Changes []FileChange `json:"changes,omitempty"`
}

// A FileChange is one file, directory or link that is not as it was.
type FileChange struct {
	Host string `json:"host"` // empty for the admin host's inventory
	Path string `json:"path"`
	What string `json:"what"` // "new", "gone" or "changed"
}

func (c FileChange) String() string {
	if c.Host == "" {
		return c.Path + " is " + c.What
	}
	return c.Path + " on " + c.Host + " is " + c.What
}

// The kinds of FileChange.
const (
	New     = "new"
	Gone    = "gone"
	Changed = "changed"
)

// members says whether a file is one that etcd itself writes, adds and clears
// away while it runs.
func (c FileChange) members() bool {
	return strings.Contains(c.Path, "/member/") && !(c.What == Gone && strings.HasSuffix(c.Path, "/member/snap/db"))
}

// Safeguards checks that operators leave alone what is not theirs to touch. The
// data of a host is taken only when it has been proved to be no member any more
// or its whole cluster is ended. Where every byte was looked at, no host has
// changed but by an act that the journal has for it, and after a refusal none
// has.
func Safeguards() Checker {
	return Checker{Name: "safeguards", Check: func(_ context.Context, e Evidence) error {
		var found faults
		out := map[string]bool{} // hosts that were removed from the membership
		// Where the answer to a removal is missing, whoever comes next has looked.
		cutOff := map[string]*Operator{}
		took := map[*Operator][]string{}
		e.walk(func(o *Operator, s step, before, _ roster) {
			switch {
			case s.Effect == RemovesMember && s.taken:
				out[s.Host] = true
			case s.Effect == RemovesMember:
				cutOff[s.Host] = o
			case s.Effect == AddsLearner:
				out[s.Host] = false
				delete(cutOff, s.Host)
			case s.Effect == TakesData:
				took[o] = append(took[o], s.Host)
				listed := slices.Contains(before.voters, s.Host) || slices.Contains(before.learners, s.Host)
				looked := cutOff[s.Host] != nil && cutOff[s.Host] != o
				if listed && !out[s.Host] && !looked && !o.ends() {
					found.add("%s: %q, and nothing says that it had been removed from the cluster", o.Name, s)
				}
			}
		})
		for i := range e.Operators {
			o := &e.Operators[i]
			if o.Audit == nil {
				continue
			}
			var acted []string
			for _, s := range o.steps() {
				acted = append(acted, s.Host)
			}
			for _, c := range o.Audit.Changes {
				switch {
				case o.Status == 3:
					if !c.members() {
						found.add("%s refused, and %s", o.Name, c)
					}
				case c.members():
				case c.What == Gone && strings.HasSuffix(c.Path, "/member/snap/db") && !slices.Contains(took[o], c.Host):
					found.add("%s took no data of that host, and %s", o.Name, c)
				case c.Host != "" && !slices.Contains(acted, c.Host):
					found.add("%s did nothing on that host, and %s", o.Name, c)
				}
			}
		}
		if err := found.err(); err != nil {
			return violation("%w", err)
		}
		return nil
	}}
}

// RefusalsHarmless checks that operators that were to refuse did, with a
// reason, and before any change.
func RefusalsHarmless() Checker {
	return Checker{Name: "refusals-harmless", Check: func(_ context.Context, e Evidence) error {
		var found faults
		for i := range e.Operators {
			o := &e.Operators[i]
			if o.Wanted == 3 && o.Status != 3 && !o.Killed {
				found.add("%s was to refuse and ended with exit status %d", o.Name, o.Status)
			}
			if o.Status != 3 {
				continue
			}
			reason := false
			for _, r := range o.Records {
				reason = reason || r.State == Refused && r.Detail != ""
				if r.Step > 0 && r.Effect != "" && (r.State == Recorded || r.State == Sent || r.State == Answered) {
					found.add("%s says that it refused with nothing changed, and its journal has: %s %s", o.Name, r.State, r)
				}
			}
			if len(o.Records) > 0 && !reason {
				found.add("%s refused without a reason", o.Name)
			}
		}
		if err := found.err(); err != nil {
			return violation("%w", err)
		}
		return nil
	}}
}
