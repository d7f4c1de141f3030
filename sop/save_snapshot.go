package sop

import (
	"errors"
	"time"
)

// Snapshot saves the key space to a file and verifies it. Its goal is an
// event, a file saved since the run began, so its moment is a value.
type Snapshot struct {
	File   string // absolute path
	Since  time.Time
	Exists bool // the file was there before; it is never overwritten
}

// String implements Procedure.
func (p Snapshot) String() string { return "snapshot " + p.File }

// Plan implements Procedure.
func (p Snapshot) Plan(v View) (Plan, error) {
	if p.Exists {
		return Plan{}, refuse("no-overwriting", "", "name another file", "%s is there already", p.File)
	}
	from, err := v.snapshotFrom("")
	if err != nil {
		if auth := mayAdminister(); auth.Holds(v) != nil {
			return Plan{}, refusalOf(auth, auth.Holds(v))
		}
		return Plan{}, refuse("voters-answer", "", "look at it with: status", "%v", err)
	}
	saved := func(v View) error {
		if s := v.Admin.Snapshot; s == nil || s.Path != p.File || s.Taken.Before(p.Since) {
			return errors.New(p.File + " has not been saved yet")
		}
		return nil
	}
	return Plan{
		Needs:    []Safeguard{mayAdminister(), sameCluster()},
		ReadOnly: true,
		Stages: []Stage{{"save the key space", []Step{
			{Title: "save and verify", Act: SaveSnapshot{To: p.File, From: v.HostOf(from)}, Until: saved, Patience: Saving, Etcd: true},
		}}},
	}.ifOpen(v), nil
}
