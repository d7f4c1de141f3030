package sop

import (
	"errors"
	"fmt"
	"time"
)

// Snapshot saves the key space to a file and verifies it. Its goal is an
// event, a file saved since the run began, so its moment is a value.
//
// It is taken from a follower that belongs to a quorum. Where there is none any
// more it is the survivors' turn, and only when asked for: whatever data is left
// is compared, of members that run and of those that do not, and the one that came
// furthest gives it (survivors.go).
type Snapshot struct {
	File   string // absolute path
	Since  time.Time
	Exists bool // the file was there before; it is never overwritten
	// Survivors takes it without a quorum, from the data that is the most advanced.
	Survivors bool
}

// String implements Procedure.
func (p Snapshot) String() string {
	s := "snapshot " + p.File
	if p.Survivors {
		s += " -survivors"
	}
	return s
}

// Asks for the logs of those that are to be compared.
func (p Snapshot) Asks(s *Scope) { s.Logs = p.Survivors }

// saved holds when the file was saved since the run began.
func (p Snapshot) saved(v View) error {
	if s := v.Admin.Snapshot; s == nil || s.Path != p.File || s.Taken.Before(p.Since) {
		return errors.New(p.File + " has not been saved yet")
	}
	return nil
}

// Plan implements Procedure.
func (p Snapshot) Plan(v View) (Plan, error) {
	if p.Exists && p.saved(v) != nil {
		return Plan{}, refuse("no-overwriting", "", "name another file", "%s is there already", p.File)
	}
	if p.Survivors && !v.Votes().HasQuorum() {
		return p.fromSurvivors(v)
	}
	from, err := v.snapshotFrom("")
	if err != nil {
		if auth := mayAdminister(); auth.Holds(v) != nil {
			return Plan{}, refusalOf(auth, auth.Holds(v))
		}
		return Plan{}, refuse("voters-answer", "", "look at it with: status", "%v", err)
	}
	return p.plan(v, SaveSnapshot{To: p.File, From: v.HostOf(from)}, mayAdminister(), sameCluster(), p.quorate()), nil
}

// plan saves and verifies.
func (p Snapshot) plan(v View, act SaveSnapshot, needs ...Safeguard) Plan {
	return Plan{
		Needs:    needs,
		ReadOnly: true,
		Stages: []Stage{{"save the key space", []Step{
			{Title: "save and verify", Act: act, Until: p.saved, Patience: Saving, Etcd: true},
		}}},
	}.ifOpen(v)
}

// quorate: the snapshot is of a cluster that has a quorum.
func (p Snapshot) quorate() Safeguard {
	return Safeguard{Name: "quorum", Show: "etcdctl endpoint health --cluster",
		Holds: func(v View) error {
			n := v.Votes()
			if n.HasQuorum() {
				return nil
			}
			return &Refusal{Found: fmt.Sprintf("%d of %d voters answer", n.Alive(), n.Voters), Needed: fmt.Sprintf("%d living voters", Quorum(n.Voters)),
				Hint: "bring voters back; where they are lost, save what is left with: snapshot FILE -survivors"}
		}}
}
